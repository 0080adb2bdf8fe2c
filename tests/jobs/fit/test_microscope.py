"""Fits of images of an imperfect microscope, and of premultiplied images, find what fits of plain ones find."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from solvar_engine.contract.angles import rotation_to_relion
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.data.volumes import read_volume
from tests.conftest import _write_particles
from tests.imaging.closed_form import asymmetric_atoms, random_rotations
from tests.imaging.microscope import IMPERFECT, Microscope
from tests.jobs.conftest import run_in_process

BOX, PIXEL_SIZE, COUNT = 32, 3.0, 400
PERFECT = Microscope()
_ONE = asymmetric_atoms(BOX, count=30, sigma=1.3)
_MOVED = np.where(_ONE.position[:, :1] > 3, _ONE.position + [0, 2.5, 2.5], _ONE.position)
STATES = (_ONE, replace(_ONE, position=_MOVED))
CHANGE = STATES[1].volume(BOX) - STATES[0].volume(BOX)
STATE = np.arange(COUNT) % 3 // 2
ROTATION = random_rotations(COUNT, 1)
_RANDOM = np.random.default_rng(3)
ORIGIN = _RANDOM.normal(0, 2, (COUNT, 2))
DEFOCUS = np.column_stack([_RANDOM.uniform(7_000, 14_000, (COUNT, 2)), _RANDOM.uniform(0, 180, COUNT)])
NOISE = _RANDOM.normal(0, 3.2, (COUNT, BOX, BOX))


def images_through(microscope: Microscope) -> np.ndarray:
    rows = zip(STATE, ROTATION, ORIGIN, DEFOCUS, strict=True)
    return NOISE + np.stack([
        microscope.image(lambda k, state=state, turn=turn: STATES[state].transform(k @ turn[:, :2].T), origin,
                         defocus, BOX, PIXEL_SIZE) for state, turn, origin, defocus in rows
    ])  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Correlation of latents with states, and cosine of the eigenvolume with the change of the volume."""

    run: RunDir
    latents: np.ndarray
    scores: np.ndarray


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """Fit images with what an optics table says of them."""
    folder = tmp_path_factory.mktemp("microscope")

    def found(name: str, images: np.ndarray, **optics: list[object]) -> Found:
        angles = zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), rotation_to_relion(ROTATION), strict=True)
        columns = {
            **dict(angles), "rlnOriginXAngst": ORIGIN[:, 0], "rlnOriginYAngst": ORIGIN[:, 1],
            "rlnDefocusU": DEFOCUS[:, 0], "rlnDefocusV": DEFOCUS[:, 1], "rlnDefocusAngle": DEFOCUS[:, 2],
        }  # fmt: skip
        path = _write_particles(
            folder / name, images.astype(np.float32), pixel_size=PIXEL_SIZE, particles=columns, optics=optics
        )
        run = RunDir(folder / f"run_{name}")
        assert run_in_process("fit", path, "--output", run.path, "--rank", 1) == 0
        z = read_latents(run.latents).z[:, 0]
        volume = read_volume(run.eigenvolume(1)).data.double().numpy()
        cosine = (volume * CHANGE).sum() / np.linalg.norm(volume) / np.linalg.norm(CHANGE)
        return Found(run, z, np.abs([np.corrcoef(z, STATE)[0, 1], cosine]))

    return found


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return images_through(PERFECT)


@pytest.fixture(scope="module")
def perfect(fit, plain) -> Found:
    return fit("perfect", plain)


@pytest.mark.slow
def test_an_imperfect_microscope_costs_nothing_if_it_is_known(fit, perfect) -> None:
    through = images_through(IMPERFECT)
    known, ignored = fit("known", through, **IMPERFECT.columns()).scores, fit("ignored", through).scores
    assert perfect.scores.min() > 0.9
    assert np.abs(known - perfect.scores).max() < 0.005
    assert (ignored < perfect.scores - 0.05).all()


@pytest.mark.slow
def test_premultiplied_images_are_fitted_as_plain_ones(fit, perfect, plain) -> None:
    k = np.fft.fftfreq(BOX, PIXEL_SIZE)
    x, y = np.meshgrid(k, k, indexing="xy")
    transfer = np.stack([PERFECT.ctf(x, y, defocus) for defocus in DEFOCUS])
    multiplied = np.fft.ifft2(np.fft.fft2(plain) * transfer).real
    found = fit("multiplied", multiplied, rlnCtfDataAreCtfPremultiplied=[1])
    sign = np.sign(perfect.latents @ found.latents)
    assert np.abs(sign * found.latents - perfect.latents).max() < 0.02 * perfect.latents.std()
    means = [read_volume(one.run.mean).data.numpy() for one in (perfect, found)]
    assert np.linalg.norm(means[1] - means[0]) < 0.005 * np.linalg.norm(means[0])
    noise = [read_csv(one.run.noise)["noise_variance"][1:] for one in (perfect, found)]
    assert np.abs(noise[1] / noise[0] - 1).max() < 0.03
    assert abs((noise[1] / noise[0] - 1).mean()) < 0.003
