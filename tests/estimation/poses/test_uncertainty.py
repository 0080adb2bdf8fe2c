"""What is known of poses: errors as factors of every image, where they are expected, and the prior."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.poses.uncertainty import PoseErrors, PosePrior, PoseSpread, precision_of
from solvar_engine.imaging.fourier import HalfDisk, shift_phases
from solvar_engine.imaging.pose_derivatives import pose_derivatives
from solvar_engine.imaging.rotation import random_rotations, rotation_to_rotvec, rotvec_to_rotation
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.torch_ref import TorchProjector
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

PHANTOM = LinearPhantom.create(2, sigma=0.05)


def test_factors_of_pose_errors_count_shifts_in_pixels_of_the_working_box() -> None:
    mean, spread = PHANTOM.mean(24), PoseSpread(0.1, 2.0)
    derivatives, found = pose_derivatives(mean), spread.factors(mean, 48)
    torch.testing.assert_close(found[:3], 2.0 * 0.5 * derivatives[:3])
    torch.testing.assert_close(found[3:], 0.1 * derivatives[3:])
    assert PoseSpread().factors(mean, 48).shape == (0, 24, 24, 24)


def test_spread_follows_the_latents() -> None:
    moment = torch.diag(torch.tensor([1.0, 4.0, 4.0, 0.25, 0.25, 0.25], dtype=torch.float64))
    found = PoseSpread(0.1, 2.0).rescaled(moment)
    assert found.move_px == pytest.approx(2.0 * 3.0**0.5) and found.turn_rad == pytest.approx(0.05)


def test_expected_errors_bring_the_mean_from_present_poses_to_the_given_ones() -> None:
    """To first order: what an image shows at the given pose, centred by the present shift, is P mu + P F d."""
    box_size, count, pixel_size = 24, 8, 3.0
    mean, disk, spread = PHANTOM.mean(box_size).double(), HalfDisk.create(box_size), PoseSpread(0.05, 0.5)
    generator = torch.Generator().manual_seed(0)
    present = Pose(random_rotations(count, generator), 5 * torch.randn(count, 2, generator=generator))
    turn = 0.01 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    move_px = 0.05 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    rotation = present.rotation.double()
    given = Pose(rotation @ rotvec_to_rotation(turn), present.shift.double() + pixel_size * move_px)

    projector = TorchProjector(box_size, disk, dtype=torch.float64)
    ctf = torch.ones(count, len(disk), dtype=torch.float64)
    volumes = torch.cat((mean[None], spread.factors(mean, box_size)))
    slices = projector.project(projector.to_grid(volumes), rotation, ctf)
    errors = PoseErrors.about(given, present, pixel_size, spread)
    expected = (slices[:, :, 1:] @ errors.expected[:, :, None].to(slices))[..., 0]

    at_given = projector.project(projector.to_grid(mean[None]), given.rotation, ctf)[:, :, 0]
    shown = at_given * shift_phases(disk, -move_px, box_size)  # the present shift centres it less
    assert relative_error(slices[:, :, 0] + expected, shown) < 0.2 * relative_error(slices[:, :, 0], shown)


def test_gradient_of_the_prior() -> None:
    given = rotvec_to_rotation(0.4 * noise(4, 3, seed=5).double())
    prior = PosePrior(given, noise(4, 2, seed=6).double(), precision_of(PoseSpread(0.1, 2.0)))
    rotation = given @ rotvec_to_rotation(0.3 * noise(4, 3, seed=7).double())
    shift = noise(4, 2, seed=8).double()
    gradient = prior.gradient(rotation, shift)
    for k, step in enumerate(1e-5 * torch.eye(5, dtype=torch.float64)):
        ahead, behind = (
            prior.objective(rotation @ rotvec_to_rotation(sign * step[None, :3]), shift + sign * step[3:])
            for sign in (1, -1)
        )
        torch.testing.assert_close(gradient[:, k], (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-5)
    turn = rotation_to_rotvec(given.mT @ rotation)
    expected = (turn**2).sum(dim=1) / 0.02 + ((shift - prior.shift_px) ** 2).sum(dim=1) / 8
    torch.testing.assert_close(prior.objective(rotation, shift), expected)
