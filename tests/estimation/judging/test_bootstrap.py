"""Images made from a model, and errors of estimates in them over the stated ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.judging.bootstrap import (
    BootstrapImages,
    BootstrapModel,
    ErrorFactors,
    _excess_of_latents,
    bootstrap_sample,
    make_images,
    measure_error_factors,
    with_larger_errors,
)
from solvar_engine.estimation.judging.components import Components, LatentBatch
from solvar_engine.estimation.model.expectation import posterior_pass
from solvar_engine.estimation.model.objectives import MaximumLikelihood
from solvar_engine.estimation.poses.schedules import POSE_SCHEDULES
from solvar_engine.estimation.poses.uncertainty import PoseSpread
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.fourier import shift_phases
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.options import SliceOptions
from tests.reconstruction.simulated import LinearPhantom, MemorySource, noise, simulate

BOX, IMAGES, RANK = 16, 300, 2
SMALL, LARGE = PoseSpread(0.02, 0.2), PoseSpread(0.12, 0.8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class PosedSource(MemorySource):
    """Particles whose poses can be changed; images are centred by the shifts, Angstrom."""

    shift: Tensor | None = None

    @property
    def pose(self) -> Pose:
        return Pose(self.rotation, self.shift)

    def with_pose(self, pose: Pose) -> PosedSource:
        phases = shift_phases(self.disk, (pose.shift - self.shift) / self.pixel_size, BOX)
        return replace(self, images=self.images * phases, rotation=pose.rotation, shift=pose.shift)


@pytest.fixture(scope="module")
def model() -> BootstrapModel:
    simulation = simulate(LinearPhantom.create(RANK, strength=0.6).scaled(15.0), IMAGES, BOX)
    memory = simulation.source
    parts = {name: getattr(memory, name) for name in ("images", "ctf", "rotation", "contrast", "disk", "box_size")}
    source = PosedSource(**parts, shift=3.0 * noise(IMAGES, 2, seed=8))
    _, deviations, axes = torch.linalg.svd(simulation.phantom.factors(BOX).flatten(1).double(), full_matrices=False)
    values = deviations**2
    components = Components(axes.reshape(RANK, BOX, BOX, BOX).float(), values, values, values, values)
    everyone, one = source.everyone, torch.ones(BOX, BOX, BOX)
    density = torch.ones(BOX, BOX, BOX // 2 + 1)
    problem = CovarianceProblem(
        source, (everyone[::2], everyone[1::2]), simulation.phantom.mean(BOX), one, density, RANK, 0, SliceOptions(),
        MaximumLikelihood(), contrast_variance=1e-4,
    )  # fmt: skip
    return BootstrapModel(problem, components)


def made(model: BootstrapModel, index: Tensor) -> tuple[BootstrapImages, Tensor]:
    z = noise(len(index), RANK, seed=5, dtype=torch.float64)
    return make_images(model.problem.source, index, z, (model, model), generator()), z


def test_images_show_the_model_at_their_poses_in_white_noise(model) -> None:
    """What is left of an image at its own state and contrast is noise of unit variance; the states are found in it."""
    index = torch.arange(0, IMAGES, 2)
    images, z = made(model, index)
    band, found = model.band(), torch.zeros(IMAGES, RANK, dtype=torch.float64)
    weight, power = images.disk.weight.double(), []
    for batch, slices, _, posterior in posterior_pass(images, index, band, model.components.scaled()):
        found[batch.index] = posterior.mean[:, :RANK]
        contrast = 1 + band.contrast_variance**0.5 * posterior.mean[:, -1]
        shown = slices[:, :, 0] + (slices[:, :, 1:] @ posterior.mean[:, :RANK, None].to(slices))[..., 0]
        left = batch.images - (batch.contrast * contrast)[:, None] * shown
        power.append((left.abs().square() * weight).sum(dim=1) / weight.sum())
    assert float(torch.cat(power).mean()) == pytest.approx(1, abs=0.03)
    error = (found[index] - z).square().mean(dim=0)
    assert bool((error < 0.1).all())


def test_images_move_with_their_poses(model) -> None:
    index = torch.arange(4)
    images, _ = made(model, index)
    true = images.pose
    moved = images.with_pose(Pose(true.rotation, true.shift + torch.tensor([6.0, -3.0])))
    (at_true,), (batch,) = (list(those.batches(index, images.disk, 10)) for those in (images, moved))
    expected = at_true.images * shift_phases(images.disk, torch.tensor([[2.0, -1.0]]), BOX)
    torch.testing.assert_close(batch.images, expected, rtol=1e-4, atol=1e-4)


def factors_of(model: BootstrapModel, spread: PoseSpread, prior: PoseSpread, judged: BootstrapModel) -> ErrorFactors:
    index = torch.arange(IMAGES)
    images, z = made(model, index)
    return measure_error_factors(
        images, index, z, judged, POSE_SCHEDULES["newton"], (spread, prior), 1e-4, generator(1)
    )


def test_small_errors_are_as_stated(model) -> None:
    """Errors of a degree, a fifth of a pixel: linear at this detail."""
    found = factors_of(model, SMALL, SMALL, model)
    assert all(1.0 <= factor < 1.2 for factor in (found.latents, found.turn, found.move))


def test_errors_beyond_first_order_are_more_than_stated(model) -> None:
    """Errors of seven degrees an axis turn the detail by more than it is wide, even if the prior holds."""
    found = factors_of(model, LARGE, LARGE, model)
    assert 1.1 < found.latents < 2 and 1.5 < found.turn < 4 and 1.3 < found.move < 4


def test_errors_beyond_the_prior_are_more_than_stated(model) -> None:
    found = factors_of(model, LARGE, SMALL, model)
    assert 1.3 < found.latents < 25 and 2 < found.turn < 25 and 2 < found.move < 25


def test_errors_of_the_volumes_are_in_them(model) -> None:
    """Images of other volumes than those that they are judged under say less of their coordinates than stated."""
    other = model.components.eigenvolumes + 0.6 * noise(RANK, BOX, BOX, BOX, seed=2) / BOX**1.5
    wrong = replace(model, components=replace(model.components, eigenvolumes=other))
    before, after = (factors_of(model, SMALL, SMALL, judged).latents for judged in (model, wrong))
    assert after > before + 0.3


def test_stated_errors_of_latents_are_the_measure(model) -> None:
    """At true poses b - G z has the variance G; noise of twice the variance makes that two."""
    index = torch.arange(IMAGES)
    images, z = made(model, index)
    noisier = replace(images, images=images.images + noise_of(images))
    for those, expected in ((images, 1.0), (noisier, 2.0)):
        found = _excess_of_latents(those, index, z, model.band(), model.components, 1e-4)
        assert found == pytest.approx(expected, rel=0.15)


def noise_of(images: BootstrapImages) -> Tensor:
    real = noise(*images.images.shape, 2, seed=7) / 2**0.5
    return torch.view_as_complex(real.contiguous())


def test_larger_errors_leave_the_prior_as_it_is() -> None:
    eigenvalues = torch.tensor([4.0, 0.25], dtype=torch.float64)
    root = noise(5, 2, 2, seed=3, dtype=torch.float64)
    gram, inner = root @ root.mT, noise(5, 2, seed=4, dtype=torch.float64)
    prior = torch.diag(1 / eigenvalues)
    z = torch.linalg.solve(gram + prior, inner[..., None])[..., 0]
    zero = torch.zeros(5)
    latents = LatentBatch(torch.arange(5), z.float(), (gram + prior).float(), zero.double(), zero, zero)
    found = with_larger_errors(latents, torch.tensor([0, 2, 3]), eigenvalues, 1.7)
    for row in range(5):
        factor = 1.7 if row in (0, 2, 3) else 1.0
        precision = gram[row] / factor + prior
        torch.testing.assert_close(found.precision[row].double(), precision, rtol=1e-5, atol=1e-5)
        expected = torch.linalg.solve(precision, inner[row] / factor)
        torch.testing.assert_close(found.z[row].double(), expected, rtol=1e-4, atol=1e-5)
    assert with_larger_errors(latents, torch.arange(5), eigenvalues, 1.0) is latents


@pytest.mark.parametrize(("particles", "expected"), [(150, 150), (5000, 1000)])
def test_a_thousand_images_are_enough(model, particles: int, expected: int) -> None:
    index = 3 * torch.arange(particles)
    found = bootstrap_sample(model.problem.source, index, generator())
    assert len(found) == expected and bool((found.diff() > 0).all()) and bool(torch.isin(found, index).all())
