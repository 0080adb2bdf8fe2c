"""What every projector promises, on every backend, interpolation, oversampling and kind of box.

A new backend joins by one line in `backends.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from solvar_engine.contract.angles import relion_to_rotation
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, images_to_disk
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.projectors.base import Projector
from tests.imaging.closed_form import asymmetric_atoms, random_rotations, relative_error
from tests.projectors.backends import BACKENDS, GRID_SAMPLINGS, REFERENCE, Backend, Sampling

CHANNELS = 3
IMAGES = 7


@dataclass(frozen=True)
class Case:
    """One corner of the product of all options."""

    backend: Backend
    sampling: Sampling
    box_size: int

    def __str__(self) -> str:
        return f"{self.backend.name}-{self.sampling}-box{self.box_size}"

    @property
    def disk(self) -> HalfDisk:
        return HalfDisk.create(self.box_size)

    def projector(self, disk: HalfDisk | None = None, backend: Backend | None = None) -> Projector:
        create = (backend or self.backend).create
        return create(self.box_size, self.disk if disk is None else disk, **self.sampling.options)

    def volumes(self, channels: int = CHANNELS, seed: int = 0) -> Tensor:
        return self.noise(channels, self.box_size, self.box_size, self.box_size, seed=seed)

    def noise(self, *shape: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(self.backend.dtype)

    def slices(self, channels: int = CHANNELS, seed: int = 1) -> Tensor:
        shape = (IMAGES, len(self.disk), channels)
        return torch.complex(self.noise(*shape, seed=seed), self.noise(*shape, seed=seed + 1))

    def ctf(self, seed: int = 5) -> Tensor:
        return self.noise(IMAGES, len(self.disk), seed=seed)


def cases_of(*box_sizes: int) -> list[Case]:
    def boxes(backend: Backend, number: int) -> tuple[int, ...]:
        return (box_sizes[number % len(box_sizes)],) if backend.is_slow else box_sizes

    return [
        Case(backend, sampling, box_size)
        for backend in BACKENDS
        for number, sampling in enumerate(backend.samplings)
        for box_size in boxes(backend, number)
    ]


CASES = cases_of(12, 13)
every_case = pytest.mark.parametrize("case", CASES, ids=str)
fast_backends = pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.backend is not REFERENCE and case.sampling in REFERENCE.samplings],
    ids=str,
)


def rotations(count: int = IMAGES, seed: int = 0) -> Tensor:
    return torch.from_numpy(random_rotations(count, seed)).float()


def inner(first: Tensor, second: Tensor) -> float:
    """Real inner product, summed in double precision."""
    wide = torch.complex128 if first.is_complex() else torch.float64
    return float((first.to(wide).conj() * second.to(wide)).real.sum())


def adjoint_error(forward: float, backward: float, first: Tensor, second: Tensor) -> float:
    """Difference of two inner products relative to the largest value they could take."""
    return abs(forward - backward) / float(first.abs().double().norm() * second.abs().double().norm())


# --- linear algebra


@every_case
@pytest.mark.parametrize("use_ctf", [False, True])
def test_backprojection_is_the_adjoint_of_projection(case: Case, use_ctf: bool) -> None:
    projector, rotation, volumes = case.projector(), rotations(), case.volumes()
    ctf = case.ctf() if use_ctf else None
    projected = projector.project(projector.to_grid(volumes), rotation, ctf)
    # random, yet far from orthogonal to the projections, lest two zeros be compared
    slices = case.slices() + projected / projected.abs().mean()
    accumulator = projector.new_accumulator(CHANNELS)
    projector.backproject(slices, rotation, accumulator, ctf)
    back = projector.to_volumes(accumulator)
    assert back.shape == volumes.shape
    forward, backward = inner(projected, slices), inner(volumes, back)
    assert adjoint_error(forward, backward, projected, slices) < case.backend.rounding
    assert forward > 0.1 * float(projected.abs().norm() * slices.abs().norm())


@every_case
def test_adjoint_holds_for_each_channel_alone(case: Case) -> None:
    projector, rotation, slices, volumes = case.projector(), rotations(), case.slices(), case.volumes()
    projected = projector.project(projector.to_grid(volumes), rotation)
    accumulator = projector.new_accumulator(CHANNELS)
    projector.backproject(slices, rotation, accumulator)
    back = projector.to_volumes(accumulator)
    for channel in range(CHANNELS):
        forward = inner(projected[..., channel], slices[..., channel])
        backward = inner(volumes[channel], back[channel])
        error = adjoint_error(forward, backward, projected[..., channel], slices[..., channel])
        assert error < case.backend.rounding


@every_case
def test_projection_is_linear_and_channels_do_not_mix(case: Case) -> None:
    projector, rotation, volumes = case.projector(), rotations(), case.volumes(2)
    both = projector.project(projector.to_grid(volumes), rotation)
    combination = 2 * volumes[:1] - 3 * volumes[1:]
    combined = projector.project(projector.to_grid(combination), rotation)[..., 0]
    expected = 2 * both[..., 0] - 3 * both[..., 1]
    assert relative_error(combined.numpy(), expected.numpy()) < case.backend.rounding
    for channel in range(2):
        alone = projector.project(projector.to_grid(volumes[channel : channel + 1]), rotation)[..., 0]
        assert relative_error(alone.numpy(), both[..., channel].numpy()) < case.backend.rounding


@every_case
def test_ctf_multiplies_the_slices(case: Case) -> None:
    projector, rotation, ctf = case.projector(), rotations(), case.ctf()
    grid = projector.to_grid(case.volumes())
    plain, scaled = projector.project(grid, rotation), projector.project(grid, rotation, ctf)
    assert relative_error(scaled.numpy(), (plain * ctf[..., None]).numpy()) < case.backend.rounding


@every_case
def test_backprojection_adds_to_what_is_there(case: Case) -> None:
    projector, rotation, slices = case.projector(), rotations(), case.slices()
    once, twice = projector.new_accumulator(CHANNELS), projector.new_accumulator(CHANNELS)
    projector.backproject(slices, rotation, once)
    projector.backproject(slices[:3].contiguous(), rotation[:3], twice)
    projector.backproject(slices[3:].contiguous(), rotation[3:], twice)
    first, second = projector.to_volumes(once).numpy(), projector.to_volumes(twice).numpy()
    assert relative_error(second, first) < case.backend.rounding


@every_case
def test_gram_matrices_are_those_of_the_slices(case: Case) -> None:
    projector, rotation, ctf = case.projector(), rotations(), case.ctf()
    grid, images = projector.to_grid(case.volumes()), case.slices(1)[..., 0].contiguous()
    slices, gram = projector.project_with_gram(grid, rotation, ctf, images)
    assert relative_error(slices.numpy(), projector.project(grid, rotation, ctf).numpy()) < case.backend.rounding
    columns = torch.cat((slices, images[..., None]), dim=-1).to(torch.complex128)
    expected = (columns.mH @ (columns * case.disk.weight[:, None])).real
    assert gram.dtype == torch.float64
    assert relative_error(gram.numpy(), expected.numpy()) < case.backend.rounding


@every_case
def test_combinations_are_back_projected_with_hermitian_weights(case: Case) -> None:
    projector, rotation, ctf = case.projector(), rotations(), case.ctf()
    slices, images = case.slices(), case.slices(1, seed=3)[..., 0].contiguous()
    coefficients = case.noise(IMAGES, CHANNELS + 1, 2, seed=7)
    totals = [projector.new_accumulator(2) for _ in range(2)]
    projector.backproject_combination(slices, images, coefficients, rotation, ctf, totals[0])
    columns = torch.cat((slices, images[..., None]), dim=-1) * case.disk.weight[:, None]
    projector.backproject(columns @ coefficients.to(columns.dtype), rotation, totals[1], ctf)
    found, expected = (projector.to_volumes(total).numpy() for total in totals)
    assert relative_error(found, expected) < case.backend.rounding


@every_case
def test_slices_do_not_depend_on_the_batch(case: Case) -> None:
    projector, rotation = case.projector(), rotations()
    grid = projector.to_grid(case.volumes())
    whole = projector.project(grid, rotation)
    parts = torch.cat([projector.project(grid, part) for part in rotation.split(2)])
    assert relative_error(parts.numpy(), whole.numpy()) < case.backend.rounding


@every_case
def test_no_images_give_no_slices(case: Case) -> None:
    projector, accumulator = case.projector(), case.projector().new_accumulator(CHANNELS)
    slices = projector.project(projector.to_grid(case.volumes()), rotations()[:0])
    assert slices.shape == (0, len(case.disk), CHANNELS)
    projector.backproject(slices, rotations()[:0], accumulator)
    assert projector.to_volumes(accumulator).abs().max().item() == 0


# --- physics


def direct_slices(case: Case, volume: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Transform of a volume at the rotated pixels, from the definition of the Fourier transform."""
    axis = np.arange(case.box_size) - case.box_size // 2
    frequency = case.disk.pixels.numpy() @ rotation[:, :2].T
    waves = [np.exp(-2j * np.pi * np.outer(column, axis) / case.box_size) for column in frequency.T]
    return np.einsum("px,py,pz,zyx->p", *waves, volume, optimize=True) / case.box_size


