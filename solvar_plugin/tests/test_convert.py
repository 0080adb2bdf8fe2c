"""What the engine reads is what the particles were: poses, CTFs, optics groups, ids. No engine is needed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pwem.objects import Acquisition, CTFModel, Particle, SetOfParticles, Transform
from pyworkflow.tests import BaseTest, setupTestProject

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable, relion_to_rotation
from solvar_plugin.convert.alignment import refined_poses_of
from solvar_plugin.convert.locations import file_name, is_mrc, split_image_name
from solvar_plugin.convert.optics import AcquisitionOptics, StoredOptics, are_premultiplied, lost_groups, read_optics
from solvar_plugin.convert.particles import write_particles
from solvar_plugin.protocols.input_checks import optics_problems, optics_warnings, particle_problems
from solvar_plugin.tests.data_sets import (
    AMPLITUDE_CONTRASTS,
    PIXEL_SIZE,
    SPHERICAL_ABERRATIONS,
    VOLTAGES,
    import_particles,
    two_optics_groups,
)

ANGLES, ORIGINS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), ("rlnOriginXAngst", "rlnOriginYAngst")
OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")


def astigmatism(table):
    """Defocus as a function of direction, at three directions: the same whichever of U and V is the larger."""
    values = table.numbers("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    u, v, angle = (values[name] for name in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"))
    directions = np.deg2rad([[0.0], [45.0], [90.0]])
    return (u + v) / 2 + (u - v) / 2 * np.cos(2 * (directions - np.deg2rad(angle)))


def per_particle_optics(star):
    """Voltage, spherical aberration and amplitude contrast of each particle, shape (n, 3)."""
    groups = star.optics.integers("rlnOpticsGroup").tolist()
    values = star.optics.numbers(*OPTICS)
    rows = [groups.index(group) for group in star.particles.integers("rlnOpticsGroup")]
    return np.stack([values[name][rows] for name in OPTICS], axis=1)


class TestImportedParticles(BaseTest):
    """From a STAR file through Scipion's import to the STAR file of the engine."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.original_path = two_optics_groups(Path(os.getcwd()) / "it's 100% two groups")
        cls.original = StarFile.read(cls.original_path)
        cls.set = import_particles(cls, cls.original_path, PIXEL_SIZE).outputParticles

    def written(self, original=None, particles=None):
        path = Path(self.proj.getTmpPath("written.star"))
        write_particles(particles or self.set, path, original)
        return StarFile.read(path)

    def test_poses(self):
        table = self.written().particles
        for name, tolerance in (("rlnOriginXAngst", 1e-5), ("rlnOriginYAngst", 1e-5)):
            difference = table.numbers(name)[name] - self.original.particles.numbers(name)[name]
            self.assertLess(np.abs(difference).max(), tolerance)
        ours, theirs = (
            relion_to_rotation(*(t.numbers(*ANGLES)[name] for name in ANGLES)) for t in (table, self.original.particles)
        )
        self.assertLess(np.abs(ours - theirs).max(), 1e-6)

    def test_poses_agree_with_relions_own_writer(self):
        from pwem.constants import ALIGN_PROJ
        from relion.convert import writeSetOfParticles

        path = self.proj.getTmpPath("relion.star")
        writeSetOfParticles(self.set, path, outputDir=self.proj.getTmpPath(), alignType=ALIGN_PROJ)
        theirs, ours = StarFile.read(path).particles, self.written().particles
        for name in (*ANGLES, *ORIGINS):
            difference = theirs.numbers(name)[name] - ours.numbers(name)[name]
            self.assertLess(np.abs((difference + 180) % 360 - 180).max(), 1e-4, name)
        self.assertEqual(theirs.integers("rlnImageId").tolist(), ours.integers("rlnImageId").tolist())

    def test_ctf_and_halves(self):
        table = self.written().particles
        self.assertLess(np.abs(astigmatism(table) - astigmatism(self.original.particles)).max(), 1e-2)
        for name in ("rlnPhaseShift", "rlnRandomSubset"):
            difference = table.numbers(name)[name] - self.original.particles.numbers(name)[name]
            self.assertLess(np.abs(difference).max(), 1e-6, name)

    def test_images_stay_where_they_are(self):
        names = (star.particles.text("rlnImageName") for star in (self.original, self.written()))
        for old, new in zip(*names):
            old_index, old_stack = split_image_name(old)
            new_index, new_stack = split_image_name(new)
            self.assertEqual(old_index, new_index)
            self.assertTrue(os.path.samefile(self.original_path.parent / old_stack, new_stack))

    def test_lost_optics_groups_are_told(self):
        self.assertEqual(lost_groups(self.set), 2)
        (warning,) = optics_warnings(self.set)
        self.assertIn("2 optics groups", warning)
        self.assertIn("300 kV", warning)
        self.assertEqual(len(self.written().optics), 1)

    def test_original_star_brings_the_optics_back(self):
        self.assertEqual(optics_problems(self.set, self.original_path), [])
        ours = per_particle_optics(self.written(self.original_path))
        np.testing.assert_array_equal(ours, per_particle_optics(self.original))
        half = len(ours) // 2
        np.testing.assert_array_equal(ours[0], [VOLTAGES[0], SPHERICAL_ABERRATIONS[0], AMPLITUDE_CONTRASTS[0]])
        np.testing.assert_array_equal(ours[half], [VOLTAGES[1], SPHERICAL_ABERRATIONS[1], AMPLITUDE_CONTRASTS[1]])

    def test_star_of_other_particles_is_refused(self):
        other = two_optics_groups(Path(os.getcwd()) / "other", count=4)
        renamed = other.with_name("renamed.star")
        renamed.write_text(other.read_text().replace("particles.mrcs", "elsewhere.mrcs"))
        (problem,) = optics_problems(self.set, renamed)
        self.assertIn("Particle 1", problem)
        self.assertIn(str(renamed), problem)

    def test_unchanged_particles_leave_the_file_alone(self):
        path = Path(self.proj.getTmpPath("again.star"))
        self.assertTrue(write_particles(self.set, path))
        time = path.stat().st_mtime_ns
        self.assertFalse(write_particles(self.set, path))
        self.assertEqual(path.stat().st_mtime_ns, time)
        self.assertTrue(write_particles(self.set, path, self.original_path))

    def test_good_particles_have_no_problems(self):
        self.assertEqual(particle_problems(self.set), [])


