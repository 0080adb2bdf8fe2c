"""The frame of each state: a body that stands still is found although the frame turned with the motion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from solvar_engine.estimation.poses.still_frame import find_drift, in_still_frame
from solvar_engine.imaging.fourier import HalfDisk, shift_phases
from solvar_engine.imaging.pose_derivatives import pose_derivatives
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.torch_ref import TorchProjector
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

BOX = 32
# px, and radians, with each of two coordinates of unit variance
DRIFT = torch.tensor([[0.3, -0.2, 0.1, 0.05, -0.03, 0.04], [-0.1, 0.0, 0.2, -0.02, 0.05, 0.01]]).double().T


def blobs(places: Tensor) -> Tensor:
    """Density (z, y, x) of round blobs at places (n, 3), as (x, y, z)."""
    axis = torch.arange(BOX).float() - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    grid = torch.stack((x, y, z), dim=-1)
    return sum((-(grid - place).square().sum(dim=-1) / 4.5).exp() for place in places)


@pytest.fixture(scope="module")
def bodies() -> tuple[Tensor, Tensor, Tensor]:
    """Mean, factors of a body of 20 blobs beside which one of 8 turns and moves, and a mask."""
    side = torch.where(torch.arange(28) < 20, -5.0, 5.0)
    places = 2.2 * noise(28, 3, seed=3) + torch.stack((side, 0 * side, 0 * side), dim=1)
    mean, moving = blobs(places), blobs(places[20:])
    derivatives = pose_derivatives(moving)
    factors = torch.stack((0.2 * derivatives[4] + 0.3 * derivatives[0], 0.1 * derivatives[5]))
    return mean, factors, (blobs(places) > 0.02).float()


def with_drift(mean: Tensor, factors: Tensor, drift: Tensor) -> Tensor:
    return factors + torch.einsum("dr,dzyx->rzyx", drift.float(), pose_derivatives(mean))


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_the_larger_body_is_brought_to_rest(bodies, error) -> None:
    """Whatever of the frame has turned with the states is found with the other sign, also beside errors."""
    mean, factors, mask = bodies
    errors = error * factors.square().mean().sqrt() * noise(*factors.shape, seed=7)
    seen = with_drift(mean, factors, DRIFT[:, : len(factors)]) + errors
    found = find_drift(mean, seen, errors, mask, 12)
    torch.testing.assert_close(found, -DRIFT, atol=0.005 if error == 0 else 0.03, rtol=0.03)
    still = find_drift(mean, factors + errors, errors, mask, 12)
    assert float(still.abs().max()) < (0.004 if error == 0 else 0.03)


def test_more_voxels_at_rest_count_more_than_less_movement(bodies) -> None:
    """In the frame of the least variance, which a consensus refinement finds, both bodies move."""
    mean, factors, mask = bodies
    inside = mask.flatten() > 0
    columns = pose_derivatives(mean).flatten(1)[:, inside].double()
    least = torch.linalg.lstsq(columns.T, factors.flatten(1)[:, inside].T.double()).solution
    found = find_drift(mean, with_drift(mean, factors, -least), torch.zeros_like(factors), mask, 12)
    assert float(least[3:].norm()) > 0.05
    torch.testing.assert_close(found, least, atol=0.004, rtol=0.03)


def test_a_rigid_molecule_has_no_drift(bodies) -> None:
    """Factors that are nothing but errors of the poses are explained as a whole."""
    mean, _, mask = bodies
    seen = with_drift(mean, torch.zeros(2, BOX, BOX, BOX), DRIFT)
    found = find_drift(mean, seen, torch.zeros_like(seen), mask, 12)
    torch.testing.assert_close(found, -DRIFT, atol=1e-3, rtol=1e-3)


def test_pixels_of_a_larger_box_are_those_of_the_volumes(bodies) -> None:
    """Volumes are cropped to the shells that are known: moves are told in their own pixels, not in larger ones."""
    mean, factors, mask = (pad(volumes, [16] * 6) for volumes in bodies)
    found = find_drift(mean, with_drift(mean, factors, DRIFT), torch.zeros_like(factors), mask, 14)
    torch.testing.assert_close(found, -DRIFT, atol=0.02, rtol=0.1)


def test_images_do_not_change_with_frame_and_poses() -> None:
    """To first order: half the latent coordinate leaves a quarter of the difference, and little of the change."""
    count, pixel_size = 6, 3.0
    phantom = LinearPhantom.create(1, sigma=0.05)
    mean, disk = phantom.mean(24).double(), HalfDisk.create(24)
    factors = phantom.factors(24).double()
    drift, projector = DRIFT[:, :1], TorchProjector(24, disk, dtype=torch.float64)
    moved = factors + torch.einsum("dr,dzyx->rzyx", drift, pose_derivatives(mean.float()).double())
    pose = Pose(random_rotations(count, torch.Generator().manual_seed(0)).double(), noise(count, 2, seed=1).double())
    ctf = torch.ones(count, len(disk), dtype=torch.float64)

    def seen(volumes: Tensor, at: Pose, z: float) -> Tensor:
        slices = projector.project(projector.to_grid(volumes), at.rotation, ctf)
        return (slices[:, :, 0] + z * slices[:, :, 1]) * shift_phases(disk, -at.shift / pixel_size, 24)

    left = []
    for z in (0.2, 0.1):
        latents = torch.full((count, 1), z).double()
        there = in_still_frame(pose, drift, latents, pixel_size)
        before = seen(torch.cat((mean[None], factors)), pose, z)
        left.append(relative_error(seen(torch.cat((mean[None], moved)), there, z), before))
        assert left[-1] < 0.3 * relative_error(seen(torch.cat((mean[None], moved)), pose, z), before)
    assert left[1] < 0.4 * left[0]