def gridding_correction(case: Case) -> np.ndarray:
    if case.sampling.oversampling is None:
        return np.ones((case.box_size,) * 3)
    axis = (np.arange(case.box_size) - case.box_size // 2) / (case.sampling.oversampling * case.box_size)
    profile = np.sinc(axis) ** (2 if case.sampling.interpolation == "trilinear" else 1)
    return profile[:, None, None] * profile[None, :, None] * profile[None, None, :]


@every_case
def test_views_along_the_axes_are_exact(case: Case) -> None:
    """Where pixels fall on grid points nothing is interpolated; only the gridding correction remains."""
    volume = case.volumes(1)
    angles = np.array([[0.0, 0, 0], [90, 0, 0], [0, 90, 0], [0, 0, 90], [90, 90, 180], [0, 180, 0]])
    # exact zeros and ones, as no sine of a multiple of pi/2 is
    rotation = torch.from_numpy(relion_to_rotation(*angles.T)).float().round()
    slices = case.projector().project(case.projector().to_grid(volume), rotation)[..., 0]
    corrected = volume[0].numpy() / gridding_correction(case)
    expected = [direct_slices(case, corrected, matrix) for matrix in rotation.double().numpy()]
    assert relative_error(slices.numpy(), np.stack(expected)) < case.backend.rounding


@every_case
def test_point_at_the_centre_looks_the_same_from_everywhere(case: Case) -> None:
    volume = torch.zeros(1, *[case.box_size] * 3, dtype=case.backend.dtype)
    volume[(0, *[case.box_size // 2] * 3)] = 1.0
    projector = case.projector()
    slices = projector.project(projector.to_grid(volume), rotations())
    # the transform of a point is flat; images carry a ctf 1 / box
    deviation = (slices * case.box_size - 1).abs().max().item()
    assert deviation < 10 * case.backend.rounding


@every_case
def test_flat_slices_back_project_to_a_point_at_the_centre(case: Case) -> None:
    projector, accumulator = case.projector(), case.projector().new_accumulator(1)
    slices = torch.ones(50, len(case.disk), 1, dtype=case.backend.dtype).to(accumulator.dtype)
    projector.backproject(slices, rotations(50), accumulator)
    volume = projector.to_volumes(accumulator)[0]
    peak = np.unravel_index(int(volume.argmax()), volume.shape)
    assert peak == (case.box_size // 2,) * 3


@every_case
def test_half_a_turn_in_the_plane_conjugates_the_slice(case: Case) -> None:
    """Friedel's law: the opposite pixel of a real volume's slice is its complex conjugate."""
    projector = case.projector()
    grid = projector.to_grid(case.volumes())
    rotation = rotations()
    turned = rotation * torch.tensor([-1.0, -1.0, 1.0])
    slices, opposite = projector.project(grid, rotation), projector.project(grid, turned)
    assert relative_error(opposite.numpy(), slices.numpy().conj()) < case.backend.rounding


@every_case
def test_slice_and_adjoint_agree_on_the_stored_edge_of_the_grid(case: Case) -> None:
    """Views that look along x have pixels on the plane kx = 0, whose Friedel mates are both stored."""
    projector = case.projector()
    grid = projector.to_grid(case.volumes())
    along_x = torch.from_numpy(relion_to_rotation(*np.array([[0.0], [90.0], [0.0]]))).float().round()
    tilted = rotvec_to_rotation(torch.tensor([[1e-7, 0.3, 0.0]])) @ along_x
    rotation = torch.cat((along_x, tilted, along_x * torch.tensor([-1.0, -1.0, 1.0])))
    slices = projector.project(grid, rotation)
    assert relative_error(slices[2].numpy(), slices[0].numpy().conj()) < case.backend.rounding
    values = case.slices()[:3].contiguous()
    accumulator = projector.new_accumulator(CHANNELS)
    projector.backproject(values, rotation, accumulator)
    forward, backward = inner(slices, values), inner(case.volumes(), projector.to_volumes(accumulator))
    assert adjoint_error(forward, backward, slices, values) < case.backend.rounding


# Relative errors of slices of a molecule in the inner two thirds of the box, with some room.
INTERPOLATION_ERROR = {
    Sampling("trilinear", 1): 0.16,
    Sampling("trilinear", 2): 0.035,
    Sampling("trilinear", 3): 0.015,
    Sampling("nearest", 1): 0.37,
    Sampling("nearest", 2): 0.17,
    Sampling("nearest", 3): 0.11,
    Sampling("nufft"): 1e-5,
}


@pytest.mark.parametrize("case", cases_of(32, 33), ids=str)
def test_slices_are_the_projections_of_atoms(case: Case) -> None:
    box_size = case.box_size
    atoms = asymmetric_atoms(box_size)
    projector, rotation = case.projector(), rotations(10)
    volume = torch.from_numpy(atoms.volume(box_size)).to(case.backend.dtype)
    slices = projector.project(projector.to_grid(volume[None]), rotation)[..., 0]

    def error(of: Tensor) -> float:
        images = torch.from_numpy(atoms.projections(of.double().numpy(), box_size))
        return relative_error(slices.numpy(), images_to_disk(images, case.disk).numpy())

    assert error(rotation) < INTERPOLATION_ERROR[case.sampling]
    # the inverse rotations are a mistake that must show
    assert error(rotation.mT) > error(rotation) + 0.15


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_images_of_slices_are_the_projections_of_atoms(backend: Backend) -> None:
    sampling = Sampling("trilinear", 2)
    case = Case(backend, sampling if sampling in backend.samplings else backend.samplings[0], 32)
    atoms = asymmetric_atoms(32)
    projector, rotation = case.projector(), rotations(5)
    slices = projector.project(projector.to_grid(torch.from_numpy(atoms.volume(32)[None])), rotation)
    images = disk_to_images(slices[..., 0], case.disk, 32)
    assert relative_error(images.numpy(), atoms.projections(rotation.double().numpy(), 32)) < 0.05


@every_case
def test_a_lower_band_gives_the_first_pixels(case: Case) -> None:
    projector, lower = case.projector(), case.projector(case.disk.prefix(3))
    volumes, rotation = case.volumes(), rotations()
    whole = projector.project(projector.to_grid(volumes), rotation)
    band = lower.project(lower.to_grid(volumes), rotation)
    assert relative_error(band.numpy(), whole[:, : band.shape[1]].numpy()) < case.backend.rounding


@every_case
def test_a_band_of_the_origin_alone_works(case: Case) -> None:
    projector, volumes, rotation = case.projector(case.disk.prefix(0)), case.volumes(), rotations()
    ctf = torch.full((IMAGES, 1), 2.0, dtype=case.backend.dtype)
    slices = projector.project(projector.to_grid(volumes), rotation, ctf)
    correction = torch.from_numpy(gridding_correction(case))
    expected = 2 * (volumes / correction).sum(dim=(1, 2, 3)) / case.box_size
    assert relative_error(slices[:, 0].real.numpy(), expected.expand(IMAGES, -1).numpy()) < 1e-4


# --- backends against the reference


@fast_backends
def test_slices_equal_those_of_the_reference(case: Case) -> None:
    fast, reference = case.projector(), case.projector(backend=REFERENCE)
    volumes, rotation, ctf = case.volumes().double(), rotations(20), case.noise(20, len(case.disk), seed=9)
    found = fast.project(fast.to_grid(volumes), rotation, ctf)
    expected = reference.project(reference.to_grid(volumes), rotation, ctf.double())
    different = (found - expected).abs() > 1e-4 * expected.abs().max()
    # Rounding may push a coordinate across the border of two nearest cells, but rarely.
    assert different.double().mean().item() <= (0 if case.sampling.interpolation == "trilinear" else 0.002)


@fast_backends
def test_back_projections_equal_those_of_the_reference(case: Case) -> None:
    fast, reference = case.projector(), case.projector(backend=REFERENCE)
    slices, rotation = case.slices(), rotations()
    totals = []
    for projector, values in ((fast, slices), (reference, slices.to(torch.complex128))):
        accumulator = projector.new_accumulator(CHANNELS)
        projector.backproject(values, rotation, accumulator, case.ctf().to(values.real.dtype))
        totals.append(projector.to_volumes(accumulator).numpy())
    assert relative_error(*totals) < (2e-5 if case.sampling.interpolation == "trilinear" else 0.05)


# --- manners


@every_case
def test_arguments_are_not_modified(case: Case) -> None:
    projector = case.projector()
    volumes, rotation, slices, ctf = case.volumes(), rotations(), case.slices(), case.ctf()
    grid = projector.to_grid(volumes)
    accumulator = projector.new_accumulator(CHANNELS)
    arguments = (volumes, rotation, slices, ctf, grid)
    copies = [argument.clone() for argument in arguments]
    projector.project(grid, rotation, ctf)
    projector.backproject(slices, rotation, accumulator, ctf)
    before = accumulator.clone()
    projector.to_volumes(accumulator)
    for argument, copy in zip((*arguments, accumulator), (*copies, before), strict=True):
        assert torch.equal(argument, copy)


@every_case
def test_results_repeat_to_the_last_bit(case: Case) -> None:
    results = []
    for _ in range(2):
        projector = case.projector()
        slices = projector.project(projector.to_grid(case.volumes()), rotations())
        accumulator = projector.new_accumulator(CHANNELS)
        projector.backproject(slices, rotations(), accumulator)
        results.append((slices, projector.to_volumes(accumulator)))
    assert torch.equal(results[0][0], results[1][0])
    if case.backend.repeats:
        assert torch.equal(results[0][1], results[1][1])
    assert relative_error(results[0][1].numpy(), results[1][1].numpy()) < case.backend.rounding


one_case_per_backend = pytest.mark.parametrize(
    "case", [Case(backend, backend.samplings[0], 12) for backend in BACKENDS], ids=str
)


@one_case_per_backend
@pytest.mark.parametrize(
    ("what", "rotation"),
    [
        ("a single matrix", torch.eye(3)),
        ("matrices of two dimensions", torch.eye(2).expand(IMAGES, 2, 2)),
        ("a value that is not a number", torch.full((IMAGES, 3, 3), float("nan"))),
        ("matrices that are no rotations", 100 * torch.eye(3).expand(IMAGES, 3, 3)),
    ],
)
def test_impossible_rotations_are_refused(case: Case, what: str, rotation: Tensor) -> None:
    projector = case.projector()
    grid = projector.to_grid(case.volumes())
    with pytest.raises(ValueError, match="rotation"):
        projector.project(grid, rotation)
    with pytest.raises(ValueError, match="rotation"):
        projector.backproject(case.slices(), rotation, projector.new_accumulator(CHANNELS))


@one_case_per_backend
@pytest.mark.parametrize("axis", [0, 1, 2], ids=["images", "pixels", "channels"])
def test_slices_of_the_wrong_shape_are_refused(case: Case, axis: int) -> None:
    projector, whole = case.projector(), case.slices()
    cut = whole.narrow(axis, 0, whole.shape[axis] - 1).contiguous()
    with pytest.raises(ValueError, match="slices"):
        projector.backproject(cut, rotations(), projector.new_accumulator(CHANNELS))


@one_case_per_backend
def test_transfer_functions_of_the_wrong_shape_are_refused(case: Case) -> None:
    projector = case.projector()
    with pytest.raises(ValueError, match="ctf"):
        projector.project(projector.to_grid(case.volumes()), rotations(), case.ctf()[:2])


@one_case_per_backend
@pytest.mark.parametrize("shape", [(12, 12, 12), (1, 14, 14, 14), (1, 12, 12, 13)])
def test_volumes_of_the_wrong_shape_are_refused(case: Case, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="volumes"):
        case.projector().to_grid(torch.zeros(shape))


@one_case_per_backend
def test_the_grid_of_another_projector_is_refused(case: Case) -> None:
    other = replace(case, box_size=14).projector()
    with pytest.raises(ValueError, match="grid"):
        case.projector().project(other.to_grid(torch.zeros(CHANNELS, 14, 14, 14)), rotations())
    with pytest.raises(ValueError, match="out"):
        case.projector().backproject(case.slices(), rotations(), other.new_accumulator(CHANNELS))


@one_case_per_backend
def test_a_band_beyond_nyquist_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="beyond Nyquist of a box of 12"):
        case.backend.create(12, HalfDisk.create(16))


@pytest.mark.parametrize("case", [case for case in CASES if case.sampling == GRID_SAMPLINGS[0]], ids=str)
@pytest.mark.parametrize("oversampling", [0, -1, 1.5])
def test_impossible_oversampling_is_refused(case: Case, oversampling: float) -> None:
    with pytest.raises(ValueError, match="oversampling"):
        case.backend.create(12, case.disk, oversampling=oversampling)


# --- what plans and normal equations ask for


@every_case
def test_memory_is_that_of_the_tensors(case: Case) -> None:
    projector = case.projector()
    grid, accumulator = projector.to_grid(case.volumes()), projector.new_accumulator(CHANNELS)
    assert projector.grid_bytes(CHANNELS) == grid.untyped_storage().nbytes()
    threads = torch.get_num_threads()
    taken, copy = accumulator.untyped_storage().nbytes(), projector.grid_bytes(CHANNELS)
    assert taken <= projector.accumulator_bytes(CHANNELS, threads) <= taken + copy
    assert projector.accumulator_bytes(CHANNELS, 64) >= projector.accumulator_bytes(CHANNELS, 1)


@every_case
def test_merged_sums_have_the_layout_of_a_grid(case: Case) -> None:
    projector = case.projector()
    grid, accumulator = projector.to_grid(case.volumes()), projector.new_accumulator(CHANNELS)
    projector.backproject(case.slices(), rotations(), accumulator)
    merged = projector.merged(accumulator)
    assert merged.shape == grid.shape and merged.dtype == grid.dtype
    total = accumulator.flatten().sum()
    assert abs(complex(merged.sum() - total)) <= 1e-4 * float(accumulator.abs().sum())


@every_case
def test_sums_of_a_convolution_are_back_projections_to_the_box_and_to_twice_the_box(case: Case) -> None:
    projector, rotation = case.projector(), rotations()
    images, power = case.slices(1), case.slices(1, seed=3).abs().square().to(case.slices(1).dtype)
    if case.sampling.oversampling not in (None, 2):
        with pytest.raises(ValueError, match="has twice the box"):
            projector.convolution_sums()
        return
    sums = projector.convolution_sums()
    sums.add(images[:4, :, 0], power[:4, :, 0], rotation[:4])
    sums.add(images[4:, :, 0], power[4:, :, 0], rotation[4:])
    alone = projector.new_accumulator(1)
    projector.backproject(images, rotation, alone)
    expected = projector.to_volumes(alone)[0]
    assert relative_error(sums.right_side().numpy(), expected.numpy()) < case.backend.rounding
    # from the definition of the transform, at twice the frequencies of a box of twice the size
    kernel = sums.kernel().numpy()
    axis = np.arange(2 * case.box_size) - case.box_size
    frequency = np.einsum("pj,nij->npi", case.disk.pixels.numpy(), rotation.double().numpy()[:, :, :2])
    waves = [np.exp(2j * np.pi * np.multiply.outer(k, axis) / case.box_size) for k in np.moveaxis(frequency, -1, 0)]
    direct = np.einsum("np,npx,npy,npz->zyx", power[..., 0].to(torch.complex128).numpy(), *waves, optimize=True).real
    middle = slice(case.box_size - 2, case.box_size + 3)  # further out the errors of interpolation grow
    error = relative_error(kernel[middle, middle, middle], direct[middle, middle, middle] / (2 * case.box_size))
    assert error < {"nufft": 1e-4, "trilinear": 0.02, "nearest": 0.1}[case.sampling.interpolation]
