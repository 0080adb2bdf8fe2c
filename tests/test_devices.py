"""Everything between the images and the results happens where the images are, and gives what it gives on the CPU."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from solvar_engine.data.noise import background_power, flattened, repair_low_shells
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.images import find_junk, judge_images
from solvar_engine.estimation.judging.components import (
    Components,
    find_components,
    in_gauge_of_halves,
    latent_coordinates,
    measure_components,
    with_spectra_of,
)
from solvar_engine.estimation.judging.given_poses import pose_evidence
from solvar_engine.estimation.judging.grey_scales import find_grey_scales
from solvar_engine.estimation.judging.nuisance import is_slow_background, nuisance_overlap
from solvar_engine.estimation.judging.outliers import image_fits
from solvar_engine.estimation.judging.rank import decide_rank, judge_components, keep_components, make_decoys
from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import expectation_pass
from solvar_engine.estimation.model.fixed_factors import collect_statistics
from solvar_engine.estimation.model.half_models import HalfModel, explain, half_version, scale_to_images
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.model.residuals import ResidualNoise, residual_power
from solvar_engine.estimation.poses import descent
from solvar_engine.estimation.poses.descent import descend_poses
from solvar_engine.estimation.poses.likelihood import pose_covariance, pose_deviation
from solvar_engine.estimation.poses.refinement import refine_poses
from solvar_engine.estimation.poses.spread import measure_spread
from solvar_engine.estimation.poses.uncertainty import PoseErrors, PosePrior, PoseSpread, precision_of
from solvar_engine.estimation.solver.agreement import covariance_fsc
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import FullSetState, HalfSetState, fit_full_set, fit_half_sets
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.imaging.fourier import HalfDisk, volume_to_ft
from solvar_engine.imaging.masks import automatic_mask, soft_edge
from solvar_engine.imaging.types import Ctf, Pose
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.filtering import corrected_fsc, local_filter, local_fsc, local_resolution
from solvar_engine.reconstruction.kernel_blending import blend_kernels
from solvar_engine.reconstruction.kernel_regression import accumulate_kernels, back_project
from solvar_engine.reconstruction.mean import estimate_mean, filtered_halves
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from solvar_engine.reconstruction.sharpening import fit_b_factor, sharpen
from solvar_engine.reconstruction.windows import LocalWindows
from solvar_engine.simulation.additions import additions
from solvar_engine.simulation.effects import MicroscopeEffects
from solvar_engine.simulation.noise import noise_amplitude
from solvar_engine.simulation.particles import ImageModel, draw_particles, noisy_images, signal_variance
from solvar_engine.simulation.phantoms import make_phantom
from tests.other_device import OTHER, Elsewhere, other_device
from tests.reconstruction.simulated import LinearPhantom, MemorySource, noise, simulate

BOX, IMAGES, RANK = 8, 32, 2
ENGINE = Path(__file__).parents[1] / "solvar_engine"

SIMULATION = simulate(LinearPhantom.create(RANK, strength=0.7, sigma=0.08), IMAGES, BOX, noise=0.3)
FIRST, SECOND = torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2)
SPREAD = PoseSpread(0.05, 0.3)


@dataclass(frozen=True)
class Place:
    """A device, and what an algorithm is given there."""

    device: torch.device

    def put(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)

    @property
    def options(self) -> SliceOptions:
        return SliceOptions(device=str(self.device), backend="torch_ref")

    @property
    def source(self) -> MemorySource:
        source = SIMULATION.source
        moved = {name: self.put(getattr(source, name)) for name in ("images", "ctf", "rotation", "contrast")}
        return replace(source, **moved, disk=source.disk.to(self.device), batch_limit=16)

    @property
    def mean(self) -> Tensor:
        return self.put(SIMULATION.phantom.mean(BOX))

    @property
    def factors(self) -> Tensor:
        return self.put(SIMULATION.phantom.factors(BOX))

    @property
    def mask(self) -> Tensor:
        mask = torch.zeros(BOX, BOX, BOX)
        mask[1:-1, 1:-1, 1:-1] = 1.0
        return self.put(mask)

    @property
    def problem(self) -> CovarianceProblem:
        density = self.put(torch.full((BOX, BOX, BOX // 2 + 1), 3.0))
        errors = PoseErrors(SPREAD, 0.1 * noise(IMAGES, 6, dtype=torch.float64))
        return CovarianceProblem(
            self.source, (FIRST, SECOND), self.mean, self.mask, density, RANK, 0, self.options, OBJECTIVES["ml"],
            contrast_variance=0.01, pose_errors=errors,
        )  # fmt: skip

    def band(self, *, with_errors: bool = True) -> Band:
        problem = self.problem if with_errors else replace(self.problem, pose_errors=PoseErrors())
        return problem.full_band()

    @property
    def components(self) -> Components:
        eigenvolumes = self.put(torch.linalg.qr(self.factors.cpu().flatten(1).T).Q.T.reshape(RANK, BOX, BOX, BOX))
        values = self.put(torch.tensor([2.0, 1.0], dtype=torch.float64))
        return Components(eigenvolumes, values, values, values, values)

    @property
    def state(self) -> HalfSetState:
        """Of half-sets that have found nearly the same."""
        identity = self.put(torch.eye(RANK, dtype=torch.float64))
        first, second = (Factors(scale * self.factors, identity) for scale in (1.0, 1.1))
        return HalfSetState(0, (first, second), self.put(torch.full((RANK, BOX // 2), 0.5)), (0.0, 0.0))

    @property
    def volumes(self) -> tuple[Tensor, Tensor]:
        """Half-maps of a molecule that stands out."""
        box = 24
        molecule = SIMULATION.phantom.mean(box)
        first, second = (molecule + 0.02 * molecule.std() * noise(box, box, box, seed=seed) for seed in (1, 2))
        return self.put(first), self.put(second)


# --- what is computed


def mean_volume(place: Place) -> Any:
    normal = [accumulate_normal_equations(place.source, half, place.options) for half in (FIRST, SECOND)]
    estimate = estimate_mean(normal[0], normal[1], place.mask)
    return normal, estimate, filtered_halves(estimate)


def passes(place: Place, objective: str) -> Any:
    return expectation_pass(place.source, FIRST, place.band(), place.factors, OBJECTIVES[objective])


def half_sets(place: Place, objective: str) -> Any:
    problem = replace(place.problem, objective=OBJECTIVES[objective])
    start = next(iter(fit_half_sets(problem)))
    aligned = next(iter(fit_half_sets(problem, replace(start, done=5))))  # the last epoch of a round
    known = replace(aligned, correlation=aligned.correlation.clamp(0.1, 0.9))
    full = FullSetState(2, known.factors[0], 0.0)
    return start, aligned, next(iter(fit_full_set(problem, known, full)))


def rank_and_components(place: Place) -> Any:
    band, mean, mask = place.band(), place.mean, place.mask
    halves = (place.factors, 1.1 * place.factors)
    decoys = make_decoys(place.factors, mean, mask, 3, torch.Generator().manual_seed(0))
    held_out, fitted = (
        [
            collect_statistics(place.source, index, band, torch.cat((half, further)))
            for half, index in zip(halves, (SECOND, FIRST), strict=True)
        ]
        for further in (decoys, decoys[:0])
    )
    decision = decide_rank(halves, (held_out[0], held_out[1]))
    state = place.state
    factors = in_gauge_of_halves(state.factors[0], halves) * mask
    components = find_components(factors, with_spectra_of(factors, halves), (fitted[0], fitted[1]), mean)
    none = Components.none(BOX, place.device)
    return decoys, decision, keep_components(state, decision), components, none, covariance_fsc(*halves)


def stages(place: Place) -> Any:
    """What follows the fit of the half-sets."""
    problem = place.problem
    state = place.state
    first = state.factors[0]
    spread = measure_spread(place.source, problem.halves, problem.full_band(), [place.factors] * 2, SPREAD)
    none = measure_components(replace(problem, rank=0), state, first)
    return judge_components(problem, state), measure_components(problem, state, first), none, spread


def tables(place: Place) -> Any:
    """What is kept of all particles, on the CPU."""
    particles = particles_of(place, IMAGES)
    problem = replace(place.problem, source=particles)
    judged = judge_images(particles, problem.halves, problem, place.state)
    deviation = pose_deviation(place.source, place.band(with_errors=False), place.factors, SPREAD)
    kept = (judged.outlier, judged.contrast, *deviation)
    assert all(type(table) is Tensor for table in kept)
    return judged.noise, [place.put(table) for table in kept]


def first_mean(place: Place) -> Any:
    """What a first mean tells of the images, in tables on the CPU."""
    halves, particles = (FIRST, SECOND), particles_of(place, IMAGES)
    scales = find_grey_scales(place.source, halves, torch.arange(IMAGES) % 3 // 2, place.options)
    evidence = pose_evidence(particles, halves, (place.mean, 1.1 * place.mean), place.options, 0)
    junk = find_junk(particles, halves, replace(place.problem, source=particles), torch.arange(IMAGES) < 3)
    kept = (scales.scale, scales.is_dark, evidence.index, evidence.orientation_gain, evidence.shift_gain, junk)
    assert all(type(table) is Tensor for table in kept)
    return [place.put(table) for table in kept]


def latents(place: Place) -> Any:
    return list(latent_coordinates(place.source, FIRST, place.band(), place.components, 0.1))


def residuals_and_outliers(place: Place) -> Any:
    band = place.band()
    measured = ResidualNoise(2, place.source.disk)
    for index, power, kept in residual_power(place.source, FIRST, band, place.factors):
        measured.add(power, index % 2, kept)
    updated = measured.update(place.put(torch.ones(2, band.shell_max + 1)))
    fits = [fit for _, fit in image_fits(place.source, FIRST, band, place.factors)]
    eigenvalues = place.components.eigenvalues
    overlap = nuisance_overlap(place.factors, eigenvalues, place.mean)
    return updated, fits, overlap, is_slow_background(place.factors, eigenvalues, place.mean)


def poses(place: Place) -> Any:
    band, rotation = place.band(with_errors=False), SIMULATION.source.rotation.double()
    prior = PosePrior(rotation, torch.zeros(IMAGES, 2, dtype=torch.float64), precision_of(SPREAD))
    return (
        list(refine_poses(place.source, FIRST[:8], band, place.factors, steps=2, prior=prior)),
        list(refine_poses(place.source, FIRST[:8], band, place.factors, steps=1)),
        [known for _, known in pose_covariance(place.source, FIRST[:8], band, place.factors, SPREAD)],
    )


def published_poses(place: Place) -> Any:
    return list(descend_poses(place.source, FIRST[:4], place.band(with_errors=False), place.factors))


def half_models(place: Place) -> Any:
    source, components = place.source, half_version(place.components.eigenvolumes, place.factors)
    model = HalfModel(place.mean, components, place.components.eigenvalues)
    scale = scale_to_images(source, FIRST, source.disk, place.mean, place.options)
    return scale, list(explain(source, FIRST, source.disk, model, place.options)), model.at(torch.ones(RANK))


def kernel_regression(place: Place) -> Any:
    distance, bandwidths = torch.linspace(0, 9, len(FIRST)), torch.tensor([2.0, 4.0])
    everything = back_project(place.source, FIRST, place.options)
    sums = accumulate_kernels(place.source, FIRST, distance, bandwidths, everything, place.options)
    offset = volume_to_ft(place.mean)
    blend = blend_kernels((sums, sums), (offset, offset), LocalWindows.create(BOX), place.mask)
    return everything, sums, blend


def filters(place: Place) -> Any:
    half1, half2 = place.volumes
    mask = automatic_mask(half1, 3.0)
    windows = LocalWindows.create(half1.shape[-1], mask)
    correlation = local_fsc(half1, half2, windows)
    overall = corrected_fsc(half1, half2 + 0.5 * half1.flip(0), mask, torch.Generator().manual_seed(0))
    return (
        mask, soft_edge(mask > 0.5, 2.0), correlation, overall, windows.weight_of(mask), sharpen(half1, 50.0, 3.0, 8.0),
        local_filter(half1, correlation, windows), local_resolution(correlation, windows, 3.0, 0.143),
        fit_b_factor(half1, overall, 3.0, 7.0, 40.0).b_factor,
    )  # fmt: skip


def preprocessing(place: Place) -> Any:
    images = place.put(noise(5, 16, 16))
    spectrum = background_power(images, HalfDisk.create(16).to(place.device)).mean(dim=0)
    return flattened(images), spectrum, repair_low_shells(spectrum)


def particles_of(place: Place, count: int) -> PreparedParticles:
    disk = HalfDisk.create(BOX)
    one = place.put(torch.ones(count))
    ctf = Ctf(1e4 * one, 1.1e4 * one, 20 * one, 300 * one, 2.7 * one, 0.1 * one, 0 * one, 10 * one, 0.9 * one, one > 0)
    source = SIMULATION.source
    pose = Pose(place.put(source.rotation[:count]), place.put(noise(count, 2)))
    return PreparedParticles(
        coefficients=place.put(source.images[:count].clone()), disk=disk.to(place.device), box_size=BOX, pixel_size=3.0,
        pose=pose, ctf=ctf, group=place.put(torch.arange(count) % 2),
        frequency_ratio=place.put(torch.tensor([1.0, 1.3])), input_box=16,
        noise_variance=place.put(1 + torch.rand(2, disk.shell_max + 1, generator=torch.Generator().manual_seed(0))),
        image_scale=1.1 * one, sign=-1.0,
    )  # fmt: skip


def prepared_particles(place: Place) -> Any:
    particles, rows = particles_of(place, 6), torch.tensor([4, 1, 2])
    known = particles.with_contrast(place.put(torch.full((6,), 1.2)))
    scaled = particles.with_grey_scale(place.put(torch.linspace(-1, 2, 6)))
    known.subtract(rows[:1], place.put(SIMULATION.source.images[:1, :20]))
    moved = particles.with_pose(replace(particles.pose, shift=particles.pose.shift + 1.0))
    part = HalfDisk.create(BOX).prefix(3).to(place.device)
    return [list(some.batches(rows, part, 2)) for some in (particles, known, scaled, moved)]


def slices(place: Place) -> Any:
    """All that a projector does by plain torch."""
    source = place.source
    projector = create_projector(BOX, source.disk, place.options)
    grid, accumulator = projector.to_grid(place.factors), projector.new_accumulator(1)
    batch = next(source.batches(FIRST, source.disk, 8))
    read, gram = projector.project_with_gram(grid, batch.rotation, batch.ctf, batch.images)
    ones = place.put(torch.ones(8, RANK + 1, 1))
    projector.backproject_combination(read, batch.images, ones, batch.rotation, batch.ctf, accumulator)
    weights, moments = ones[:, :RANK, 0], place.put(torch.eye(RANK).expand(8, -1, -1))
    products = projector.pose_products(grid, batch.rotation, batch.ctf, batch.images, weights, moments)
    return read, gram, projector.to_volumes(accumulator), products


def simulated_images(place: Place) -> Any:
    """Images of a phantom with all effects; what is drawn is drawn on the CPU."""
    count, box_size, pixel_size = 24, 16, 9.0
    effects = MicroscopeEffects(background=1.0, neighbours=0.5, coloured_noise=4.0, junk=0.3)
    molecule = make_phantom("hinge").to(place.device)
    particles = draw_particles(molecule, count, box_size, pixel_size, 0, contrast_std=0.1, effects=effects)
    model = ImageModel(molecule, particles, box_size, pixel_size)
    scale = (0.1 / signal_variance(model)) ** 0.5
    added = additions(model, effects, scale, 0.1, 0.4, 0)
    amplitude = place.put(noise_amplitude(4.0, box_size, pixel_size))
    written = [torch.from_numpy(images) for images in noisy_images(model, scale, 0, added, amplitude)]
    shown = [addition(slice(0, count)) for addition in added]
    everyone = slice(0, count)
    return scale, shown, model.coefficients(everyone), molecule.volume(0, box_size), place.put(torch.cat(written))


COMPUTATIONS: dict[str, Callable[[Place], Any]] = {
    "slices": slices,
    "mean": mean_volume,
    "pass, likelihood": lambda place: passes(place, "ml"),
    "pass, least squares": lambda place: passes(place, "ls"),
    "half-sets, likelihood": lambda place: half_sets(place, "ml"),
    "half-sets, least squares": lambda place: half_sets(place, "ls"),
    "rank and components": rank_and_components,
    "stages": stages,
    "tables": tables,
    "first mean": first_mean,
    "latents": latents,
    "residuals and outliers": residuals_and_outliers,
    "poses": poses,
    "published poses": published_poses,
    "half-models": half_models,
    "kernel regression": kernel_regression,
    "filters": filters,
    "preprocessing": preprocessing,
    "prepared particles": prepared_particles,
    "simulated images": simulated_images,
}


def numbers(value: Any, name: str = "result") -> Iterator[tuple[str, Any]]:
    """Yield all tensors and numbers of nested results."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from numbers(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, (tuple, list)):
        for number, part in enumerate(value):
            yield from numbers(part, f"{name}[{number}]")
    else:
        yield name, value


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_all_happens_where_the_images_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the other device nothing meets a tensor of the CPU, and the results are the same numbers."""
    for constant in ("_EPOCHS", "_EPOCHS_BETWEEN_SHIFTS", "_NEWTON_STEPS"):
        monkeypatch.setattr(descent, constant, 1)  # the published schedule is long
    compute = COMPUTATIONS[name]
    expected = dict(numbers(compute(Place(torch.device("cpu")))))
    with other_device():
        found = dict(numbers(compute(Place(OTHER))))
    assert found.keys() == expected.keys()
    for key, value in found.items():
        if isinstance(value, Tensor):
            if not key.endswith(".index"):
                assert isinstance(value, Elsewhere), f"{key} has come back to the CPU"
                value = value.values
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6, equal_nan=True)
        else:
            assert value == pytest.approx(expected[key]), key


@pytest.mark.parametrize(
    "mistake",
    [
        lambda there: there + torch.zeros(3),
        lambda there: torch.where(there > 0, torch.zeros(3), there),
        lambda there: torch.zeros(3)[there.long()],
        lambda there: torch.zeros(3).add_(there),
        lambda there: there.index_add_(0, torch.tensor([0]), there[:1]),
        lambda there: there @ torch.eye(3),
        lambda there: there.__setitem__(torch.tensor([0, 1]), torch.ones(2)),
        lambda there: torch.randn(3, generator=torch.Generator(), device=there.device),
        lambda there: there.numpy(),
    ],
)
def test_what_a_gpu_refuses_is_refused(mistake: Callable[[Tensor], Any]) -> None:
    with other_device() as device, pytest.raises(RuntimeError):
        mistake(torch.ones(3, device=device))


def test_what_a_gpu_does_is_done() -> None:
    with other_device() as device:
        there = torch.arange(4.0, device=device)
        there[torch.tensor([0])] = 5.0  # an index on the CPU
        there[1:3] += torch.tensor(1.0)  # a number
        there[3:].copy_(torch.tensor([7.0]))
        assert there.device == device and there.cpu().tolist() == [5.0, 2.0, 3.0, 7.0]
        assert torch.view_as_real(torch.fft.fft(there).conj())[0].cpu().tolist() == [17.0, 0.0]


# Functions above the projectors that take the options of slicing, and the place of these among their arguments.
PASSED_ON = {
    "reconstruction.normal_equations.accumulate_normal_equations": 2,
    "reconstruction.kernel_regression.back_project": 2,
    "reconstruction.kernel_regression.accumulate_kernels": 5,
    "estimation.judging.grey_scales.find_grey_scales": 3,
    "estimation.judging.grey_scales.scale_evidence": 4,
    "estimation.model.half_models.explain": 4,
    "estimation.model.half_models.scale_to_images": 4,
}


def test_every_caller_says_how_volumes_are_sliced() -> None:
    """Defaults are for tests and for readers: a command that relies on them ignores its device."""
    silent, calls = [], 0
    for path in sorted(ENGINE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name: PASSED_ON[f"{node.module}.{alias.name}".removeprefix("solvar_engine.")]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if f"{node.module}.{alias.name}".removeprefix("solvar_engine.") in PASSED_ON
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in imported:
                calls += 1
                if len(node.args) <= imported[node.func.id] and "options" not in {k.arg for k in node.keywords}:
                    silent.append(f"{path.relative_to(ENGINE)}:{node.lineno}: {node.func.id} without options")
    assert silent == []
    assert calls >= len(PASSED_ON)


