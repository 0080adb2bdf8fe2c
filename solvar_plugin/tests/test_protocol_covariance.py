"""The protocols with the real engine, on a molecule whose motion is known."""

from __future__ import annotations

import os
from pathlib import Path

import mrcfile
import numpy as np
from pwem.protocols import ProtSubSet
from pyworkflow.project import Manager
from pyworkflow.protocol.constants import MODE_RESUME
from pyworkflow.tests import BaseTest, setupTestProject

from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.star import StarFile
from solvar_plugin import __version__
from solvar_plugin.protocols import (
    SolvarProtCovariance,
    SolvarProtReconstruct,
    SolvarProtSelectParticles,
)
from solvar_plugin.protocols.covariance_form import AUTOMATIC_RANK, FIXED_RANK
from solvar_plugin.protocols.select_form import BY_DISTANCE
from solvar_plugin.tests.data_sets import import_particles, simulate

PARTICLES, BOX, PIXEL_SIZE = 1500, 32, 6.0
RANK, CLUSTERS = 2, 4


def explained(z, angle):
    """Share of the variance of the hinge angle that a quadratic function of z tells."""
    terms = np.column_stack([np.ones(len(z)), z, z**2])
    fitted = terms @ np.linalg.lstsq(terms, angle, rcond=None)[0]
    return 1 - np.var(angle - fitted) / np.var(angle)


def precision_matrix(item):
    """The matrix whose upper triangle, row by row, an item has."""
    values = [float(value) for value in item._solvarPrecision]
    rank = int((np.sqrt(8 * len(values) + 1) - 1) / 2)
    matrix = np.zeros((rank, rank))
    matrix[np.triu_indices(rank)] = values
    return matrix + np.triu(matrix, 1).T