class TestMadeSets(BaseTest):
    """Sets made by hand, with what imports rarely show."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)

    def made(self, ids=(3, 7, 20, 21), name="made", changed=lambda particle: None, **attributes):
        path = self.proj.getTmpPath(f"{name}.sqlite")
        particles = SetOfParticles(filename=path)
        particles.setSamplingRate(2.0)
        particles.setAlignmentProj()
        particles.setHasCTF(True)
        particles.setDim((16, 16, 1))
        particles.setAcquisition(
            Acquisition(voltage=300, sphericalAberration=2.7, amplitudeContrast=0.1, magnification=50000)
        )
        for number in ids:
            particle = Particle()
            particle.setObjId(number)
            particle.setLocation(number, "stack.mrcs")
            particle.setCTF(CTFModel(defocusU=10000.0, defocusV=9000.0, defocusAngle=30.0))
            particle.setTransform(Transform())
            changed(particle)
            particles.append(particle)
        particles.write()
        return particles

    def written(self, particles):
        path = Path(self.proj.getTmpPath("made.star"))
        write_particles(particles, path)
        return StarFile.read(path)

    def test_ids_of_a_subset_are_kept(self):
        table = self.written(self.made()).particles
        self.assertEqual(table.integers("rlnImageId").tolist(), [3, 7, 20, 21])
        self.assertEqual(table.text("rlnImageName")[1], "000007@stack.mrcs")
        self.assertEqual(table.numbers("rlnPhaseShift")["rlnPhaseShift"].tolist(), [0.0] * 4)

    def test_disabled_particles_are_left_out(self):
        particles = self.made(name="disabled", changed=lambda p: p.setEnabled(p.getObjId() != 7))
        self.assertEqual(self.written(particles).particles.integers("rlnImageId").tolist(), [3, 20, 21])

    def test_every_microscope_is_a_group(self):
        def of_two_microscopes(particle):
            voltage = 200 if particle.getObjId() > 10 else 300
            particle.setAcquisition(
                Acquisition(voltage=voltage, sphericalAberration=2.7, amplitudeContrast=0.1, magnification=50000)
            )

        particles = self.made(name="joined", changed=of_two_microscopes)
        self.assertIsInstance(read_optics(particles), AcquisitionOptics)
        self.assertEqual(per_particle_optics(self.written(particles))[:, 0].tolist(), [300, 300, 200, 200])

    def test_stored_groups_are_used_if_particles_know_theirs(self):
        from pyworkflow.object import Integer

        def with_group(particle):
            particle._rlnOpticsGroup = Integer(2 if particle.getObjId() > 10 else 1)

        particles = self.made(name="stored", changed=with_group)
        particles.getAcquisition().opticsGroupInfo.set(
            "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnVoltage #3\n"
            "_rlnSphericalAberration #4\n_rlnAmplitudeContrast #5\n1 one 300 2.7 0.1\n2 two 120 1.4 0.08\n"
        )
        self.assertIsInstance(read_optics(particles), StoredOptics)
        self.assertEqual(lost_groups(particles), 0)
        star = self.written(particles)
        self.assertEqual(per_particle_optics(star)[:, 0].tolist(), [300, 300, 120, 120])
        self.assertEqual(star.optics.numbers("rlnImagePixelSize")["rlnImagePixelSize"].tolist(), [2.0, 2.0])

    def test_aberrations_of_one_stored_group_reach_the_engine(self):
        particles = self.made(name="aberrations")
        particles.getAcquisition().opticsGroupInfo.set(
            "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n_rlnBeamTiltX #3\n_rlnBeamTiltY #4\n"
            "_rlnOddZernike #5\n_rlnMagMat00 #6\n_rlnCtfDataAreCtfPremultiplied #7\n"
            "1 200 0.3 -0.2 [0,0,1.5,0,0,-2] 1.01 1\n"
        )
        optics = self.written(particles).optics
        self.assertEqual(optics.text("rlnOddZernike"), ["[0,0,1.5,0,0,-2]"])
        names = ("rlnVoltage", "rlnBeamTiltX", "rlnBeamTiltY", "rlnMagMat00", "rlnCtfDataAreCtfPremultiplied")
        self.assertEqual([values[0] for values in optics.numbers(*names).values()], [300, 0.3, -0.2, 1.01, 1])
        plain = self.made(name="plain")
        self.assertEqual([are_premultiplied(particles), are_premultiplied(plain)], [True, False])
        for one, is_refused in ((particles, False), (plain, True)):
            one.setIsAmplitudeCorrected(True)
            self.assertEqual("amplitude" in " ".join(particle_problems(one)), is_refused)

    def test_phase_flipped_particles_say_so(self):
        particles = self.made(name="flipped")
        particles.setIsPhaseFlipped(True)
        self.assertEqual(self.written(particles).optics.integers("rlnCtfDataArePhaseFlipped").tolist(), [1])
        particles.setIsPhaseFlipped(False)
        self.assertNotIn("rlnCtfDataArePhaseFlipped", self.written(particles).optics)

    def test_bad_particles_are_named(self):
        mirrored = Transform(np.diag([-1.0, 1.0, 1.0, 1.0]))
        cases = {
            "Particle 3 has no orientation": lambda p: p.setTransform(None),
            "Particle 3 has no CTF": lambda p: p.setCTF(None),
            "Particle 20 is mirrored": lambda p: p.setTransform(mirrored if p.getObjId() == 20 else Transform()),
        }
        for number, (sentence, change) in enumerate(cases.items()):
            particles = self.made(name=f"bad{number}", changed=change)
            with self.assertRaises(UserError) as caught:
                self.written(particles)
            self.assertIn(sentence, str(caught.exception))

    def test_what_the_form_refuses(self):
        (missing,) = particle_problems(self.made(name="missing"))
        self.assertIn("stack.mrcs does not exist", missing)
        imagic = self.made(name="imagic", changed=lambda p: p.setLocation(1, "stack.hed"))
        self.assertIn("not an MRC file", particle_problems(imagic)[0])
        bare = self.made(name="bare")
        bare.setHasCTF(False)
        bare.setAlignment("None")
        bare.setIsAmplitudeCorrected(True)
        problems = " ".join(particle_problems(bare))
        for words in ("no CTF", "no orientations", "amplitude"):
            self.assertIn(words, problems)
        empty = self.made(ids=(), name="empty")
        self.assertIn("empty", particle_problems(empty)[0])

    def test_poses_that_were_brought_into_one_frame_are_taken(self):
        values = (10.0, 20.0, 30.0, 4.0, -6.0)
        columns = {name: [value] for name, value in zip((*ANGLES, *ORIGINS), values)}
        self.assertIsNone(refined_poses_of(StarTable.create("particles", columns)))
        poses = refined_poses_of(StarTable.create("particles", {**columns, "solvarOtherFrame": [1]}))
        np.testing.assert_allclose(poses.rotation[0], relion_to_rotation(*np.array(values[:3])[:, None])[0])
        np.testing.assert_allclose(poses.origin[0], values[3:])

    def test_file_names(self):
        self.assertEqual(file_name("a.mrc:mrcs"), "a.mrc")
        self.assertTrue(is_mrc("a.mrc:mrcs") and is_mrc("B.MRCS") and not is_mrc("a.hdf"))
        self.assertEqual(split_image_name("12@a@b.mrcs"), (12, "a@b.mrcs"))
        self.assertEqual(split_image_name("a.mrc"), (1, "a.mrc"))
