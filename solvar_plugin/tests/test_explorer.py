"""What is picked in the explorer becomes sets and volumes of Scipion, and nothing else does.

A stand-in makes the analysis; explorer and volumes are the engine's own, the browser is Chromium.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from unittest import mock

import numpy as np
from pyworkflow.tests import BaseTest, setupTestProject

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import file_digest
from solvar_engine.contract.results import read_latents, read_states
from solvar_engine.contract.selections import PARTICLES, PATH, Selection, read_selection, write_selection
from solvar_plugin.protocols import (
    SolvarProtCovariance,
    SolvarProtFlexHub,
    SolvarProtReconstruct,
    SolvarProtSelectParticles,
)
from solvar_plugin.protocols import reconstruct_form as form
from solvar_plugin.protocols import select_form as select
from solvar_plugin.protocols.covariance_form import FIXED_RANK
from solvar_plugin.protocols.protocol_flexhub import NO_HAX
from solvar_plugin.tests import draw_in_explorer
from solvar_plugin.tests.data_sets import PIXEL_SIZE, import_particles, two_optics_groups
from solvar_plugin.tests.stand_in_project import StandInProject, plugin_variables, variables, wait_for
from solvar_plugin.viewers import SolvarCovarianceViewer, SolvarExplorerViewer
from solvar_plugin.wizards import SolvarSelectionWizard

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("SOLVAR_TEST_PYTHON") or str(ROOT / ".venv" / "bin" / "python")
"""The Python of the engine's tests, which has a driver of browsers."""

ENGINE = os.environ.get("SOLVAR_TEST_ACTIVATION", "")
"""Activation of the engine itself; empty for that of Scipion's installer."""

PARTICLES_IN_SET, OUTLIERS, RANK = 120, 7, 2


def is_inside(x, y, polygon):
    """Even-odd rule for one point, edge by edge."""
    inside = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, 1, axis=0)):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            inside = not inside
    return inside


