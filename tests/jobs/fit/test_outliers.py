"""Junk among the particles: it is flagged, kept in all tables, and does not show in the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.mrc import StackWriter
from solvar_engine.data.particles import ParticleStack
from tests.jobs.conftest import PARTICLES, PIXEL_SIZE, RANK

JUNK = PARTICLES // 20  # of either kind


def outliers_of(run: RunDir) -> np.ndarray:
    return StarFile.read(run.particles).particles.numbers("solvarOutlier")["solvarOutlier"].astype(bool)


@pytest.fixture
def with_junk(hinge, simulate, tmp_path) -> Path:
    """The hinge with one image in twenty that shows nothing, and one that shows another molecule."""
    other = simulate("--phantom", "assembly", "--particles", 100, "--box", 24, "--pixel-size", PIXEL_SIZE, "--snr", 1.0)
    images = ParticleStack.from_star(hinge.particles).images(slice(None)).numpy().copy()
    deviation = images[:, 0].std()
    images[:JUNK] = deviation * np.random.default_rng(0).standard_normal((JUNK, *images.shape[1:]))
    images[JUNK : 2 * JUNK] = ParticleStack.from_star(other.particles).images(slice(None)).numpy()[:JUNK]
    folder = tmp_path / "junk"
    folder.mkdir()
    (folder / "particles.star").write_text(Path(hinge.particles).read_text())
    with StackWriter(folder / "particles.mrcs", PIXEL_SIZE) as writer:
        writer.append(images)
    return folder / "particles.star"


def test_junk_is_flagged_and_does_not_show_in_the_result(with_junk, fitted, hinge, engine, tmp_path) -> None:
    outcome = engine("fit", with_junk, "--output", tmp_path / "run", "--rank", RANK)
    assert outcome.code == 0
    run = RunDir(tmp_path / "run")
    outlier = outliers_of(run)
    assert outlier[: 2 * JUNK].mean() >= 0.8
    assert outlier[2 * JUNK :].mean() <= 0.02
    assert f"{outlier.sum()} of them outliers" in outcome.error
    latents, clean = read_latents(run.latents), read_latents(fitted.latents)
    assert latents.z.shape == clean.z.shape  # no row is left out
    assert abs(np.corrcoef(latents.z[2 * JUNK :, 0], clean.z[2 * JUNK :, 0])[0, 1]) > 0.98
    eigenvalue = read_csv(run.eigenvalues)["eigenvalue"][0]
    assert eigenvalue == pytest.approx(read_csv(fitted.eigenvalues)["eigenvalue"][0], rel=0.15)


def test_clean_particles_are_all_kept(fitted) -> None:
    assert not outliers_of(fitted).any()


def test_refined_contrasts_are_those_of_the_images(simulate, engine, tmp_path) -> None:
    data = simulate(
        *("--phantom", "hinge", "--particles", PARTICLES, "--box", 24, "--pixel-size", PIXEL_SIZE, "--snr", 1.0),
        *("--contrast-std", 0.25),
    )
    truth = read_csv(data.truth.states)["contrast"]
    scores = {}
    for options in ((), ("--refine-contrast",)):
        folder = tmp_path / f"run{len(options)}"
        assert engine("fit", data.particles, "--output", folder, "--rank", 1, *options).code == 0
        latents = read_latents(RunDir(folder).latents)
        assert np.corrcoef(latents.contrast, truth)[0, 1] ** 2 > 0.85
        assert latents.contrast.mean() == pytest.approx(1, abs=0.01)
        stated = StarFile.read(RunDir(folder).particles).particles.numbers("solvarContrastStd")["solvarContrastStd"]
        error = np.sqrt(np.mean((latents.contrast - truth / truth.mean()) ** 2))
        assert 0.7 < error / np.sqrt(np.mean(stated**2)) < 1.5
        motion = read_csv(data.truth.states)["coordinate_1"]
        scores[options] = np.corrcoef(latents.z[:, 0], motion)[0, 1] ** 2
    assert min(scores.values()) > 0.9
