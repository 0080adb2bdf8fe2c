"""Least-squares reconstruction, against the operator written out as a matrix and against closed-form images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.fourier import (
    HalfDisk,
    ft_to_volume,
    hermitian_weight,
    low_pass,
    volume_radius,
    volume_to_ft,
)
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.shells import fsc, radial_average, shell_sum
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import weak_precision
from solvar_engine.reconstruction.normal_equations import (
    NormalEquations,
    accumulate_normal_equations,
    crop_density,
    solve,
)
from tests.reconstruction.simulated import (
    LinearPhantom,
    MemorySource,
    exact_slices,
    noise,
    real_rows,
    relative_error,
    simulate,
)

BOXES = [12, 13]


def contrasts(count: int) -> Tensor:
    return torch.linspace(0.5, 1.5, count)


def small_source(box_size: int, count: int = 24, level: float = 1.0) -> MemorySource:
    phantom = LinearPhantom.create(1, strength=0.0)
    return simulate(phantom, count, box_size, noise=level, contrast=contrasts(count)).source


def transfer(source: MemorySource) -> Tensor:
    return (source.ctf * source.contrast[:, None]).double()


def accumulate(source: MemorySource, index: Tensor | None = None, **options) -> NormalEquations:
    return accumulate_normal_equations(source, source.everyone if index is None else index, **options)


# --- operator and right-hand side


@pytest.mark.parametrize("box_size", BOXES)
def test_operator_equals_the_matrix_of_exact_slices(box_size: int) -> None:
    """Where molecules are; towards the corners trilinear slices alias."""
    source = small_source(box_size)
    slices = exact_slices(source)
    volume = LinearPhantom.create(1).mean(box_size)
    weighted = source.disk.weight * transfer(source) ** 2 * (slices @ volume.double().flatten().to(slices.dtype))
    expected = (slices.conj() * weighted[..., None]).sum(dim=(0, 1)).real.reshape(volume.shape)
    ball = sphere_mask(box_size, box_size / 3, 0.0)
    assert relative_error(accumulate(source).apply(volume) * ball, expected * ball) < 0.04


@pytest.mark.parametrize("box_size", BOXES)
def test_operator_equals_projection_and_backprojection(box_size: int) -> None:
    source = small_source(box_size)
    projector = create_projector(box_size, source.disk, SliceOptions())
    volume = LinearPhantom.create(1).mean(box_size)
    ctf = transfer(source).float()
    slices = projector.project(projector.to_grid(volume[None]), source.rotation, ctf)
    accumulator = projector.new_accumulator(1)
    projector.backproject(slices * source.disk.weight[:, None], source.rotation, accumulator, ctf)
    expected = projector.to_volumes(accumulator)[0]
    ball = sphere_mask(box_size, box_size / 2, 0.0)
    assert relative_error(accumulate(source).apply(volume) * ball, expected * ball) < 0.02


@pytest.mark.parametrize("box_size", BOXES)
def test_quadratic_form_is_the_energy_of_closed_form_images(box_size: int) -> None:
    phantom = LinearPhantom.create(1, strength=0.0)
    source = simulate(phantom, 30, box_size, noise=0.0, contrast=contrasts(30)).source
    normal = accumulate(source)
    volume = phantom.mean(box_size)
    energy = float(real_rows(source.images, source.disk).double().square().sum())
    assert float((volume * normal.apply(volume)).sum()) == pytest.approx(energy, rel=0.02)
    assert float((volume * normal.right_side).sum()) == pytest.approx(energy, rel=0.02)


@pytest.mark.parametrize("box_size", BOXES)
def test_right_side_is_the_adjoint_of_exact_slices(box_size: int) -> None:
    source = small_source(box_size)
    weighted = source.disk.weight * transfer(source) * source.images
    expected = (exact_slices(source).conj() * weighted[..., None]).sum(dim=(0, 1)).real
    ball = sphere_mask(box_size, box_size / 3, 0.0)
    value = accumulate(source).right_side
    assert relative_error(value * ball, expected.reshape(value.shape) * ball) < 0.06


@pytest.mark.parametrize("box_size", BOXES)
def test_without_interpolation_the_equations_are_exact_in_the_whole_box(box_size: int) -> None:
    source = small_source(box_size)
    normal = accumulate(source, options=SliceOptions("nufft"))
    exact = exact_slices(source)
    energy = source.disk.weight * transfer(source) ** 2
    volume = noise(box_size, box_size, box_size)
    weighted = energy * (exact @ volume.double().flatten().to(exact.dtype))
    expected = (exact.conj() * weighted[..., None]).sum(dim=(0, 1)).real.reshape(volume.shape)
    assert relative_error(normal.apply(volume), expected) < 1e-4
    images = source.disk.weight * transfer(source) * source.images
    expected = (exact.conj() * images[..., None]).sum(dim=(0, 1)).real.reshape(volume.shape)
    assert relative_error(normal.right_side, expected) < 1e-5


def test_operator_is_symmetric_and_positive() -> None:
    normal = accumulate(small_source(12))
    first, second = noise(2, 12, 12, 12)
    forward, backward = (first * normal.apply(second)).sum(), (second * normal.apply(first)).sum()
    torch.testing.assert_close(forward, backward, rtol=1e-4, atol=1e-4)
    assert float((first * normal.apply(first)).sum()) > 0


@pytest.mark.parametrize("interpolation", ["trilinear", "nufft"])
def test_batch_size_does_not_matter(interpolation: str) -> None:
    source = small_source(12, count=23)
    whole, parts = (accumulate(source, options=SliceOptions(interpolation), batch_size=size) for size in (23, 4))
    assert relative_error(parts.right_side, whole.right_side) < 1e-5
    assert relative_error(parts.kernel_ft, whole.kernel_ft) < 1e-5


def test_halves_add_up_to_the_whole() -> None:
    source = small_source(12)
    even, odd = (accumulate(source, source.everyone[start::2]) for start in (0, 1))
    both, whole = even + odd, accumulate(source)
    assert relative_error(both.right_side, whole.right_side) < 1e-5
    assert relative_error(both.kernel_ft, whole.kernel_ft) < 1e-5
    assert both.shell_max == whole.shell_max == source.disk.shell_max


def test_nearest_neighbour_is_a_choice_that_matters() -> None:
    source = small_source(12)
    trilinear, nearest = accumulate(source), accumulate(source, options=SliceOptions("nearest"))
    assert 1e-3 < relative_error(nearest.right_side, trilinear.right_side) < 0.3


# --- density


def test_density_is_the_diagonal_of_the_operator() -> None:
    """For well covered directions D times the transform is the transform of the applied operator."""
    box_size = 16
    normal = accumulate(small_source(box_size, count=600))
    volume = LinearPhantom.create(1).mean(box_size)
    expected = volume_to_ft(normal.apply(volume))
    inside = volume_radius(box_size) <= normal.shell_max - 1
    value = normal.density() * volume_to_ft(volume)
    assert relative_error((value * inside).abs(), (expected * inside).abs()) < 0.1


def test_density_is_positive_and_ends_with_the_band() -> None:
    for count in (3, 200):
        normal = accumulate(small_source(12, count=count))
        density = normal.density()
        assert bool((density >= 0).all())
        assert float(density[volume_radius(12) > normal.shell_max].abs().max()) == 0
        assert float(density[volume_radius(12) <= 1].min()) > 0


@pytest.mark.parametrize("box_size", [12, 13])
def test_density_is_that_of_the_exact_operator(box_size: int) -> None:
    """Shell averages of the response to a delta; their sum is box size times all squared transfer functions."""
    source = small_source(box_size, count=300)
    density = accumulate(source).density()
    energy = transfer(source) ** 2 * source.disk.weight
    response = torch.einsum("npv,np->v", exact_slices(source).conj(), (energy / box_size).to(torch.complex128))
    exact = volume_to_ft(response.real.reshape((box_size,) * 3)).real * box_size
    middle = slice(1, -1)
    torch.testing.assert_close(
        radial_average(density, box_size)[middle], radial_average(exact, box_size)[middle], rtol=0.06, atol=0
    )
    assert float(shell_sum(density, box_size).sum()) == pytest.approx(box_size * float(energy.sum()), rel=0.1)


@pytest.mark.parametrize("box_size, new_size", [(16, 12), (16, 11), (15, 12), (12, 16)])
def test_cropped_density_gives_the_same_quadratic_form(box_size: int, new_size: int) -> None:
    """<v, D v> stays, v keeping its Fourier coefficients."""
    density = torch.rand(box_size, box_size, box_size // 2 + 1, generator=torch.Generator().manual_seed(0))
    band = min((box_size - 1) // 2, (new_size - 1) // 2)
    volume = low_pass(noise(box_size, box_size, box_size), band)

    def form(diagonal: Tensor, vector: Tensor) -> float:
        size = vector.shape[-1]
        spectrum = volume_to_ft(vector)
        return float((diagonal * hermitian_weight(size) * spectrum.abs() ** 2).double().sum() / size)

    cropped = crop_density(density, box_size, new_size)
    assert cropped.shape == (new_size, new_size, new_size // 2 + 1)
    assert form(cropped, change_box(volume, new_size)) == pytest.approx(form(density, volume), rel=1e-4)


def test_cropped_density_is_that_of_the_small_box() -> None:
    """Images cut to a lower band, reconstructed on a smaller box, have the cropped density."""
    source = small_source(16, count=500)
    disk = source.disk.prefix(5)
    small = replace(source, disk=HalfDisk(12, 5, disk.pixels, disk.weight, disk.shell), box_size=12)
    expected = accumulate(small).density()
    cropped = crop_density(accumulate(source).density(), 16, 12)
    inside = volume_radius(12) <= 4
    assert relative_error(cropped * inside, expected * inside) < 0.06


# --- solution


@pytest.mark.parametrize("box_size", [16, 17])
@pytest.mark.parametrize("weakness", [1.0, 1e-4])
def test_noise_free_volume_is_recovered(box_size: int, weakness: float) -> None:
    phantom = LinearPhantom.create(1, strength=0.0, sigma=0.04)
    source = simulate(phantom, 200, box_size, noise=0.0, contrast=contrasts(200)).source
    normal = accumulate(source)
    truth = phantom.mean(box_size)
    volume = solve(normal, weakness * weak_precision(normal))
    assert float(fsc(volume, truth)[:-1].min()) > 0.995
    assert relative_error(volume, truth) < 0.05


def test_solution_satisfies_the_regularised_equations() -> None:
    """Inside the ball that a solution lives in."""
    normal = accumulate(small_source(12, count=60))
    precision = weak_precision(normal, 0.1)
    volume = solve(normal, precision, iterations=80, tolerance=1e-6)
    left = normal.apply(volume) + ft_to_volume(precision * volume_to_ft(volume), 12)
    ball = sphere_mask(12, 4.0, 0.0)
    assert relative_error(low_pass(left, 5) * ball, low_pass(normal.right_side, 5) * ball) < 0.1
    assert relative_error(low_pass(volume, 5), volume) < 1e-5


def test_precision_equal_to_the_density_halves_the_volume() -> None:
    """The Wiener filter D / (D + 1/tau), in shells that are evenly covered."""
    phantom = LinearPhantom.create(1, strength=0.0)
    normal = accumulate(simulate(phantom, 800, 16, noise=0.0).source)
    precision = normal.density().clamp_min(float(normal.density().max()) * 1e-3)
    filtered, truth = volume_to_ft(solve(normal, precision)), volume_to_ft(phantom.mean(16))
    gain = shell_sum((filtered * truth.conj()).real, 16) / shell_sum(truth.abs() ** 2, 16)
    torch.testing.assert_close(gain[1:6], torch.full((5,), 0.5, dtype=torch.float64), rtol=0, atol=0.05)


def test_rounding_errors_do_not_grow() -> None:
    """Where transfer functions begin, the density has a dip that the ball fills up."""
    source = simulate(LinearPhantom.create(1), 300, 20, noise=3.0).source
    weight = 0.03 + (source.disk.shell / 9) ** 2
    normal = accumulate(replace(source, images=source.images * weight, ctf=source.ctf * weight))
    precision = weak_precision(normal)
    moved = replace(normal, right_side=normal.right_side * (1 + 1e-6 * noise(20, 20, 20)))
    volume = solve(normal, precision, iterations=12)
    assert relative_error(solve(moved, precision, iterations=12), volume) < 1e-5
