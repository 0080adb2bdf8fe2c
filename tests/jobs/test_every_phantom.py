"""Every molecule that can be simulated, through fit and evaluation."""

from __future__ import annotations

import json
import math

import pytest

from solvar_engine.contract.params import PHANTOMS
from solvar_engine.data.volumes import write_volume
from solvar_engine.imaging.types import Volume
from solvar_engine.simulation.phantoms import make_phantom

BOX, PIXEL_SIZE, PARTICLES, RANK = 16, 12.0, 240, 2

COORDINATES = {"hinge", "linker", "assembly", "flexible"}
CLASSES = {"assembly", "mixture", "maps"}
"""Which molecules have state coordinates, and of which the states are classes."""


@pytest.fixture
def evaluation(simulate, engine, tmp_path):
    """Function that simulates, fits and evaluates, and returns the numbers."""

    def run(*phantom: object) -> dict:
        particles = 600 if "mixture" in phantom else PARTICLES  # some of each of its hundred states
        data = simulate("--phantom", *phantom, "--particles", particles, "--snr", 1.0)
        fit = engine("fit", data.particles, "--output", tmp_path / "run", "--rank", RANK, "--mask", data.mask)
        assert fit.code == 0, fit.error
        outcome = engine("evaluate", tmp_path / "run", data.path, "--json", tmp_path / "scores.json")
        assert outcome.code == 0, outcome.error
        return json.loads((tmp_path / "scores.json").read_text())

    return run


def check(name: str, scores: dict) -> None:
    """Every score is there if, and only if, it means something for this molecule."""
    for key in ("latent_r2", "latent_r2_poly"):
        assert (scores[key] is not None) is (name in COORDINATES), key
    assert (scores["state_accuracy"] is not None) is (name in CLASSES)
    assert (scores["captured_variance"] is not None) is (name != "static")
    assert scores["fsc_auc_mean"] > 0.3
    numbers = [value for value in scores.values() if isinstance(value, float)]
    assert all(math.isfinite(number) for number in numbers)


@pytest.mark.parametrize("name", PHANTOMS)
def test_every_phantom_is_simulated_fitted_and_evaluated(name, evaluation):
    check(name, evaluation(name, "--box", BOX, "--pixel-size", PIXEL_SIZE))


def test_maps_are_simulated_fitted_and_evaluated(evaluation, tmp_path):
    hinge = make_phantom("hinge")
    maps = [tmp_path / "first.mrc", tmp_path / "last.mrc"]
    for path, state in zip(maps, (0, 49), strict=True):
        write_volume(path, Volume(hinge.volume(state, BOX), PIXEL_SIZE))
    scores = evaluation(*maps)
    check("maps", scores)
    # two states that differ by thirty degrees are told apart
    assert scores["state_accuracy"] > 0.9
    assert scores["captured_variance"] > 0.8
