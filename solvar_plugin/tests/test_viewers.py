"""The viewers: what the plots show is what the run's files say, and nothing that is missing ends in a traceback."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import unittest
import warnings
import webbrowser
from pathlib import Path
from unittest import mock

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pwem.objects import ParticleFlex, SetOfParticlesFlex
from pwem.viewers import EmPlotter
from pyworkflow import Config
from pyworkflow.object import Float
from pyworkflow.tests import BaseTest, setupTestProject
from pyworkflow.viewer import DESKTOP_TKINTER, MessageView

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import (
    NOT_REPRODUCIBLE,
    NUISANCE,
    StateFolder,
)
from solvar_engine.contract.status import FAILED, RUNNING, Status, write_status
from solvar_engine.figures import coordinates, slices, spectra
from solvar_plugin.protocols import SolvarProtCovariance
from solvar_plugin.protocols.summaries import NO_VARIABILITY
from solvar_plugin.tests.synthetic_run import PIXEL_SIZE, blob, molecule, write_run, write_volume
from solvar_plugin.viewers import SolvarCovarianceViewer, SolvarExplorerViewer, SolvarParticlesViewer
from solvar_plugin.viewers.data.run_reader import RunReader
from solvar_plugin.viewers.data.volume_files import MASK, read_volume
from solvar_plugin.viewers.plots import motion_plots, shading, surface_levels, surface_plots, surfaces
from solvar_plugin.viewers.viewer_particles import read_coordinates
from solvar_plugin.viewers.windows import programs
from solvar_plugin.viewers.windows.entries import NONE_YET, RUN_HAS_CHANGED
from solvar_plugin.viewers.windows.latent_entries import AUTOMATIC, COLOURS, DRAWINGS, NO_FIT_OF_PARTICLES

SIZES_OF_PICTURES = (
    (surface_plots, "PIXELS_LARGE"),
    (motion_plots, "PIXELS_SMALL"),
    (motion_plots, "PIXELS_MOVIE"),
)


def new_figure() -> Figure:
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def note_of(figure: Figure) -> str:
    """The text below a plot, without its line breaks."""
    return figure._supxlabel.get_text().replace("\n", " ")


def ball(box: int, radius: float) -> np.ndarray:
    """Density that falls by 1 per voxel and is 0 at the radius."""
    line = np.arange(box) - box // 2
    z, y, x = np.meshgrid(line, line, line, indexing="ij")
    return (radius - np.sqrt(x**2 + y**2 + z**2)).astype(np.float32)


def point(box: int, z: int, y: int, x: int) -> np.ndarray:
    volume = np.zeros((box, box, box), dtype=np.float32)
    volume[z, y, x] = 1
    return volume


class TestSurfaces(unittest.TestCase):
    def test_a_ball_has_the_silhouette_and_the_depth_of_a_ball(self) -> None:
        # even and odd, with and without interpolation to a finer grid
        for box, radius in ((32, 10.0), (33, 10.5), (surfaces.FINE_BOX + 8, 12.0)):
            surface = surfaces.Surface(ball(box, radius), 0.0)
            for axis, axes in surfaces.DIRECTIONS.items():
                with self.subTest(box=box, axis=axis):
                    hits = surface.look(axes, radius=16, pixels=160)
                    area = hits.is_hit.sum() * (32 / 160) ** 2
                    self.assertAlmostEqual(area / (np.pi * radius**2), 1, delta=0.02)
                    line = ((np.arange(160) + 0.5) / 160 * 2 - 1) * 16
                    square = radius**2 - line[:, None] ** 2 - line[None, :] ** 2
                    inner = square > 9
                    self.assertLess(np.abs(hits.height[inner] - np.sqrt(square[inner])).max(), 0.15)

    def test_normals_of_a_ball_point_away_from_its_centre(self) -> None:
        hits = surfaces.Surface(ball(32, 10.0), 0.0).look(surfaces.DIRECTIONS["y"], radius=16, pixels=64)
        line = ((np.arange(64) + 0.5) / 64 * 2 - 1) * 16
        right, up = np.meshgrid(line, line)
        expected = np.stack([right, up, hits.height], axis=2) / 10
        inner = hits.is_hit & (right**2 + up**2 < 64)
        self.assertGreater((hits.normal[inner] * expected[inner]).sum(axis=1).min(), 0.98)

    def test_each_direction_shows_what_a_slice_across_its_axis_shows(self) -> None:
        volume = blob(32, (6, -5, 9), 1.5)  # z, y, x from the centre
        surface = surfaces.Surface(volume, 0.5)
        for axis, axes in surfaces.DIRECTIONS.items():
            with self.subTest(axis=axis):
                hits = surface.look(axes, radius=16, pixels=128)
                row, column = (np.argwhere(hits.is_hit).mean(axis=0) + 0.5) / 128 * 32 - 16
                summed = volume.sum(axis=slices.AXES.index(axis))
                expected = np.unravel_index(summed.argmax(), summed.shape)
                self.assertAlmostEqual(row, expected[0] - 16, delta=0.1)
                self.assertAlmostEqual(column, expected[1] - 16, delta=0.1)

    def test_no_direction_shows_a_mirror_image(self) -> None:
        for axis, axes in surfaces.DIRECTIONS.items():
            np.testing.assert_allclose(
                np.cross(axes[surfaces.RIGHT], axes[surfaces.UP]), axes[surfaces.TOWARDS], err_msg=axis
            )

    def test_what_is_in_front_hides_what_is_behind(self) -> None:
        volume = blob(32, (8, 0, 0), 1.5) + blob(32, (-8, 0, 0), 3.0)
        surface = surfaces.Surface(volume, 0.5)
        middle = 63  # one of the two central pixels
        front = surface.look(surfaces.DIRECTIONS["z"], 16, 128)
        back = surface.look(surfaces.DIRECTIONS["z"] * [[1], [-1], [-1]], 16, 128)
        half_height = np.sqrt(2 * np.log(2))
        self.assertAlmostEqual(front.height[middle, middle], 8 + 1.5 * half_height, delta=0.1)
        self.assertAlmostEqual(back.height[middle, middle], 8 + 3.0 * half_height, delta=0.1)
        np.testing.assert_allclose(front.position[middle, middle], [16 + 8 + 1.5 * half_height, 15.9, 15.9], atol=0.2)

    def test_an_oblique_direction_sees_the_same_ball(self) -> None:
        turn = np.sqrt(0.5)
        axes = np.array([[turn, turn, 0], [0, 0, 1], [turn, -turn, 0]])
        hits = surfaces.Surface(ball(32, 10.0), 0.0).look(axes, radius=16, pixels=160)
        self.assertAlmostEqual(hits.is_hit.sum() * 0.04 / (np.pi * 100), 1, delta=0.02)

    def test_a_surface_at_the_edge_of_the_box_is_closed(self) -> None:
        surface = surfaces.Surface(np.ones((8, 8, 8), dtype=np.float32), 0.5)
        hits = surface.look(surfaces.DIRECTIONS["z"], radius=8, pixels=64)
        covered = hits.is_hit.sum() / 64**2 * 16**2
        self.assertGreater(covered, 7**2)
        self.assertLess(covered, 9**2)

    def test_nothing_above_the_level_leaves_the_picture_empty(self) -> None:
        for level in (20.0, float("nan"), float("inf")):
            surface = surfaces.Surface(ball(16, 5.0), level)
            self.assertTrue(surface.is_empty)
            picture = shading.on_white(shading.shade(surface.look(surfaces.DIRECTIONS["z"], 8, 16), np.ones(3)))
            self.assertEqual(picture.min(), 255)

    def test_automatic_level_parts_a_ball_from_its_noise(self) -> None:
        noise = np.random.default_rng(0).normal(size=(24, 24, 24)) * 0.1
        inside = ball(24, 6.0) > 0
        volume = np.where(inside, 1.0, 0.0) + noise
        level = surface_levels.automatic_level(volume)
        self.assertAlmostEqual(level, 0.5, delta=0.15)
        # outliers outside the mask do not count
        spoilt = volume.copy()
        spoilt[0, 0, :] = 50
        mask = (ball(24, 9.0) > 0).astype(float)
        self.assertAlmostEqual(surface_levels.automatic_level(spoilt, mask), 0.5, delta=0.15)
        self.assertEqual(surface_levels.automatic_level(np.full((4, 4, 4), 3.0)), 3.0)
        # a mask of another box, or an empty one, is no mask
        self.assertEqual(surface_levels.automatic_level(volume, np.ones((8, 8, 8))), level)
        self.assertEqual(surface_levels.automatic_level(volume, np.zeros((24, 24, 24))), level)

    def test_level_of_an_eigenvolume_is_three_times_its_root_mean_square(self) -> None:
        volume = np.zeros((10, 10, 10))
        volume[5, 5, 5], volume[5, 5, 6] = 1, -1
        self.assertAlmostEqual(surface_levels.component_level(volume), 3 * np.sqrt(2 / 1000))
        self.assertAlmostEqual(surface_levels.component_level(np.ones((4, 4, 4))), 0.7)

    def test_overlay_gives_each_part_its_colour(self) -> None:
        left, right = blob(32, (0, 0, -9), 2.0), blob(32, (0, 0, 9), 2.0)
        shared = blob(32, (0, 9, 0), 2.0)
        axes = surfaces.DIRECTIONS["z"]
        first, second = (surfaces.Surface(part + shared, 0.5).look(axes, 16, 64) for part in (left, right))
        red, green, blue = np.eye(3)
        picture = shading.overlay(first, second, (red, green, blue), tolerance=0.3)
        for row, column, color in ((32, 14, 0), (32, 50, 1), (50, 32, 2)):
            self.assertEqual(picture[row, column, 3].round(2), 1)
            self.assertEqual(picture[row, column, :3].argmax(), color)
        self.assertEqual(picture[5, 32, 3].round(2), 0)

    def test_shading_is_bright_towards_the_light_and_within_range(self) -> None:
        hits = surfaces.Surface(ball(32, 10.0), 0.0).look(surfaces.DIRECTIONS["z"], 16, 64)
        picture = shading.shade(hits, np.full(3, 0.7))
        self.assertGreaterEqual(picture.min(), 0)
        self.assertLessEqual(picture.max(), 1)
        self.assertGreater(picture[42, 24, 0], picture[21, 40, 0] + 0.1)  # upper left, lower right

    def test_radius_holds_the_farthest_surface(self) -> None:
        self.assertEqual(surface_levels.surface_radius([(point(16, 8, 3, 8), 0.5), (point(16, 8, 8, 10), 0.5)]), 6.5)
        self.assertEqual(surface_levels.surface_radius([(np.zeros((16, 16, 16)), 0.5)]), 8)

    def test_sampling_a_linear_volume_is_exact(self) -> None:
        z, y, x = np.meshgrid(*(np.arange(6.0),) * 3, indexing="ij")
        positions = np.array([[1.5, 2.25, 3.0], [0.0, 4.5, 1.0]])
        np.testing.assert_allclose(surfaces.sample(4 * z - y + 2 * x, positions), positions @ [4, -1, 2], atol=1e-6)


class TestSurfacePlots(unittest.TestCase):
    def setUp(self) -> None:
        for module, name in SIZES_OF_PICTURES:
            patch = mock.patch.object(module, name, 48)
            patch.start()
            self.addCleanup(patch.stop)
        self.mean = molecule(24)
        self.change = molecule(24, 1.5) - molecule(24, -1.5)

    def test_surface_of_a_map_is_drawn_from_three_directions_with_its_level(self) -> None:
        figure = new_figure()
        note = surface_plots.draw_surface(figure, self.mean, 2.0, 0.4)
        self.assertEqual([axes.get_title("center")[:7] for axes in figure.axes], ["along z", "along y", "along x"])
        self.assertIn("level 0.4.", note)
        note = surface_plots.draw_surface(new_figure(), self.mean, 2.0, 99.0)
        self.assertTrue(note.startswith("Nothing reaches the level: choose a lower one."))

    def test_scale_bar_has_its_length(self) -> None:
        figure = new_figure()
        surface_plots.draw_surface(figure, self.mean, 2.0, 0.4)
        axes = figure.axes[0]
        angstrom = float(axes.texts[0].get_text().split()[0])
        start, stop = axes.lines[0].get_xdata()
        voxels = (stop - start) / 48 * 2 * surface_levels.surface_radius([(self.mean, 0.4)])
        self.assertAlmostEqual(voxels * 2.0, angstrom)

    def test_lobes_of_an_eigenvolume_are_red_and_blue_on_their_sides(self) -> None:
        volume = blob(24, (4, 0, 6), 2.0) - blob(24, (4, 0, -6), 2.0)
        figure = new_figure()
        surface_plots.draw_component(figure, volume, blob(24, (0, 0, 0), 3.0), 1.0, 0.5)
        picture = figure.axes[0].images[0].get_array()
        columns = [
            np.argwhere(picture[..., channel].astype(int) - picture[..., 2 - channel] > 60)[:, 1] for channel in (0, 2)
        ]
        self.assertGreater(columns[0].min(), 24)
        self.assertLess(columns[1].max(), 24)

    def test_a_motion_shows_both_ends_and_colours_the_side_that_gains(self) -> None:
        figure = new_figure()
        motion_plots.draw_motion(figure, self.mean, self.change, 2.0, extent=1.0, level=0.5)
        panels = figure.axes[:12]
        self.assertEqual(panels[0].get_title("center"), "−1 sd")
        self.assertEqual(panels[2].get_title("center"), "+1 sd")
        low, both, high, colored = (panel.images[0].get_array().astype(int) for panel in panels[:4])
        # the arm, which is the upper part, lies farther right at the upper end
        middle = [np.argwhere((picture < 250).any(axis=2)[30:])[:, 1].mean() for picture in (low, high)]
        self.assertGreater(middle[1], middle[0] + 1)
        redness = (colored[..., 0] - colored[..., 2])[30:]
        self.assertGreater(redness[:, 24:].max(), 40)
        self.assertLess(redness[:, :24].min(), -40)
        self.assertGreater((np.ptp(both, axis=2) > 30).sum(), 0)

    def test_a_movie_goes_there_and_back_and_is_written(self) -> None:
        position, frames = motion_plots.movie_frames(self.mean, self.change, 2.0, 0.5, pixels=24)
        steps = motion_plots.MOVIE_STEPS
        self.assertEqual(frames.shape, (2 * steps - 2, 24, 72, 3))
        self.assertAlmostEqual(position[0], -2)
        self.assertAlmostEqual(position[steps - 1], 2)
        np.testing.assert_allclose(position[1:], position[:0:-1])
        self.assertGreater(np.abs(frames[0].astype(int) - frames[steps - 1]).max(), 100)
        with tempfile.TemporaryDirectory() as folder:
            from PIL import Image

            path = Path(folder) / "motion.gif"
            motion_plots.write_gif(path, frames, 110)
            with Image.open(path) as image:
                self.assertEqual((image.n_frames, image.size, image.info["loop"]), (len(frames), (72, 24), 0))
        self.assertEqual(motion_plots.draw_movie(figure := new_figure(), position, frames, 110, "a note"), "a note")
        figure.canvas.draw()
        figure.solvar_animation._func(3)
        np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), frames[3])
        self.assertEqual(figure.axes[1].lines[1].get_xdata(), [position[3]])


class WithRun(unittest.TestCase):
    """A synthetic run in a temporary folder."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.run_dir = write_run(self.folder)
        self.data = RunReader(self.run_dir, self.folder / "points.csv", StateFolder(self.folder / "states"))


