"""Stochastic gradient descent from random starts: its sampling, its curves, and other methods from the same starts.

    python benchmarks/abinitio_sgd.py --work DIR [--box 32] [--particles 1500] [--iterations 400] [--seeds 1] [--print]

As in "Building Proteins in a Day": the error of sampled likelihoods and the share of poses that are looked at by the
number of draws (figure 6); that share and the error of held-out images by the iteration (figures 5 and 7); and what
projection matching and batch expectation maximisation make of the same images, band and random spheres (figure 9). The
data set is simulated: a static molecule with CTFs, shifts and noise, by default as noisy as images of 64 px with a
signal-to-noise ratio of 0.1 that were binned to 32. Resolutions are where the FSC with the truth falls
below 0.5, after the better hand was turned onto it; the band limits them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.abinitio import align, load, resolution
from benchmarks.common import finish, provenance, script_parser, shown, simulated, table, use_threads
from solvar_engine.abinitio.mixture import LowImages, low_box, read_low
from solvar_engine.abinitio.sgd.importance import ImportanceSampler
from solvar_engine.abinitio.sgd.likelihood import evaluate
from solvar_engine.abinitio.sgd.quadrature import Quadrature
from solvar_engine.abinitio.sgd.search import Progress, SgdOptions, best_poses, descended, first_shell, random_spheres
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.estimation.pose_scores import PoseGrid, Posterior, posterior_sums
from solvar_engine.imaging.fourier import shift_phases
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS
from solvar_engine.reconstruction.mean import weak_precision
from solvar_engine.reconstruction.normal_equations import normal_equations, solve
from solvar_engine.simulation.particles import SHIFT_STD

_SCALES = (1.0, 3.0, 10.0, 30.0)
_SAMPLED_IMAGES = 100
_LATE = 100_000  # an iteration at which annealing is over
_SHELL = 8
_PASSES = 10  # of the batch methods over all images
_ROWS = 12  # of the table of a descent
_EDGE = 2.0  # voxels
_LOG_2_PI = math.log(2 * math.pi)
_NO_SYMMETRY = symmetry_operators("C1")


def sampling_errors(images: LowImages, volume: Tensor, shift_std_px: float) -> list[list[object]]:
    """Rows of figure 6: draws, relative error of log p of an image, share of the poses that were looked at."""
    images = images[:_SAMPLED_IMAGES]
    shell = images.disk.shell_max
    quadrature = Quadrature.for_shell(shell, images.disk.box_size, shift_std_px)
    projector = create_projector(len(volume), images.disk, DEFAULT_OPTIONS)
    rows, found = torch.arange(len(images)), []
    for scale in _SCALES:
        sampler = ImportanceSampler(len(images), scale, torch.Generator().manual_seed(0), worth=1.0)
        everything = sampler.samples(rows, quadrature, shell)
        full = evaluate(projector, volume, images, quadrature, everything)
        sampler.keep(rows, everything, full.log_marginals, shell, _LATE)
        sampled = evaluate(projector, volume, images, quadrature, sampler.samples(rows, quadrature, shell))
        error, constant = (sampled.log_likelihood - full.log_likelihood).abs(), 0.5 * _pixels(images) * _LOG_2_PI
        relative = (error / (constant - full.log_likelihood), error / -full.log_likelihood)
        found.append([f"{scale:g}", *(f"{100 * float(x.mean()):.3f} %" for x in relative),
                      f"{float(error.median()):.2g}", f"{100 * sampled.evaluated:.3g} %"])  # fmt: skip
    return found


def projection_matching(images: LowImages, start: Tensor, shift_std_px: float) -> Tensor:
    """Best pose of each image, reconstruction, and so on."""
    volume = start
    for _ in range(_PASSES):
        rotation, shift_px, _ = best_poses(images, volume, shift_std_px, DEFAULT_OPTIONS)
        moved = images.images * shift_phases(images.disk, shift_px, images.disk.box_size)
        volume = _reconstructed(images, moved * images.ctf, images.ctf.square(), rotation)
    return volume


def batch_em(images: LowImages, start: Tensor, shift_std_px: float) -> Tensor:
    """Expectation maximisation over all images at once, all poses of the quadrature weighted by their posterior."""
    disk, volume = images.disk, start
    quadrature = Quadrature.for_shell(disk.shell_max, disk.box_size, shift_std_px)
    directions, angles, _ = quadrature.sizes
    direction, angle = torch.cartesian_prod(torch.arange(directions), torch.arange(angles)).unbind(1)
    rotation = quadrature.rotation(direction, angle)
    projector = create_projector(len(volume), disk, DEFAULT_OPTIONS)
    log_prior = torch.full((len(rotation),), -float(torch.tensor(len(rotation)).log()))
    for _ in range(_PASSES):
        slices = projector.project(projector.to_grid(volume[None]), rotation)[:, :, 0]
        noise = torch.ones(disk.shell_max + 1)
        grid = PoseGrid(disk, slices, log_prior, quadrature.shift_px.float(), shift_std_px, noise)
        summed, power = torch.zeros_like(slices), torch.zeros_like(slices.real)
        for rows in torch.arange(len(images)).split(50):
            part = images[rows]
            shifted = grid.shifted(part.images, part.ctf)
            posterior = Posterior.of(grid.log_joint(shifted, part.ctf))
            found = posterior_sums(grid, posterior, shifted, part.images, part.ctf)
            summed[posterior.used] += found.images
            power[posterior.used] += found.power
        volume = _reconstructed(images, summed, power, rotation)
    return volume


def _reconstructed(images: LowImages, slices: Tensor, power: Tensor, rotation: Tensor) -> Tensor:
    """Least-squares map of weighted slices and their weights, positive and inside the ball as that of the descent."""
    box_size = low_box(images.disk)
    sums = create_projector(box_size, images.disk, DEFAULT_OPTIONS).convolution_sums()
    weight = images.disk.weight
    sums.add(slices * weight, (power * weight).to(slices.dtype), rotation)
    normal = normal_equations(sums, box_size, images.disk.shell_max)
    volume = solve(normal, weak_precision(normal, 0.1), iterations=6)
    return (volume * sphere_mask(box_size, 0.5 * box_size - _EDGE, _EDGE)).clamp_min(0)


def scores(
    images: LowImages, volume: Tensor, rotation: Tensor, truth: Tensor, shift_std_px: float, pixel_size: float
) -> list[object]:
    """Resolution of a map, Angstrom, and the median error of the best poses of images under it, degrees."""
    found, _, _ = best_poses(images, volume, shift_std_px, DEFAULT_OPTIONS)
    turn, is_mirrored, error = align(found, rotation, _NO_SYMMETRY)
    full = change_box(volume, len(truth), images.disk.shell_max)
    return [f"{resolution(full, truth, turn, is_mirrored, pixel_size):.1f}", f"{float(error.median()):.1f}"]


def _pixels(images: LowImages) -> float:
    return float(images.disk.weight.sum())


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, str]:
    """A result, and the CPU-seconds that it took."""
    start = time.process_time()
    return function(), f"{time.process_time() - start:.0f}"


def curve(steps: Sequence[Progress]) -> str:
    """Table of a descent, thinned out."""
    every = max(1, len(steps) // _ROWS)
    rows = [
        [step.iteration, step.shell, f"{step.relative_error:.4f}", f"{100 * step.evaluated:.3g} %",
         shown(step.lipschitz)]
        for step in steps[every - 1 :: every]
    ]  # fmt: skip
    return table(["iteration", "shell", "RREMSE, held out", "poses looked at", "L"], rows)


def main() -> None:
    """Make the tables."""
    parser = script_parser(__doc__, work=True, box=32, particles=1500, snr=0.4, iterations=400, seeds=1, threads=1)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    folder = simulated(
        arguments.work, "static", box=arguments.box, particles=arguments.particles, pixel_size=192 / arguments.box,
        snr=arguments.snr, seed=1, threads=arguments.threads,
    )  # fmt: skip
    text = measured(folder, arguments.iterations, arguments.seeds)
    finish("abinitio_sgd", f"{text}\n\n{provenance(arguments.threads)}", arguments)


def measured(folder: Path, iterations: int, seeds: int) -> str:
    """All tables, of one data set."""
    source, rotation, _ = load(folder)
    shell = min(_SHELL, source.disk.shell_max)
    images = read_low(source, torch.arange(len(source)), shell)
    truth = read_volume(folder / "truth" / "mean.mrc").data / source.grey_unit
    shift_std_px = SHIFT_STD * source.box_size
    shells = first_shell(source.box_size, source.pixel_size, shell), shell
    low_truth = change_box(truth, low_box(images.disk), shell)
    rows: list[list[object]] = []
    steps: list[Progress] = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        start = random_spheres(images, _NO_SYMMETRY, generator, DEFAULT_OPTIONS)

        def by_sgd(start: Tensor = start, generator: torch.Generator = generator) -> Tensor:
            options = SgdOptions(iterations=iterations)
            steps[:] = descended(images, shells, shift_std_px, _NO_SYMMETRY, generator, DEFAULT_OPTIONS, options, start)
            return steps[-1].volume

        for name, method in (
            ("stochastic gradient descent", by_sgd),
            ("projection matching", lambda start=start: projection_matching(images, start, shift_std_px)),
            ("batch EM", lambda start=start: batch_em(images, start, shift_std_px)),
        ):
            volume, seconds = timed(method)
            of_map = scores(images, volume, rotation, truth, shift_std_px, source.pixel_size)
            rows.append([seed, name, *of_map, seconds])
    return "\n\n".join((
        f"Data set `{folder.name}`; bands of shells {shells[0]} to {shells[1]}.",
        "Sampled likelihoods under the true map, annealing over, beside the full sum:",
        table(["draws over effective sample size", "mean relative error of log p", "its constant left out",
               "median error", "poses looked at"],
              sampling_errors(images, low_truth, shift_std_px)),
        f"Descent with seed {seeds - 1}:",
        curve(steps),
        f"From the same random spheres ({_PASSES} passes of the batch methods, at the last band):",
        table(["seed", "method", "FSC 0.5, Angstrom", "median error of poses, degrees", "CPU-seconds"], rows),
    ))  # fmt: skip


if __name__ == "__main__":
    main()
