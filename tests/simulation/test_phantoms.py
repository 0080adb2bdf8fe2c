"""The phantoms: fixed, inside their radius, of the stated composition and without symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.imaging.rotation import rotation_to_rotvec
from solvar_engine.simulation.masks import union_mask
from solvar_engine.simulation.phantoms import (
    ATOM_COUNT,
    HINGE_DOMAIN_ATOMS,
    MOLECULE_RADIUS,
    Phantom,
    make_phantom,
    phantom_names,
)
from solvar_engine.simulation.projections import atom_volume


@pytest.fixture(scope="module", params=phantom_names())
def phantom(request: pytest.FixtureRequest) -> Phantom:
    return make_phantom(request.param)


def test_every_state_fits_into_the_molecule_radius(phantom: Phantom) -> None:
    radius = phantom.atoms.norm(dim=-1)
    assert float(radius.max()) <= MOLECULE_RADIUS
    assert float(radius.max()) > 0.9 * MOLECULE_RADIUS


def test_shapes_and_populations_agree(phantom: Phantom) -> None:
    assert phantom.atoms.shape == (phantom.n_states, ATOM_COUNT, 3)
    assert phantom.mass.shape == (phantom.n_states, ATOM_COUNT)
    assert len(phantom.coordinates) == len(phantom.population) == phantom.n_states
    assert phantom.population.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "atom", "position"),
    [
        ("hinge", 0, [-0.1670539281, -0.2551572651, -0.1653494392]),
        ("hinge", -1, [0.0042048197, 0.1943625637, 0.0168353633]),
        ("assembly", -1, [-0.1204412214, -0.1132970243, -0.1986855870]),
    ],
)
def test_the_phantoms_never_change(name: str, atom: int, position: list[float]) -> None:
    # Published figures refer to exactly these molecules.
    assert make_phantom(name).atoms[0, atom].tolist() == pytest.approx(position, abs=1e-9)


def test_the_body_is_asymmetric_and_chiral() -> None:
    atoms = make_phantom("static").atoms[0]
    centred = atoms - atoms.mean(dim=0)
    spread, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    # Three different spreads fix the principal axes, a skewness along each fixes its direction: nothing but
    # the identity maps such a body onto itself, no rotation and no reflection.
    skewness = ((centred @ axes) ** 3).mean(dim=0) / spread**1.5
    assert float((spread[1:] / spread[:-1]).min()) > 1.2
    assert float(skewness.abs().min()) > 0.05


def test_the_domain_of_the_hinge_turns_rigidly_by_thirty_degrees() -> None:
    hinge = make_phantom("hinge")
    first, last = hinge.atoms[0], hinge.atoms[-1]
    moves = (first - last).norm(dim=1) > 1e-12
    assert int(moves.sum()) == HINGE_DOMAIN_ATOMS == round(0.27 * ATOM_COUNT)
    before, after = first[moves], last[moves]
    centred_before, centred_after = before - before.mean(dim=0), after - after.mean(dim=0)
    left, _, right = torch.linalg.svd(centred_after.T @ centred_before)
    rotation = left @ right
    assert torch.allclose(centred_before @ rotation.T, centred_after, atol=1e-12)
    angle_deg = torch.rad2deg(rotation_to_rotvec(rotation[None]).norm())
    assert float(angle_deg) == pytest.approx(30.0, abs=1e-6)
    assert float((before - after).norm(dim=1).max()) * 64 > 8  # px at box 64: not a tremble
    assert hinge.n_states == 50
    assert np.allclose(hinge.coordinates[:, 0], np.linspace(0, 1, 50))


def test_the_static_phantom_is_the_hinge_at_rest() -> None:
    hinge, static = make_phantom("hinge"), make_phantom("static")
    middle = 0.5 * (hinge.atoms[24] + hinge.atoms[25])
    assert float((middle - static.atoms[0]).abs().max()) < 1e-4
    assert static.coordinates.shape == (1, 0)


def test_the_pieces_of_the_assembly_come_and_go() -> None:
    assembly = make_phantom("assembly")
    full_mass = assembly.mass[0].sum()
    assert assembly.n_states == 8
    assert len(np.unique(assembly.coordinates, axis=0)) == 8
    assert len(np.unique(assembly.population)) == 8
    absent = assembly.coordinates == 0
    for piece in range(4):
        alone = np.flatnonzero(absent[:, piece] & (absent.sum(axis=1) == 1))
        if len(alone):
            share = 1.0 - float(assembly.mass[alone[0]].sum() / full_mass)
            assert 0.03 <= share <= 0.08
    deviation = assembly.coordinates - assembly.population @ assembly.coordinates
    assert np.linalg.matrix_rank(deviation) == 4


def test_unknown_phantoms_are_named_with_the_choice() -> None:
    with pytest.raises(ValueError, match="'hing' does not exist: choose one of hinge, assembly, static"):
        make_phantom("hing")


def test_the_union_mask_holds_every_state_and_ends_inside_the_box() -> None:
    hinge = make_phantom("hinge")
    mask = union_mask(hinge, 64)
    for state in (0, 49):
        volume = atom_volume(hinge.atoms[state], hinge.mass[state], 64, hinge.sigma)
        outside = volume * (1 - mask)
        assert float(outside.square().sum() / volume.square().sum()) < 1e-3
    faces = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]])
    assert float(faces.max()) == 0.0
    assert 0.1 < float(mask.mean()) < 0.5