class TestRunReader(WithRun):
    def test_volumes_are_named_after_what_they_are(self) -> None:
        names = [volume.name for volume in self.data.volumes()]
        self.assertEqual(names[:5], ["mean map", "half-map 1", "half-map 2", "mask", "eigenvolume of component 1"])
        self.assertEqual(names[6], "eigenvolume of component 3 (not reproducible)")
        self.assertEqual(
            names[7:10], ["state 1: component 1, -2 sd", "state 2: component 1, +2 sd", "state 3: component 2, -2 sd"]
        )
        self.assertEqual(names[-1], "state 9: cluster 3")
        state = self.data.read(self.data.volumes()[-1])
        np.testing.assert_allclose(state.data, molecule(20, 0.2 * 9), atol=1e-6)
        self.assertAlmostEqual(state.pixel_size, PIXEL_SIZE, places=5)
        low, high = self.data.ends_of(1)
        self.assertEqual((low.name, high.name), ("state_003.mrc", "state_004.mrc"))

    def test_focus_mask_is_listed_where_there_is_one(self) -> None:
        self.assertNotIn("focus mask", [volume.name for volume in self.data.volumes()])
        shutil.copy(self.run_dir.mask, self.run_dir.focus_mask)
        entry = self.data.volumes()[4]
        self.assertEqual((entry.name, entry.path, entry.kind), ("focus mask", self.run_dir.focus_mask, MASK))

    def test_labels_and_groups_stay_text(self) -> None:
        self.assertEqual(self.data.components().label, ("", NUISANCE, NOT_REPRODUCIBLE))
        write_run(self.folder, labels=("",), groups=("1", "2"))
        self.assertEqual(self.data.components().label, ("",))
        self.assertEqual(set(self.data.noise()["group"]), {"1", "2"})
        self.assertEqual(set(self.data.metrics()["half"]), {"1", "2", ""})

    def test_what_is_missing_is_explained_by_how_far_the_run_is(self) -> None:
        self.run_dir.mean.unlink()
        with self.assertRaisesRegex(UserError, "although the run has finished: .*mean.mrc is missing"):
            self.data.mean()
        write_status(self.run_dir.status, Status("fit", RUNNING, "mean", 2, 9))
        with self.assertRaisesRegex(UserError, r"'mean map' is not there: the fit is at step 2 of 9 \(mean\)\. Try"):
            self.data.mean()
        write_status(self.run_dir.status, Status("fit", FAILED, message="The disk is full."))
        with self.assertRaisesRegex(UserError, r"the fit failed\. The disk is full\."):
            self.data.mean()
        self.run_dir.status.unlink()
        with self.assertRaisesRegex(UserError, "the fit has not begun"):
            self.data.mean()

    def test_what_the_analysis_makes_is_explained_by_the_analysis(self) -> None:
        self.run_dir.report.unlink()
        write_status(self.run_dir.analysis_status, Status("analyze", RUNNING, "UMAP", 1, 4))
        with self.assertRaisesRegex(UserError, r"The report is not there: the analysis is at step 1 of 4 \(UMAP\)"):
            self.data.report()
        self.run_dir.clusters.unlink()
        self.run_dir.analysis_status.unlink()
        with self.assertRaisesRegex(UserError, "the analysis has not begun"):
            self.data.clusters(300)

    def test_what_is_damaged_is_one_sentence(self) -> None:
        self.run_dir.mean.write_bytes(b"no map")
        self.run_dir.fsc.write_text("shell,frequency\n0,0.0\n")
        self.run_dir.latents.write_bytes(b"PK")
        with self.assertRaisesRegex(UserError, "mean.mrc is not a readable MRC file"):
            self.data.mean()
        with self.assertRaisesRegex(UserError, "fsc.csv has no column fsc_covariance, fsc_mean"):
            self.data.fsc()
        with self.assertRaisesRegex(UserError, "latents.npz is not a file of latents"):
            self.data.latents()
        with self.assertRaisesRegex(UserError, "clusters.csv has 300 particles, but the run has 7"):
            self.data.clusters(7)
        write_volume(self.run_dir.mask, np.zeros((4, 5, 6)))
        with self.assertRaisesRegex(UserError, "holds 4 x 5 x 6 voxels, but a cubic volume is needed"):
            self.data.mask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_volume(self.run_dir.mask, np.full((4, 4, 4), np.nan))
        with self.assertRaisesRegex(UserError, "not numbers"):
            read_volume(self.run_dir.mask)


