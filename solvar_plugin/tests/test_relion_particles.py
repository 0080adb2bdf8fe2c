"""Particles that Scipion imports from RELION reach the engine with the values they had, through the whole protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import unittest
from pathlib import Path

import mrcfile
import numpy as np
from pwem.protocols import ProtImportMask
from pyworkflow.tests import BaseTest, setupTestProject

from solvar_engine.contract.star import StarFile, relion_to_rotation
from solvar_plugin.convert.locations import split_image_name
from solvar_plugin.protocols import SolvarProtCovariance
from solvar_plugin.protocols.covariance_form import FIXED_RANK
from solvar_plugin.tests.data_sets import PIXEL_SIZE, VOLTAGES, import_particles, simulate, two_optics_groups

RANK = 2
PROGRAMS = ("mpirun", "relion_refine_mpi")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize")
# three processes, and local searches that stop early from poses that are nearly right: quick, and all metadata are real
_REFINE = (
    "mpirun --allow-run-as-root --oversubscribe -n 3 relion_refine_mpi --auto_refine --split_random_halves"
    " --i particles.star --o Refine3D/run --ref truth/mean.mrc --firstiter_cc --ini_high 25 --low_resol_join_halves 40"
    " --ctf --particle_diameter 170 --flatten_solvent --zero_mask --sym C1 --norm --scale --oversampling 1"
    " --healpix_order 4 --auto_local_healpix_order 4 --offset_range 2 --offset_step 1 --dont_combine_weights_via_disc"
    " --auto_iter_max 3 --pool 30 --j 1"
)
_REFINED = "Refine3D/run_it003_data.star"


def refine(folder: Path) -> Path:
    """Refine the simulated particles of a folder with RELION, and return the STAR file of the last iteration."""
    (folder / "Refine3D").mkdir()
    # processes of one machine in a container may not read each other's memory
    environment = {**os.environ, "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}
    done = subprocess.run(
        _REFINE.split(), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"relion_refine_mpi ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return folder / _REFINED


def analyse(test, imported, mask=None, **options):
    """Run the protocol on imported particles, and return it."""
    protocol = test.newProtocol(
        SolvarProtCovariance, rankChoice=FIXED_RANK, rank=RANK, numberOfClusters=2, numberOfThreads=2, **options
    )
    protocol.inputParticles.set(imported)
    protocol.inputParticles.setExtended("outputParticles")
    if mask is not None:
        protocol.inputMask.set(mask)
        protocol.inputMask.setExtended("outputMask")
    test.launchProtocol(protocol)
    return protocol


def import_ball(test, folder, box, pixel_size):
    """Import a soft ball as a mask into the project of a test, and return the protocol."""
    axis = np.arange(box) - box // 2
    radius = np.sqrt(sum(squares**2 for squares in np.meshgrid(axis, axis, axis)))
    path = folder / "ball.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.clip(box / 3 - radius, 0, 1).astype(np.float32))
        file.voxel_size = pixel_size
    protocol = test.newProtocol(ProtImportMask, maskPath=str(path), samplingRate=pixel_size)
    test.launchProtocol(protocol)
    return protocol


def images(star, folder):
    """Where every image of a STAR file really is: stack and index."""
    names = (split_image_name(name) for name in star.particles.text("rlnImageName"))
    return [(os.path.realpath(os.path.join(folder, stack)), index) for index, stack in names]


class Pairs:
    """The same particles in two STAR files, brought together by their images.

    Parameters
    ----------
    original, given : StarFile
    folder : Path
        Where the paths of `original` start; those of `given` start in the current folder.
    """

    def __init__(self, original, given, folder):
        row_of_image = {image: row for row, image in enumerate(images(original, folder))}
        order = [row_of_image[image] for image in images(given, os.curdir)]
        if sorted(order) != list(range(len(original.particles))):
            raise AssertionError("the two files do not hold the same images")
        self.size = len(order)
        self.tables = (original.particles, given.particles)
        self.optics = (original.optics, given.optics)
        self.rows = (np.array(order), np.arange(len(order)))

    def values(self, *columns):
        """Columns of both files, each of shape (n, number of columns), in one order."""
        for table, rows in zip(self.tables, self.rows):
            numbers = table.numbers(*columns)
            yield np.stack([numbers[column][rows] for column in columns], axis=1)

    def group_values(self, *columns):
        """Columns of the particles' optics groups in both files, each of shape (n, number of columns), in one order."""
        for table, optics, rows in zip(self.tables, self.optics, self.rows):
            numbers = optics.numbers(*columns)
            groups = optics.integers("rlnOpticsGroup").tolist()
            own = [groups.index(group) for group in table.integers("rlnOpticsGroup")[rows]]
            yield np.stack([numbers[column][own] for column in columns], axis=1)

    def largest_difference(self, *columns):
        """The largest difference of any of the columns."""
        first, second = self.values(*columns)
        return np.abs(first - second).max()

    def largest_rotation_difference(self):
        """The largest difference of an entry of the rotation matrices."""
        first, second = (relion_to_rotation(*angles.T) for angles in self.values(*ANGLES))
        return np.abs(first - second).max()

    def largest_defocus_difference(self):
        """The largest difference of defocus in any direction, Angstrom, whichever of U and V is the larger."""
        directions = np.deg2rad([[0.0], [45.0], [90.0]])
        first, second = (
            (u + v) / 2 + (u - v) / 2 * np.cos(2 * (directions - np.deg2rad(angle)))
            for u, v, angle in (values.T for values in self.values("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"))
        )
        return np.abs(first - second).max()