class TestCovarianceAnalysis(BaseTest):
    """A hinge, 1,500 particles, box 32."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.data = simulate(
            Path(os.getcwd()) / "data", phantom="hinge", particles=PARTICLES, box=BOX, pixel_size=PIXEL_SIZE, snr=0.3
        )
        cls.imported = import_particles(cls, cls.data / "particles.star", PIXEL_SIZE)
        cls.angle = read_csv(cls.data / "truth" / "states.csv")["coordinate_1"]
        cls.done = cls.launched(cls.imported, "outputParticles", rankChoice=AUTOMATIC_RANK)

    @classmethod
    def launched(cls, source, output, **values):
        protocol = cls.newProtocol(
            SolvarProtCovariance,
            **{"rankChoice": FIXED_RANK, "rank": RANK, "numberOfClusters": CLUSTERS, "numberOfThreads": 2, **values},
        )
        protocol.inputParticles.set(source)
        protocol.inputParticles.setExtended(output)
        cls.launchProtocol(protocol)
        return protocol

    def test_particles_know_where_they_are(self):
        output = self.done.outputParticles
        self.assertSetSize(output, PARTICLES)
        self.assertTrue(output.hasCTF() and output.hasAlignmentProj())
        z = np.array([particle.getZFlex() for particle in output])
        self.assertEqual(z.shape, (PARTICLES, RANK))
        self.assertGreater(explained(z, self.angle), 0.8)
        self.assertEqual(output.getFlexInfo().getProgName(), "SOLVAR")
        self.assertEqual(output.getFlexInfo().getAttr("_solvarVersion"), __version__)

    def test_numbers_are_those_of_the_engine(self):
        latents = read_latents(self.done.getRunDir().latents)
        for row, particle in enumerate(self.done.outputParticles):
            np.testing.assert_allclose(particle.getZFlex(), latents.z[row], rtol=1e-6)
            if row % 100 == 0:
                np.testing.assert_allclose(precision_matrix(particle), latents.precision[row], rtol=1e-6)
                self.assertAlmostEqual(particle._solvarContrast.get(), float(latents.contrast[row]), places=6)
        columns = StarFile.read(self.done.getRunDir().particles).particles.numbers(
            "solvarLogLikelihood", "solvarOutlier"
        )
        for name, values in columns.items():
            found = [particle.getAttributeValue(f"_{name}") for particle in self.done.outputParticles]
            np.testing.assert_allclose(found, values, rtol=1e-6)

    def test_inputs_are_kept_with_their_ids(self):
        for before, after in zip(self.imported.outputParticles, self.done.outputParticles):
            self.assertEqual(before.getObjId(), after.getObjId())
            self.assertEqual(before.getLocation(), after.getLocation())
            np.testing.assert_array_equal(before.getTransform().getMatrix(), after.getTransform().getMatrix())
            self.assertEqual(before.getCTF().getDefocusU(), after.getCTF().getDefocusU())

    def test_mean(self):
        mean = self.done.outputMean
        self.assertEqual((mean.getDim(), mean.getSamplingRate()), ((BOX,) * 3, PIXEL_SIZE))
        halves = mean.getHalfMaps().split(",")
        self.assertEqual(len(halves), 2)
        volumes = [mrcfile.read(name) for name in (mean.getFileName(), *halves)]
        self.assertGreater(np.corrcoef(volumes[1].ravel(), volumes[2].ravel())[0, 1], 0.9)
        truth = mrcfile.read(self.data / "truth" / "mean.mrc")
        self.assertGreater(np.corrcoef(volumes[0].ravel(), truth.ravel())[0, 1], 0.9)

    def test_eigenvolumes(self):
        volumes = [volume.clone() for volume in self.done.outputEigenvolumes]
        table = read_csv(self.done.getRunDir().eigenvalues)
        self.assertEqual([volume._solvarEigenvalue.get() for volume in volumes], table["eigenvalue"].tolist())
        self.assertGreater(volumes[0]._solvarAgreement.get(), 0.8)
        for volume in volumes:
            self.assertAlmostEqual(float(np.linalg.norm(mrcfile.read(volume.getFileName()))), 1.0, places=4)

    def test_states_are_mean_and_components(self):
        states = {volume._solvarState.get(): volume.getFileName() for volume in self.done.outputStates}
        self.assertEqual(len(states), 2 * RANK + CLUSTERS)
        mean = mrcfile.read(self.done.outputMean.getFileName())
        first = self.done.outputEigenvolumes.getFirstItem()
        reach = 2 * np.sqrt(first._solvarEigenvalue.get())
        expected = mean + reach * mrcfile.read(first.getFileName())
        (end,) = (path for name, path in states.items() if name.startswith("component 1, +2 sd"))  # or extrapolated
        np.testing.assert_allclose(mrcfile.read(end), expected, atol=1e-5)
        self.assertIn(f"cluster {CLUSTERS}", states)

    def test_words(self):
        summary = " ".join(self.done.summary())
        self.assertIn(f"{PARTICLES} particles", summary)
        self.assertIn("Component 1: eigenvalue", summary)
        self.assertIn(f"Number of components chosen automatically: {RANK} of 10 tried", summary)
        self.assertIn("maximum likelihood", " ".join(self.done.methods()))
        self.assertIn("Yadgar", " ".join(self.done.citations()))

    def test_relations(self):
        for output in (self.done.outputParticles, self.done.outputMean, self.done.outputStates):
            sources = self.proj.getSourceParents(output)
            self.assertEqual([source.getObjId() for source in sources], [self.imported.getObjId()])

    def test_subset_keeps_ids_and_goes_through(self):
        subset = self.newProtocol(ProtSubSet, chooseAtRandom=True, nElements=400)
        subset.inputFullSet.set(self.imported)
        subset.inputFullSet.setExtended("outputParticles")
        self.launchProtocol(subset)
        done = self.launched(subset, "outputParticles", numberOfClusters=2)
        ids = [particle.getObjId() for particle in subset.outputParticles]
        self.assertGreater(max(ids), 400)
        self.assertEqual([particle.getObjId() for particle in done.outputParticles], ids)
        z = np.array([particle.getZFlex() for particle in done.outputParticles])
        self.assertGreater(explained(z, self.angle[np.array(ids) - 1]), 0.6)

    def test_volumes_of_states_and_the_particles_of_one(self):
        volumes = self.newProtocol(SolvarProtReconstruct, numberOfStates=2, numberOfThreads=2)
        nearest = self.newProtocol(SolvarProtSelectParticles, way=BY_DISTANCE, cluster=1, number=200)
        for protocol in (volumes, nearest):
            protocol.inputParticles.set(self.done)
            protocol.inputParticles.setExtended("outputParticles")
            self.launchProtocol(protocol)
        mean = mrcfile.read(self.done.outputMean.getFileName())
        for volume in volumes.outputVolumes:
            maps = [mrcfile.read(name) for name in (volume.getFileName(), *volume.getHalfMaps().split(","))]
            for one, least in zip(maps, (0.9, 0.7, 0.7)):
                self.assertGreater(np.corrcoef(one.ravel(), mean.ravel())[0, 1], least)
        self.assertSetSize(volumes.outputLocalResolution, 2)
        states = {item.getObjId(): one.getObjId() for one in volumes.outputClasses for item in one}
        outliers = getattr(self.done, "outputOutliers", None)
        self.assertEqual(len(states), PARTICLES - (outliers.getSize() if outliers else 0))
        # the two states are the two ends of the motion
        ends = [np.mean([self.angle[identity - 1] for identity, one in states.items() if one == state])
                for state in (1, 2)]  # fmt: skip
        self.assertGreater(abs(ends[0] - ends[1]), np.std(self.angle))
        chosen = [self.angle[particle.getObjId() - 1] for particle in nearest.outputParticles]
        self.assertEqual(len(chosen), 200)
        self.assertLess(np.std(chosen), 0.6 * np.std(self.angle))

    def test_star_of_the_run_holds_scipions_ids(self):
        star = StarFile.read(self.done.getRunDir().particles).particles
        self.assertEqual(star.integers("rlnImageId").tolist(), list(range(1, PARTICLES + 1)))


class TestAwkwardProject(BaseTest):
    """A project whose path has what shells and formats stumble over."""

    NAME = "it's 100% (really); a %s & project"

    def test_whole_analysis(self):
        setupTestProject(type(self))
        manager = Manager()
        if manager.hasProject(self.NAME):
            manager.deleteProject(self.NAME)
        type(self).proj = manager.createProject(self.NAME)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.proj.getPath())
        data = simulate(Path(os.getcwd()) / "my data", phantom="hinge", particles=150, box=16, pixel_size=12, snr=1)
        imported = import_particles(self, data / "particles.star", 12.0)
        protocol = self.newProtocol(
            SolvarProtCovariance, rankChoice=FIXED_RANK, rank=1, numberOfClusters=2, numberOfThreads=2
        )
        protocol.inputParticles.set(imported)
        protocol.inputParticles.setExtended("outputParticles")
        self.launchProtocol(protocol)
        self.assertSetSize(protocol.outputParticles, 150)
        self.assertSetSize(protocol.outputStates, 4)
        protocol.rank.set(2)
        protocol.runMode.set(MODE_RESUME)
        self.launchProtocol(protocol)
        self.assertEqual({len(particle.getZFlex()) for particle in protocol.outputParticles}, {2})
        self.assertSetSize(protocol.outputStates, 6)