class TestPrograms(WithRun):
    def fake_chimerax(self, home: Path) -> Path:
        """A program that writes where it was started and what with."""
        program = home / "bin" / "ChimeraX"
        program.parent.mkdir(parents=True)
        program.write_text(
            f"#!/bin/sh\npwd > '{home}/cwd'; printf '%s\\n' \"$@\" > '{home}/part'; mv '{home}/part' '{home}/words'\n"
        )
        program.chmod(0o755)
        return program

    def test_chimerax_is_found_in_its_home_or_on_the_path(self) -> None:
        home = self.folder / "chimerax home"
        program = self.fake_chimerax(home)
        self.assertEqual(programs.find_chimerax([None, "", "/nowhere", str(home)], path=""), str(program))
        self.assertEqual(programs.find_chimerax([None], path=str(program.parent)), str(program))
        self.assertIsNone(programs.find_chimerax([None, "/nowhere"], path="/nowhere"))
        program.chmod(0o644)
        self.assertIsNone(programs.find_chimerax([str(home)], path=""))

    def test_scripts_open_the_maps_wherever_the_project_lies(self) -> None:
        folder = self.folder / 'it\'s "100%" mine' / "extra"
        (folder / "viewer").mkdir(parents=True)
        script = folder / "viewer" / "chimerax.cxc"
        programs.volume_script(script, folder / "run" / "mean map.mrc", 0.25)
        lines = script.read_text().splitlines()
        self.assertIn('open "../run/mean map.mrc"', lines)
        self.assertTrue(any(line.startswith("volume #1 level 0.25 ") for line in lines))
        ends = (folder / "states" / "a.mrc", folder / "states" / 'b".mrc')
        programs.component_script(script, folder / "run" / "m.mrc", folder / "run" / "e.mrc", 0.25, 0.03, ends)
        lines = script.read_text().splitlines()
        self.assertIn("open '../states/b\".mrc'", lines)
        self.assertIn("color sample #1 map #2 palette blue:white:red range -0.03,0.03", lines)
        with self.assertRaisesRegex(UserError, "both kinds of quotes"):
            programs.quoted(folder / "a'b\".mrc", folder)

    def test_chimerax_is_started_with_the_script_as_one_word(self) -> None:
        home = self.folder / "home"
        program = self.fake_chimerax(home)
        script = self.folder / "it's a $HOME" / "show me.cxc"
        script.parent.mkdir()
        script.write_text("")
        programs.start_chimerax(str(program), script, {"PATH": os.environ["PATH"]})
        for _ in range(100):
            if (home / "words").exists():
                break
            time.sleep(0.1)
        self.assertEqual((home / "words").read_text(), f"{script.resolve()}\n")
        self.assertEqual((home / "cwd").read_text(), f"{script.parent.resolve()}\n")
        with self.assertRaisesRegex(UserError, "cannot be started"):
            programs.start_chimerax("/nowhere/ChimeraX", script, {})

    def test_a_report_opens_in_the_browser_by_its_address(self) -> None:
        page = self.folder / "a 100% report.html"
        with mock.patch.object(webbrowser, "get") as get:
            get.return_value.name = "firefox"
            programs.open_in_browser(page)
            for _ in range(100):
                if get.return_value.open.called:
                    break
                time.sleep(0.05)
            get.return_value.open.assert_called_once_with(page.resolve().as_uri())

    def test_without_a_graphical_browser_the_path_is_told(self) -> None:
        page = self.folder / "report.html"
        with mock.patch.object(webbrowser, "get", side_effect=webbrowser.Error):
            with self.assertRaisesRegex(
                UserError, f"No web browser was found: open this file in one, {page.resolve()}"
            ):
                programs.open_in_browser(page)
        with mock.patch.object(webbrowser, "get") as get:
            get.return_value.name = "/usr/bin/w3m"
            with self.assertRaisesRegex(UserError, "No web browser"):
                programs.open_in_browser(page)
            get.return_value.open.assert_not_called()


