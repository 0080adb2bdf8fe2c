"""A whole fit without interpolation: it finds what trilinear interpolation finds, and always the same."""

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.data.volumes import read_volume
from tests.jobs.conftest import RANK, run_in_process


@pytest.fixture(scope="module")
def fit(hinge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nufft")

    def run(name: str) -> RunDir:
        arguments = ("fit", hinge.particles, "--output", folder / name, "--rank", RANK, "--projector", "nufft")
        assert run_in_process(*arguments) == 0
        return RunDir(folder / name)

    return run


@pytest.fixture(scope="module")
def first(fit) -> RunDir:
    return fit("first")


def test_nufft_finds_what_trilinear_interpolation_finds(first, fitted):
    found, expected = (read_latents(path.latents).z for path in (first, fitted))
    for component in range(RANK):
        assert abs(np.corrcoef(found[:, component], expected[:, component])[0, 1]) > 0.99
    means = [read_volume(path.mean).data.flatten() for path in (first, fitted)]
    assert float(np.corrcoef(means)[0, 1]) > 0.999
    assert not np.array_equal(found, expected)


def test_nufft_gives_the_same_numbers_again(fit, first):
    assert first.latents.read_bytes() == fit("again").latents.read_bytes()


def test_oversampling_of_nufft_is_refused(hinge, engine, tmp_path):
    options = ("--rank", RANK, "--projector", "nufft", "--oversampling", 3)
    outcome = engine("fit", hinge.particles, "--output", tmp_path / "run", *options)
    assert outcome.code == 2
    assert outcome.error == (
        "error: --oversampling belongs to --projector trilinear and nearest: leave it out with nufft, which does not"
        " interpolate.\n"
    )
    assert not (tmp_path / "run").exists()
