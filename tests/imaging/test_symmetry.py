from __future__ import annotations

import math

import pytest
import torch

from solvar_engine.imaging.symmetry import asymmetric_unit, symmetry_operators

ORDERS = {"C1": 1, "C2": 2, "C7": 7, "D2": 4, "D5": 10, "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I4": 60}


def is_operator(group: torch.Tensor, axis: tuple[float, float, float], order: int) -> bool:
    """Whether a rotation by a full turn over the order about an axis is in the group."""
    direction = torch.tensor(axis, dtype=torch.float64)
    direction = direction / direction.norm()
    fixed = (group @ direction - direction).norm(dim=1) < 1e-6
    trace = group.diagonal(dim1=1, dim2=2).sum(dim=1)
    return bool((fixed & ((trace - 1 - 2 * math.cos(2 * math.pi / order)).abs() < 1e-6)).any())


@pytest.mark.parametrize("name", ORDERS)
def test_groups_are_closed_sets_of_rotations_of_the_right_order(name: str) -> None:
    group = symmetry_operators(name)
    assert group.shape == (ORDERS[name], 3, 3) and group.dtype == torch.float64
    assert torch.equal(group[0], torch.eye(3, dtype=torch.float64))
    assert torch.allclose(group @ group.mT, torch.eye(3, dtype=torch.float64).expand_as(group), atol=1e-12)
    assert torch.allclose(torch.det(group), torch.ones(len(group), dtype=torch.float64))
    products = torch.einsum("aij,bjk->abik", group, group).flatten(0, 1)
    distance = torch.cdist(products.flatten(1), group.flatten(1))
    assert float(distance.min(dim=1).values.max()) < 1e-6
    assert float((torch.cdist(group.flatten(1), group.flatten(1)) + torch.eye(len(group))).min()) > 0.1  # all differ


@pytest.mark.parametrize(
    ("name", "axis", "order"),
    [
        ("C3", (0, 0, 1), 3),
        ("D3", (0, 0, 1), 3),
        ("D3", (1, 0, 0), 2),
        ("T", (0, 0, 1), 3),
        ("T", (0, 0.816496, 0.577350), 2),
        ("O", (0, 0, 1), 4),
        ("O", (1, 1, 1), 3),
        ("I1", (1, 0, 0), 2),
        ("I1", (0.850650808, 0, -0.525731112), 5),
        ("I1", (0.934172359, 0.356822090, 0), 3),
        ("I2", (0, 0, 1), 2),
        ("I2", (-1.618033989, -1, 0), 5),
        ("I2", (-0.53934467, -1.4120227, 0), 3),
        ("I3", (0, 0, 1), 5),
        ("I3", (-0.525731114, 0, 0.850650807), 2),
        ("I4", (0, 0, 1), 5),
        ("I4", (0.525731114, 0, 0.850650807), 2),
    ],
)
def test_axes_lie_where_relion_has_them(name: str, axis: tuple[float, float, float], order: int) -> None:
    assert is_operator(symmetry_operators(name), axis, order)


def test_names_are_read_in_any_case() -> None:
    assert torch.equal(symmetry_operators(" d2 "), symmetry_operators("D2"))
    assert torch.equal(symmetry_operators("I"), symmetry_operators("I2"))


@pytest.mark.parametrize("name", ["", "C", "C0", "X3", "I5", "C3v", "D-2", "C61", "D31", "4"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="symmetry is"):
        symmetry_operators(name)


@pytest.mark.parametrize("name", ["C2", "C3", "D2", "D3", "T", "O"])
def test_asymmetric_unit_is_cut_where_there_is_no_density(name: str) -> None:
    """Subunits that do not touch are in one unit each, and units add up to all of space."""
    operators, box_size = symmetry_operators(name), 40
    centre = torch.tensor([11.0, 3.0, 7.0], dtype=torch.float64)
    axis = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")

    def ball(place: torch.Tensor) -> torch.Tensor:
        return torch.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2) / (2 * 1.2**2))

    subunits = [ball(operator @ centre) for operator in operators]
    unit = asymmetric_unit(torch.stack(subunits).sum(dim=0), operators, 2.0).double()
    held = torch.stack([(unit * subunit).sum() / subunit.sum() for subunit in subunits])
    assert float(held.max()) > 0.98 and float(held.sum() - held.max()) < 0.02
    assert float(unit.min()) >= 0 and float(unit.max()) <= 1
    # of the places of a spherical shell every unit has its part
    shell = ((x**2 + y**2 + z**2).sqrt() - 12).abs() < 3
    assert float(unit[shell].mean()) == pytest.approx(1 / len(operators), rel=0.05)