class TestCovarianceViewer(BaseTest):
    """The viewer inside Scipion, without a display."""

    @classmethod
    def setUpClass(cls) -> None:
        setupTestProject(cls)

    def setUp(self) -> None:
        for module, name in SIZES_OF_PICTURES:
            patch = mock.patch.object(module, name, 32)
            patch.start()
            self.addCleanup(patch.stop)
        patch = mock.patch.object(motion_plots.movie_frames, "__defaults__", (None, None, 16))
        patch.start()
        self.addCleanup(patch.stop)
        self.protocol = self.newProtocol(SolvarProtCovariance)
        self.proj.saveProtocol(self.protocol)
        self.extra = Path(self.protocol._getExtraPath())
        shutil.rmtree(self.extra, ignore_errors=True)
        self.extra.mkdir(parents=True)

    def viewer(self, **run) -> SolvarCovarianceViewer:
        if run.pop("has_run", True):
            write_run(self.extra, **run)
        return self.reopened()

    def reopened(self) -> SolvarCovarianceViewer:
        viewer = SolvarCovarianceViewer(project=self.proj, protocol=self.protocol)
        viewer.setProtocol(self.protocol)
        return viewer

    def show(self, viewer: SolvarCovarianceViewer, name: str) -> list:
        views = viewer._getVisualizeDict()[name](name)
        for view in views:
            if isinstance(view, EmPlotter):
                view.savefig(self.extra / f"{name}.png")
                view.close()
        return views

    def message(self, viewer: SolvarCovarianceViewer, name: str) -> str:
        """The sentence that an entry shows instead of a plot."""
        views = self.show(viewer, name)
        self.assertEqual([type(view) for view in views], [MessageView])
        return views[0].getMessage()

    def plot(self, viewer: SolvarCovarianceViewer, name: str) -> Figure:
        views = self.show(viewer, name)
        self.assertEqual([type(view) for view in views], [EmPlotter], views and getattr(views[0], "_msg", ""))
        return views[0].getFigure()

    def test_scipion_finds_the_viewer(self) -> None:
        found = Config.getDomain().findViewers(self.protocol, DESKTOP_TKINTER)
        self.assertIn(SolvarCovarianceViewer, found)

    def test_every_entry_has_help_and_opens_something(self) -> None:
        viewer = self.viewer()
        for name, param in viewer._definition.iterParams():
            if name not in ("montageAxis", "montageCount"):
                self.assertTrue(param.help.hasValue(), name)
        with mock.patch.object(webbrowser, "get") as get:
            get.return_value.name = "firefox"
            for name in viewer._getVisualizeDict():
                if name in ("displayReport", "displayChimerax", "displayExplorer"):
                    continue
                with self.subTest(entry=name):
                    figure = self.plot(viewer, name)
                    width, height = figure.get_size_inches() * figure.dpi
                    self.assertLessEqual(width, 1400)
                    self.assertLessEqual(height, 900)
                    self.assertTrue(figure._suptitle.get_text())
            self.assertEqual(self.show(viewer, "displayReport"), [])
        self.assertEqual(next(name for name, _ in viewer._definition.iterParams() if name.startswith("display")),
                         "displayExplorer")  # fmt: skip
        self.assertEqual(viewer.validate(), [])

    def test_entries_match_the_form(self) -> None:
        viewer = self.viewer()
        buttons = {name for name, _ in viewer._definition.iterParams() if name.startswith("display")}
        self.assertEqual(buttons, set(viewer._getVisualizeDict()))

    def test_axes_and_colours_are_those_that_were_chosen(self) -> None:
        viewer = self.viewer()
        z = RunReader(self.protocol.getRunDir(), Path("none"), StateFolder(Path("none"))).latents().z
        self.assertEqual(
            viewer.getParam("xAxis").choices,
            ["component 1", "component 2 (nuisance)", "component 3 (not reproducible)", "UMAP 1", "UMAP 2"],
        )
        viewer.xAxis.set(2)
        viewer.yAxis.set(0)
        order = coordinates.random_subset(len(z))
        for choice in range(len(COLOURS)):
            viewer.colourBy.set(choice)
            # of so few particles, points are what is drawn automatically
            for drawing in (AUTOMATIC, DRAWINGS.index(coordinates.HEXAGONS)):
                viewer.drawAs.set(drawing)
                figure = self.plot(viewer, "displayLatent")
                self.assertIn("component 3 (not reproducible)", figure.axes[0].get_xlabel())
                if drawing == AUTOMATIC:
                    offsets = figure.axes[0].collections[0].get_offsets()
                    np.testing.assert_allclose(offsets, z[order][:, [2, 0]], rtol=1e-6)
        viewer.xAxis.set(3)
        viewer.yAxis.set(4)
        viewer.colourBy.set(COLOURS.index("uncertainty of the coordinates"))
        figure = self.plot(viewer, "displayLatent")
        self.assertEqual(figure.axes[0].get_xlabel(), "UMAP 1")
        # two reproducible components, each with posterior variance 1/4
        np.testing.assert_allclose(figure.axes[0].collections[0].get_array(), np.sqrt(0.5), rtol=1e-6)

    def test_components_without_a_label_are_shown_first(self) -> None:
        for labels, expected in (((NUISANCE, "", ""), (1, 2)), (("", NUISANCE, ""), (0, 2)), ((NUISANCE,) * 2, (0, 1))):
            viewer = self.viewer(labels=labels)
            self.assertEqual((viewer.xAxis.get(), viewer.yAxis.get()), expected)
            self.assertEqual(viewer.motionComponent.get(), expected[0])

    def test_the_same_axis_twice_is_a_histogram(self) -> None:
        viewer = self.viewer()
        viewer.yAxis.set(viewer.xAxis.get())
        figure = self.plot(viewer, "displayLatent")
        self.assertEqual(sum(bar.get_height() for bar in figure.axes[0].patches), 300)

    def test_one_component_and_one_cluster(self) -> None:
        viewer = self.viewer(labels=("",), clusters=1)
        # the UMAP is offered, but not shown first
        self.assertEqual(len(viewer.getParam("yAxis").choices), 3)
        self.assertEqual((viewer.xAxis.get(), viewer.yAxis.get()), (0, 0))
        for name in ("displayEigenvalues", "displayLatent", "displayHistograms", "displayMotion"):
            self.plot(viewer, name)
        (self.extra / "run" / "analysis" / "embedding.csv").unlink()
        viewer = self.reopened()
        self.assertEqual(viewer.yAxis.get(), 0)
        self.plot(viewer, "displayLatent")

    def test_without_components_the_rest_can_still_be_seen(self) -> None:
        viewer = self.viewer(labels=())
        for name in ("displayEigenvalues", "displayLatent", "displayHistograms", "displayMotion", "displayMovie"):
            self.assertEqual(self.message(viewer, name), NO_VARIABILITY)
        for name in (
            "displayRank",
            "displayParticles",
            "displayFsc",
            "displayNoise",
            "displayProgress",
            "displaySlices",
            "displayMontage",
            "displaySurface",
        ):
            self.plot(viewer, name)
        self.assertEqual(viewer.getParam("xAxis").choices, [NONE_YET])

    def test_runs_of_earlier_versions(self) -> None:
        viewer = self.viewer(outliers=-1, has_rank_table=False)
        self.plot(viewer, "displayParticles")
        for colour in ("log-likelihood", "outliers"):
            viewer.colourBy.set(COLOURS.index(colour))
            self.assertEqual(self.message(viewer, "displayLatent"), NO_FIT_OF_PARTICLES)
        self.assertIn("rank.csv is missing, run the protocol again", self.message(viewer, "displayRank"))

    def test_several_optics_groups(self) -> None:
        viewer = self.viewer(groups=("1", "second microscope"))
        axes = self.plot(viewer, "displayNoise").axes[0]
        self.assertEqual(
            [line.get_label() for line in axes.lines], ["optics group 1", "optics group second microscope"]
        )

    def test_every_volume_can_be_sliced_and_drawn_as_a_surface(self) -> None:
        viewer = self.viewer(labels=("",), clusters=1)
        names = viewer.getParam("volumeChoice").choices
        for entry in viewer._entries:
            self.assertEqual(viewer._data.read(entry).data.ndim, 3)
        # one of each kind
        for volume in ("mean map", "mask", "eigenvolume of component 1", "state 3: cluster 1"):
            viewer.volumeChoice.set(names.index(volume))
            for name in ("displaySlices", "displayMontage", "displaySurface"):
                with self.subTest(volume=volume, entry=name):
                    title = self.plot(viewer, name)._suptitle.get_text()
                    self.assertIn(volume[1:].split(" (")[0], title.replace("\n", " "))

    def test_a_level_is_used_as_given(self) -> None:
        viewer = self.viewer()
        self.assertIn("chosen automatically", note_of(self.plot(viewer, "displaySurface")))
        viewer.volumeLevel.set(0.625)
        self.assertIn("level 0.625.", note_of(self.plot(viewer, "displaySurface")))
        viewer.motionLevel.set(0.25)
        self.assertIn("level 0.25.", note_of(self.plot(viewer, "displayMotion")))

    def test_values_out_of_range_are_refused_with_a_sentence(self) -> None:
        viewer = self.viewer()
        viewer.montageCount.set(0)
        viewer.motionExtent.set(99.0)
        errors = viewer.validate()
        self.assertEqual(len(errors), 2)
        self.assertIn("should be a number of slices from 1 to 48", errors[0])
        self.assertIn("should be a number from 0.1 to 5", errors[1])

    def test_before_the_run_every_entry_says_so(self) -> None:
        viewer = self.viewer(has_run=False)
        for name in viewer._getVisualizeDict():
            if name != "displayChimerax":
                with self.subTest(entry=name):
                    self.assertIn("the fit has not begun", self.message(viewer, name))

    def test_a_running_fit_shows_what_there_is(self) -> None:
        run = write_run(self.extra)
        write_status(run.status, Status("fit", RUNNING, "half-sets", 4, 9))
        for path in (run.latents, run.eigenvalues, run.fsc, self.extra / "points.csv"):
            path.unlink()
        shutil.rmtree(run.analysis)
        viewer = self.reopened()
        self.assertIn(
            "The fit is at step 4 of 9: half-sets.", self.plot(viewer, "displayProgress")._suptitle.get_text()
        )
        self.plot(viewer, "displayNoise")
        self.plot(viewer, "displaySlices")
        for name in ("displayEigenvalues", "displayLatent", "displayHistograms", "displayFsc", "displayMotion"):
            self.assertIn("the fit is at step 4 of 9 (half-sets)", self.message(viewer, name))
        run.metrics.write_text("iteration,stage,half,shell_max,objective,seconds\n")
        self.assertIn("No step of the optimisation is done yet.", self.message(viewer, "displayProgress"))

    def test_a_run_that_went_on_asks_for_a_new_window(self) -> None:
        viewer = self.viewer(has_run=False)
        write_run(self.extra)
        for name in ("displayLatent", "displayMotion"):
            self.assertEqual(self.message(viewer, name), RUN_HAS_CHANGED)
        self.plot(viewer, "displayEigenvalues")

    def test_before_the_analysis_clusters_are_explained(self) -> None:
        run = write_run(self.extra)
        shutil.rmtree(run.analysis)
        viewer = self.reopened()
        self.assertIn(
            "The table of clusters is not there: the analysis has not begun", self.message(viewer, "displayLatent")
        )
        viewer.colourBy.set(COLOURS.index("contrast"))
        self.assertEqual(len(self.plot(viewer, "displayLatent").axes[0].texts), 0)

    def test_damaged_files_do_not_keep_the_window_from_opening(self) -> None:
        run = write_run(self.extra)
        run.eigenvalues.write_text("component\n1\n")
        (self.extra / "points.csv").write_text("")
        viewer = self.reopened()
        self.assertIn("has no column eigenvalue", self.message(viewer, "displayEigenvalues"))
        self.plot(viewer, "displaySlices")

    def test_a_failed_plot_leaves_no_empty_window(self) -> None:
        viewer = self.viewer()
        before = EmPlotter(figsize=(1, 1))
        self.addCleanup(before.close)
        with mock.patch.object(spectra, "draw_noise", side_effect=UserError("A reason.")):
            self.assertEqual(self.message(viewer, "displayNoise"), "A reason.")
        from matplotlib import pyplot

        self.assertEqual(max(pyplot.get_fignums()), before.getFigure().number)

    def test_the_movie_is_saved_beside_the_results(self) -> None:
        figure = self.plot(self.viewer(), "displayMovie")
        path = (self.extra / "viewer" / "component_001.gif").resolve()
        self.assertTrue(path.is_file())
        self.assertIn("".join(str(path).split()), "".join(note_of(figure).split()))

    def test_chimerax_gets_a_script_or_the_user_an_advice(self) -> None:
        viewer = self.viewer()
        with mock.patch.object(programs, "find_chimerax", return_value=None):
            self.assertEqual(self.message(viewer, "displayChimerax"), programs.CHIMERAX_ADVICE)
        script = (self.extra / "viewer" / "chimerax.cxc").resolve()
        with mock.patch.object(programs, "find_chimerax", return_value="/opt/ChimeraX"), mock.patch.object(
            programs, "start_chimerax"
        ) as start:
            self.assertEqual(self.show(viewer, "displayChimerax"), [])
            self.assertEqual(start.call_args[0][:2], ("/opt/ChimeraX", script))
            self.assertIn('open "../run/mean.mrc"', script.read_text())
            viewer.volumeChoice.set(
                viewer.getParam("volumeChoice").choices.index("eigenvolume of component 2 (nuisance)")
            )
            self.assertEqual(self.show(viewer, "displayChimerax"), [])
            text = script.read_text()
            for name in (
                "run/mean.mrc",
                "run/eigenvolumes/eigenvolume_002.mrc",
                "states/state_003.mrc",
                "states/state_004.mrc",
            ):
                self.assertIn(f'open "../{name}"', text)


