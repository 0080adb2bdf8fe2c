from __future__ import annotations

import math

import pytest
import torch

from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations
from solvar_engine.imaging.so3_grid import (
    in_fundamental_domain,
    rotation_grid,
    rotations_for_spacing,
    shift_grid,
    spacing_for_shell,
    super_fibonacci,
)
from solvar_engine.imaging.symmetry import symmetry_operators


def nearest_deg(rotation: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Angle from each rotation to the nearest of a grid."""
    trace = torch.einsum("nij,gij->ng", rotation.double(), grid.double()).max(dim=1).values
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))


def test_the_grid_is_uniform() -> None:
    """Averages of Wigner matrices vanish, which they do for the Haar measure: the weights are equal."""
    grid = super_fibonacci(rotations_for_spacing(15.0))
    assert torch.allclose(grid @ grid.mT, torch.eye(3, dtype=torch.float64).expand_as(grid), atol=1e-12)
    assert float(grid.mean(dim=0).abs().max()) < 2e-3
    squares = torch.einsum("nij,nkl->ijkl", grid, grid) / len(grid)
    identity = torch.eye(3, dtype=torch.float64)
    expected = torch.einsum("ik,jl->ijkl", identity, identity) / 3
    assert float((squares - expected).abs().max()) < 5e-3


@pytest.mark.parametrize("spacing", [15.0, 25.0])
def test_the_grid_leaves_no_holes_and_has_no_pairs(spacing: float) -> None:
    grid = super_fibonacci(rotations_for_spacing(spacing))
    away = nearest_deg(random_rotations(2000, torch.Generator().manual_seed(0)), grid)
    assert float(away.max()) < spacing and 0.3 * spacing < float(away.mean()) < 0.6 * spacing
    others = torch.einsum("nij,gij->ng", grid, grid).fill_diagonal_(-1).max(dim=1).values
    apart = torch.rad2deg(torch.arccos((others - 1) / 2))
    assert float(apart.min()) > 0.5 * spacing


def test_a_cell_has_the_volume_of_a_cube_of_the_spacing() -> None:
    assert rotations_for_spacing(10.0) == round(8 * math.pi**2 / math.radians(10) ** 3)
    assert spacing_for_shell(16) == pytest.approx(spacing_for_shell(8) / 2)


@pytest.mark.parametrize("name", ["C3", "D2", "T", "O", "I1"])
def test_the_fundamental_domain_covers_every_rotation_once(name: str) -> None:
    group = symmetry_operators(name)
    rotation = random_rotations(500, torch.Generator().manual_seed(1)).double()
    turn = random_rotations(1, torch.Generator().manual_seed(2))[0].double()
    equal = torch.einsum("gij,njk->ngik", group, rotation)
    inside = in_fundamental_domain(equal.flatten(0, 1), group).unflatten(0, (500, -1))
    assert inside.sum(dim=1).tolist() == [1] * 500
    # and so does the domain after a turn from the right
    inside = in_fundamental_domain((equal @ turn.T).flatten(0, 1), group).unflatten(0, (500, -1))
    assert inside.sum(dim=1).tolist() == [1] * 500


@pytest.mark.parametrize("name", ["C3", "D2", "I1"])
def test_a_grid_for_a_symmetry_covers_all_with_its_images(name: str) -> None:
    group = symmetry_operators(name)
    grid = rotation_grid(15.0, group)
    assert len(grid) == pytest.approx(rotations_for_spacing(15.0) / len(group), rel=0.1)
    everything = torch.einsum("gij,njk->gnik", group, grid).flatten(0, 1)
    assert float(nearest_deg(random_rotations(500, torch.Generator().manual_seed(3)), everything).max()) < 20.0


def test_distance_of_the_test_is_that_of_the_engine() -> None:
    pair = random_rotations(2, torch.Generator().manual_seed(4))
    known = float(angular_distance_deg(pair[:1], pair[1:]))
    assert float(nearest_deg(pair[:1], pair[1:])) == pytest.approx(known, abs=0.01)


def test_shifts_fill_a_circle() -> None:
    shifts = shift_grid(2.0, 4.0)
    assert len(shifts) == 13 and float(shifts.norm(dim=1).max()) <= 4.0
    assert shifts.mean(dim=0).abs().max() == 0
    assert shift_grid(2.0, 0.5).tolist() == [[0.0, 0.0]]
