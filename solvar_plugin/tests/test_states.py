"""Protocols that start from a finished covariance analysis: selection of particles, volumes of states.

A stand-in takes the engine's place.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import mrcfile
import numpy as np
from pwem.objects import Volume
from pyworkflow.tests import BaseTest, setupTestProject
from pyworkflow.utils import makePath

from solvar_engine.contract.results import read_latents
from solvar_engine.contract.star import StarFile
from solvar_plugin.convert.particles import write_particles
from solvar_plugin.convert.selection import distances_from
from solvar_plugin.protocols import (
    SolvarProtCovariance,
    SolvarProtReconstruct,
    SolvarProtRefine,
    SolvarProtSelectParticles,
)
from solvar_plugin.protocols import reconstruct_form as form
from solvar_plugin.protocols import select_form as select
from solvar_plugin.protocols.covariance_form import FIXED_RANK
from solvar_plugin.protocols.state_outputs import classes_of
from solvar_plugin.tests import stand_in_engine
from solvar_plugin.tests.data_sets import PIXEL_SIZE, import_particles, two_optics_groups
from solvar_plugin.tests.stand_in_project import StandInProject, variables
from solvar_plugin.viewers import SolvarReconstructViewer, SolvarRefineViewer
from solvar_plugin.viewers.data.state_reader import resampled, shell_correlation
from solvar_plugin.viewers.windows import explorer

PARTICLES, OUTLIERS, CLUSTERS, RANK = 120, 7, 3, 2


def slow_distance(point, z, precision, columns):
    """Distance of one particle, by the marginal of its posterior, term by term."""
    covariance = np.linalg.inv(precision)
    marginal = np.linalg.inv(np.array([[covariance[i, j] for j in columns] for i in columns]))
    return sum(
        (z[i] - point[i]) * marginal[a, b] * (z[j] - point[j])
        for a, i in enumerate(columns)
        for b, j in enumerate(columns)
    ) ** 0.5


class TestStates(StandInProject, BaseTest):
    """One analysis of particles whose images are noise, in two optics groups."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.folder = Path(os.getcwd())
        cls._install_stand_in()
        star = two_optics_groups(cls.folder / "data", count=PARTICLES)
        cls.imported = import_particles(cls, star, PIXEL_SIZE)
        cls.analysed = cls.newProtocol(
            SolvarProtCovariance, rankChoice=FIXED_RANK, rank=RANK, numberOfClusters=CLUSTERS, numberOfThreads=1
        )
        cls.analysed.inputParticles.set(cls.imported)
        cls.analysed.inputParticles.setExtended("outputParticles")
        with variables(SOLVAR_STAND_IN="succeed", SOLVAR_STAND_IN_OUTLIERS=str(OUTLIERS)):
            cls.proj.launchProtocol(cls.analysed, wait=True)
        cls.proj._updateProtocol(cls.analysed)

    def of(self, kind, **values):
        protocol = self.newProtocol(kind, **values)
        protocol.inputParticles.set(self.analysed)
        protocol.inputParticles.setExtended("outputParticles")
        return protocol

    def selected(self, **values):
        return sorted(self.of(SolvarProtSelectParticles, **values)._selectedIds())

    def reconstruction(self, **values):
        return self.of(SolvarProtReconstruct, **{"numberOfThreads": 1, **values})

    def problems(self, kind, **values):
        return " ".join(self.of(kind, **values).validate())

    # ------------------------------------------------------------ selection

    def test_selection_by_cluster(self):
        third = self.selected(way=select.BY_CLUSTER, clusters="3", leaveOutliersOut=False)
        self.assertEqual(third, list(range(3, PARTICLES + 1, 3)))
        both = self.selected(way=select.BY_CLUSTER, clusters="1-2")
        good = range(OUTLIERS + 1, PARTICLES + 1)
        self.assertEqual(both, [identity for identity in good if identity % 3])

    def test_selection_by_flag(self):
        self.assertEqual(self.selected(way=select.BY_FLAG, flag=select.OUTLIERS), list(range(1, OUTLIERS + 1)))
        self.assertEqual(len(self.selected(way=select.BY_FLAG, flag=select.GOOD)), PARTICLES - OUTLIERS)

    def test_selection_by_distance(self):
        latents = read_latents(self.analysed.getRunDir().latents)
        values = {"way": select.BY_DISTANCE, "leaveOutliersOut": False, "number": 10}
        # the precisions of the stand-in are all alike
        for point, more in (
            (latents.z[41], {"point": select.AT_PARTICLE, "particleId": 42}),
            (latents.z[1], {"point": select.AT_CENTRE, "cluster": 2}),
            (np.array([0.5, -1.0]), {"point": select.AT_COORDINATES, "coordinates": "0.5, -1"}),
        ):
            order = np.argsort(np.linalg.norm(latents.z - point, axis=1))
            self.assertEqual(self.selected(**values, **more), sorted((order[:10] + 1).tolist()))
        share = self.selected(way=select.BY_DISTANCE, amount=select.BY_SHARE, percent=50.0)
        self.assertEqual(len(share), round((PARTICLES - OUTLIERS) / 2))
        self.assertIn("no particle 999", self.error_of_selection(point=select.AT_PARTICLE, particleId=999))

    def error_of_selection(self, **values):
        with self.assertRaises(Exception) as caught:
            self.selected(way=select.BY_DISTANCE, **values)
        return str(caught.exception)

    def test_distance_counts_how_well_a_particle_is_placed(self):
        random = np.random.default_rng(2)
        z, point, columns = random.normal(size=(5, 3)), random.normal(size=3), np.array([0, 2])
        roots = random.normal(size=(5, 3, 3))
        precision = roots @ roots.transpose(0, 2, 1) + np.eye(3)
        expected = [slow_distance(point, *one, columns) for one in zip(z, precision)]
        np.testing.assert_allclose(distances_from(point, z, precision, columns), expected, rtol=1e-10)

    def test_selected_particles_keep_everything_and_can_be_selected_from(self):
        protocol = self.of(SolvarProtSelectParticles, way=select.BY_CLUSTER, clusters="1, 3")
        self.assertFalse(self.run_to_the_end(protocol))
        chosen, whole = protocol.outputParticles, self.analysed.outputParticles
        self.assertEqual(chosen.getFlexInfo().getAttr("_solvarRun"), whole.getFlexInfo().getAttr("_solvarRun"))
        self.assertTrue(chosen.hasCTF() and chosen.hasAlignmentProj())
        self.assertIn(f"{chosen.getSize()} of {PARTICLES} particles", " ".join(protocol.summary()))
        for particle in chosen:
            before = whole[particle.getObjId()]
            self.assertEqual(particle.getObjDict().get("_zFlex"), before.getObjDict().get("_zFlex"))
            np.testing.assert_array_equal(particle.getTransform().getMatrix(), before.getTransform().getMatrix())
            self.assertEqual(particle._solvarLogLikelihood.get(), before._solvarLogLikelihood.get())
        again = self.newProtocol(SolvarProtSelectParticles, way=select.BY_CLUSTER, clusters="3")
        again.inputParticles.set(protocol)
        again.inputParticles.setExtended("outputParticles")
        self.assertEqual(again._selectedIds(), {i for i in range(OUTLIERS + 1, PARTICLES + 1) if i % 3 == 0})

    def test_form_of_selection_says_what_is_wrong(self):
        kind, point = SolvarProtSelectParticles, {"way": select.BY_DISTANCE, "point": select.AT_COORDINATES}
        self.assertEqual(self.problems(kind), "")
        self.assertIn("no cluster 9", self.problems(kind, clusters="1 9"))
        self.assertIn("'x'", self.problems(kind, clusters="x"))
        self.assertIn("has 3 numbers, but the run has 2", self.problems(kind, coordinates="1 2 3", **point))
        self.assertEqual(self.of(kind, coordinates="0 0", **point)._warnings(), [])
        (warning,) = self.of(kind, coordinates="9000 0", **point)._warnings()
        self.assertIn("z_1 = 9000", warning)
        self.assertIn("'nan', which is not a finite number", self.problems(kind, coordinates="1 nan", **point))

    # ------------------------------------------------------------ refined poses

    def test_refined_poses_are_those_of_the_run_in_relions_sense(self):
        protocol = self.newProtocol(
            SolvarProtRefine, rankChoice=FIXED_RANK, rank=RANK, numberOfClusters=CLUSTERS, numberOfThreads=1
        )
        protocol.inputParticles.set(self.imported)
        protocol.inputParticles.setExtended("outputParticles")
        self.record.write_text("")
        self.assertFalse(self.run_to_the_end(protocol))
        call = json.loads(self.record.read_text().splitlines()[0])["arguments"]
        self.assertLessEqual({"--refine-poses", "--refine-contrast"}, set(call))
        table = StarFile.read(protocol.getRunDir().particles).particles
        # what goes out of Scipion again must be what the run has found
        again = self.folder / "again.star"
        write_particles(protocol.outputParticles, again)
        written = StarFile.read(again).particles
        for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"):
            np.testing.assert_allclose(written.numbers(name)[name], table.numbers(name)[name], atol=1e-4)
        changes = table.numbers("solvarRotationChange")["solvarRotationChange"]
        found = [particle._solvarRotationChange.get() for particle in protocol.outputParticles]
        np.testing.assert_allclose(found, changes, rtol=1e-6)
        self.assertIn("Orientations turned by", " ".join(protocol.summary()))
        viewer = SolvarRefineViewer(project=self.proj, protocol=protocol)
        viewer.setProtocol(protocol)
        for name in ("displayPoseChanges", "displayDirections"):
            (plotter,) = viewer._getVisualizeDict()[name]()
            self.assertEqual(len(plotter.getFigure().axes), 2 + (name == "displayDirections"))
            plotter.close()

    # ------------------------------------------------------------ volumes

    def test_volumes_have_half_maps_and_particles(self):
        protocol = self.reconstruction(states=form.CLUSTERS, numberOfStates=4, sharpening=form.GIVEN, bFactor=-80.0)
        self.record.write_text("")
        self.assertIn(stand_in_engine.SENTENCE, self.run_to_the_end(protocol, "fail"))
        self.assertFalse(self.go_on(protocol))
        call = json.loads(self.record.read_text().splitlines()[-1])["arguments"]
        self.assertEqual(call[0], "reconstruct")
        self.assertEqual(call[call.index("--b-factor") + 1], "-80")
        self.assertEqual([volume.getObjLabel() for volume in protocol.outputVolumes],
                         [f"cluster {number}" for number in range(1, 5)])  # fmt: skip
        for volume, resolution in zip(protocol.outputVolumes, protocol.outputLocalResolution):
            halves = volume.getHalfMaps().split(",")
            self.assertEqual([os.path.exists(half) for half in halves], [True, True])
            self.assertEqual((volume._solvarParticles.get(), volume._solvarResolution.get()), (5, 12.0))
            self.assertIn("_locres", resolution.getFileName())
        found = {}
        for one in protocol.outputClasses:
            self.assertTrue(os.path.exists(one.getRepresentative().getFileName()))
            self.assertTrue(one.hasCTF() and one.hasAlignmentProj())
            found[one.getObjId()] = [particle.getObjId() for particle in one]
        self.assertEqual(found, {state: list(range(state, PARTICLES + 1, 4)) for state in range(1, 5)})
        self.assertIn("Cluster 1: 5 images, 12.0 Å - few images", protocol.summary())
        self.check_viewer(protocol)

    def test_interrupted_reconstruction_goes_on_unless_options_have_changed(self):
        protocol = self.reconstruction(states=form.CLUSTERS, numberOfStates=2)
        self.assertIn(stand_in_engine.SENTENCE, self.run_to_the_end(protocol, "fail"))
        kept = protocol.getStatesFolder() / "finished"
        for count, is_kept in ((2, True), (3, False)):
            for path in (kept, protocol.getStates().checkpoint):
                path.touch()
            # a file that is missing makes Scipion do the step once more
            protocol.getStates().table.unlink(missing_ok=True)
            protocol.numberOfStates.set(count)
            self.record.write_text("")
            self.assertFalse(self.go_on(protocol))
            self.assertEqual(kept.exists(), is_kept)
            self.assertIn("--resume", json.loads(self.record.read_text().splitlines()[-1])["arguments"])

    def check_viewer(self, protocol):
        """Open all that the viewer has; figures must come, and for programs that are not there a message."""
        viewer = SolvarReconstructViewer(project=self.proj, protocol=protocol)
        viewer.setProtocol(protocol)
        entries = viewer._getVisualizeDict()
        with mock.patch.object(explorer, "start_explorer") as start:
            self.assertEqual(entries.pop("displayExplorer")(), [])
        start.assert_called_once_with(viewer._data.run, protocol.getStatesFolder())
        with variables(MPLBACKEND="Agg"):
            opened = {name: show() for name, show in entries.items() if name != "displayChimerax"}
        for name, (plotter,) in opened.items():
            self.assertTrue(plotter.getFigure().axes, name)
            plotter.close()
        places = viewer._places(None, None)
        self.assertEqual((len(places.points), places.is_path), (4, False))

    def test_points_are_written_for_the_engine_and_linear_volumes_have_classes_only(self):
        protocol = self.reconstruction(states=form.POINTS, points="1 2\n-0.5, 0\n", method=1)
        self.assertFalse(self.run_to_the_end(protocol))
        self.assertEqual(protocol.getPointsPath().read_text().split(), ["z_1,z_2", "1.0,2.0", "-0.5,0.0"])
        self.assertEqual({name for name, _ in protocol.iterOutputAttributes()}, {"outputClasses", "outputVolumes"})
        self.assertEqual([volume.getObjLabel() for volume in protocol.outputVolumes], ["point 1", "point 2"])
        sizes = {one.getObjLabel(): one.getSize() for one in protocol.outputClasses}
        self.assertEqual(sizes, {"point 1": PARTICLES / 2, "point 2": PARTICLES / 2})

    def test_extrapolated_states_are_named_so(self):
        far = {"states": form.POINTS, "points": "1 2\n9000, 0\n", "method": 1}
        protocol = self.reconstruction(**far, allowExtrapolation=True)
        self.assertTrue(form.reconstruct_params(protocol).allow_extrapolation)
        self.assertEqual(protocol.validate(), [])
        self.assertFalse(self.run_to_the_end(protocol))
        names = ["point 1", "point 2 (extrapolated)"]
        self.assertEqual([volume.getObjLabel() for volume in protocol.outputVolumes], names)
        self.assertIn("Point 2 (extrapolated): 5 images", " ".join(protocol.summary()))
        viewer = SolvarReconstructViewer(project=self.proj, protocol=protocol)
        viewer.setProtocol(protocol)
        self.assertEqual(viewer._data.names(), names)

    def test_particles_at_full_size_go_in_by_id_in_the_order_of_the_run(self):
        full = self.full_size()
        protocol = self.reconstruction(states=form.BETWEEN, between="3 1", frames=2)
        protocol.fullParticles.set(full)
        self.record.write_text("")
        self.assertEqual(protocol.validate(), [])
        makePath(protocol._getExtraPath())
        protocol.convertInputStep("", "")
        known = StarFile.read(self.analysed.getRunDir().particles).particles
        written = StarFile.read(protocol.getFullStarPath()).particles
        self.assertEqual(written.integers("rlnImageId").tolist(), known.integers("rlnImageId").tolist())
        self.assertTrue(all("larger" in name for name in written.text("rlnImageName")))
        command = form.reconstruct_params(protocol)
        self.assertEqual((command.between, command.frames), ((3, 1), 2))
        self.check_classes_of(protocol)
        protocol.fullParticles.set(self.full_size(without=3))
        with self.assertRaisesRegex(Exception, "such as the one with id 3"):
            protocol.convertInputStep("", "")

    def check_classes_of(self, protocol):
        """Classes hold the large images, with the orientations of the run and shifts in their own pixels."""
        classes = classes_of(protocol, protocol.fullParticles.get(), {7: 2, 9: 2, 11: 1}, [Volume(), Volume()])
        self.assertEqual({one.getObjId(): [item.getObjId() for item in one] for one in classes}, {1: [11], 2: [7, 9]})
        for one in classes:
            self.assertEqual(one.getSamplingRate(), PIXEL_SIZE / 2)
            for item in one:
                self.assertIn("larger", item.getFileName())
                expected = self.analysed.outputParticles[item.getObjId()].getTransform().getMatrix()
                expected[:3, 3] *= 2
                np.testing.assert_allclose(item.getTransform().getMatrix(), expected)

    def full_size(self, without=None):
        """The imported particles, but one, without orientations and with images of twice the size."""
        images = self.imported.outputParticles
        stack = self.folder / "larger.mrcs"
        if not stack.exists():
            with mrcfile.new(stack) as file:
                file.set_data(np.zeros((PARTICLES, 32, 32), dtype=np.float32))
        path = self.folder / "larger.sqlite"
        path.unlink() if path.exists() else None
        full = type(images)(filename=str(path))
        full.copyInfo(images)
        full.setSamplingRate(PIXEL_SIZE / 2)
        for particle in images:
            if particle.getObjId() == without:
                continue
            particle.setLocation(particle.getObjId(), str(stack))
            particle.setSamplingRate(PIXEL_SIZE / 2)
            particle.setTransform(None)
            full.append(particle)
        full.write()
        return full

    def test_form_of_volumes_says_what_is_wrong(self):
        kind = SolvarProtReconstruct
        for sentence, values in (
            ("no cluster 9", {"states": form.BETWEEN, "between": "1 9"}),
            ("'Clusters on the way' needs at least two", {"states": form.BETWEEN, "between": "1"}),
            ("has one point", {"states": form.TRAJECTORY, "points": "1 2"}),
            ("'Points' is empty", {"states": form.POINTS}),
            ("Point 2 of 'Points' (z_1 = 9000", {"states": form.POINTS, "points": "0 0\n9000 0", "method": 1}),
            ("extrapolation with 'Allow extrapolation'", {"states": form.TRAJECTORY, "points": "0 0\n9000 0"}),
            ("nowhere.csv does not exist", {"states": form.POINTS, "pointsFile": "nowhere.csv"}),
            ("'Number of states' is 0", {"numberOfStates": 0}),
            ("'Box of the volumes (px)' is 8", {"boxSize": 8}),
            ("scratch folder", {"scratchFolder": "nowhere"}),
        ):
            self.assertIn(sentence, self.problems(kind, **values))

    def test_run_that_is_gone(self):
        protocol = self.reconstruction()
        run = self.analysed.getRunDir().path
        os.rename(run, f"{run}.away")
        try:
            self.assertIn("is gone", " ".join(protocol.validate()))
        finally:
            os.rename(f"{run}.away", run)
        protocol.inputParticles.set(self.imported)
        self.assertIn("do not come from a covariance analysis", " ".join(protocol._inputProblems()))

    # ------------------------------------------------------------ numbers of the viewer

    def test_shell_correlation_is_that_of_the_full_transform(self):
        random = np.random.default_rng(1)
        first, second = random.normal(size=(2, 8, 8, 8))
        second += first
        one, other = np.fft.fftn(first), np.fft.fftn(second)
        line = np.fft.fftfreq(8) * 8
        radius = np.sqrt(line[:, None, None] ** 2 + line[None, :, None] ** 2 + line[None, None, :] ** 2)
        for shell, found in enumerate(shell_correlation(first, second)):
            at = np.rint(radius) == shell
            expected = np.sum(one[at] * other[at].conj()).real
            expected /= np.sqrt(np.sum(np.abs(one[at]) ** 2) * np.sum(np.abs(other[at]) ** 2))
            self.assertAlmostEqual(found, expected, places=10)

    def test_mask_at_another_box_keeps_its_middle(self):
        mask = np.zeros((8, 8, 8), dtype=np.float32)
        mask[2:7, 3:6, 4] = 1
        larger = resampled(mask, 16)
        self.assertEqual(larger.shape, (16,) * 3)
        np.testing.assert_allclose(larger[::2, ::2, ::2], mask, atol=1e-6)