class TestExplorer(StandInProject, BaseTest):
    """One analysis, whose run is explored."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.folder = Path(os.getcwd())
        cls._install_stand_in()
        star = two_optics_groups(cls.folder / "data", count=PARTICLES_IN_SET)
        cls.imported = import_particles(cls, star, PIXEL_SIZE)
        cls.analysed = cls.newProtocol(
            SolvarProtCovariance, rankChoice=FIXED_RANK, rank=RANK, numberOfClusters=3, numberOfThreads=1
        )
        cls.analysed.inputParticles.set(cls.imported)
        cls.analysed.inputParticles.setExtended("outputParticles")
        with variables(SOLVAR_STAND_IN="succeed", SOLVAR_STAND_IN_OUTLIERS=str(OUTLIERS)):
            cls.proj.launchProtocol(cls.analysed, wait=True)
        cls.proj._updateProtocol(cls.analysed)
        cls.run_dir = cls.analysed.getRunDir()

    def of(self, kind, **values):
        protocol = self.newProtocol(kind, **values)
        protocol.inputParticles.set(self.analysed)
        protocol.inputParticles.setExtended("outputParticles")
        return protocol

    def stored(self, name, kind, values, digest=None):
        digest = digest or file_digest(self.run_dir.latents)
        write_selection(self.run_dir, Selection(name, kind, np.array(values), digest))

    def viewer(self):
        viewer = SolvarCovarianceViewer(project=self.proj, protocol=self.analysed)
        viewer.setProtocol(self.analysed)
        return viewer

    def problems(self, kind, **values):
        return " ".join(self.of(kind, **values).validate())

    def test_lasso_becomes_a_set_and_path_becomes_volumes(self):
        seen, opener = self.folder / "page.html", self.folder / "browser"
        seen.unlink(missing_ok=True)  # of an earlier run of the tests
        opener.write_text(f'#!/bin/sh\ncp "${{1#file://}}" "{seen}.part" && mv "{seen}.part" "{seen}"\n')
        opener.chmod(0o755)
        with variables(BROWSER=f"{opener} %s"), plugin_variables(SOLVAR_ENV_ACTIVATION=ENGINE):
            self.assertEqual(self.viewer()._getVisualizeDict()["displayExplorer"]("displayExplorer"), [])
        wait_for(seen.exists, "the browser")
        address = re.search(r"url=(http[^\"]*)", seen.read_text()).group(1)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        command = [PYTHON, draw_in_explorer.__file__, address, "by hand", "way"]
        subprocess.run(command, check=True, env=environment, timeout=120)

        z = read_latents(self.run_dir.latents).z.astype(float)
        polygon = np.reshape(read_selection(self.run_dir, "by hand").made_with["polygon"], (-1, 2))
        self.assertEqual(len(polygon), len(draw_in_explorer.LASSO))
        expected = {row + 1 for row, (x, y) in enumerate(z) if is_inside(x, y, polygon)}
        self.assertTrue(5 < len(expected) < PARTICLES_IN_SET - 5)
        chosen = self.of(SolvarProtSelectParticles, way=select.BY_SELECTION, selection="by hand")
        self.assertFalse(self.run_to_the_end(chosen))
        self.assertEqual(chosen.outputParticles.getIdSet(), expected)
        self.assertIn("the selection 'by hand' of the explorer", " ".join(chosen.summary()))

        points = read_selection(self.run_dir, "way", (PATH,)).values
        volumes = self.of(
            SolvarProtReconstruct, states=form.POINTS, pointsSelection="way", numberOfThreads=1,
            method=form.RECONSTRUCT["method"].choices.index("linear"),
        )  # fmt: skip
        with plugin_variables(SOLVAR_ENV_ACTIVATION=ENGINE):
            self.assertFalse(self.run_to_the_end(volumes, SOLVAR_ENV_ACTIVATION=ENGINE))
        self.assertEqual(volumes.outputVolumes.getSize(), len(points))
        np.testing.assert_array_equal(read_states(volumes.getStates()).points, points)

    def test_selections_are_checked_and_offered(self):
        self.stored("good ones", PARTICLES, [10, 3, 119])
        self.stored("road", PATH, [[0.25, -1.0], [1.0, 2.0]])
        self.stored("old", PARTICLES, [1], digest="0" * 64)
        by = {"way": select.BY_SELECTION}
        self.assertEqual(self.of(SolvarProtSelectParticles, selection="good ones", **by)._selectedIds(), {4, 11, 120})
        problems = self.problems(SolvarProtSelectParticles, selection="old", **by)
        self.assertIn("The selection old was made on the latents of another run", problems)
        self.assertIn("holds path, but particles", self.problems(SolvarProtSelectParticles, selection="road", **by))
        self.assertIn("has no selection 'none'", self.problems(SolvarProtSelectParticles, selection="none", **by))
        self.assertIn("cannot be the name", self.problems(SolvarProtSelectParticles, selection="", **by))
        kind, points = SolvarProtReconstruct, {"states": form.POINTS, "numberOfThreads": 1}
        self.assertEqual(self.problems(kind, pointsSelection="road", **points), "")
        self.assertIn("holds particles", self.problems(kind, pointsSelection="good ones", **points))
        protocol = self.of(kind, pointsSelection="road", **points)
        self.proj.saveProtocol(protocol)
        Path(protocol._getExtraPath()).mkdir(parents=True, exist_ok=True)
        self.assertEqual(protocol._writePoints().read_text(), "z_1,z_2\n0.25,-1.0\n1.0,2.0\n")

        before = self.of(SolvarProtSelectParticles, selection="good ones", **by)._inputSignature()
        os.utime(self.run_dir.selection_table("good ones"), ns=(1, 1))
        self.assertNotEqual(self.of(SolvarProtSelectParticles, selection="good ones", **by)._inputSignature(), before)

        window = mock.Mock()
        window.protocol = protocol
        with mock.patch("pyworkflow.gui.dialog.ListDialog") as dialog:
            dialog.return_value.resultYes.return_value = True
            dialog.side_effect = lambda root, title, names, **more: mock.Mock(
                values=[names.getObjects()[0]], resultYes=lambda: True, names=names
            )
            SolvarSelectionWizard().show(window)
        window.setVar.assert_called_once_with("pointsSelection", "road")
        for name in ("good ones", "road", "old"):
            self.run_dir.selection(name).unlink()

    def test_flexhub_is_called_if_it_is_there(self):
        protocol = self.of(SolvarProtFlexHub)
        with mock.patch("importlib.util.find_spec", return_value=None):
            self.assertEqual(protocol.validate(), [NO_HAX])
        self.proj.saveProtocol(protocol)
        hax = mock.Mock()
        hax.Plugin.getProgram.side_effect = lambda program, gpu: f"hax_project_manager {program}"
        with mock.patch("importlib.util.find_spec"), mock.patch.dict("sys.modules", hax=hax):
            self.assertEqual(protocol.validate(), [])
            with mock.patch.object(protocol, "runJob") as run:
                protocol.openStep()
        program, arguments = run.call_args.args
        self.assertEqual(program, "hax_project_manager annotate_space")
        words = arguments.split()
        options = dict(zip(words[::2], words[1::2]))
        self.assertEqual((options["--mode"], options["--env_name"]), ("SOLVAR", "hax"))
        self.assertEqual(Path(options["--solvar_run"]), self.run_dir.path.resolve())
        self.assertTrue(Path(options["--server_functions_path"]).name == "flexhub_interface.py")
        np.testing.assert_allclose(np.loadtxt(options["--z_space"]), read_latents(self.run_dir.latents).z, rtol=1e-6)
        for path in ("a b", "a$(b)", "a;b", "a'b"):
            folder = mock.patch.object(protocol, "_getExtraPath", return_value=path)
            with mock.patch("importlib.util.find_spec"), folder:
                self.assertIn("because the path holds blanks or signs", " ".join(protocol.validate()))

    def test_explorer_that_does_not_start_says_why(self):
        with plugin_variables(SOLVAR_ENV_ACTIVATION="false"):
            (view,) = self.viewer()._getVisualizeDict()["displayExplorer"]("displayExplorer")
        self.assertIn("The SOLVAR engine did not start", view.getMessage())
        ready = '{"url": "http://x/#token=y", "browser": false, "tunnel": "ssh -N -L 1:127.0.0.1:1 me@far"}'
        with mock.patch("subprocess.Popen") as process:
            process.return_value.stdout.readline.return_value = ready
            (view,) = self.viewer()._getVisualizeDict()["displayExplorer"]("displayExplorer")
        self.assertIn("run on your own computer ssh -N -L 1:127.0.0.1:1 me@far and open", view.getMessage())
        viewer = SolvarExplorerViewer(project=self.proj)
        with mock.patch("solvar_plugin.viewers.viewer_particles.start_explorer") as start:
            self.assertEqual(viewer._visualize(self.analysed.outputParticles), [])
            self.assertEqual(start.call_args.args[0].path.resolve(), self.run_dir.path.resolve())
            start.side_effect = UserError("No web browser was found: open this address in one, http://x")
            (view,) = viewer._visualize(self.analysed.outputParticles)
        self.assertIn("open this address", view.getMessage())
