"""Moments of images: one pass over many, and expectation maximisation from their map; a network for those of a line.

    python -m benchmarks.moments --work DIR [--parts PART ...] [--starts 10] [--pairs 500000] [--structures 500000]
        [--print]

stream: 100,000 simulated particles (`static`, 64 px) are read once.

starts: the first 1,000 images are searched at all poses of shell 8 after the last level of online expectation
maximisation; a start is told by the share of the orientations within 20 degrees of the truth, up to a turn of the whole
and its hand. The share that the true map finds is what a start can reach.

volumes: a map of four Gaussians in 25 voxels, views of eight preferred directions, exact moments up to shell 4, and no
network (tables 2.2 and 3.2 of the thesis).

alignment: multireference alignment with 21 points. Encoders are trained on mixtures of 1, 2 and 3 Gaussians, of which
pairs are made on the fly, and tested on others (table 2.1 of the thesis); then weights, trained or not, are fitted to
moments of a million noisy observations of mixtures of 2 (figure 2.4).

networks: cryo-EM in 15 voxels. MoM-net is trained on moments of chains of 20 atoms that are made on the fly; then
weights, trained or not, are fitted to exact moments of other chains, whose views have eight preferred directions, with
shifts (tables 2.2 and 3.2, figure 3.7). Spreads of shifts are px of the thesis's box of 45 voxels.

images: rings 1 to 7 of the moments of simulated noisy images of 25 px, of the four Gaussians and, with `--map`, of a
molecule, whose box is padded by an eighth at each side; fitted by L-BFGS without a network, and by networks, whose
encoder is that of `networks` (tables 2.2, 2.3 and 3.2). Eight directions are preferred, in-plane angles are uniform.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import spline_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from torch import Tensor

from benchmarks.abinitio import align, brought, chosen, load
from benchmarks.common import finish, provenance, script_parser, simulated, table, use_threads
from solvar_engine.abinitio.mixture import LowImages, Mixture, low_batches, read_low
from solvar_engine.abinitio.moments.alignment import (
    aligned_error,
    empirical_moments,
    moments_of_signal,
    spectral_inversion,
)
from solvar_engine.abinitio.moments.analytic import MapMoments, MomentPair, angles_of, at_angles
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.abinitio.moments.encoder import (
    MomentEncoder,
    fitted,
    load_encoder,
    random_pairs,
    save_encoder,
    trained,
)
from solvar_engine.abinitio.moments.networks import ANGLES, RADIUS, MapEncoder, MomentNetwork, rings_of
from solvar_engine.abinitio.moments.recovery import MomentObjective, RecoveryOptions, recovered, relative_errors
from solvar_engine.abinitio.moments.search import map_of_moments
from solvar_engine.abinitio.moments.steerable import (
    PADDING,
    EmpiricalMoments,
    MomentSums,
    RingInterpolation,
    moments_of,
)
from solvar_engine.abinitio.moments.training import (
    Structures,
    encoder_loss,
    fit_network,
    train_encoder,
    training_moments,
)
from solvar_engine.abinitio.online_em import LEVELS, first_mixture, improved, recentred
from solvar_engine.abinitio.search import search_all
from solvar_engine.abinitio.structure import AbinitioOptions
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.fourier import HalfDisk, images_to_disk, shift_phases
from solvar_engine.imaging.harmonics import real_harmonics, rotations_to, sphere_quadrature
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.shells import fsc, resolution_at
from solvar_engine.imaging.so3_grid import super_fibonacci
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS

_SEARCHED = 1_000
_SHELL = LEVELS[-1].shell
_INLIER_DEG = 20.0
_FOUND = 0.8  # of the share that the true map finds
_POINTS, _BATCH, _RATE, _FIT_RATE = 21, 250, 1e-3, 3e-4
_VOLUME_BOX, _VOLUME_SHELL = 25, 4
_TESTED, _INVERTED = 20_000, 500  # pairs
_OBSERVATIONS, _NOISE = 1_000_000, 1.0
_BOUNDS = (0.3, 0.1, 0.03)  # sums of the relative errors of both moments
_THESIS_SIGNAL, _THESIS_DENSITY = (0.052, 0.170, 0.206), (0.048, 0.141, 0.195)  # table 2.1, test errors
_MAP_BOX, _MAP_BATCH, _MAP_FIT_RATE = 15, 128, 1e-3
_THESIS_PX = 1 / 45  # of a box
_SHIFTS = (0.0, 2.0, 4.0)  # in these px; encoders are trained up to the last
_MAPS_TESTED = 2_560
_MAP_STARTS, _MAP_START_ITERATIONS = 9, 150
_MAP_BOUNDS = (0.1, 0.03, 0.01)  # sums of the relative errors of both moments
_IMAGE_SHELL = 9  # of the maps that images are of: more than rings are fitted
_IMAGE_SETS = (  # map, shifts in px of 45, and SNR, None for exact moments
    ("Gaussians", 0.0, None), ("Gaussians", 0.0, 0.1), ("Gaussians", 0.0, 0.01), ("molecule", 0.0, None),
    ("molecule", 0.0, 0.1), ("molecule", 2.0, 0.1), ("molecule", 4.0, 0.1),
)  # fmt: skip
_IMAGES_PER_BATCH = 2_000
_MARGIN = 4  # px: moments are of what a round mask holds, shifts included
_VIEWS_DEGREE, _EXACT_ANGLES = 8, 52
_COMPARED_BOX = 19  # of maps that are aligned, which end at shell 7
_PADDED = 8  # the box of a molecule over what is added to each of its sides
_NO_SYMMETRY = symmetry_operators("C1")


def without_poses(source: PreparedParticles) -> PreparedParticles:
    count = len(source)
    return source.with_pose(Pose(torch.eye(3).expand(count, 3, 3).contiguous(), torch.zeros(count, 2)))


def share_near(source: PreparedParticles, mixture: Mixture, rotation: Tensor) -> float:
    """Share of the first images whose orientation is found under maps of low resolution."""
    modes = search_all(source, mixture, _SHELL, _NO_SYMMETRY, DEFAULT_OPTIONS, lambda share: None)
    _, _, error = align(modes.rotation[:, 0], rotation, _NO_SYMMETRY)
    return float((error < _INLIER_DEG).double().mean())


def through_levels(mixture: Mixture, images: LowImages, seed: int) -> Mixture:
    for number, level in enumerate(LEVELS):
        generator = torch.Generator().manual_seed(1_000 * seed + 10 + number)
        for better in improved(mixture, images, level, _NO_SYMMETRY, generator, DEFAULT_OPTIONS, fits_shifts=True):
            mixture = better
        mixture = recentred(mixture, _NO_SYMMETRY)
    return mixture


def starts(folder: Path, seeds: Sequence[int]) -> Iterator[tuple[str, float, float]]:
    """Yield of each start where it is from, the share of the orientations that it finds, and CPU-seconds."""
    loaded, rotation, _ = load(folder)
    source = without_poses(loaded)
    images = read_low(source, torch.arange(len(source)), _SHELL)
    searched = chosen(source, torch.arange(min(_SEARCHED, len(source))))
    rotation = rotation[: len(searched)]
    truth = read_volume(folder / "truth" / "mean.mrc").data / source.grey_unit
    for seed in seeds:
        generator = torch.Generator().manual_seed(1_000 * seed + 2)
        start = time.process_time()
        random = first_mixture(images, 1, None, _NO_SYMMETRY, generator, DEFAULT_OPTIONS)
        if seed == seeds[0]:
            true_map = change_box(truth[None], random.volumes.shape[-1], _SHELL)
            known = replace(random, volumes=true_map, shares=torch.tensor([0.9, 0.05, 0.05], dtype=torch.float64),
                            noise=torch.ones(_SHELL + 1, dtype=torch.float64))  # fmt: skip
            yield "true map", share_near(searched, known, rotation), 0.0
            start = time.process_time()
        found = share_near(searched, through_levels(random, images, seed), rotation)
        yield "random", found, time.process_time() - start
        start = time.process_time()
        volume = map_of_moments(
            source, torch.arange(len(source)), AbinitioOptions(), RecoveryOptions(fits_shifts=True), generator,
            lambda stage, share, sentence, shell=None: None,
        )  # fmt: skip
        found = share_near(searched, through_levels(replace(random, volumes=volume[None]), images, seed), rotation)
        yield "moments", found, time.process_time() - start


def table_of_starts(folders: list[Path], count: int) -> str:
    rows: list[list[object]] = []
    for folder in folders:
        shares: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        for name, share, spent in starts(folder, range(count)):
            print(f"{folder.name}: {name} {share:.3f}, {spent:.0f} s", flush=True)
            shares.setdefault(name, []).append(share)
            seconds[name] = seconds.get(name, 0.0) + spent
        reachable = shares.pop("true map")[0]
        for name, found in shares.items():
            succeeded = sum(share > _FOUND * reachable for share in found)
            rows.append([
                folder.name, name, f"{succeeded} of {len(found)}",
                f"{min(found):.3f} to {max(found):.3f}", f"{reachable:.3f}", f"{seconds[name] / len(found):.0f}",
            ])  # fmt: skip
    return table(
        ["data set", "start", f"found (beyond {_FOUND:g} of the true map's share)", "share within 20 degrees",
         "that of the true map", "CPU-seconds"], rows,
    )  # fmt: skip


def table_of_streaming(folder: Path, shells: tuple[int, ...]) -> str:
    """One pass over a set: seconds, and what the process has held at most."""
    source = without_poses(load(folder)[0])
    rows: list[list[object]] = []
    for shell in shells:
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu = time.perf_counter(), time.process_time()
        padded = min(shell + PADDING, source.disk.shell_max)
        found = moments_of((images for _, images in low_batches(source, torch.arange(len(source)), padded)), shell)
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        rows.append([found.count, shell, f"{cpu:.0f}", f"{seconds:.0f}", f"{more:.0f}"])
    return table(["images of 64 px", "last ring", "CPU-seconds", "seconds", "MB on top of the images"], rows)


def gaussians_of_volume() -> Tensor:
    """Four that do not lie in a plane, (z, y, x), float64."""
    axis = torch.arange(_VOLUME_BOX, dtype=torch.float64) - _VOLUME_BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = torch.tensor([[4.0, 0, -1], [-3, 3, 0], [-1, -4, 1], [0, 1, 4]], dtype=torch.float64)
    squared = (torch.stack((x, y, z), dim=-1)[..., None, :] - centres).square().sum(dim=-1)
    return torch.exp(-squared / (2 * 2.0**2)) @ torch.tensor([1.0, 0.8, 1.2, 0.6], dtype=torch.float64)


def uneven_views(direction: Tensor, weight: Tensor, generator: torch.Generator) -> Tensor:
    """Probabilities (views,) of a mixture of eight densities of von Mises and Fisher."""
    centre = random_rotations(8, generator)[:, :, 2].double()
    concentration = 2 + 8 * torch.rand(8, generator=generator, dtype=torch.float64)
    share = torch.rand(8, generator=generator, dtype=torch.float64)
    density = (share * concentration / concentration.sinh() * torch.exp(direction @ centre.T * concentration)).sum(1)
    return weight * density / (weight * density).sum()


def fsc_at_best(volume: Tensor, truth: Tensor) -> Tensor:
    """FSC after the rotation, shift and hand that correlate best: 1,500 rotations, the three best polished."""
    tries = Rotation.from_matrix(super_fibonacci(1500).numpy()).as_rotvec()
    spline = spline_filter(volume.double().numpy(), order=3)
    target = truth.double()
    best: tuple[float, Tensor] = (-1.0, volume)
    for is_mirrored in (False, True):

        def cost(parameters: np.ndarray, is_mirrored: bool = is_mirrored) -> float:
            turned = brought(spline, parameters, is_mirrored).double()
            return -float((turned * target).sum() / (turned.norm() * target.norm()))

        starts_from = sorted((np.concatenate((turn, np.zeros(3))) for turn in tries), key=cost)[:3]
        for start in starts_from:
            simplex = np.vstack((start, start + np.diag([0.1, 0.1, 0.1, 0.5, 0.5, 0.5])))
            found = minimize(cost, start, method="Nelder-Mead", options={"maxfev": 250, "initial_simplex": simplex})
            if -found.fun > best[0]:
                best = -found.fun, brought(spline, found.x, is_mirrored)
    return fsc(best[1], truth)


def table_of_volumes() -> str:
    """A map of known moments without a network, as tables 2.2 and 3.2 of the thesis: shifts fitted, and left out."""
    ring = torch.arange(1, _VOLUME_SHELL + 1, dtype=torch.float64)
    basis = BallBasis.create(_VOLUME_BOX, 0.4 * _VOLUME_BOX, _VOLUME_SHELL)
    values, inside = basis.on_grid()
    coefficients = values.T @ gaussians_of_volume()[inside]
    truth = basis.volume(coefficients)
    direction, weight = sphere_quadrature(2 * basis.last_degree + 8)
    probability = uneven_views(direction, weight, torch.Generator().manual_seed(0))
    model = MapMoments(basis, ring, 64, direction)
    rows: list[list[object]] = []
    for shift_px in (0.0, 1.0, 2.0):
        moments = model.of_views(coefficients, probability, shift_px / _VOLUME_BOX)
        data = EmpiricalMoments(ring, moments, torch.ones(len(ring), len(ring), dtype=torch.float64), 0)
        for name, fits_shifts, shift_std in (("fitted", True, 0.02), ("taken for 0", False, 0.0)):
            wanted = RecoveryOptions(2, 3000, views_degree=8, fits_shifts=fits_shifts, positivity=0.0)
            start = time.process_time()
            found = min(
                recovered(data, basis, shift_std, wanted, torch.Generator().manual_seed(5)),
                key=lambda one: one.objective,
            )
            seconds = time.process_time() - start
            of_shells = fsc_at_best(basis.volume(found.coefficients), truth)[1 : _VOLUME_SHELL + 1]
            row = [
                shift_px, name, f"{found.shift_std * _VOLUME_BOX:.2f}", f"{found.first_error:.1e}",
                f"{found.second_error:.1e}", f"{found.first_error + found.second_error:.1e}",
                " ".join(f"{value:.2f}" for value in of_shells), f"{seconds:.0f}",
            ]  # fmt: skip
            print(row, flush=True)
            rows.append(row)
    return table(
        ["shifts, px", "in the model", "found, px", "error of M1", "of M2", "Kam loss", "FSC of shells 1 to 4",
         "CPU-seconds, 2 starts"], rows,
    )  # fmt: skip


def encoder_paths(folder: Path, gaussians: int) -> tuple[Path, Path]:
    """Weights of the networks of signals and of densities."""
    signal, density = (folder / f"{name}-{gaussians}.safetensors" for name in ("signal", "density"))
    return signal, density


def train_encoders(folder: Path, gaussians: int, pairs: int) -> None:
    """Train the networks that are not there yet."""
    for path, is_density in zip(encoder_paths(folder, gaussians), (False, True), strict=True):
        if path.exists():
            continue
        torch.manual_seed(gaussians)
        encoder = MomentEncoder(_POINTS, is_density)
        start = time.process_time()
        generator = torch.Generator().manual_seed(gaussians)
        errors = list(trained(encoder, gaussians, generator, pairs, _BATCH, _RATE))
        training: dict[str, object] = {
            "gaussians": gaussians, "pairs": pairs, "batch_size": _BATCH, "rate": _RATE, "seed": gaussians,
            "error": sum(errors[-100:]) / len(errors[-100:]), "cpu_seconds": round(time.process_time() - start),
        }  # fmt: skip
        save_encoder(encoder, path, training)
        print(path.name, training, flush=True)


def table_of_encoders(folder: Path, pairs: int) -> str:
    """Errors on unseen mixtures, beside those of the thesis and of the spectral inversion (table 2.1)."""
    rows: list[list[object]] = []
    for gaussians in (1, 2, 3):
        train_encoders(folder, gaussians, pairs)
        generator = torch.Generator().manual_seed(100 + gaussians)
        signal, density, first, second = random_pairs(_TESTED, gaussians, _POINTS, generator)
        exact = moments_of_signal(signal[:_INVERTED].double(), density[:_INVERTED].double())
        inverted = [spectral_inversion(*one) for one in zip(*exact, strict=True)]
        for number, (name, truth, of_thesis) in enumerate(
            (("signal", signal, _THESIS_SIGNAL), ("density", density, _THESIS_DENSITY))
        ):
            encoder, training = load_encoder(encoder_paths(folder, gaussians)[number], MomentEncoder)
            with torch.no_grad():
                error = float(aligned_error(encoder(first, second), truth).mean())
            plain = float(aligned_error(truth.mean(dim=0).expand_as(truth), truth).mean())
            oracle = torch.stack([one[number] for one in inverted])
            by_inversion = float(aligned_error(oracle, truth[:_INVERTED].double()).mean())
            rows.append([
                gaussians, name, f"{training['error']:.3f}", f"{error:.3f}", f"{of_thesis[gaussians - 1]:.3f}",
                f"{plain:.2f}", f"{by_inversion:.0e}", training["cpu_seconds"],
            ])  # fmt: skip
    return table(
        ["Gaussians", "of", "error of the last 100 batches", "error on unseen pairs", "that of the thesis",
         "of the mean of all", "of the spectral inversion", "CPU-seconds of training"], rows,
    )  # fmt: skip


def observed(signal: Tensor, density: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Moments of noisy observations."""
    shift = torch.multinomial(density, _OBSERVATIONS, replacement=True, generator=generator)
    step = torch.arange(len(signal))
    noise = _NOISE * torch.randn(_OBSERVATIONS, len(signal), generator=generator, dtype=torch.float64)
    return empirical_moments(signal[(step - shift[:, None]) % len(signal)] + noise, _NOISE)


