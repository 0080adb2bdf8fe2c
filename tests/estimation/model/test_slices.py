"""Images with slow backgrounds: every statistic as if their span did not exist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.expectation import expectation_pass
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.model.residuals import ResidualNoise, residual_power
from solvar_engine.estimation.model.slices import slices_of_batch
from solvar_engine.estimation.poses.likelihood import PoseModel
from solvar_engine.imaging.background import Background, background_columns, support
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.linear_algebra import inner_products
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.types import Batch
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.kernel_regression import back_project
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from tests.estimation.problems import full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, MemorySource, simulate

BOX, IMAGES, RANK = 16, 24, 2
SIMULATION = simulate(LinearPhantom.create(RANK, strength=0.7, sigma=0.08), IMAGES, BOX, noise=0.3)


@dataclass(frozen=True)
class WithBackground:
    """A source whose images have lost slow backgrounds; ``added`` (n, k) is put into them first."""

    source: MemorySource
    added: Tensor

    def __getattr__(self, name: str):
        return getattr(object.__getattribute__(self, "source"), name)

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        columns = background_columns(disk, self.source.box_size, 1.0, torch.ones(len(disk)))
        for batch in self.source.batches(index, disk, batch_size):
            of_images = columns.to(batch.images.dtype).expand(len(batch), -1, -1)
            images = batch.images.clone()
            empty = Background(of_images, self.added[batch.index].to(images.real.dtype))
            images[:, : of_images.shape[1]] += empty.images_of(empty.coordinates)
            yield replace(batch, images=images, background=Background.removed_from(images, of_images, disk.weight))


def with_background(strength: float, source: MemorySource = SIMULATION.source) -> WithBackground:
    generator = torch.Generator().manual_seed(5)
    return WithBackground(source, strength * torch.randn(len(source), 6, generator=generator))


@pytest.fixture(scope="module")
def band():
    return full_band(SIMULATION)


@pytest.fixture(scope="module")
def factors() -> Tensor:
    return SIMULATION.phantom.factors(BOX)


def test_products_are_those_of_what_is_orthogonal_to_the_background(band, factors) -> None:
    source, exact = with_background(50.0, SIMULATION.source.double()), in_double(band)
    grid = exact.projector.to_grid(torch.cat((exact.mean[None], factors.double())))
    batch = next(iter(source.batches(torch.arange(6), source.disk, 6)))
    plain = next(iter(source.source.batches(torch.arange(6), source.disk, 6)))
    slices, products, removed = slices_of_batch(exact.projector, grid, batch)
    whole, _ = exact.projector.project_with_gram(grid, plain.rotation, plain.ctf, plain.images)
    root = torch.cat([source.disk.weight.double().sqrt()] * 2)

    def real(values: Tensor) -> Tensor:
        return torch.cat((values.real, values.imag), dim=-2) * root[:, None]

    columns = torch.zeros(len(source.disk), 6, dtype=torch.complex128)
    columns[: len(support(source.disk))] = batch.background.columns[0]
    basis = torch.linalg.qr(real(columns)).Q
    everything = real(torch.cat((whole, plain.images[..., None]), dim=-1))
    left = everything - basis @ (basis.T @ everything)
    torch.testing.assert_close(products, left.mT @ left, rtol=1e-6, atol=1e-6 * float(products.abs().max()))
    torch.testing.assert_close(real(slices), left[..., :-1], rtol=0, atol=1e-6 * float(left.abs().max()))
    assert removed.shape == (6, 6, 1 + RANK)


def test_no_statistic_depends_on_the_background(band, factors) -> None:
    objective, everyone = OBJECTIVES["ml"], SIMULATION.source.everyone
    weak, strong = (expectation_pass(with_background(s), everyone, band, factors, objective) for s in (0.0, 30.0))
    assert strong.objective == pytest.approx(weak.objective, rel=1e-3)
    scale = float(weak.gradient.abs().max())
    torch.testing.assert_close(strong.gradient, weak.gradient, rtol=0, atol=2e-3 * scale)
    without = expectation_pass(SIMULATION.source, everyone, band, factors, objective)
    assert float((without.gradient - weak.gradient).abs().max()) > 0.01 * scale


@pytest.mark.parametrize("name", ["ml", "ls"])
def test_gradient_is_that_of_the_objective(band, factors, name: str) -> None:
    source, exact = with_background(3.0, SIMULATION.source.double()), in_double(band)
    here = factors.double()
    direction = torch.randn(here.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    objective, everyone = OBJECTIVES[name], source.everyone

    def value(step: float) -> float:
        return expectation_pass(source, everyone, exact, here + step * direction, objective).objective

    step = 1e-4 * float(here.norm() / direction.norm())
    gradient = expectation_pass(source, everyone, exact, here, objective).gradient
    slope = float(inner_products(gradient[:1], direction[:1]) + inner_products(gradient[1:], direction[1:]))
    assert (value(step) - value(-step)) / (2 * step) == pytest.approx(slope, rel=1e-4)


def test_derivatives_by_the_pose_are_those_of_the_marginal_likelihood(band, factors) -> None:
    source, exact = SIMULATION.source.double(), in_double(band)
    model, few = PoseModel(exact, factors.double()), torch.arange(4)
    batch = next(iter(with_background(3.0, source).batches(few, source.disk, 4)))

    def at(move: Tensor) -> Batch:
        turned = batch.rotation @ rotvec_to_rotation(move[:3].expand(4, 3))
        moved = batch.moved(move[3:].expand(4, 2), source.disk)  # phases in single precision
        return replace(moved, images=moved.images.to(torch.complex128), rotation=turned)

    gradient = model.derivatives(batch, model.evaluate(batch)).gradient
    for k, step in enumerate([1e-7] * 3 + [0.02] * 2):
        move = torch.zeros(5, dtype=torch.float64)
        move[k] = step
        difference = (model.evaluate(at(move)).objective - model.evaluate(at(-move)).objective) / (2 * step)
        scale = float(gradient[:, k].abs().max())
        # that of the log-determinant leaves the background in
        torch.testing.assert_close(gradient[:, k], difference, rtol=0, atol=0.05 * scale)


def test_noise_beside_backgrounds_is_measured_in_one_step(band) -> None:
    """Of variance 3, whitened as if it was 1: what is left of it in each shell is compared with what would be left."""
    generator = torch.Generator().manual_seed(3)
    noise = 3**0.5 * torch.randn(4000, len(band.disk), dtype=torch.complex64, generator=generator)
    source = replace(
        SIMULATION.source,
        images=noise,
        ctf=torch.full((4000, len(band.disk)), 1e-12),  # of nought there would be no image
        rotation=SIMULATION.source.rotation[:1].expand(4000, 3, 3),
        contrast=torch.ones(4000),
    )
    nothing = band.mean.new_zeros(0, BOX, BOX, BOX)
    measured = ResidualNoise(1, band.disk)
    for rows, power, kept in residual_power(with_background(20.0, source), source.everyone, band, nothing):
        assert float(kept[:, band.disk.shell == 1].mean()) < 0.8
        measured.add(power, torch.zeros_like(rows), kept)
    found = measured.update(torch.ones(1, band.shell_max + 1))[0, 1:]
    torch.testing.assert_close(found, torch.full_like(found, 3.0), rtol=0.03, atol=0)


def test_density_of_volumes_of_states_lacks_what_was_lost_with_backgrounds() -> None:
    """Its trace is that of P* (1 - U U*) P: the power of the columns, pixel by pixel, is not counted."""
    source = SIMULATION.source
    dirty = with_background(3.0, source)
    batch = next(iter(dirty.batches(source.everyone, source.disk, IMAGES)))
    columns, kept = batch.background.columns, torch.ones(IMAGES, len(source.disk))
    kept[:, : columns.shape[1]] -= (columns * columns.conj()).real.sum(dim=2)
    expected = back_project(replace(source, ctf=source.ctf * kept.sqrt()), source.everyone)[1]
    torch.testing.assert_close(back_project(dirty, source.everyone)[1], expected, rtol=0, atol=1e-4 * expected.max())


def test_mean_takes_what_backgrounds_hide_from_an_earlier_one() -> None:
    """At the true mean of images without noise, the right-hand side is that of images without backgrounds."""
    options = SliceOptions(oversampling=3)
    mean = SIMULATION.phantom.mean(BOX)
    source = SIMULATION.source
    projector = create_projector(BOX, source.disk, options)
    images = projector.project(projector.to_grid(mean[None]), source.rotation, source.ctf)[..., 0]
    clean = replace(source, images=images)
    dirty = with_background(40.0, clean)
    expected = accumulate_normal_equations(clean, clean.everyone).right_side
    scale = float(expected.abs().max())
    found = accumulate_normal_equations(dirty, clean.everyone, options, mean=mean).right_side
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01 * scale)
    as_they_are = accumulate_normal_equations(dirty, clean.everyone, options).right_side
    assert float((as_they_are - expected).abs().max()) > 0.1 * scale
    as_it_came = accumulate_normal_equations(with_background(0.0, clean), clean.everyone).right_side
    torch.testing.assert_close(as_it_came, expected, rtol=0, atol=1e-4 * scale)
