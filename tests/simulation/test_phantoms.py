"""The phantoms: fixed, inside their radius, of the stated composition and without symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.contract.params import PHANTOMS
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk
from solvar_engine.imaging.rotation import random_rotations, rotation_to_rotvec
from solvar_engine.projectors.nufft import NufftProjector
from solvar_engine.simulation.phantoms import (
    ATOM_COUNT,
    FLEXIBLE_RMS,
    HINGE_DOMAIN_ATOMS,
    LINKER_AMPLITUDES_DEG,
    LINKER_ATOMS,
    LINKER_HINGES,
    MOLECULE_RADIUS,
    Phantom,
    make_phantom,
    phantom_names,
)


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
    ("name", "state", "atom", "position"),
    [
        ("hinge", 0, 0, [-0.1670539281, -0.2551572651, -0.1653494392]),
        ("hinge", 0, -1, [0.0042048197, 0.1943625637, 0.0168353633]),
        ("assembly", 0, -1, [-0.1204412214, -0.1132970243, -0.1986855870]),
        ("linker", 0, 0, [0.0397365509, -0.1937522352, -0.0707749289]),
        ("linker", -1, -1, [0.0445808974, 0.1979418339, 0.0644543311]),
        ("mixture", 0, 0, [-0.0708976675, -0.1129507292, -0.0554166485]),
        ("mixture", -1, -1, [-0.1247080053, 0.0501586266, -0.0752326152]),
        ("flexible", 0, 0, [-0.1059911096, -0.0232622501, -0.0870061421]),
        ("flexible", -1, -1, [0.0614170970, -0.0782209619, 0.0804606764]),
    ],
)
def test_the_phantoms_never_change(name: str, state: int, atom: int, position: list[float]) -> None:
    # Published figures refer to exactly these molecules.
    assert make_phantom(name).atoms[state, atom].tolist() == pytest.approx(position, abs=1e-9)


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


def rigid_rest(before: torch.Tensor, after: torch.Tensor) -> float:
    """Largest distance (fractions of the box) that the best rigid motion of atoms (n, 3) leaves."""
    first, second = before - before.mean(dim=0), after - after.mean(dim=0)
    left, _, right = torch.linalg.svd(second.T @ first)
    return float((first @ (left @ right).T - second).norm(dim=1).max())


def test_the_bodies_of_the_linker_are_rigid_and_turn_about_its_ends() -> None:
    linker = make_phantom("linker")
    body, rod, other = linker.atoms.split(LINKER_ATOMS, dim=1)
    assert bool((body == body[0]).all())
    for part in (rod, other):
        assert max(rigid_rest(part[0], part[state]) for state in (20, 55, 99)) < 1e-12
        assert rigid_rest(torch.cat((body[0], part[0])), torch.cat((body[20], part[20]))) > 0.01
    # the linker keeps its distance from the first hinge, and the other body its distance from the linker's end
    point = torch.tensor(LINKER_HINGES[0][0], dtype=torch.float64)
    assert torch.allclose((rod - point).norm(dim=-1), (rod[0] - point).norm(dim=-1), atol=1e-12)
    angles = linker.coordinates
    assert np.all(np.abs(angles) <= LINKER_AMPLITUDES_DEG)
    assert np.all(np.ptp(angles, axis=0) > 1.8 * np.array(LINKER_AMPLITUDES_DEG))
    assert abs(np.corrcoef(angles.T)[0, 1]) < 0.25


def test_the_coordinates_of_the_linker_are_the_angles_of_its_hinges() -> None:
    linker = make_phantom("linker")
    rod, other = linker.atoms.split(LINKER_ATOMS, dim=1)[1:]
    for axis, part in enumerate((rod, other)):
        # the first angle turns both, the second the other body in addition
        pairs = [(0, state) for state in (20, 55, 99)]
        for first, second in pairs:
            centred = [part[state] - part[state].mean(dim=0) for state in (first, second)]
            left, _, right = torch.linalg.svd(centred[1].T @ centred[0])
            angle_deg = float(torch.rad2deg(rotation_to_rotvec((left @ right)[None]).norm()))
            difference = np.abs(linker.coordinates[second] - linker.coordinates[first])
            if axis == 0:
                assert angle_deg == pytest.approx(difference[0], abs=1e-6)
            else:
                # two turns about nearly perpendicular axes
                assert np.hypot(*difference) * 0.8 < angle_deg < difference.sum()


def test_the_globules_of_the_mixture_are_different_molecules_of_one_mass() -> None:
    mixture = make_phantom("mixture")
    assert mixture.n_states == 100 and mixture.coordinates.shape == (100, 0)
    assert float(mixture.atoms.mean(dim=1).abs().max()) < 1e-12
    volumes = torch.stack([mixture.volume(state, 16) for state in range(100)]).flatten(1)
    unit = volumes / volumes.norm(dim=1, keepdim=True)
    likeness = unit @ unit.T - torch.eye(100)
    assert float(likeness.max()) < 0.97
    # no few directions hold what distinguishes them
    spectrum = torch.linalg.svdvals(volumes - volumes.mean(dim=0)).square()
    assert float(spectrum[:10].sum() / spectrum.sum()) < 0.7


def test_the_modes_of_the_flexible_molecule_bend_it_without_moving_it() -> None:
    flexible = make_phantom("flexible")
    coefficients = flexible.coordinates
    assert coefficients.shape == (100, 6)
    assert np.abs(coefficients).max() <= np.sqrt(3)
    atoms = flexible.atoms.numpy()
    design = np.concatenate([np.ones((100, 1)), coefficients], axis=1)
    solution, rest, rank, _ = np.linalg.lstsq(design, atoms.reshape(100, -1), rcond=None)
    # states are exactly the resting molecule plus six displacements
    assert rank == 7 and float(rest.max()) < 1e-20
    resting, modes = solution[0].reshape(-1, 3), solution[1:].reshape(6, -1, 3)
    assert np.allclose(np.sqrt((modes**2).sum(axis=2).mean(axis=1)), FLEXIBLE_RMS, rtol=1e-9)
    overlap = np.einsum("mac,nac->mn", modes, modes)
    assert np.abs(overlap - np.diag(np.diag(overlap))).max() < 1e-9 * overlap.max()
    assert np.abs(modes.sum(axis=1)).max() < 1e-9
    assert np.abs(np.cross(resting, modes).sum(axis=1)).max() < 1e-9
    # smooth: neighbours move alike
    distance = np.linalg.norm(resting[:, None] - resting[None], axis=2) + np.eye(ATOM_COUNT)
    nearest = distance.argmin(axis=1)
    assert np.linalg.norm(modes - modes[:, nearest], axis=2).mean() < 0.2 * np.linalg.norm(modes, axis=2).mean()


def test_states_differ(phantom: Phantom) -> None:
    volumes = torch.stack([phantom.volume(state, 16) for state in range(phantom.n_states)]).flatten(1)
    distance = torch.cdist(volumes, volumes) + torch.eye(len(volumes)) * volumes.norm()
    assert float(distance.min()) > 0.002 * float(volumes.norm(dim=1).mean())


@pytest.mark.parametrize("box_size", [64, 65])
def test_projections_of_a_state_are_those_of_its_volume(phantom: Phantom, box_size: int) -> None:
    """The closed form against sums over voxels, and against sums along z.

    The former differ a little: the sharp end of the band rings on beyond the box.
    """
    disk, state = HalfDisk.create(box_size), torch.tensor([0, phantom.n_states - 1])
    rotation = random_rotations(2, torch.Generator().manual_seed(3))
    volumes = torch.stack([phantom.volume(int(number), box_size) for number in state])
    projector = NufftProjector(box_size, disk)
    both = projector.project(projector.to_grid(volumes), rotation)
    expected = torch.stack((both[0, :, 0], both[1, :, 1]))
    found = phantom.project(state, rotation, disk)
    assert float((found - expected).norm() / expected.norm()) < 5e-4
    straight = phantom.project(state, torch.eye(3).expand(2, 3, 3), disk)
    expected = images_to_disk(volumes.sum(dim=1), disk)
    assert float((straight - expected).norm() / expected.norm()) < 1e-5


def test_names_are_those_of_the_command_line() -> None:
    assert phantom_names() == PHANTOMS


def test_unknown_phantoms_are_named_with_the_choice() -> None:
    with pytest.raises(ValueError, match="'hing' does not exist: choose one of hinge, linker, assembly"):
        make_phantom("hing")


def test_the_union_mask_holds_every_state_and_ends_inside_the_box() -> None:
    hinge = make_phantom("hinge")
    mask = hinge.mask(64)
    for state in (0, 49):
        volume = hinge.volume(state, 64)
        outside = volume * (1 - mask)
        assert float(outside.square().sum() / volume.square().sum()) < 1e-3
    faces = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]])
    assert float(faces.max()) == 0.0
    assert 0.1 < float(mask.mean()) < 0.5
