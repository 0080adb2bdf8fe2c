from __future__ import annotations

from pathlib import Path

import pytest
import torch

from solvar_engine.abinitio.moments.encoder import load_encoder, save_encoder
from solvar_engine.abinitio.semi_amortized.encoder import INPUT_BOX, EncoderInput, PoseEncoder
from solvar_engine.abinitio.semi_amortized.search import new_training
from solvar_engine.abinitio.semi_amortized.training import simulated
from tests.abinitio.semi_amortized.small import OPTIONS, SHIFT_PX, problem_of, small_problem


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_heads_name_rotations_of_their_own() -> None:
    encoder = PoseEncoder.random(5, 8, generator())
    rotation, shift = encoder(torch.zeros(2, 1, INPUT_BOX, INPUT_BOX))
    assert rotation.shape == (2, 5, 3, 3) and shift.shape == (2, 5, 2)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(2, 5, 3, 3), rtol=0, atol=1e-5)
    assert float((rotation[0, 0] - rotation[0, 1]).detach().abs().max()) > 0.1


def test_the_generator_alone_decides_and_weights_survive_a_file(tmp_path: Path) -> None:
    first, again = (PoseEncoder.random(3, 8, generator()) for _ in range(2))
    save_encoder(first, tmp_path / "encoder.safetensors", {"epochs": 2})
    loaded, about = load_encoder(tmp_path / "encoder.safetensors", PoseEncoder)
    assert about == {"epochs": 2} and loaded.settings == first.settings
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]) and torch.equal(value, loaded.state_dict()[name])


def test_what_enters_has_unit_variance_and_lacks_the_sign_of_the_transfer_functions() -> None:
    problem, _, _ = small_problem(100)
    entering = EncoderInput.of(problem.images)
    shown = entering(problem.images)
    assert shown.shape == (100, 1, INPUT_BOX, INPUT_BOX)
    assert float(shown.std()) == pytest.approx(1, rel=1e-3)
    turned = problem.images.with_sign(-1.0)  # images and transfer functions of the other sign are the same projections
    turned = type(turned)(turned.disk, -turned.images, turned.ctf)
    torch.testing.assert_close(entering(turned), shown)


def test_simulated_images_are_likeliest_where_they_say() -> None:
    problem, _, volume = small_problem(50)
    grid = problem.projector.to_grid(volume[None])
    images, rotation, shift_px = simulated(problem, grid, 400, generator())
    assert float(shift_px.std()) == pytest.approx(SHIFT_PX, rel=0.1)
    at_truth = problem.log_joint(grid, images, rotation, shift_px)
    for other in ((rotation, -shift_px), (rotation.mT.contiguous(), shift_px)):
        assert float((at_truth > problem.log_joint(grid, images, *other)).float().mean()) > 0.8
    slices = problem.projector.project(grid, rotation, images.ctf)[:, :, 0]
    noise = problem.moved(images.images, shift_px) - slices
    assert float(noise.abs().square().mean()) == pytest.approx(1, rel=0.02)


def test_an_encoder_learns_from_simulations() -> None:
    problem, _, volume = small_problem(50)
    training = new_training(problem.images, OPTIONS, generator())
    grid = problem.projector.to_grid(volume[None])
    first, *_, last = (training.learn_from_simulations(problem, grid, 512) for _ in range(8))
    assert last < 0.8 * first


def test_an_encoder_learns_from_images() -> None:
    problem, _, volume = small_problem(50)
    training = new_training(problem.images, OPTIONS, generator())
    grid = problem.projector.to_grid(volume[None])
    first, *_, last = (training.learn_from_images(problem, grid, problem.images) for _ in range(15))
    assert last < first - 5
    rotation, shift_px = training.candidates(problem, problem.images)
    assert rotation.shape == (50, 4, 3, 3) and shift_px.shape == (50, 4, 2)
    assert not rotation.requires_grad


def test_poses_that_symmetry_makes_equal_are_as_good() -> None:
    plain, _, volume = small_problem(50)
    losses = []
    for symmetry in ("C1", "C4"):
        problem = problem_of(plain.images, symmetry)
        training = new_training(problem.images, OPTIONS, generator())
        losses.append(training.learn_from_simulations(problem, problem.projector.to_grid(volume[None]), 128))
    assert losses[1] < losses[0]
