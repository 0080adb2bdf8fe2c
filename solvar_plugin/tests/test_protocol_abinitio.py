"""The ab-initio model: with the real engine from particles without orientations, with a stand-in for all outcomes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import mrcfile
import numpy as np
from pyworkflow.template import LocalTemplate
from pyworkflow.tests import BaseTest, setupTestProject

import solvar_plugin
from solvar_engine.contract.results import POSE_CHANGE_COLUMNS
from solvar_engine.contract.star import StarFile, StarTable, relion_to_rotation
from solvar_plugin.protocols import SolvarProtAbinitio
from solvar_plugin.protocols.covariance_form import FIXED_RANK
from solvar_plugin.tests.data_sets import PIXEL_SIZE as STAND_IN_PIXEL_SIZE
from solvar_plugin.tests.data_sets import import_particles, run_engine, simulate, two_optics_groups
from solvar_plugin.tests.stand_in_project import StandInProject
from solvar_plugin.viewers import SolvarAbinitioViewer
from solvar_plugin.wizards import USUAL_SPREADS, shift_spreads

PARTICLES, BOX, PIXEL_SIZE = 300, 32, 6.0
ANGLES, ORIGINS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), ("rlnOriginXAngst", "rlnOriginYAngst")
TEMPLATE = Path(solvar_plugin.__file__).parent / "templates" / "particles_without_poses.json.template"


def without_poses(star: Path) -> Path:
    """Write the particles of a STAR file beside it, without orientations and shifts."""
    file = StarFile.read(star)
    table = file.particles
    kept = {name: table.text(name) for name in table.columns if name not in (*ANGLES, *ORIGINS)}
    path = star.with_name("without_poses.star")
    file.replace(table, StarTable.create("particles", kept)).write(path)
    return path


def transforms_of(run) -> np.ndarray:
    """Scipion's transforms (n, 4, 4) of the poses in particles.star, in px."""
    numbers = StarFile.read(run.particles).particles.numbers(*ANGLES, *ORIGINS)
    rotation = relion_to_rotation(*(numbers[name] for name in ANGLES))
    origin = np.stack([numbers[name] for name in ORIGINS] + [0 * numbers[ORIGINS[0]]], axis=1)
    matrices = np.tile(np.eye(4), (len(origin), 1, 1))
    matrices[:, :3, :3] = rotation
    matrices[:, :3, 3] = np.einsum("nij,nj->ni", rotation, origin)
    return matrices


