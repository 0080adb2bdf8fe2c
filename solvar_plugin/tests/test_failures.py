"""When something goes wrong: the form's validation, failing and killed engines, Stop, Continue.

A stand-in takes the engine's place, so that it fails when and as the tests ask for.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import mrcfile
import numpy as np
import psutil
from pwem.objects import SetOfParticles, VolumeMask
from pwem.protocols import ProtImportMask
from pyworkflow import Config
from pyworkflow.tests import BaseTest, setupTestProject
from pyworkflow.viewer import DESKTOP_TKINTER

from solvar_engine.contract.results import read_latents
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status
from solvar_plugin.protocols import SolvarProtCovariance, SolvarProtReconstruct, SolvarProtSelectParticles
from solvar_plugin.protocols.covariance_form import AUTOMATIC_RANK, FIT, FIXED_RANK, fit_params
from solvar_plugin.protocols.form_options import in_form_words
from solvar_plugin.protocols.select_form import BY_FLAG, GOOD
from solvar_plugin.tests import stand_in_engine
from solvar_plugin.tests.data_sets import PIXEL_SIZE, import_particles, two_optics_groups
from solvar_plugin.tests.stand_in_project import (
    StandInProject,
    plugin_variables,
    process_works,
    variables,
    wait_for,
)
from solvar_plugin.wizards import boxes_for, imported_star

PARTICLES = 120
OUTLIERS = 7


class TestFailures(StandInProject, BaseTest):
    """One project with particles of two optics groups, whose images are noise."""

    _finished = None

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.folder = Path(os.getcwd())
        cls.masks = {}
        cls._install_stand_in()
        star = two_optics_groups(cls.folder / "data", count=PARTICLES)
        cls.imported = import_particles(cls, star, PIXEL_SIZE)

    def protocol(self, **values):
        options = {"rankChoice": FIXED_RANK, "rank": 2, "numberOfClusters": 3, "numberOfThreads": 1, **values}
        protocol = self.newProtocol(SolvarProtCovariance, **options)
        if "inputParticles" not in values:
            protocol.inputParticles.set(self.imported)
            protocol.inputParticles.setExtended("outputParticles")
        return protocol

    def wait_for_end(self, protocol):
        # Scipion takes a protocol for failed whose process ends while it looks, so it may look only afterwards
        wait_for(lambda: not process_works(protocol.getPid()), "the protocol's end")
        self.proj._updateProtocol(protocol)

    def launch_and_wait_for_engine(self, protocol):
        """Launch a protocol whose engine hangs, and return the engine's process once it works."""
        with variables(SOLVAR_STAND_IN="hang"):
            self.proj.launchProtocol(protocol, wait=False)
        path = protocol.getRunDir().status

        def works():
            current = read_status(path)
            return current is not None and current.steps == 40

        wait_for(works, "the engine to work")
        self.proj._updateProtocol(protocol)
        return psutil.Process(read_status(path).pid)

    def problems(self, **values):
        return " ".join(self.protocol(**values).validate())

    # ------------------------------------------------------------ while it runs

    def test_sentence_of_the_engine_is_the_error_of_the_protocol(self):
        for behaviour in ("fail", "fail-silently"):
            protocol = self.protocol()
            error = self.run_to_the_end(protocol, behaviour)
            self.assertTrue(protocol.isFailed())
            self.assertIn(stand_in_engine.SENTENCE, error)
            self.assertIn(stand_in_engine.SENTENCE, " ".join(protocol.summary()))
        # and it goes on where it stopped
        self.assertFalse(self.go_on(protocol))
        self.assertTrue(protocol.isFinished())
        self.assertIn("resumed: True", " ".join(protocol.summary()))

    def test_engine_that_cannot_be_started(self):
        self.assertIn("scipion installb", self.run_to_the_end(self.protocol(), "vanish"))

    def test_progress_shows_while_it_runs_and_stop_stops_the_engine(self):
        protocol = self.protocol()
        engine = self.launch_and_wait_for_engine(protocol)
        self.assertIn("Stage 12 of 40: half-sets", " ".join(protocol.summary()))
        self.proj.stopProtocol(protocol)
        wait_for(lambda: not engine.is_running(), "the engine to stop")
        self.assertTrue(protocol.isAborted())

    def test_killed_engine_gives_a_sentence_and_continue_resumes(self):
        protocol = self.protocol()
        engine = self.launch_and_wait_for_engine(protocol)
        os.kill(engine.pid, signal.SIGKILL)
        self.wait_for_end(protocol)
        self.assertTrue(protocol.isFailed())
        self.assertIn("stopped in stage 'half-sets', step 12 of 40", protocol.getErrorMessage())
        self.assertIn("Continue", protocol.getErrorMessage())
        self.assertFalse(self.go_on(protocol))
        self.assertIn("resumed: True", " ".join(protocol.summary()))

    def test_other_mask_under_the_same_name_starts_afresh(self):
        self.record.write_text("")
        protocol = self.with_mask(16, PIXEL_SIZE)
        self.assertFalse(self.run_to_the_end(protocol))
        with mrcfile.open(protocol.inputMask.get().getFileName(), mode="r+") as file:
            file.data[0] = 0
        self.assertFalse(self.go_on(protocol))
        self.assertIn("resumed: False", " ".join(protocol.summary()))
        self.assertEqual([call["arguments"][0] for call in self.calls()].count("fit"), 2)

    def test_continue_does_again_what_a_change_affects(self):
        """One run, which goes on after one change after the other; at the end there is no motion to be found."""
        protocol = self.protocol(rankChoice=AUTOMATIC_RANK)
        self.assertFalse(self.run_to_the_end(protocol, SOLVAR_STAND_IN_RANK="3"))
        self.assertEqual(len(protocol.outputParticles.getFirstItem().getZFlex()), 3)
        self.assertIn("chosen automatically: 3 of 10 tried", " ".join(protocol.summary()))
        self.assertIn("with 3 components, chosen automatically among 10", " ".join(protocol.methods()))
        with self.subTest("another number of components"):
            protocol.rankChoice.set(FIXED_RANK)
            self.assertFalse(self.go_on(protocol))
            self.assertIn("resumed: False, rank 2", " ".join(protocol.summary()))
            self.assertEqual(len(protocol.outputParticles.getFirstItem().getZFlex()), 2)
            self.assertSetSize(protocol.outputEigenvolumes, 2)
            self.assertSetSize(protocol.outputStates, 2 * 2 + 3)
        with self.subTest("more clusters do not repeat the fit"):
            self.record.unlink()
            protocol.numberOfClusters.set(5)
            self.assertFalse(self.go_on(protocol))
            self.assertEqual([call["arguments"][0] for call in self.calls()], ["analyze", "reconstruct"])
            self.assertSetSize(protocol.outputStates, 2 * 2 + 5)
        with self.subTest("other optics, and no variability"):
            protocol.opticsStar.set(str(self.folder / "data" / "particles.star"))
            protocol.rankChoice.set(AUTOMATIC_RANK)
            self.record.unlink()
            self.assertFalse(self.go_on(protocol, SOLVAR_STAND_IN_RANK="0"))
            self.assertIn("resumed: False", " ".join(protocol.summary()))
            # the report says why, but there are no states to be made
            self.assertEqual([call["arguments"][0] for call in self.calls()], ["fit", "analyze"])
            self.look_at_run_without_components(self.proj.getProtocol(protocol.getObjId(), fromRuns=False))

    def look_at_run_without_components(self, protocol):
        names = sorted(name for name, _ in protocol.iterOutputAttributes())
        self.assertEqual(names, ["outputMean", "outputParticles"])
        self.assertIs(type(protocol.outputParticles), SetOfParticles)
        self.assertEqual(len(protocol.outputMean.getHalfMaps().split(",")), 2)
        for before, after in zip(self.imported.outputParticles, protocol.outputParticles):
            self.assertEqual(before.getObjId(), after.getObjId())
            self.assertEqual(after._solvarContrast.get(), 1.0)
        self.assertFalse(protocol.getPointsPath().exists() or protocol.getStatesFolder().exists())
        self.assertIn("No reproducible variability was found", " ".join(protocol.summary()))
        self.assertIn("with 10 components", " ".join(protocol.methods()))
        self.assertIn("None of the components was confirmed", " ".join(protocol.methods()))

    def calls(self):
        return [json.loads(line) for line in self.record.read_text().splitlines()]

    # ------------------------------------------------------------ a run without trouble

    @classmethod
    def finished(cls):
        """Return a finished run with some outliers, and the calls of the engine; made when first asked for."""
        if cls._finished is None:
            test = cls()
            cls.record.write_text("")
            protocol = test.protocol()
            test.assertFalse(test.run_to_the_end(protocol, SOLVAR_STAND_IN_OUTLIERS=str(OUTLIERS)))
            cls._finished = protocol, test.calls()
        return cls._finished

    def test_engine_gets_relative_paths_and_no_gpu(self):
        protocol, (call, *_) = self.finished()
        self.assertEqual(os.path.realpath(call["folder"]), os.path.realpath(self.folder))
        self.assertEqual(call["arguments"][:2], ["fit", str(protocol.getStarPath())])
        self.assertIn("--resume", call["arguments"])
        self.assertEqual(call["arguments"][call["arguments"].index("--root") + 1], ".")
        self.assertIsNone(call["gpus"])

    def test_engine_gets_the_gpus_of_the_form(self):
        protocol = self.protocol(useGpu=True, gpuList="1 2")
        self.assertFalse(self.run_to_the_end(protocol, SOLVAR_STAND_IN_OUTLIERS=str(OUTLIERS)))
        fit, analyze = (
            [call for call in self.calls() if call["arguments"][0] == command][-1] for command in ("fit", "analyze")
        )
        self.assertEqual(fit["gpus"], "1,2")
        self.assertEqual(fit["arguments"][fit["arguments"].index("--gpus") + 1], "all")
        self.assertNotIn("--device", fit["arguments"])
        self.assertIsNone(analyze["gpus"])

    def test_copies_keep_what_the_import_brought(self):
        protocol, _ = self.finished()
        for before, after in zip(self.imported.outputParticles, protocol.outputParticles):
            for name in ("_rlnRandomSubset", "_rlnPhaseShift"):
                self.assertEqual(before.getAttributeValue(name), after.getAttributeValue(name))
            self.assertIsNotNone(after.getAttributeValue("_rlnRandomSubset"))
            self.assertEqual(before.getCTF().getPhaseShift(), after.getCTF().getPhaseShift())
            self.assertEqual(before.getCoordinate().getMicName(), after.getCoordinate().getMicName())

    def test_outliers_are_flagged_and_a_set_of_their_own(self):
        protocol, _ = self.finished()
        flagged = [particle.getObjId() for particle in protocol.outputParticles if particle._solvarOutlier.get()]
        self.assertEqual(flagged, list(range(1, OUTLIERS + 1)))
        self.assertEqual([particle.getObjId() for particle in protocol.outputOutliers], flagged)
        particle = protocol.outputOutliers.getFirstItem()
        self.assertLess(particle._solvarLogLikelihood.get(), -40)
        self.assertTrue(particle.hasCTF() and particle.hasTransform())
        self.assertTrue(protocol.outputOutliers.hasCTF() and protocol.outputOutliers.hasAlignmentProj())
        self.assertIn(f"Outliers: 7 of {PARTICLES} particles (5.8%)", " ".join(protocol.summary()))

    def test_particles_analysed_again_say_nothing_of_the_first_time(self):
        again = self.protocol()
        again.inputParticles.set(self.finished()[0])
        again.inputParticles.setExtended("outputParticles")
        self.assertFalse(self.run_to_the_end(again))
        particle = again.outputParticles.getFirstItem()
        self.assertFalse(particle.hasAttribute("_solvarOutlier") or particle.hasAttribute("_solvarLogLikelihood"))
        self.assertFalse(hasattr(again, "outputOutliers"))

    # ------------------------------------------------------------ symmetry

    def test_symmetric_molecule_has_an_item_for_each_equal_orientation(self):
        protocol = self.protocol(symmetry=" C3")
        self.record.write_text("")
        self.assertFalse(self.run_to_the_end(protocol, SOLVAR_STAND_IN_OUTLIERS=str(OUTLIERS)))
        arguments = self.calls()[0]["arguments"]
        self.assertEqual(arguments[arguments.index("--symmetry") + 1], "C3")
        self.assertIn("one asymmetric unit of C3", " ".join(protocol.methods()))
        before = {item.getObjId(): item.getTransform().getMatrix().copy() for item in self.imported.outputParticles}
        after = {item.getObjId(): item.clone() for item in protocol.outputParticles}
        self.assertEqual((len(after), protocol.outputParticles.getSize()), (3 * PARTICLES, 3 * PARTICLES))
        latents = read_latents(protocol.getRunDir().latents).z
        for identity, item in after.items():
            particle = item._solvarParticleId.get()
            copy = 0 if identity == particle else 1 + (identity - PARTICLES - 1) % 2
            self.assertEqual(particle, identity if copy == 0 else 1 + (identity - PARTICLES - 1) // 2)
            np.testing.assert_allclose(item.getZFlex(), latents[3 * (particle - 1) + copy], rtol=1e-6)
            angle = np.radians(120 * copy)
            turn = np.eye(4)
            turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            np.testing.assert_allclose(item.getTransform().getMatrix(), turn @ before[particle], atol=2e-5)
        outliers = {item.getObjId(): item._solvarParticleId.get() for item in protocol.outputOutliers}
        self.assertEqual(list(outliers.values()).count(1), 3)  # the first seven rows
        self.assertEqual(set(outliers), {identity for identity, item in after.items() if item._solvarOutlier.get()})
        self.look_at_states_and_selection_of(protocol, after)

    def look_at_states_and_selection_of(self, protocol, items):
        """States from the particles, also at full size, and a selection among them, have these items."""
        chosen = self.newProtocol(SolvarProtSelectParticles, way=BY_FLAG, flag=GOOD)
        volumes, full = (
            self.newProtocol(SolvarProtReconstruct, numberOfStates=2, numberOfThreads=1) for _ in range(2)
        )
        full.fullParticles.set(self.imported)
        full.fullParticles.setExtended("outputParticles")
        for one in (chosen, volumes, full):
            one.inputParticles.set(protocol)
            one.inputParticles.setExtended("outputParticles")
            self.assertEqual(one.validate(), [])
            self.assertFalse(self.run_to_the_end(one))
        self.assertSetSize(chosen.outputParticles, 3 * PARTICLES - OUTLIERS)
        self.assertEqual(len(StarFile.read(full.getFullStarPath()).particles), PARTICLES)
        for one in (volumes, full):
            found = {item.getObjId(): item.clone() for state in one.outputClasses for item in state}
            self.assertEqual(set(found), set(items))
            for identity, item in found.items():
                self.assertEqual(item.getLocation()[0], items[identity].getLocation()[0])
                np.testing.assert_allclose(
                    item.getTransform().getMatrix(), items[identity].getTransform().getMatrix(), atol=1e-6
                )

    def test_what_is_no_symmetry(self):
        for name in ("", "X7", "C3x"):
            self.assertIn(f"'Symmetry' is {name!r}", self.problems(symmetry=name))

    # ------------------------------------------------------------ the form

    def test_options_in_sentences_get_the_words_of_the_form(self):
        words = in_form_words("No density stands out: pass --mask, lower --rank or --rank-like things.")
        self.assertEqual(
            words, "No density stands out: pass 'Mask (optional)', lower 'Number of components' or --rank-like things."
        )

    def test_queue_is_not_asked_for_a_gpu_that_is_not_used(self):
        self.assertEqual(self.protocol().getGpuList(), [])
        self.assertEqual(self.protocol(useGpu=True, gpuList="1 2").getGpuList(), [1, 2])

    def test_missing_input_is_said_once(self):
        protocol = self.newProtocol(SolvarProtCovariance)
        (problem,) = protocol.validate()
        self.assertIn("Input particles", problem)
        self.assertEqual(protocol.warnings(), [])

    def test_good_input_is_accepted(self):
        self.assertEqual(self.problems(), "")

    def test_numbers_out_of_range(self):
        cases = {
            "'Number of components' is 0": {"rank": 0},
            "at most 6": {"rank": 7},
            "'Working box (px)' is 8 but must be": {"boxSize": 8},
            "the images have 16 px": {"boxSize": 32},
            "'Number of clusters' is 0": {"numberOfClusters": 0},
            "but there are 120 particles": {"numberOfClusters": 500},
            "'Threads' is 0": {"numberOfThreads": 0},
            "'Oversampling' is 9": {"oversampling": 9},
            "'Random seed' is -1": {"seed": -1},
            "scratch folder /nowhere does not exist": {"scratchFolder": "/nowhere"},
            "STAR file for the optics, /nowhere.star, does not exist": {"opticsStar": "/nowhere.star"},
        }
        for sentence, values in cases.items():
            self.assertIn(sentence, self.problems(**values))

    def test_what_the_form_hides_does_not_count(self):
        without = FIT["projector"].choices.index("nufft")
        self.assertEqual(self.problems(oversampling=3, projector=without), "")
        self.assertEqual(fit_params(self.protocol(oversampling=3, projector=without)).oversampling, 2)
        self.assertEqual(fit_params(self.protocol(rankChoice=AUTOMATIC_RANK, rank=-1)).rank, "auto")

    def test_sentence_of_bad_images_can_be_followed(self):
        words = in_form_words("9 of 300 images cannot be used: leave them out with --skip-bad-images.")
        self.assertIn("leave them out with 'Leave out bad images'", words)
        self.assertFalse(fit_params(self.protocol()).skip_bad_images)
        self.assertTrue(fit_params(self.protocol(skipBadImages=True)).skip_bad_images)

    def test_wizards_know_boxes_and_the_imported_file(self):
        self.assertEqual([box.size for box in boxes_for(100, 2.0)], [32, 48, 64, 96, 100])
        self.assertEqual([round(box.finest_detail, 2) for box in boxes_for(64, 3.0)], [12.0, 8.0, 6.0])
        star = str(self.folder / "data" / "particles.star")
        self.assertEqual(imported_star(self.protocol()), star)
        # also where the particles have come a longer way
        again = self.newProtocol(SolvarProtCovariance)
        again.inputParticles.set(self.protocol())
        self.assertEqual(imported_star(again), star)
        self.assertIsNone(imported_star(self.newProtocol(SolvarProtCovariance)))
        targets = Config.getDomain().findWizards(again, DESKTOP_TKINTER)
        self.assertEqual(
            {name: targets[name].__name__ for name in ("boxSize", "opticsStar")},
            {"boxSize": "SolvarBoxWizard", "opticsStar": "SolvarOpticsWizard"},
        )

    def test_lost_optics_groups_are_a_warning(self):
        self.assertIn("2 optics groups", " ".join(self.protocol().warnings()))
        star = str(self.folder / "data" / "particles.star")
        self.assertEqual(self.protocol(opticsStar=star).warnings(), [])

    def mask(self, box, sampling):
        if (box, sampling) in self.masks:
            return self.masks[box, sampling]
        path = self.folder / f"mask_{box}_{sampling:g}.mrc"
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(np.ones((box,) * 3, dtype=np.float32))
            file.voxel_size = sampling
        protocol = self.newProtocol(ProtImportMask, maskPath=str(path), samplingRate=sampling)
        self.launchProtocol(protocol)
        self.masks[box, sampling] = protocol
        return protocol

    def with_mask(self, box, sampling, name="inputMask"):
        protocol = self.protocol()
        pointer = getattr(protocol, name)
        pointer.set(self.mask(box, sampling))
        pointer.setExtended("outputMask")
        return protocol

    def test_mask(self):
        self.assertIsInstance(self.with_mask(16, PIXEL_SIZE).inputMask.get(), VolumeMask)
        self.assertEqual(self.with_mask(16, PIXEL_SIZE).validate(), [])
        self.assertEqual(self.with_mask(8, 2 * PIXEL_SIZE).validate(), [])
        (problem,) = self.with_mask(16, 3 * PIXEL_SIZE).validate()
        self.assertIn("pixel size", problem)

    def test_focus_mask_that_does_not_fit(self):
        self.assertEqual(self.with_mask(16, PIXEL_SIZE, "inputFocusMask").validate(), [])
        (problem,) = self.with_mask(16, 3 * PIXEL_SIZE, "inputFocusMask").validate()
        self.assertTrue(problem.startswith("The focus mask "), problem)
        self.assertIn("pixel size", problem)

    def test_focus_mask_reaches_the_engine(self):
        protocol = self.with_mask(16, PIXEL_SIZE, "inputFocusMask")
        if self.record.exists():
            self.record.unlink()
        self.assertFalse(self.run_to_the_end(protocol))
        arguments = self.calls()[0]["arguments"]
        path = protocol.inputFocusMask.get().getFileName()
        self.assertEqual(arguments[arguments.index("--focus-mask") + 1], path)
        self.assertNotIn("--mask", arguments)
        self.assertIn(f"variability confined to the focus mask {path}", " ".join(protocol.methods()))
        sources = self.proj.getSourceParents(protocol.outputEigenvolumes)
        self.assertIn(protocol.inputFocusMask.getObjValue().getObjId(), [source.getObjId() for source in sources])
        # without it, the run starts afresh
        protocol.inputFocusMask.set(None)
        self.assertFalse(self.go_on(protocol))
        self.assertIn("resumed: False", " ".join(protocol.summary()))
        self.assertNotIn("focus mask", " ".join(protocol.methods()))

    def test_other_version_of_the_engine(self):
        with variables(SOLVAR_STAND_IN_VERSION="9.9.9"):
            self.assertIn("has version 9.9.9", self.problems())

    def test_missing_engine(self):
        with plugin_variables(SOLVAR_ENV_ACTIVATION="export PATH=/usr/bin:/bin"):
            self.assertIn("scipion installb solvar", self.problems())
        with plugin_variables(SOLVAR_ENV_ACTIVATION="", SOLVAR_HOME="/nowhere"):
            self.assertIn("/nowhere/env/bin/solvar-engine does not exist", self.problems())

    def test_missing_stacks(self):
        stack = Path(next(iter(self.imported.outputParticles.getFiles())))
        moved = stack.with_suffix(".moved")
        stack.rename(moved)
        try:
            self.assertIn(f"{stack} does not exist", self.problems())
        finally:
            moved.rename(stack)
