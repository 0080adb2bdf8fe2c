"""A turn of a part is told from a turn of the whole by what images gain beside errors of their poses."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.judging.components import Components, gain_beside_errors
from solvar_engine.estimation.judging.nuisance import error_volumes, looks_like_error, nuisance_overlap
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.linear_algebra import inner_products
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.pose_derivatives import pose_derivatives
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from solvar_engine.simulation.projections import atom_volume, project_atoms
from tests.reconstruction.simulated import LinearPhantom, replace, simulate

BOX, IMAGES, SPREAD_RAD, STEP_RAD = 24, 600, 0.06, 0.02
PHANTOM = LinearPhantom.create(1, sigma=0.05).scaled(25.0)


def turned(angle_rad, is_turned):
    """Atoms (angles, atoms, 3), of which some are turned about x."""
    angle_rad = torch.as_tensor(angle_rad).reshape(-1)
    turn = rotvec_to_rotation(angle_rad[:, None] * torch.tensor([1.0, 0.0, 0.0]))
    atoms = PHANTOM.atoms @ turn.mT
    return torch.where(is_turned[:, None], atoms, PHANTOM.atoms)


def left_of_a_turn(is_turned):
    """What looks like an error of the pose, and what of the gain is left beside errors, of a turn of some atoms."""
    simulation = simulate(PHANTOM, IMAGES, BOX)
    source, mass = simulation.source, PHANTOM.mean_mass
    angle = SPREAD_RAD * torch.randn(IMAGES, generator=torch.Generator().manual_seed(3))
    signal = project_atoms(turned(angle, is_turned), mass, source.rotation, source.disk, PHANTOM.sigma)
    made = PHANTOM.slices(simulation.z, source.rotation, source.disk)
    source = replace(source, images=source.images + (signal - made) * source.ctf)
    low, high = (atom_volume(turned(step, is_turned)[0], mass, BOX, PHANTOM.sigma) for step in (-STEP_RAD, STEP_RAD))
    factor = ((high - low) * SPREAD_RAD / (2 * STEP_RAD))[None]
    mean, mask = PHANTOM.mean(BOX), sphere_mask(BOX, 10.0)
    density = accumulate_normal_equations(source, source.everyone).density()
    halves = source.everyone[::2], source.everyone[1::2]
    problem = CovarianceProblem(source, halves, mean, mask, density, 1, 0, SliceOptions(), OBJECTIVES["ml"])
    variance, one = factor.double().square().sum().reshape(1), torch.ones(1, dtype=torch.float64)
    components = Components(factor / variance.sqrt().float(), variance, variance, one, one)
    overlap = nuisance_overlap(components.eigenvolumes, variance, mean)
    left = gain_beside_errors(problem, factor, (factor, factor), components)
    return bool(looks_like_error(overlap, one)), float(left)


def test_a_turn_of_the_whole_is_an_error():
    looks, left = left_of_a_turn(torch.ones(len(PHANTOM.atoms), dtype=torch.bool))
    assert looks and left < 0.05


def test_a_turn_of_a_large_part_is_a_motion():
    looks, left = left_of_a_turn(PHANTOM.atoms[:, 0] > 0)
    assert looks and left > 0.15


def test_errors_have_the_spread_that_the_components_have():
    mean, deviation = PHANTOM.mean(BOX), 0.03
    first = pose_derivatives(mean)
    volume = deviation * first[4:5]
    variance = volume.double().square().sum().reshape(1)
    found = error_volumes(volume / variance.sqrt().float(), variance, mean)
    assert found.shape[0] == 6 + 21
    assert float(inner_products(found[:6], found[:6]).trace()) == pytest.approx(float(variance), rel=1e-3)
    # x^2 / 2 times the second derivative, of x of that deviation: var(x^2) is twice its square
    expected = 0.5 * 2**0.5 * deviation**2 * pose_derivatives(first[4])[4]
    errors = (found[6:] - expected).flatten(1).norm(dim=1) / expected.norm()
    assert float(errors.min()) < 1e-2
    others = found[6:][errors > errors.min()].flatten(1).norm(dim=1)
    assert float(others.max()) < 1e-2 * float(expected.norm())
