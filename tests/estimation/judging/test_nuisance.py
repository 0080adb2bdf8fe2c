"""What contrast and pose errors make of the mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.judging.nuisance import SLOW_OVERLAP, is_slow_background, nuisance_overlap, slow_overlap
from solvar_engine.imaging.linear_algebra import inner_products
from solvar_engine.imaging.masks import real_radius, sphere_mask
from solvar_engine.imaging.pose_derivatives import pose_derivatives
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.simulation.projections import atom_volume
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

SIGMA = 0.05
PHANTOM = LinearPhantom.create(2, sigma=SIGMA)
ONE = torch.ones(1)


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
    assert float(nuisance_overlap(unit, ONE, moved(24))) > 0.95


NEAR, FAR = (0.3, 0.5, -0.4), (-0.3, -0.5, 0.4)
TURN, BACK = (0.04, -0.02, 0.03), (-0.04, 0.02, -0.03)
NONE = (0.0, 0.0, 0.0)


def components_of(*vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Unit volumes, and the variances along them of N(0, 1) times each vector."""
    stack = torch.stack(vectors)
    norms = stack.flatten(1).double().norm(dim=1)
    return stack / norms.float()[:, None, None, None], norms.square()


def half_difference(shift_px: tuple[float, ...], rotvec: tuple[float, ...]) -> Tensor:
    back = [tuple(-x for x in step) for step in (shift_px, rotvec)]
    return 0.5 * (moved(24, shift_px, rotvec) - moved(24, *back))


@pytest.mark.parametrize(
    ("signed", "first"),
    [
        (((1, NONE, TURN), (1, NONE, BACK), (-2, NONE, NONE)), [(NONE, TURN)]),
        (((1, NEAR, NONE), (1, FAR, NONE), (-2, NONE, NONE)), [(NEAR, NONE)]),
        (((1, NEAR, TURN), (1, FAR, BACK), (-1, NEAR, BACK), (-1, FAR, TURN)), [(NEAR, NONE), (NONE, TURN)]),
    ],
    ids=["turns", "shifts", "turns with shifts"],
)
def test_what_large_errors_do_beyond_the_first_order_is_recognised(signed: tuple, first: list) -> None:
    """Errors N(0, 1) times a step: their squares, half the second difference, vary by root 2 of it, products by one.

    Only beside the errors of the first order that they must come from, and no more than these allow.
    """
    bend = sum(sign * moved(24, shift_px, rotvec) for sign, shift_px, rotvec in signed)
    bend = bend / (2**0.5 if len(first) == 1 else 4)
    volumes, variances = components_of(bend, *(half_difference(*step) for step in first))
    assert float(nuisance_overlap(volumes, variances, moved(24))[0]) > 0.95
    assert float(nuisance_overlap(volumes[:1], variances[:1], moved(24))[0]) < 0.5
    larger = variances * torch.tensor([64.0, *[1.0] * len(first)])
    assert float(nuisance_overlap(volumes, larger, moved(24))[0]) < 0.5


def test_contrast_errors_are_recognised() -> None:
    mean = moved(24)
    assert float(nuisance_overlap((mean / mean.norm())[None], ONE, mean)) == pytest.approx(1.0, abs=1e-4)


def test_overlap_is_the_share_of_energy_per_component() -> None:
    mean = moved(24)
    span = torch.cat((mean[None], pose_derivatives(mean)))
    basis = torch.linalg.qr(span.flatten(1).double().T).Q
    unrelated = noise(24**3, dtype=torch.float64)
    second = torch.cat([span, *(pose_derivatives(moved_mean) for moved_mean in span[1:])]).flatten(1).double()
    outside = unrelated - second.T @ (torch.linalg.pinv(second.T) @ unrelated)
    outside /= outside.norm()
    inside = basis @ noise(7, seed=2, dtype=torch.float64)
    inside /= inside.norm()
    share = torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    volumes = share.sqrt()[:, None] * inside + (1 - share).sqrt()[:, None] * outside
    overlap = nuisance_overlap(volumes.float().reshape(4, 24, 24, 24), ONE.expand(4), mean)
    torch.testing.assert_close(overlap, share, rtol=0, atol=1e-3)


def test_unrelated_volume_has_no_overlap() -> None:
    unrelated = noise(24, 24, 24)
    assert float(nuisance_overlap((unrelated / unrelated.norm())[None], ONE, moved(24))) < 0.01


def test_scale_of_the_images_does_not_matter() -> None:
    factor = PHANTOM.factors(24)
    unit = factor / factor.flatten(1).norm(dim=1)[:, None, None, None]
    mean = moved(24)
    found = nuisance_overlap(unit, 1e-6 * ONE, 1e-3 * mean)
    torch.testing.assert_close(found, nuisance_overlap(unit, ONE, mean), rtol=1e-3, atol=1e-3)


def test_symmetric_mean_has_fewer_directions() -> None:
    """A ball does not change when it is turned: its rotations must not become directions of rounding noise."""
    ball = atom_volume(torch.zeros(1, 3), torch.ones(1), 24, 0.1)
    unrelated = noise(3, 24, 24, 24)
    overlap = nuisance_overlap(unrelated / unrelated.flatten(1).norm(dim=1)[:, None, None, None], ONE, ball)
    assert bool(overlap.isfinite().all()) and float(overlap.max()) < 0.01


def test_slow_overlap_is_the_share_of_polynomials_or_of_the_distance_from_the_centre() -> None:
    """Polynomials count where the mean is, functions of the distance everywhere; what neither holds shares nothing."""
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, 24)] * 3, indexing="ij")
    mean = sphere_mask(24, 6.0, 0.0)
    inside = (mean != 0).float()
    polynomial = inside * (x + 2 * y * z)
    wave = torch.cos(4 * real_radius(24, 3).round())  # nearly no polynomial
    unit = [volume / volume.norm() for volume in (polynomial, wave, noise(24, 24, 24))]
    mixed = 0.8**0.5 * unit[2] + 0.2**0.5 * unit[1]
    shares = slow_overlap(3.0 * torch.stack((*unit, mixed)), mean)
    assert shares[:2].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    assert float(shares[2]) < 0.02 and float(shares[3]) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("missing", "expected"), [(0.15, True), (0.25, False)])
def test_no_more_than_images_without_the_particle_make_is_taken_for_background(missing: float, expected: bool) -> None:
    """The mean over all images of particles and of nothing, and the variance that these have about it."""
    particle = sphere_mask(24, 7.0, 3.0)
    states = torch.stack((particle, torch.zeros_like(particle)))
    weights = torch.tensor([1 - missing, missing])[:, None, None, None]
    mean = (weights * states).sum(dim=0)
    component = particle / particle.norm()
    variance = (weights[:, 0, 0, 0] * inner_products((states - mean), component[None])[:, 0] ** 2).sum()
    for scale in (1.0, 7.0):
        assert bool(is_slow_background(scale * component[None], variance[None], mean)) is expected


def test_a_domain_that_comes_and_goes_is_no_background_though_it_is_slow() -> None:
    place = torch.tensor([[-0.12, 0.0, 0.0], [0.16, 0.0, 0.0]])
    body, domain = (atom_volume(of[None], torch.ones(1), 24, 0.08) for of in place)
    mean = body + 0.5 * domain
    mean = mean * (mean > 0.05 * mean.max())
    component = (domain * (mean != 0))[None]
    strength = component.square().sum(dtype=torch.float64)
    assert float(slow_overlap(component, mean)) > SLOW_OVERLAP
    assert not bool(is_slow_background(component, 0.25 * strength[None], mean))
