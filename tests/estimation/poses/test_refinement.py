"""Refinement of poses: derivatives of the marginal likelihood, steps that never raise it, stated uncertainty."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.poses.descent import descend_poses
from solvar_engine.estimation.poses.likelihood import PoseModel, pose_covariance, pose_deviation
from solvar_engine.estimation.poses.refinement import refine_poses
from solvar_engine.estimation.poses.spread import measure_spread
from solvar_engine.estimation.poses.uncertainty import PosePrior, PoseSpread, precision_of
from solvar_engine.imaging.fourier import shift_phases
from solvar_engine.imaging.rotation import angular_distance_deg, rotation_to_rotvec, rotvec_to_rotation
from tests.estimation.problems import DenseModel, full_band, in_double
from tests.reconstruction.simulated import LinearPhantom, MemorySource, Simulation, noise, real_rows, simulate

BOX, IMAGES, RANK = 16, 300, 2
TURN_RAD, MOVE_PX = 0.06, 0.6
FEW = torch.arange(6)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(LinearPhantom.create(RANK, strength=0.6).scaled(40.0), IMAGES, BOX)


@pytest.fixture(scope="module")
def band(simulation) -> Band:
    return replace(full_band(simulation), contrast_variance=0.01)


@pytest.fixture(scope="module")
def factors(simulation) -> Tensor:
    return simulation.phantom.factors(BOX)


def perturbed(source: MemorySource, turn: Tensor, move_px: Tensor) -> MemorySource:
    """Poses with errors: images off by a shift, and turned in their own frames."""
    images = source.images * shift_phases(source.disk, move_px.to(source.ctf.dtype), BOX)
    return replace(source, images=images, rotation=source.rotation @ rotvec_to_rotation(turn.to(source.rotation)))


def with_errors(source: MemorySource, turn_rad: float = TURN_RAD, move_px: float = MOVE_PX) -> MemorySource:
    return perturbed(source, turn_rad * noise(len(source), 3, seed=3), move_px * noise(len(source), 2, seed=4))


@pytest.mark.parametrize("contrast", [1.0, 0.6])
def test_derivatives_are_those_of_the_marginal_likelihood(simulation, band, factors, contrast: float) -> None:
    source, exact = simulation.source.double(), in_double(band)
    source = replace(source, contrast=torch.full_like(source.contrast, contrast))
    model = PoseModel(exact, factors.double())

    def evaluate(parameters: Tensor):
        moved = perturbed(source, parameters[:3].expand(IMAGES, 3), parameters[3:].expand(IMAGES, 2))
        return next(iter(moved.batches(FEW, source.disk, len(FEW))))

    start = torch.zeros(5, dtype=torch.float64)
    batch = evaluate(start)
    found = model.derivatives(batch, model.evaluate(batch))
    gradient, matrix = found.gradient, found.matrix
    step = 1e-7  # so short that hardly any pixel leaves its cell
    for k in range(5):
        move = start.clone()
        move[k] = step
        ahead, behind = (model.evaluate(evaluate(sign * move)).objective for sign in (1, -1))
        difference = (ahead - behind) / (2 * step)
        torch.testing.assert_close(gradient[:, k], difference, rtol=1e-4, atol=1e-4 * float(gradient[:, k].abs().max()))
    assert bool((torch.linalg.eigvalsh(matrix) > 0).all())


def test_matrix_equals_that_of_dense_covariances(simulation, band, factors) -> None:
    """J^T Sigma^-1 J with J from small steps of the mean and the factors, at the posterior mean."""
    source, exact = simulation.source.double(), in_double(band)
    model = PoseModel(exact, factors.double())
    batch = next(iter(source.batches(FEW, source.disk, len(FEW))))
    posterior = model.evaluate(batch)
    matrix = model.derivatives(batch, posterior).matrix
    dense = DenseModel.of(source, exact, factors.double())

    def explained(rotvec: Tensor) -> Tensor:
        at = DenseModel.of(perturbed(source, rotvec.expand(IMAGES, 3), torch.zeros(IMAGES, 2)), exact, factors.double())
        return at.mean[FEW] + (at.loadings[FEW] @ posterior.mean[..., None])[..., 0]

    steps = 1e-7 * torch.eye(3, dtype=torch.float64)
    slopes = torch.stack([(explained(step) - explained(-step)) / 2e-7 for step in steps], dim=-1)
    expected = slopes.mT @ torch.linalg.solve(dense.covariance()[FEW], slopes)
    scale = float(expected.abs().max())
    torch.testing.assert_close(matrix[:, :3, :3], expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.fixture(scope="module")
def refined(simulation, band, factors):
    source = with_errors(simulation.source)
    (result,) = refine_poses(source, source.everyone, band, factors, steps=6)
    return source, result


def test_errors_of_poses_are_removed(simulation, refined) -> None:
    source, result = refined
    true = simulation.source.rotation
    before, after = angular_distance_deg(source.rotation, true), angular_distance_deg(result.rotation, true)
    assert float(after.mean()) < 0.4 * float(before.mean())
    move = MOVE_PX * noise(IMAGES, 2, seed=4)
    assert float((move + result.shift_px).norm(dim=1).mean()) < 0.3 * float(move.norm(dim=1).mean())


def test_the_published_schedule_is_slower_to_remove_them(simulation, refined, band, factors) -> None:
    source, result = refined
    (descended,) = descend_poses(source, source.everyone, band, factors)
    true = simulation.source.rotation
    errors = [angular_distance_deg(of.rotation, true).mean() for of in (source, descended, result)]
    assert float(errors[0]) > float(errors[1]) > float(errors[2])
    move = MOVE_PX * noise(IMAGES, 2, seed=4)
    assert float((move + descended.shift_px).norm(dim=1).mean()) < 0.4 * float(move.norm(dim=1).mean())


def test_the_objective_never_rises(refined) -> None:
    _, result = refined
    assert bool((result.objective <= result.objective_start).all())
    assert float((result.objective_start - result.objective).mean()) > 5


def test_it_is_the_objective_at_the_refined_poses(refined, band, factors) -> None:
    source, result = refined
    images = source.images * shift_phases(source.disk, result.shift_px, BOX)
    at = replace(source, images=images, rotation=result.rotation)
    posterior = PoseModel(band, factors).evaluate(next(iter(at.batches(at.everyone, at.disk, IMAGES))))
    torch.testing.assert_close(posterior.objective, result.objective, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(posterior.mean, result.latents, rtol=1e-2, atol=1e-2)


def test_errors_are_as_large_as_the_stated_uncertainty(simulation, refined, band, factors) -> None:
    _, result = refined
    ((index, covariance),) = pose_covariance(simulation.source, simulation.source.everyone, band, factors)
    assert torch.equal(index, simulation.source.everyone)
    turn = rotation_to_rotvec(simulation.source.rotation.mT @ result.rotation).double()
    error = torch.cat((turn, (MOVE_PX * noise(IMAGES, 2, seed=4) + result.shift_px).double()), dim=1)
    squared = (error[:, None] @ torch.linalg.solve(covariance, error[..., None]))[:, 0, 0]
    # of a chi-square of five degrees of freedom the median is 4.35
    assert float(squared.median()) == pytest.approx(4.35, rel=0.25)


def test_motion_that_is_known_does_not_disturb_the_poses(simulation, refined, band, factors) -> None:
    source, result = refined
    (without,) = refine_poses(source, source.everyone, band, factors[:0], steps=6)
    true = simulation.source.rotation
    with_motion = angular_distance_deg(result.rotation, true).mean()
    assert float(with_motion) < 0.9 * float(angular_distance_deg(without.rotation, true).mean())


def test_given_poses_count_as_much_as_they_are_trusted(simulation, refined, band, factors) -> None:
    source, alone = refined
    given, nowhere = source.rotation.double(), torch.zeros(IMAGES, 2, dtype=torch.float64)
    results = []
    for spread in (PoseSpread(TURN_RAD, MOVE_PX), PoseSpread(1e-4, 1e-3)):
        prior = PosePrior(given, nowhere, precision_of(spread))
        results += refine_poses(source, source.everyone, band, factors, steps=6, prior=prior)
    true = simulation.source.rotation
    errors = [angular_distance_deg(of.rotation, true).mean() for of in (source, results[0], alone)]
    assert float(errors[1]) < 0.98 * float(errors[2]) < 0.98 * float(errors[0])
    assert float(angular_distance_deg(results[1].rotation, source.rotation).max()) < 0.1
    assert float(results[1].shift_px.abs().max()) < 0.02
    assert all(bool((result.objective <= result.objective_start).all()) for result in results)


def test_objective_that_falls_counts_the_prior(simulation, band, factors) -> None:
    """A step that pleases the image and not the prior is not taken."""
    source = with_errors(simulation.source)
    prior = PosePrior(
        source.rotation.double(), torch.zeros(IMAGES, 2, dtype=torch.float64), precision_of(PoseSpread(0.02, 0.2))
    )
    (result,) = refine_poses(source, source.everyone, band, factors, steps=2, prior=prior)
    images = source.images * shift_phases(source.disk, result.shift_px, BOX)
    at = replace(source, images=images, rotation=result.rotation)
    of_images = PoseModel(band, factors).evaluate(next(iter(at.batches(at.everyone, at.disk, IMAGES)))).objective
    of_prior = prior.objective(result.rotation.double(), result.shift_px.double())
    assert float(of_prior.mean()) > 0.5
    torch.testing.assert_close(result.objective, of_images + of_prior, rtol=1e-4, atol=1e-2)


def test_joint_covariance_is_the_inverse_of_the_joint_matrix(simulation, band, factors) -> None:
    """Of pose and latents: [[J* J, J* A], [A* J, I + A* A]], with J by small steps at the posterior mean.

    A weak prior, which keeps steps bounded where an image says nothing, makes the small difference.
    """
    source, exact = simulation.source.double(), in_double(band)
    model = PoseModel(exact, factors.double())
    batch = next(iter(source.batches(FEW, source.disk, len(FEW))))
    posterior = model.evaluate(batch)
    latent, cross = model.derivatives(batch, posterior).joint_covariance()
    grid = exact.projector.to_grid(torch.cat((exact.mean[None], factors.double())))
    of_mean = 1 + exact.contrast_variance**0.5 * posterior.mean[:, -1:]
    amount = torch.cat((of_mean, posterior.mean[:, :-1]), dim=1)

    def explained(change: Tensor) -> Tensor:
        rotation = batch.rotation @ rotvec_to_rotation(change[None, :3])
        slices = exact.projector.project(grid, rotation, batch.ctf * batch.contrast[:, None])
        shown = (slices @ amount[:, :, None].to(slices))[..., 0]
        # an image that is centred by a larger shift shows the particle at a smaller one
        return real_rows(shown * shift_phases(source.disk, -change[None, 3:], BOX), source.disk)

    steps = 1e-7 * torch.eye(5, dtype=torch.float64)
    slopes = torch.stack([(explained(step) - explained(-step)) / 2e-7 for step in steps], dim=-1)
    loadings = DenseModel.of(source, exact, factors.double()).loadings[FEW]
    columns = torch.cat((slopes, loadings), dim=2)
    matrix = columns.mT @ columns + torch.diag(torch.tensor([0.0] * 5 + [1.0] * (1 + RANK), dtype=torch.float64))
    inverse = torch.linalg.inv(matrix)
    torch.testing.assert_close(latent, inverse[:, 5:, 5:], rtol=1e-2, atol=1e-3 * float(inverse[:, 5:, 5:].max()))
    torch.testing.assert_close(cross, inverse[:, :5, 5:], rtol=1e-2, atol=1e-2 * float(cross.abs().max()))


def test_results_do_not_depend_on_the_batches(refined, band, factors) -> None:
    source, result = refined
    parts = list(refine_poses(replace(source, batch_limit=50), FEW, band, factors, steps=6))
    assert torch.equal(torch.cat([part.index for part in parts]), FEW)
    torch.testing.assert_close(parts[0].rotation, result.rotation[FEW], rtol=0, atol=1e-3)


def test_the_spread_of_small_pose_errors_is_found(simulation, band, factors) -> None:
    turn_rad, move_px = 0.02, 0.05  # to first order in all shells
    source = with_errors(simulation.source, turn_rad, move_px)
    spread = PoseSpread(0.03, 0.3)
    beside = replace(band, nuisance=spread.factors(band.mean, BOX))
    halves = (source.everyone[::2], source.everyone[1::2])
    found = measure_spread(source, halves, beside, (factors, factors), spread)
    assert found.turn_rad == pytest.approx(turn_rad, rel=0.25)
    assert found.move_px == pytest.approx(move_px, rel=0.25)


def test_the_stated_deviation_is_that_of_the_sum_of_the_variances(simulation, band, factors) -> None:
    source, spread = replace(simulation.source, batch_limit=70), PoseSpread(TURN_RAD, MOVE_PX)
    turn, move = pose_deviation(source, band, factors, spread)
    ((_, covariance),) = pose_covariance(simulation.source, FEW, band, factors, spread)
    for found, parameters in ((turn, slice(0, 3)), (move, slice(3, 5))):
        trace = covariance[:, parameters, parameters].diagonal(dim1=1, dim2=2).sum(dim=1)
        torch.testing.assert_close(found[FEW] ** 2, trace, rtol=1e-4, atol=0)
