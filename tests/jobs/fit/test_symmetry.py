"""Symmetric molecules of which each subunit moves by itself: expanded by us, by hand and by RELION's program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from solvar_engine.contract.angles import rotation_to_relion
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.volumes import read_volume
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.jobs.decisions import read_cautions
from tests.conftest import _write_particles
from tests.imaging.closed_form import Atoms, random_rotations
from tests.imaging.microscope import Microscope

BOX, PIXEL_SIZE, COUNT, NOISE = 28, 4.0, 200, 1.0
_RANDOM = np.random.default_rng(5)
_SUBUNIT = np.array([8.0, 1.0, 4.5]) + _RANDOM.normal(size=(14, 3)) * [1.5, 1.5, 1.5]
_MOVED = np.where(_SUBUNIT[:, :1] > 8.3, _SUBUNIT + [1.0, 2.0, 0.5], _SUBUNIT)
_AMPLITUDE = _RANDOM.uniform(60, 140, 14)


def molecule(operators: np.ndarray, states: np.ndarray) -> Atoms:
    """Subunits, each moved (1) or not (0)."""
    subunits = [(_MOVED if state else _SUBUNIT) @ turn.T for turn, state in zip(operators, states, strict=True)]
    return Atoms(np.concatenate(subunits), np.tile(_AMPLITUDE, len(operators)), 1.3)


@dataclass(frozen=True)
class Case:
    """A list, and the state of each subunit of each of its particles."""

    symmetry: str
    path: Path
    operators: np.ndarray
    states: np.ndarray

    def scores(self, run: RunDir, order: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Cosine of the eigenvolume with the change of its unit, correlation of latents with states, and latents.

        ``order`` (n,) tells the particle of each row in which operators follow each other as in ours.
        """
        volume = read_volume(run.eigenvolume(1)).data.double().numpy()
        count, cosines = len(self.operators), []
        rest = molecule(self.operators, np.zeros(count)).volume(BOX)
        for unit in range(count):
            change = molecule(self.operators, np.arange(count) == unit).volume(BOX) - rest
            cosines.append((volume * change).sum() / np.linalg.norm(volume) / np.linalg.norm(change))
        unit = int(np.argmax(np.abs(cosines)))
        # the subunit that an operator brings to the place of the unit
        place = [
            int(np.argmin([np.abs(turn @ other - self.operators[unit]).sum() for other in self.operators]))
            for turn in self.operators
        ]
        latents = read_latents(run.latents).z[order, 0] * np.sign(cosines[unit])
        return abs(cosines[unit]), np.corrcoef(latents, self.states[:, place].ravel())[0, 1], latents


@pytest.fixture(params=["C3", "D2"])
def case(request, tmp_path) -> Case:
    operators, random = symmetry_operators(request.param).numpy(), np.random.default_rng(8)
    rotation, origin = random_rotations(COUNT, 1), random.normal(0, 2, (COUNT, 2))
    defocus = np.column_stack([random.uniform(7_000, 14_000, (COUNT, 2)), random.uniform(0, 180, COUNT)])
    states = random.integers(0, 2, (COUNT, len(operators)))
    seen = [molecule(operators, state) for state in states]
    rows = zip(seen, rotation, origin, defocus, strict=True)
    images = np.stack([
        Microscope().image(lambda k, one=atoms, turn=turn: one.transform(k @ turn[:, :2].T), *values, BOX, PIXEL_SIZE)
        for atoms, turn, *values in rows
    ])  # fmt: skip
    images += NOISE * images.std() * random.normal(size=images.shape)
    columns = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), rotation_to_relion(rotation), strict=True))
    columns |= {"rlnOriginXAngst": origin[:, 0], "rlnOriginYAngst": origin[:, 1], "rlnDefocusU": defocus[:, 0],
                "rlnDefocusV": defocus[:, 1], "rlnDefocusAngle": defocus[:, 2]}  # fmt: skip
    path = _write_particles(tmp_path, images.astype(np.float32), pixel_size=PIXEL_SIZE, particles=columns)
    return Case(request.param, path, operators, states)


def expanded_by_hand(case: Case) -> Path:
    """All particles in one orientation after all in another: 120 degrees about z, or 180 about z and x."""
    star = StarFile.read(case.path)
    rot, tilt, psi = star.particles.numbers("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi").values()
    turned = [(rot + step, tilt, psi) for step in (0, 120, 240)]
    if case.symmetry == "D2":
        below = 180 - tilt, psi + 180
        turned = [(rot, tilt, psi), (rot + 180, tilt, psi), (-rot, *below), (180 - rot, *below)]
    angles = {
        name: np.concatenate(values)
        for name, values in zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), zip(*turned, strict=True), strict=True)
    }
    table = star.particles.only([*range(COUNT)] * len(turned)).with_columns(angles)
    path = case.path.with_name("by_hand.star")
    star.replace(star.particles, table).write(path)
    return path


@pytest.mark.slow
def test_motion_of_a_subunit_however_the_list_was_expanded(case, engine, tmp_path) -> None:
    def fit(path, name) -> RunDir:
        run = RunDir(tmp_path / name)
        outcome = engine("fit", path, "--output", run.path, "--rank", 1, "--symmetry", case.symmetry)
        assert outcome.code == 0, outcome.error
        return run

    count = COUNT * len(case.operators)
    ours = fit(case.path, "ours")
    cosine, correlation, latents = case.scores(ours, np.arange(count))
    assert cosine > 0.9 and correlation > 0.8
    assert not read_cautions(ours)
    # all rows of an image are in one half-set
    half = StarFile.read(ours.particles).particles.integers("solvarHalfSet").reshape(COUNT, -1)
    assert (half == half[:, :1]).all() and len(np.unique(half)) == 2
    if case.symmetry == "C3":
        states = tmp_path / "states"
        for command in (("analyze", ours.path), ("reconstruct", ours.path, "--output", states, "--clusters", 2)):
            assert engine(*command).code == 0
        volumes = [read_volume(states / f"state_{number:03d}.mrc").data.double() for number in (1, 2)]
        change, along = volumes[1] - volumes[0], read_volume(ours.eigenvolume(1)).data.double()
        assert float((change * along).sum().abs()) > 0.6 * float(change.norm() * along.norm())
    others = {"by_hand": (expanded_by_hand(case), np.arange(count).reshape(-1, COUNT).T.ravel())}
    if shutil.which("relion_particle_symmetry_expand") is not None:
        command = ["relion_particle_symmetry_expand", "--i", case.path.name, "--o", "relion.star", "--sym"]
        subprocess.run([*command, case.symmetry], cwd=tmp_path, check=True, capture_output=True, timeout=60)
        others["relion"] = tmp_path / "relion.star", np.arange(count)
    for name, (path, order) in others.items():
        other_cosine, _, other_latents = case.scores(fit(path, name), order)
        assert other_cosine == pytest.approx(cosine, abs=0.01)
        assert np.corrcoef(latents, other_latents)[0, 1] > 0.99