class TestParticlesViewer(BaseTest):
    @classmethod
    def setUpClass(cls) -> None:
        setupTestProject(cls)

    def particles(self, program: str, z: np.ndarray, name: str = "some") -> SetOfParticlesFlex:
        suffix = f"_{name}_{self.id().split('.')[-1]}"
        output = SetOfParticlesFlex.create(self.proj.getTmpPath(), suffix=suffix, progName=program)
        output.setSamplingRate(1.0)
        for number, row in enumerate(z):
            item = ParticleFlex(progName=program)
            # ids with gaps, as of a subset
            item.setObjId(3 * number + 2)
            item.setLocation(number + 1, "images.mrcs")
            item.setZFlex([float(value) for value in row])
            item._solvarContrast = Float(1 + 0.01 * number)
            output.append(item)
        output.write()
        return output

    def test_it_is_offered_beside_the_usual_viewer_for_our_particles_only(self) -> None:
        ours = self.particles("SOLVAR", np.ones((3, 2)))
        found = Config.getDomain().findViewers(ours, DESKTOP_TKINTER)
        self.assertTrue({SolvarParticlesViewer, SolvarExplorerViewer} <= set(found))
        self.assertIsNot(found[0], SolvarParticlesViewer)
        ours.getFlexInfo().setProgName("CryoDRGN")
        self.assertNotIn(SolvarParticlesViewer, Config.getDomain().findViewers(ours, DESKTOP_TKINTER))

    def test_it_draws_the_particles_of_the_set(self) -> None:
        z = np.random.default_rng(0).normal(size=(40, 3)).round(4)
        z[5] = z[6]  # alike, but two particles
        particles = self.particles("SOLVAR", z)
        read, contrast = read_coordinates(particles)
        np.testing.assert_allclose(read, z)
        np.testing.assert_allclose(contrast, 1 + 0.01 * np.arange(40))
        viewer = SolvarParticlesViewer(project=self.proj)
        (plotter,) = viewer._visualize(particles)
        self.addCleanup(plotter.close)
        drawn = plotter.getFigure().axes[0].collections[0]
        np.testing.assert_allclose(drawn.get_offsets(), z[coordinates.random_subset(40)][:, :2])

    def test_one_component_is_a_histogram_and_none_a_sentence(self) -> None:
        viewer = SolvarParticlesViewer(project=self.proj)
        (plotter,) = viewer._visualize(self.particles("SOLVAR", np.arange(20.0)[:, None]))
        self.addCleanup(plotter.close)
        self.assertEqual(sum(bar.get_height() for bar in plotter.getFigure().axes[0].patches), 20)
        (message,) = viewer._visualize(self.particles("SOLVAR", np.zeros((4, 0)), "none"))
        self.assertIn("no latent coordinates", message.getMessage())
