"""What contrast and pose errors make of the mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.judging.nuisance import nuisance_overlap
from solvar_engine.estimation.poses.errors import PoseErrors, PoseSpread
from solvar_engine.imaging.fourier import HalfDisk, shift_phases
from solvar_engine.imaging.pose_derivatives import pose_derivatives
from solvar_engine.imaging.rotation import random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.torch_ref import TorchProjector
from solvar_engine.simulation.projections import atom_volume
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

SIGMA = 0.05
PHANTOM = LinearPhantom.create(2, sigma=SIGMA)


def moved(box_size: int, shift_px: tuple[float, ...] = (0, 0, 0), rotvec: tuple[float, ...] = (0, 0, 0)) -> Tensor:
    """The mean after a rotation (about x, y, z, radians) and a shift (x, y, z) of its atoms."""
    rotation = rotvec_to_rotation(torch.tensor([rotvec], dtype=torch.float64))[0]
    atoms = PHANTOM.atoms.double() @ rotation.T + torch.tensor(shift_px, dtype=torch.float64) / box_size
    return atom_volume(atoms, PHANTOM.mean_mass, box_size, SIGMA)


def axis(number: int, amount: float) -> tuple[float, ...]:
    return tuple(amount if i == number else 0.0 for i in range(3))


@pytest.mark.parametrize("box_size", [24, 25])
@pytest.mark.parametrize("number", range(3))
def test_derivatives_equal_finite_differences(box_size: int, number: int) -> None:
    """Atoms that move by +x lower the density's argument: the derivative of the moved map is minus the gradient."""
    derivatives = pose_derivatives(PHANTOM.mean(box_size))
    step_px, step_rad = 0.05, 0.01
    shifted = (moved(box_size, axis(number, -step_px)) - moved(box_size, axis(number, step_px))) / (2 * step_px)
    turned = (moved(box_size, rotvec=axis(number, -step_rad)) - moved(box_size, rotvec=axis(number, step_rad))) / (
        2 * step_rad
    )
    assert relative_error(derivatives[number], shifted) < 0.01
    assert relative_error(derivatives[3 + number], turned) < 0.02


@pytest.mark.parametrize(
    "change",
    [
        {"shift_px": (0.3, 0.0, 0.0)},
        {"shift_px": (0.0, -0.2, 0.4)},
        {"rotvec": (0.05, 0.0, 0.0)},
        {"rotvec": (0.02, -0.03, 0.04)},
        {"shift_px": (0.2, 0.1, -0.2), "rotvec": (0.03, 0.02, 0.0)},
    ],
    ids=str,
)
def test_pose_errors_are_recognised(change: dict) -> None:
    difference = moved(24, **change) - moved(24)
    unit = (difference / difference.norm())[None]
    assert float(nuisance_overlap(unit, moved(24))) > 0.95


def test_what_large_turns_do_beyond_the_first_order_is_recognised() -> None:
    """The mean of a turn forth and back: as the error's square, it varies from image to image, too."""
    forth, back = moved(24, rotvec=(0.04, -0.02, 0.03)), moved(24, rotvec=(-0.04, 0.02, -0.03))
    bend = forth + back - 2 * moved(24)
    assert float(nuisance_overlap((bend / bend.norm())[None], moved(24))) > 0.95


def test_contrast_errors_are_recognised() -> None:
    mean = moved(24)
    assert float(nuisance_overlap((mean / mean.norm())[None], mean)) == pytest.approx(1.0, abs=1e-4)


def test_overlap_is_the_share_of_energy_per_component() -> None:
    mean = moved(24)
    span = torch.cat((mean[None], pose_derivatives(mean))).flatten(1).double()
    basis = torch.linalg.qr(span.T).Q
    unrelated = noise(24**3, dtype=torch.float64)
    outside = unrelated - basis @ (basis.T @ unrelated)
    outside /= outside.norm()
    inside = basis @ noise(7, seed=2, dtype=torch.float64)
    inside /= inside.norm()
    share = torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    volumes = share.sqrt()[:, None] * inside + (1 - share).sqrt()[:, None] * outside
    overlap = nuisance_overlap(volumes.float().reshape(4, 24, 24, 24), mean)
    torch.testing.assert_close(overlap, share, rtol=0, atol=1e-3)


def test_unrelated_volume_has_no_overlap() -> None:
    unrelated = noise(24, 24, 24)
    assert float(nuisance_overlap((unrelated / unrelated.norm())[None], moved(24))) < 0.01


def test_scale_of_the_mean_does_not_matter() -> None:
    factor = PHANTOM.factors(24)
    unit = factor / factor.flatten(1).norm(dim=1)[:, None, None, None]
    mean = moved(24)
    torch.testing.assert_close(nuisance_overlap(unit, 1e-3 * mean), nuisance_overlap(unit, mean), rtol=1e-3, atol=1e-3)


def test_symmetric_mean_has_fewer_directions() -> None:
    """A ball does not change when it is turned: its rotations must not become directions of rounding noise."""
    ball = atom_volume(torch.zeros(1, 3), torch.ones(1), 24, 0.1)
    unrelated = noise(3, 24, 24, 24)
    overlap = nuisance_overlap(unrelated / unrelated.flatten(1).norm(dim=1)[:, None, None, None], ball)
    assert bool(overlap.isfinite().all()) and float(overlap.max()) < 0.01


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