@unittest.skipUnless(all(map(shutil.which, PROGRAMS)), "RELION with MPI (relion_refine_mpi, mpirun) is not installed")
class TestRefinedParticles(BaseTest):
    """The particles of a real 3-D refinement by RELION."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.folder = simulate(
            Path(os.getcwd()) / "refinement", phantom="hinge", particles=240, box=32, pixel_size=6, snr=2,
            rotation_error=3, shift_error=0.5,
        )  # fmt: skip
        star = refine(cls.folder)
        cls.imported = import_particles(cls, star, 6.0, "from a refinement")
        cls.protocol = analyse(cls, cls.imported)
        cls.pairs = Pairs(StarFile.read(star), StarFile.read(cls.protocol.getStarPath()), cls.folder)

    def test_every_particle_is_there(self):
        self.assertEqual(self.pairs.size, 240)

    def test_refinement_changed_the_poses(self):
        # else the comparisons below would say nothing about what RELION writes
        simulated, refined = (StarFile.read(self.folder / name).particles for name in ("particles.star", _REFINED))
        before, after = (
            dict(zip(table.text("rlnImageName"), table.numbers("rlnOriginXAngst")["rlnOriginXAngst"]))
            for table in (simulated, refined)
        )
        self.assertGreater(max(abs(after[name] - before[name]) for name in after), 1.0)

    def test_orientations(self):
        self.assertLess(self.pairs.largest_rotation_difference(), 1e-6)

    def test_origins(self):
        self.assertLess(self.pairs.largest_difference(*ORIGINS), 1e-4)

    def test_ctf(self):
        self.assertLess(self.pairs.largest_defocus_difference(), 1e-2)
        original, given = self.pairs.group_values(*OPTICS)
        np.testing.assert_array_equal(given, original)

    def test_half_sets_are_relions(self):
        subset, given = self.pairs.values("rlnRandomSubset")
        np.testing.assert_array_equal(given, subset)
        sizes = f"{(subset == 1).sum()} and {(subset == 2).sum()} particles"
        self.assertIn(f"Half-sets as in rlnRandomSubset: {sizes}", self.protocol.getRunDir().log.read_text())
        self.assertGreater(min((subset == 1).sum(), (subset == 2).sum()), 60)

    def test_outputs(self):
        output, source = self.protocol.outputParticles, self.imported.outputParticles
        self.assertEqual(list(output.getIdSet()), list(source.getIdSet()))
        z = np.array([item.getZFlex() for item in output.iterItems()], dtype=float)
        self.assertEqual(z.shape, (240, RANK))
        self.assertTrue(np.isfinite(z).all())
        self.assertTrue((z.std(axis=0) > 0).all())
        self.assertEqual(self.protocol.outputMean.getXDim(), 32)
        self.assertEqual(len(self.protocol.outputEigenvolumes), RANK)
        self.assertEqual(len(self.protocol.outputStates), 2 * RANK + 2)
        self.assertEqual(self.protocol.warnings(), [])


class TestTwoMicroscopes(BaseTest):
    """Two optics groups of different voltages, each particle with a phase shift of its own."""

    COUNT = 200

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.star = two_optics_groups(Path(os.getcwd()) / "two microscopes", count=cls.COUNT)
        cls.imported = import_particles(cls, cls.star, PIXEL_SIZE, "two microscopes")
        # images of noise have no density to make a mask from
        mask = import_ball(cls, cls.star.parent, box=16, pixel_size=PIXEL_SIZE)
        cls.protocol = analyse(cls, cls.imported, mask, opticsStar=str(cls.star))
        cls.pairs = Pairs(StarFile.read(cls.star), StarFile.read(cls.protocol.getStarPath()), cls.star.parent)

    def test_optics_of_every_particle(self):
        original, given = self.pairs.group_values(*OPTICS)
        np.testing.assert_array_equal(given, original)
        self.assertEqual(sorted(set(given[:, 0])), sorted(VOLTAGES))

    def test_phase_shift_of_every_particle(self):
        self.assertLess(self.pairs.largest_difference("rlnPhaseShift"), 1e-6)
        original, _ = self.pairs.values("rlnPhaseShift")
        self.assertEqual(len(np.unique(original)), self.COUNT)

    def test_poses_and_defocus(self):
        self.assertLess(self.pairs.largest_rotation_difference(), 1e-6)
        self.assertLess(self.pairs.largest_difference(*ORIGINS), 1e-4)
        self.assertLess(self.pairs.largest_defocus_difference(), 1e-2)

    def test_engine_kept_what_it_was_given(self):
        run = StarFile.read(self.protocol.getRunDir().particles)
        pairs = Pairs(StarFile.read(self.star), run, self.star.parent)
        original, kept = pairs.group_values(*OPTICS)
        np.testing.assert_array_equal(kept, original)
        self.assertLess(pairs.largest_difference("rlnPhaseShift"), 1e-6)

    def test_outputs(self):
        output = self.protocol.outputParticles
        self.assertEqual(list(output.getIdSet()), list(self.imported.outputParticles.getIdSet()))
        z = np.array([item.getZFlex() for item in output.iterItems()], dtype=float)
        self.assertEqual(z.shape, (self.COUNT, RANK))
        self.assertTrue(np.isfinite(z).all())

    def test_warning_unless_the_star_file_is_given(self):
        self.assertEqual(self.protocol.warnings(), [])
        without = self.newProtocol(SolvarProtCovariance, rankChoice=FIXED_RANK, rank=RANK)
        without.inputParticles.set(self.imported)
        without.inputParticles.setExtended("outputParticles")
        (warning,) = without.warnings()
        self.assertIn("2 optics groups", warning)
        self.assertIn("'STAR file for the optics'", warning)