class TestParticlesWithoutPoses(BaseTest):
    """The workflow, from its template: import, ab-initio model, pose and contrast refinement."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        data = simulate(
            Path(os.getcwd()) / "data", phantom="hinge", particles=PARTICLES, box=BOX, pixel_size=PIXEL_SIZE, snr=2.0
        )
        cls.truth = data / "truth"
        template = LocalTemplate("solvar", str(TEMPLATE))
        template.content = template.content.split("~")
        template.parseContent()
        template.setParamValue("star", str(without_poses(data / "particles.star")))
        template.setParamValue("pixel", str(PIXEL_SIZE))
        loaded = cls.proj.loadProtocols(template.createTemplateFile())
        cls.imported, cls.model, cls.refined = loaded.values()
        cls.model.numberOfThreads.set(2)
        cls.model.maxResolution.set(16.0)
        cls.launchProtocol(cls.imported)
        cls.launchProtocol(cls.model)

    def test_structure_is_found_without_orientations(self):
        self.assertFalse(self.imported.outputParticles.hasAlignmentProj())
        output, run = self.model.outputParticles, self.model.getRunDir()
        self.assertSetSize(output, PARTICLES)
        self.assertTrue(output.hasCTF() and output.hasAlignmentProj())
        scores = Path(os.getcwd()) / "scores.json"
        run_engine("evaluate", run.path, self.truth, "--json", scores)
        found = json.loads(scores.read_text())
        self.assertLess(found["poses_beyond_20_deg"], 0.1)
        expected = transforms_of(run)
        for row, (before, after) in enumerate(zip(self.imported.outputParticles, output)):
            self.assertEqual(before.getObjId(), after.getObjId())
            self.assertEqual(before.getCTF().getDefocusU(), after.getCTF().getDefocusU())
            matrix = expected[row].copy()
            matrix[:3, 3] /= PIXEL_SIZE
            np.testing.assert_allclose(after.getTransform().getMatrix(), matrix, atol=1e-4)
            self.assertGreater(after._solvarRotationStd.get(), 0)

    def test_mean_with_half_maps(self):
        mean = self.model.outputMean
        self.assertEqual((mean.getDim(), mean.getSamplingRate()), ((BOX,) * 3, PIXEL_SIZE))
        first, second = (mrcfile.read(name) for name in mean.getHalfMaps().split(","))
        self.assertGreater(np.corrcoef(first.ravel(), second.ravel())[0, 1], 0.8)
        self.assertFalse(hasattr(self.model, "outputClasses"))

    def test_refinement_goes_on_from_the_model(self):
        self.assertEqual(self.refined.inputParticles.get().getObjId(), self.model.outputParticles.getObjId())
        self.refined.rankChoice.set(FIXED_RANK)
        self.refined.rank.set(1)
        self.refined.numberOfThreads.set(2)
        self.launchProtocol(self.refined)
        self.assertSetSize(self.refined.outputParticles, PARTICLES)


class TestAbinitioOutcomes(StandInProject, BaseTest):
    """All ends of a search, with particles of two optics groups that have orientations."""

    COUNT = 240

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.folder = Path(os.getcwd())
        cls._install_stand_in()
        star = two_optics_groups(cls.folder / "data", count=cls.COUNT)
        cls.imported = import_particles(cls, star, STAND_IN_PIXEL_SIZE)

    def protocol(self, **values):
        protocol = self.newProtocol(SolvarProtAbinitio, numberOfThreads=1, **values)
        protocol.inputParticles.set(self.imported)
        protocol.inputParticles.setExtended("outputParticles")
        return protocol

    def test_orientations_of_the_input_are_ignored_and_that_is_said(self):
        protocol = self.protocol()
        self.assertEqual(protocol._validate(), [])
        self.assertIn("which are ignored", " ".join(protocol._warnings()))
        self.assertFalse(self.run_to_the_end(protocol))
        given = StarFile.read(protocol.getStarPath()).particles
        self.assertFalse([name for name in (*ANGLES, *ORIGINS) if name in given])
        expected = transforms_of(protocol.getRunDir())
        for row, particle in enumerate(protocol.outputParticles):
            matrix = expected[row].copy()
            matrix[:3, 3] /= STAND_IN_PIXEL_SIZE
            np.testing.assert_allclose(particle.getTransform().getMatrix(), matrix, atol=1e-4)
        item = protocol.outputParticles.getFirstItem()
        known = [name for name in POSE_CHANGE_COLUMNS if item.hasAttribute(f"_{name}")]
        self.assertEqual(known, ["solvarRotationStd", "solvarShiftStd"])
        self.assertSetSize(protocol.outputOutliers, 3)
        self.assertIn("all is found", protocol.summary()[0])
        viewer = SolvarAbinitioViewer(project=self.proj, protocol=protocol)
        viewer.setProtocol(protocol)
        entries = viewer._getVisualizeDict()
        for name in ("displayDirections", "displayParticles", "displayFsc", "displaySearch"):
            (view,) = entries[name]()
            self.assertTrue(hasattr(view, "show"), name)

    def test_several_structures_are_classes_with_volumes(self):
        protocol = self.protocol(numberOfStructures=2)
        self.assertFalse(self.run_to_the_end(protocol))
        self.assertFalse(hasattr(protocol, "outputMean"))
        self.assertSetSize(protocol.outputVolumes, 2)
        run = protocol.getRunDir()
        sizes = {}
        for one in protocol.outputClasses:
            representative = one.getRepresentative()
            self.assertEqual(representative.getFileName(), str(run.class_volume(one.getObjId())))
            self.assertEqual(len(representative.getHalfMaps().split(",")), 2)
            sizes[one.getObjId()] = one.getSize()
            self.assertTrue(one.hasAlignmentProj())
        # every second particle, without the three outliers
        self.assertEqual(sizes, {1: self.COUNT // 2 - 2, 2: self.COUNT // 2 - 1})

    def test_without_structure_there_is_a_warning_and_no_output(self):
        protocol = self.protocol(
            symmetry=" D2", shiftStd=4.5, maxResolution=15.0, boxSize=16, flipHand=True, seed=3, skipBadImages=True,
            method=1,
        )  # fmt: skip
        self.record.write_text("")
        self.assertFalse(self.run_to_the_end(protocol, SOLVAR_STAND_IN_STRUCTURE="none"))
        self.assertTrue(protocol.isFinished())
        self.assertEqual(list(protocol.iterOutputAttributes()), [])
        self.assertIn("WARNING: no structure was found", protocol.summary()[0])
        self.assertEqual(protocol._methods(), [])
        call = " ".join(json.loads(self.record.read_text().splitlines()[0])["arguments"])
        expected = "method sgd", "symmetry D2", "shift-std 4.5", "max-resolution 15.0", "box 16", "flip-hand", "seed 3"
        for words in expected:
            self.assertIn(f"--{words}", call)

    def test_what_is_wrong_is_said_in_words_of_the_form(self):
        for values, text in (
            ({"symmetry": "X7"}, "'Symmetry' is 'X7'"),
            ({"numberOfStructures": 3}, "at least 300 are needed"),
            ({"numberOfStructures": 2, "symmetry": "C3"}, "'Number of structures' 2 needs 'Symmetry' C1"),
            ({"numberOfStructures": 2, "method": 1}, "'Number of structures' 2 needs 'Method' em"),
            ({"maxResolution": 4.0}, "nothing finer than 5 Å"),
            ({"boxSize": 18}, "'Working box (px)' is 18"),
        ):
            self.assertRegex(" ".join(self.protocol(**values)._validate()), re.escape(text))

    def test_wizard_knows_usual_shifts_and_those_of_the_particles(self):
        particles = self.imported.outputParticles
        known, *usual = shift_spreads(particles)
        self.assertEqual(len(usual), len(USUAL_SPREADS))
        self.assertAlmostEqual(usual[0].angstrom, round(0.015 * 16 * STAND_IN_PIXEL_SIZE, 1))
        # the shifts of the data set were drawn with 3 Angstrom along each axis
        self.assertAlmostEqual(known.angstrom, 3.0, delta=0.5)
