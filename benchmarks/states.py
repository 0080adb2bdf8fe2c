"""Volumes of states against the truth: kernel regression, the linear model, and plain averages of near particles.

    python -m benchmarks.states RUN DATA [--points 8] [--box N] [--threads 2]

DATA is a folder of `solvar-engine simulate`, RUN a finished fit of it. The points are the average latent coordinates of
the particles of states spread evenly over the list of states; of a molecule without states, two standard deviations up
and down the first component.

First table: resolution (Angstrom) where the FSC with the true volume of the state falls below 0.5 inside the mask of
the run, mean FSC over all shells inside the mask and, in brackets, inside the region that moves. The plain averages are
regularised reconstructions of the particles nearest to the point by Euclidean distance: of a tenth, a quarter, a half
and nine tenths of them, and what is best of these by the truth.

Second table, inside the mask and inside the region that moves, where the FSC is without what that mask contributes: the
resolution that the half-maps predict at FSC 0.143, and those at which their unfiltered average falls below 0.5 with
what the kernels average and with the state itself. What the kernels average: true volumes of the particles, each moved
to the point by the regression of the true volumes on the latent coordinates, weighted as the kernels weigh the images
and blended by the same shares.

Of a molecule without states, the difference of the two volumes is compared with the noise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import table, use_threads
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.fourier import fourier_crop_volume, volume_to_ft
from solvar_engine.imaging.masks import soft_edge
from solvar_engine.imaging.shells import coefficients_per_shell, fsc, radial_average, resolution_at
from solvar_engine.jobs.run_reconstruct import linear_state
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.jobs.states.kernel_problem import SETUP_STEPS, KernelProblem, set_up
from solvar_engine.jobs.states.kernel_volumes import KernelVolumes, finish_state, kernel_volumes
from solvar_engine.jobs.states.latent_space import LatentSpace, open_latent_space
from solvar_engine.reconstruction.filtering import corrected_fsc
from solvar_engine.reconstruction.mean import estimate_mean
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations

_NEAREST = (0.1, 0.25, 0.5, 0.9)  # shares of the particles that plain averages are made of


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--box", type=int, help="of the volumes; without it, that of the run")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class Truth:
    """True volumes and states of the particles, and where they differ."""

    def __init__(self, data: Path, box_size: int) -> None:
        paths = sorted((data / "truth" / "volumes").glob("*.mrc"))
        self.volumes = torch.stack([fourier_crop_volume(read_volume(path).data, box_size) for path in paths])
        self.state = read_csv(data / "truth" / "states.csv")["state"].astype(int) - 1
        spread = self.volumes.std(dim=0, correction=0) if len(paths) > 1 else self.volumes[0].abs()
        self.moving = soft_edge(spread > 0.1 * float(spread.max()), 3.0)


def points_of(truth: Truth, space: LatentSpace, count: int) -> tuple[np.ndarray, np.ndarray]:
    """States spread evenly, and the average coordinates of their particles."""
    if len(truth.volumes) == 1:
        points = np.zeros((2, space.z.shape[1]))
        points[:, 0] = np.array([2.0, -2.0]) * space.z[:, 0].std()
        return np.zeros(2, dtype=int), points
    states = np.unique(np.linspace(0, len(truth.volumes) - 1, count).astype(int))
    points = np.stack([space.z[truth.state == state].mean(axis=0) for state in states])
    other = np.setdiff1d(np.arange(points.shape[1]), space.columns)
    points[:, other] = 0.0
    return states, points


class PlainAverages:
    """Regularised reconstructions of the particles nearest to a point."""

    def __init__(self, data: Path, space: LatentSpace, mask: Tensor) -> None:
        stack = ParticleStack.from_star(data / "particles.star")
        self._source = prepare_particles(stack, mask.shape[-1], scratch=None)
        self._space, self._mask = space, mask

    def at(self, point: np.ndarray) -> list[Tensor]:
        """Reconstruct shares of the particles, nearest first."""
        distance = np.square(self._space.features - point[self._space.columns]).sum(axis=1)
        order, sums, volumes, start = torch.from_numpy(np.argsort(distance)), None, [], 0
        for share in _NEAREST:
            members = order[start : round(share * len(order))]
            ring = [accumulate_normal_equations(self._source, members[half::2].sort().values) for half in (0, 1)]
            sums = ring if sums is None else [known + added for known, added in zip(sums, ring, strict=True)]
            volumes.append(estimate_mean(sums[0], sums[1], self._mask).mean * self._mask)
            start += len(members)
        return volumes


class Expectation:
    """What the kernels average, made of the true volumes."""

    def __init__(self, truth: Truth, problem: KernelProblem) -> None:
        self._truth, self._problem = truth, problem
        of_row = np.empty(len(problem.source), dtype=int)
        of_row[problem.row] = truth.state
        self._states = [of_row[rows.numpy()] for rows in problem.rows]
        used = torch.cat(problem.rows).numpy()
        z = problem.z[used] - problem.z[used].mean(axis=0)
        moments = np.zeros((len(truth.volumes), z.shape[1]))
        np.add.at(moments, of_row[used], z)
        slopes = torch.from_numpy(moments @ np.linalg.inv(z.T @ z)).float()
        self._slopes = torch.tensordot(slopes.T, truth.volumes, dims=1)

    def at(self, point: np.ndarray, volumes: KernelVolumes) -> Tensor:
        """Average over both half-sets, blended as the kernels were."""
        place = point[self._problem.columns]
        kernels = torch.zeros(len(volumes.blend.shares), *self._truth.volumes.shape[1:])
        for rows, states, stairs in zip(self._problem.rows, self._states, volumes.stairs, strict=True):
            weights = stairs.of_images()
            weights = weights / weights.sum(dim=1, keepdim=True)
            share = torch.zeros(len(weights), len(self._truth.volumes), dtype=torch.float64)
            share.index_add_(1, torch.from_numpy(states), weights)
            step = torch.from_numpy(place) - weights @ torch.from_numpy(self._problem.z[rows])
            for kernel in range(len(kernels)):
                kernels[kernel] += 0.5 * torch.tensordot(share[kernel].float(), self._truth.volumes, 1)
                kernels[kernel] += 0.5 * torch.tensordot(step[kernel].float(), self._slopes, 1)
        windows, flat = volumes.windows, kernels[-1]
        spectra = sum(
            windows.analyse((kernel - flat) * self._problem.mask) * windows.spread(shares.float())
            for kernel, shares in zip(kernels[:-1], volumes.blend.shares[:-1], strict=True)
        )
        return flat + windows.synthesise(spectra) if len(kernels) > 1 else flat


@dataclass(frozen=True)
class Scale:
    """Sampling, to read off resolutions."""

    mask: Tensor
    moving: Tensor
    pixel_size: float

    def resolution(self, correlation: Tensor, threshold: float) -> float:
        """In Angstrom."""
        return resolution_at(correlation, threshold, self.mask.shape[-1], self.pixel_size)

    def rank(self, volume: Tensor, reference: Tensor) -> tuple[float, float]:
        """The less the better: resolution, and what the mean FSC lacks."""
        curve = fsc(volume, reference, self.mask)
        return self.resolution(curve, 0.5), 1 - float(curve[1:].mean())

    def quality(self, volume: Tensor, reference: Tensor) -> str:
        """Resolution and mean FSC to a true volume."""
        curve, moving = (fsc(volume, reference, where) for where in (self.mask, self.moving))
        return f"{self.resolution(curve, 0.5):.2f}, {curve[1:].mean():.4f} ({moving[1:].mean():.4f})"

    def honesty(self, halves: tuple[Tensor, Tensor], expected: Tensor, state: Tensor) -> list[str]:
        """Predicted and measured resolutions in mask and moving region."""
        cells, average = [], 0.5 * (halves[0] + halves[1])
        for where in (self.mask, self.moving):
            found = []
            for first, second, threshold in ((*halves, 0.143), (average, expected, 0.5), (average, state, 0.5)):
                generator = torch.Generator().manual_seed(0)
                found.append(self.resolution(corrected_fsc(first, second, where, generator), threshold))
            cells += [f"{value:.2f}" for value in found] + [f"{100 * (found[0] / found[1] - 1):+.0f} %"]
        return cells


def difference_in_noise(first: KernelVolumes, second: KernelVolumes, mask: Tensor) -> str:
    """How the difference of two volumes compares with the noise of one, and whether both half-sets see it."""
    halves = [getattr(first.blend, half) - getattr(second.blend, half) for half in ("half1", "half2")]
    curve, weight = fsc(halves[0], halves[1], mask)[1:], coefficients_per_shell(mask.shape[-1])[1:]
    independent = weight * float((mask**2).mean())
    overall, error = float((curve * weight).sum() / weight.sum()), float(independent.sum()) ** -0.5
    worst = float((curve * independent.sqrt()).max())
    found, noise, volume = (
        radial_average(volume_to_ft(part * mask).abs() ** 2, mask.shape[-1])[1:] * weight
        for part in (
            0.5 * (halves[0] + halves[1]),
            0.5 * (first.blend.half1 - first.blend.half2),
            0.5 * (first.blend.half1 + first.blend.half2),
        )
    )
    return (
        f"The volumes differ by {float((found.sum() / noise.sum()).sqrt()):.3f} times the noise that their half-maps"
        f" show, at most {float((found / noise).max().sqrt()):.2f} times in one shell, and by"
        f" {100 * float((found.sum() / volume.sum()).sqrt()):.2f} % of the volume. The differences in both half-sets"
        f" correlate by {overall:.4f}, with a standard error of {error:.4f} if there is nothing to see, and at most by"
        f" {worst:.1f} standard errors in one of {len(curve)} shells."
    )


def main() -> None:
    arguments = parse_arguments()
    use_threads(arguments.threads)
    run = RunDir(arguments.run)
    space = open_latent_space(run)
    mean = read_volume(run.mean)
    box_size = arguments.box or mean.box_size
    truth = Truth(arguments.data, box_size)
    states, points = points_of(truth, space, arguments.points)
    eigenvolumes = torch.stack([read_volume(run.eigenvolume(int(c) + 1)).data for c in space.columns])
    volumes, honesty, made = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        params = ReconstructParams(run=str(run.path), output=folder, points="-", box=box_size)
        start = time.perf_counter()
        status = StatusTracker(Path(folder) / "status.json", params.command)
        with closing(Progress(status, SETUP_STEPS)) as progress:
            problem = set_up(params, run, space, len(points), Path(folder), progress)
        seconds = time.perf_counter() - start
        plain, expectation = PlainAverages(arguments.data, space, problem.mask), Expectation(truth, problem)
        scale = Scale(problem.mask, truth.moving, problem.source.pixel_size)
        for number, (state, point) in enumerate(zip(states, points, strict=True), start=1):
            reference = truth.volumes[state]
            start = time.perf_counter()
            kernels = kernel_volumes(problem, point)
            result = finish_state(problem, kernels)
            seconds += time.perf_counter() - start
            linear = linear_state(mean, eigenvolumes, point[space.columns])
            nearest = min(plain.at(point), key=lambda volume: scale.rank(volume, reference))
            rivals = (result.volume, change_box(linear.data, box_size), nearest)
            head = [str(number), str(state + 1)]
            volumes.append([*head, str(result.images_used), *(scale.quality(v, reference) for v in rivals)])
            halves = (result.half1, result.half2)
            honesty.append([*head, *scale.honesty(halves, expectation.at(point, kernels), reference)])
            made.append(kernels)
    kinds = ("predicted", "of what is averaged", "of the state", "error")
    print(table(["point", "state", "images used", "kernel", "linear", "nearest"], volumes), end="\n\n")
    print(table(["point", "state", *kinds, *(f"moving: {kind}" for kind in kinds)], honesty), end="\n\n")
    if len(truth.volumes) == 1:
        print(difference_in_noise(made[0], made[1], problem.mask))
    print(f"{seconds:.0f} s for {len(points)} states")


if __name__ == "__main__":
    main()
