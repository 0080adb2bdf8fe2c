from __future__ import annotations

import pytest
import torch

from solvar_engine.abinitio.mixture import centred, far_in_power, free_axes
from solvar_engine.abinitio.search import is_real, missing_views, views_suffice
from solvar_engine.imaging.rotation import random_rotations, rotvec_to_rotation
from solvar_engine.imaging.symmetry import symmetry_operators


def about(axis: torch.Tensor, spread_deg: float, count: int = 2000) -> torch.Tensor:
    """Orientations whose views are near an axis, at random in-plane angles."""
    everything = random_rotations(200 * count, torch.Generator().manual_seed(0))
    near = (everything[:, :, 2] @ axis).abs() > torch.cos(torch.deg2rad(torch.tensor(spread_deg)))
    return everything[near][:count]


def test_even_views_leave_nothing_out() -> None:
    rotation = random_rotations(2000, torch.Generator().manual_seed(1))
    centre, radius, unseen = missing_views(rotation, symmetry_operators("C1"))
    assert centre is None and radius == 0 and unseen == 0


def test_views_of_one_direction_do_not_suffice_and_the_hole_is_opposite() -> None:
    axis = torch.tensor([0.6, 0.0, 0.8])
    centre, radius, unseen = missing_views(about(axis, 10.0), symmetry_operators("C1"))
    assert centre is not None and abs(float(centre @ axis.double())) < 0.1 and 60 < radius <= 90
    assert unseen > 0.5 and not views_suffice(unseen)


def test_views_from_a_great_circle_show_all_frequencies() -> None:
    rotation = random_rotations(40_000, torch.Generator().manual_seed(2))
    ring = rotation[rotation[:, 2, 2].abs() < 0.1]
    centre, radius, unseen = missing_views(ring, symmetry_operators("C1"))
    assert centre is not None and abs(float(centre[2])) > 0.95 and radius > 50
    assert views_suffice(unseen)


def test_symmetry_adds_views() -> None:
    axis = torch.tensor([1.0, 1.0, 1.0]) / 3**0.5
    rotation = about(axis, 25.0)
    _, alone, _ = missing_views(rotation, symmetry_operators("C1"))
    _, with_group, _ = missing_views(rotation, symmetry_operators("D2"))
    assert with_group < alone - 10


def test_a_gain_is_real_beyond_its_error() -> None:
    noise = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert not is_real(noise)[2] and not is_real(noise - 1)[2]
    assert not is_real(0.01 * noise + 0.1)[2]  # certain, but nothing
    few = torch.where(torch.arange(400) < 150, 50.0, -0.1)
    assert not is_real(few)[2] and not is_real(few + 1)[2] and is_real(few + 3)[2]  # of 18.7, 19.7 and 21.7 on average
    mean, error, found = is_real(noise + 1)
    assert found and error == pytest.approx(0.05, rel=0.2) and mean == pytest.approx(1, abs=0.2)


def test_a_map_is_moved_to_its_centre_of_mass_along_free_axes() -> None:
    z, y, x = torch.meshgrid(*[torch.arange(16.0) - 8] * 3, indexing="ij")
    blob = torch.exp(-0.25 * ((x - 2.0) ** 2 + (y + 1.0) ** 2 + (z - 1.5) ** 2))

    def centre(volume: torch.Tensor) -> list[float]:
        return [float((volume * axis).sum() / volume.sum()) for axis in (x, y, z)]

    assert centre(blob) == pytest.approx([2.0, -1.0, 1.5], abs=1e-2)
    assert centre(centred(blob, free_axes(symmetry_operators("C1")))) == pytest.approx([0, 0, 0], abs=1e-2)
    assert centre(centred(blob, free_axes(symmetry_operators("C3")))) == pytest.approx([2, -1, 0], abs=1e-2)
    assert free_axes(symmetry_operators("D2")).tolist() == [0, 0, 0]


def test_images_of_ice_stand_out_and_others_do_not() -> None:
    power = 2 + 0.3 * torch.randn(1000, generator=torch.Generator().manual_seed(4))
    power[:5] = 20.0
    assert far_in_power(power).nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_turns_of_the_beam_do_not_change_views() -> None:
    rotation = about(torch.tensor([0.0, 0.0, 1.0]), 10.0, 500)
    turned = rotation @ rotvec_to_rotation(torch.tensor([[0.0, 0.0, 1.0]]))[0]
    first, second = (missing_views(one, symmetry_operators("C1")) for one in (rotation, turned))
    assert first[1:] == second[1:]
