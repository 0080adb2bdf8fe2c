from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from solvar_engine.abinitio.moments.alignment import moment_errors, moments_of_signal
from solvar_engine.abinitio.moments.encoder import (
    MomentEncoder,
    fitted,
    load_encoder,
    random_pairs,
    save_encoder,
    trained,
)

POINTS = 9


def encoder(is_density: bool, seed: int = 0) -> MomentEncoder:
    torch.manual_seed(seed)
    return MomentEncoder(POINTS, is_density)


def test_pairs_have_their_moments() -> None:
    signal, density, first, second = random_pairs(5, 2, POINTS, torch.Generator().manual_seed(0))
    expected = moments_of_signal(signal, density)
    torch.testing.assert_close((first, second), (expected[0], expected[1]), check_dtype=False)
    torch.testing.assert_close(signal.norm(dim=1), torch.ones(5), check_dtype=False)
    torch.testing.assert_close(density.sum(dim=1), torch.ones(5), check_dtype=False)


@pytest.mark.parametrize("is_density", [False, True])
def test_training_makes_errors_smaller(is_density: bool) -> None:
    network = encoder(is_density)
    errors = list(trained(network, 1, torch.Generator().manual_seed(0), pairs=6_400, batch_size=64, rate=2e-3))
    assert len(errors) == 100
    assert sum(errors[-10:]) < 0.7 * sum(errors[:10])
    _, _, first, second = random_pairs(3, 1, POINTS, torch.Generator().manual_seed(1))
    found = network(first, second)
    assert found.shape == (3, POINTS)
    if is_density:
        torch.testing.assert_close(found.sum(dim=1), torch.ones(3))


def test_weights_are_fitted_to_moments() -> None:
    _, _, first, second = random_pairs(1, 1, POINTS, torch.Generator().manual_seed(2))
    steps = list(fitted(encoder(False), encoder(True, 1), first[0], second[0], iterations=150, rate=1e-3))
    assert len(steps) == 150
    _, signal, density = steps[0]
    moved = [sum(map(float, moment_errors(signal.roll(by), density, first[0], second[0]))) for by in range(POINTS)]
    assert steps[0][0] == pytest.approx(min(moved), rel=1e-4) and max(moved) > min(moved)
    error, signal, density = steps[-1]
    assert error < 0.3 * steps[0][0]
    mine = moments_of_signal(signal, density)
    relative = [float((a - b).norm() / b.norm()) for a, b in zip(mine, (first[0], second[0]), strict=True)]
    assert error == pytest.approx(sum(relative), rel=1e-4)


def test_weights_come_back_with_their_training(tmp_path: Path) -> None:
    network = encoder(True)
    training = {"pairs": 100, "gaussians": 2}
    save_encoder(network, tmp_path / "density.safetensors", training)
    again, record = load_encoder(tmp_path / "density.safetensors", MomentEncoder)
    assert record == training and again.is_density and again.points == POINTS
    _, _, first, second = random_pairs(2, 1, POINTS, torch.Generator().manual_seed(3))
    assert torch.equal(network(first, second), again(first, second))
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no MomentEncoder"):
        load_encoder(tmp_path / "other.safetensors", MomentEncoder)