def table_of_fits(folder: Path, runs: int, iterations: int) -> str:
    """Errors on the way of a fit, from trained weights and from others (figure 2.4)."""
    curves: dict[str, list[list[tuple[float, float, float]]]] = {"trained": [], "untrained": []}
    for run in range(runs):
        generator = torch.Generator().manual_seed(500 + run)
        signal, density = (part[0].double() for part in random_pairs(1, 2, _POINTS, generator)[:2])
        signal = signal * _POINTS**0.5  # of unit deviation, as the noise
        moments = observed(signal, density, generator)
        torch.manual_seed(run)
        networks = {
            "trained": tuple(load_encoder(path, MomentEncoder)[0] for path in encoder_paths(folder, 2)),
            "untrained": (MomentEncoder(_POINTS, False), MomentEncoder(_POINTS, True)),
        }
        # networks have seen signals of unit norm: their inputs and moments are scaled to it, as the first entry tells
        scale = float(moments[1].diagonal().real.sum()) ** 0.5
        scaled = moments[0] / scale, moments[1] / scale**2
        for name, (of_signal, of_density) in networks.items():
            curve = [
                (error, float(aligned_error(scale * found, signal)), float(aligned_error(shifts, density)))
                for error, found, shifts in fitted(of_signal, of_density, *scaled, iterations, _FIT_RATE)
            ]
            curves[name].append(curve)
            print(f"run {run}, {name}: moments {curve[0][0]:.3f} to {curve[-1][0]:.3f}, signal {curve[0][1]:.3f} to"
                  f" {curve[-1][1]:.3f}", flush=True)  # fmt: skip
    rows: list[list[object]] = []
    for name, values in curves.items():
        errors = torch.tensor(values)  # (runs, iterations, 3)
        reached = [first_below(errors[:, :, 0], bound) for bound in _BOUNDS]
        for at in (0, iterations // 10, iterations // 3, iterations - 1):
            rows.append([name, at, *(f"{float(value):.3f}" for value in errors[:, at].mean(dim=0))])
        rows.append([name, "median iterations to moment errors of " + " / ".join(f"{bound:g}" for bound in _BOUNDS),
                     " / ".join(reached), "", ""])  # fmt: skip
    return table(["weights", "iteration", "sum of moment errors", "error of the signal", "of the density"], rows)


def first_below(errors: Tensor, bound: float) -> str:
    """Median iteration at which errors (runs, iterations) first are below a bound, and how many never are."""
    is_below = errors < bound
    first = torch.where(is_below.any(dim=1), is_below.int().argmax(dim=1), errors.shape[1])
    never = int((~is_below.any(dim=1)).sum())
    return f"{int(first.median())}" + (f" ({never} never)" if never else "")


def train_map_encoder(path: Path, structures: int) -> None:
    """Train MoM-net's encoder, unless it is there."""
    if path.exists():
        return
    torch.manual_seed(0)
    encoder = MapEncoder(_MAP_BOX)
    start = time.process_time()
    losses: list[float] = []
    for loss in train_encoder(
        encoder, _SHIFTS[-1] * _THESIS_PX, torch.Generator().manual_seed(0), structures // _MAP_BATCH, _MAP_BATCH, _RATE
    ):
        losses.append(loss)
        if len(losses) % 100 == 0:
            seconds = time.process_time() - start
            print(f"{len(losses)} batches: {sum(losses[-100:]) / 100:.4f}, {seconds:.0f} s", flush=True)
    training: dict[str, object] = {
        "structures": structures, "batch_size": _MAP_BATCH, "rate": _RATE, "seed": 0,
        "loss": sum(losses[-100:]) / len(losses[-100:]), "cpu_seconds": round(time.process_time() - start),
    }  # fmt: skip
    save_encoder(encoder, path, training)


def volume_of_network(network: MomentNetwork, moments: MomentPair) -> Tensor:
    """Map (z, y, x) of the encoder's coefficients and the refinement."""
    box = network.encoder.box_size
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    place = torch.stack((x, y, z), dim=-1).reshape(-1, 3)
    last = float(network.encoder.model.ring[-1])
    frequency = place[place.norm(dim=1) <= last]
    with torch.no_grad():
        values = network.refinement((frequency / last).float()) * network.encoder.strength(moments.second)
        estimate = network.encoder(moments.first[None], moments.second[None])
    phase = 2 * torch.pi / box * (place @ frequency.T)  # transforms are divided by the box
    volume = (phase.cos() @ values.real.double() - phase.sin() @ values.imag.double()) / box**2
    if estimate.coefficients.shape[1]:
        volume = volume + network.encoder.model.basis.volume(estimate.coefficients[0]).flatten()
    return volume.reshape(box, box, box).float()


def map_networks(path: Path, seed: int) -> dict[str, MomentNetwork]:
    """Trained and others, and what they are compared with: the same without shifts, and a FourierNet alone."""
    torch.manual_seed(seed)
    return {
        "MoM-net, trained": MomentNetwork(load_encoder(path, MapEncoder)[0]),
        "MoM-net, untrained": MomentNetwork(MapEncoder(_MAP_BOX)),
        "the same without shifts": MomentNetwork(MapEncoder(_MAP_BOX, largest_shift_std=0.0)),
        "chapter 2, FourierNet alone": MomentNetwork(MapEncoder(_MAP_BOX, None, largest_shift_std=0.0)),
    }


def table_of_map_encoder(path: Path) -> str:
    """Kam loss of what the encoder names, without a fit, on unseen structures."""
    encoder, training = load_encoder(path, MapEncoder)
    torch.manual_seed(0)
    structures = Structures(_MAP_BOX, encoder.direction, encoder.view_weight)
    data = training_moments(structures, _MAPS_TESTED, _SHIFTS[-1] * _THESIS_PX, torch.Generator().manual_seed(100))
    with torch.no_grad():
        rows = [
            [name, f"{float(encoder_loss(one, data).mean()):.3f}"]
            for name, one in (("untrained", MapEncoder(_MAP_BOX)), ("trained", encoder))
        ]
    rows.append(["trained, last 100 batches", f"{training['loss']:.3f}"])
    rows.append(["of the thesis: its own structures, 20,000 epochs, batches of 128", "0.056"])
    about = f"{training['structures']:,} structures once each, {training['cpu_seconds']} CPU-seconds"
    return f"Trained on {about}, tested on {_MAPS_TESTED:,} others:\n\n{table(['encoder', 'mean Kam loss'], rows)}"


def unseen(structures: Structures, run: int, shift_px: float) -> tuple[Tensor, MomentPair]:
    """Map (z, y, x) and moments of a structure that no encoder has seen, of other views than these were trained on."""
    generator = torch.Generator().manual_seed(700 + run)
    coefficients = structures.maps(1, generator)
    views = uneven_views(structures.direction, structures.weight, generator)
    spread = torch.tensor([shift_px * _THESIS_PX], dtype=torch.float64)
    batch = structures.moments(coefficients, views[None], spread)
    return structures.basis.volume(coefficients[0]), MomentPair(batch.first[0], batch.second[0])


def table_of_map_starts(path: Path) -> str:
    """Iterations from trained weights and from others (figure 3.7)."""
    structures = Structures(_MAP_BOX, *sphere_quadrature(32))
    losses: dict[str, list[list[float]]] = {}
    for run in range(_MAP_STARTS):
        _, moments = unseen(structures, run, _SHIFTS[1])
        for name, network in list(map_networks(path, run).items())[:2]:
            curve = fit_network(network, moments, _MAP_START_ITERATIONS, _MAP_FIT_RATE)
            losses.setdefault(name, []).append([first + second for first, second, _ in curve])
    rows: list[list[object]] = []
    for name, values in losses.items():
        loss = torch.tensor(values)
        rows.append([
            name, f"{float(loss[:, 0].mean()):.3f}", f"{float(loss[:, -1].mean()):.4f}",
            *(first_below(loss, bound) for bound in _MAP_BOUNDS),
        ])  # fmt: skip
    bounds = (f"median iterations to {bound:g}" for bound in _MAP_BOUNDS)
    return table(["network", "mean Kam loss before", "after", *bounds], rows)


def table_of_map_fits(path: Path, runs: int, iterations: int) -> str:
    """Moment errors after fits of the weights (tables 2.2 and 3.2)."""
    structures = Structures(_MAP_BOX, *sphere_quadrature(32))
    rows: list[list[object]] = []
    for shift_px in _SHIFTS:
        curves: dict[str, list[list[tuple[float, float, float]]]] = {}
        shells: dict[str, Tensor] = {}
        seconds: dict[str, float] = {}
        for run in range(runs):
            truth, moments = unseen(structures, run, shift_px)
            for name, network in map_networks(path, run).items():
                start = time.process_time()
                curve = list(fit_network(network, moments, iterations, _MAP_FIT_RATE))
                seconds[name] = seconds.get(name, 0.0) + time.process_time() - start
                curves.setdefault(name, []).append(curve)
                if run == 0:
                    shells[name] = fsc_at_best(volume_of_network(network, moments), truth)[1:6]
                print(f"shift {shift_px:g}, run {run}, {name}: {sum(curve[0][:2]):.3f} to {sum(curve[-1][:2]):.4f}",
                      flush=True)  # fmt: skip
        for name, values in curves.items():
            errors = torch.tensor(values)  # (runs, iterations, 3)
            loss = errors[:, -1, 0] + errors[:, -1, 1]
            first, second, found = errors[:, -1].mean(dim=0).tolist()
            rows.append([
                f"{shift_px:g}", name, f"{found / _THESIS_PX:.2f}", f"{first:.4f}", f"{second:.4f}",
                f"{first + second:.4f} ({float(loss.min()):.4f} to {float(loss.max()):.4f})",
                " ".join(f"{float(value):.2f}" for value in shells[name]),
                f"{seconds[name] / runs:.0f}",
            ])  # fmt: skip
    return table(
        ["shifts, px of 45", "network", "found", "error of M1", "of M2", "Kam loss (least to largest)",
         "FSC of shells 1 to 5, first structure", "CPU-seconds"], rows,
    )  # fmt: skip


def networks_part(folder: Path, structures: int, runs: int, iterations: int) -> str:
    """Training and fits of networks of maps."""
    path = folder / "maps.safetensors"
    train_map_encoder(path, structures)
    return "\n\n".join((
        table_of_map_encoder(path),
        f"Fits of the weights to exact moments, mean of {runs} structures, {iterations} iterations:",
        table_of_map_fits(path, runs, iterations),
        f"Fits of {_MAP_STARTS} structures, shifts of {_SHIFTS[1]:g}, {_MAP_START_ITERATIONS} iterations:",
        table_of_map_starts(path),
    ))  # fmt: skip


@dataclass(frozen=True)
class Imaged:
    """A map and how it is seen.

    Attributes
    ----------
    basis : BallBasis
    coefficients : Tensor, shape (n,), float64
        Of the map.
    direction : Tensor, shape (views, 3)
    probability : Tensor, shape (views,)
    shift_std : float
        As a share of the box.
    """

    basis: BallBasis
    coefficients: Tensor
    direction: Tensor
    probability: Tensor
    shift_std: float

    @staticmethod
    def create(volume: Tensor, shift_std: float) -> Imaged:
        """Of a map (z, y, x), made so strong that pixels of images have the variance one, and eight preferred views."""
        box = len(volume)
        basis = BallBasis.create(box, RADIUS * box, _IMAGE_SHELL)
        values, inside = basis.on_grid()
        direction, weight = sphere_quadrature(2 * basis.last_degree + _VIEWS_DEGREE)
        probability = uneven_views(direction, weight, torch.Generator().manual_seed(0))
        plain = Imaged(basis, values.T @ volume[inside].double(), direction, probability, shift_std)
        ring = rings_of(box)
        power = plain.exact(ring, 1).second.diagonal()[0] @ (2 * torch.pi * ring) / box**2
        return replace(plain, coefficients=plain.coefficients / power.sqrt())

    @property
    def volume(self) -> Tensor:
        """(z, y, x), float32."""
        return self.basis.volume(self.coefficients)

    def exact(self, ring: Tensor, angles: int) -> MomentPair:
        """Moments of infinitely many images."""
        model = MapMoments(self.basis, ring, angles, self.direction)
        return model.of_views(self.coefficients, self.probability, self.shift_std)

    def images(self, snr: float, count: int, generator: torch.Generator) -> Iterator[LowImages]:
        """Yield noisy images, whitened, on a box that is wider by `_MARGIN` at each side, batch by batch."""
        old, box = self.basis.box_size, self.basis.box_size + 2 * _MARGIN
        disk = HalfDisk.create(box)
        projector = create_projector(box, disk, DEFAULT_OPTIONS)
        grid = projector.to_grid(torch.nn.functional.pad(self.volume, (_MARGIN,) * 6)[None])
        transfer = torch.full((_IMAGES_PER_BATCH, len(disk)), snr**0.5)
        for _ in range(count // _IMAGES_PER_BATCH):
            view = torch.multinomial(self.probability, _IMAGES_PER_BATCH, replacement=True, generator=generator)
            angle = 2 * torch.pi * torch.rand(_IMAGES_PER_BATCH, 1, generator=generator)
            in_plane = torch.from_numpy(Rotation.from_euler("z", angle.numpy()).as_matrix())
            rotation = (rotations_to(self.direction[view]) @ in_plane).float()
            clean = projector.project(grid, rotation)[:, :, 0]
            shift = self.shift_std * old * torch.randn(_IMAGES_PER_BATCH, 2, generator=generator)
            noise = images_to_disk(torch.randn(_IMAGES_PER_BATCH, box, box, generator=generator), disk)
            yield LowImages(disk, transfer * clean * shift_phases(disk, shift, box) + noise, transfer)

    def moments(self, ring: Tensor, snr: float, count: int) -> EmpiricalMoments:
        """Moments of noisy images, at rings of the box of the map."""
        wider = 1 + 2 * _MARGIN / self.basis.box_size
        sums: MomentSums | None = None
        for images in self.images(snr, count, torch.Generator().manual_seed(1)):
            sums = MomentSums(RingInterpolation(images.disk, wider * ring)) if sums is None else sums
            sums.add(images)
        assert sums is not None
        found = sums.moments()
        # transforms are divided by the box
        pair = MomentPair(found.moments.first * wider, found.moments.second * wider**2)
        return replace(found, ring=ring, moments=pair)


def around_circle(pair: MomentPair, angles: int) -> MomentPair:
    """Moments at fewer angles, without the angular frequencies that these cannot tell apart."""
    spectrum = torch.fft.rfft(pair.second, norm="forward")[..., : angles // 2]
    return MomentPair(pair.first, at_angles(spectrum.movedim(2, 0), angles_of(angles)))


@dataclass(frozen=True)
class Fit:
    """What was fitted to moments.

    Attributes
    ----------
    name : str
    shift_std : float
        As a share of the box.
    angles : int
        At which the second moment was compared.
    moments : MomentPair
        Those of the map.
    volume : Tensor, shape (z, y, x)
    """

    name: str
    shift_std: float
    angles: int
    moments: MomentPair
    volume: Tensor


def fits_without_network(data: EmpiricalMoments) -> Iterator[Fit]:
    """A start, and maps by L-BFGS, the better of two starts: shifts fitted, and left out."""
    basis = BallBasis.create(_VOLUME_BOX, RADIUS * _VOLUME_BOX, float(data.ring[-1]))
    direction, weight = sphere_quadrature(2 * basis.last_degree + _VIEWS_DEGREE)
    views = real_harmonics(_VIEWS_DEGREE, direction)[:, 1:]
    angles = data.moments.second.shape[-1]
    model = MapMoments(basis, data.ring, angles, direction)
    start = MomentObjective(data, basis, _VIEWS_DEGREE, False, 0.0)
    parameters = start.random_start(torch.Generator().manual_seed(5))
    yield Fit("none: random blobs", 0.0, angles, start.moments(parameters), basis.volume(start.split(parameters)[0]))
    for name, fits_shifts, shift_std in (("no network", True, 0.04), ("no network, without shifts", False, 0.0)):
        wanted = RecoveryOptions(2, 600, _VIEWS_DEGREE, fits_shifts, 0.0)
        found = min(
            recovered(data, basis, shift_std, wanted, torch.Generator().manual_seed(5)), key=lambda one: one.objective
        )
        probability = torch.softmax(views @ found.log_density + weight.log(), dim=0)
        moments = model.of_views(found.coefficients, probability, found.shift_std)
        yield Fit(name, found.shift_std, angles, moments, basis.volume(found.coefficients))


def fits_of_networks(data: MomentPair, path: Path, iterations: int) -> Iterator[Fit]:
    """Maps by fits of the weights of networks."""
    few = around_circle(data, ANGLES)
    for name, network in map_networks(path, 0).items():
        *_, (_, _, shift_std) = fit_network(network, few, iterations, _MAP_FIT_RATE)
        with torch.no_grad():
            moments, _ = network(few.first, few.second)
        yield Fit(name, shift_std, ANGLES, moments, volume_of_network(network, few))


def table_of_images(path: Path, molecule: Tensor | None, count: int, iterations: int) -> str:
    """Fits to moments of noisy images (tables 2.2, 2.3 and 3.2)."""
    ring = rings_of(_MAP_BOX)
    weight = torch.ones(len(ring), len(ring), dtype=torch.float64)
    volumes = {"Gaussians": gaussians_of_volume()} | ({} if molecule is None else {"molecule": molecule})
    rows: list[list[object]] = []
    for name, shift_px, snr in _IMAGE_SETS:
        if name not in volumes:
            continue
        imaged = Imaged.create(volumes[name], shift_px * _THESIS_PX)
        if snr is None:
            data = EmpiricalMoments(ring, imaged.exact(ring, _EXACT_ANGLES), weight, 0)
        else:
            data = imaged.moments(ring, snr, count)
        exact = imaged.exact(ring, data.moments.second.shape[-1])
        truth = change_box(imaged.volume[None], _COMPARED_BOX)[0]
        start = time.process_time()
        plain, networks = fits_without_network(data), fits_of_networks(data.moments, path, iterations)
        for fit in chain(plain, networks):
            seconds = time.process_time() - start
            of_data, of_exact = (around_circle(pair, fit.angles) for pair in (data.moments, exact))
            floor, error, true_error = (
                [f"{float(value):.4f}" for value in relative_errors(one, other, ring, weight)]
                for one, other in ((of_data, of_exact), (fit.moments, of_data), (fit.moments, of_exact))
            )
            shells = fsc_at_best(change_box(fit.volume[None], _COMPARED_BOX)[0], truth)[: len(ring) + 1]
            is_crossed, reached = bool((shells < 0.5).any()), resolution_at(shells, 0.5, _VOLUME_BOX, 1.0)
            row = [
                name, f"{shift_px:g}", "exact" if snr is None else f"{snr:g}", " ".join(floor), fit.name,
                f"{fit.shift_std / _THESIS_PX:.2f}", " ".join(error), f"{sum(map(float, error)):.4f}",
                " ".join(true_error), " ".join(f"{value:.2f}" for value in shells[1:].tolist()),
                f"{reached:.1f}" if is_crossed else f"< {_VOLUME_BOX / len(ring):.1f}", f"{seconds:.0f}",
            ]  # fmt: skip
            print(row, flush=True)
            rows.append(row)
            start = time.process_time()
    return table(
        ["map", "shifts, px of 45", "SNR", "errors of the images' M1, M2", "fitted by", "shifts found",
         "errors of M1, M2 from the images'", "Kam loss", "from the exact ones", "FSC of shells 1 to 7",
         "FSC 0.5, voxels", "CPU-seconds"], rows,
    )  # fmt: skip


def images_part(folder: Path, arguments: argparse.Namespace) -> str:
    """Fits to moments of images."""
    path = folder / "maps.safetensors"
    train_map_encoder(path, arguments.structures)
    molecule = None
    if arguments.map is not None:
        volume = read_volume(arguments.map, 1.0).data
        padded = torch.nn.functional.pad(volume, (len(volume) // _PADDED,) * 6)
        molecule = change_box(padded[None], _VOLUME_BOX)[0]
    return table_of_images(path, molecule, arguments.images, arguments.iterations)


def main() -> None:
    """Make the tables."""
    parser = script_parser(
        __doc__, work=True, particles=5000, starts=10, streamed=100_000, pairs=500_000, structures=500_000, fits=20,
        iterations=1000, images=100_000, threads=1,
    )  # fmt: skip
    parser.add_argument(
        "--parts", nargs="+", choices=("stream", "starts", "volumes", "alignment", "networks", "images"), default=None
    )
    parser.add_argument("--map", type=Path, help="of a molecule, for the part images")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    work, threads = arguments.work, arguments.threads
    work.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], str]] = {
        "stream": lambda: table_of_streaming(
            simulated(work, "static", particles=arguments.streamed, snr=0.1, seed=2, threads=threads), (_SHELL, 26)
        ),
        "starts": lambda: table_of_starts([
            simulated(work, "static", particles=arguments.particles, snr=snr, seed=1, threads=threads)
            for snr in (0.1, 0.01)
        ], arguments.starts),
        "volumes": table_of_volumes,
        "alignment": lambda: "\n\n".join((
            f"Trained on {arguments.pairs:,} pairs each, tested on {_TESTED:,}:",
            table_of_encoders(work, arguments.pairs),
            f"Fits of the weights to moments, mean of {arguments.fits}:",
            table_of_fits(work, arguments.fits, arguments.iterations),
        )),
        "networks": lambda: networks_part(work, arguments.structures, arguments.fits, arguments.iterations),
        "images": lambda: images_part(work, arguments),
    }  # fmt: skip
    for part in arguments.parts or parts:
        finish(f"moments_{part}", f"{parts[part]()}\n\n{provenance(threads)}", arguments)


if __name__ == "__main__":
    main()
