"""Structures from images without poses: how often, how sharp, how fast.

    python benchmarks/abinitio.py FOLDER [FOLDER ...] --seeds 3 [--sgd | --moments | --semi-amortized]
        [--symmetry C3] [--classes 3] ...

Each folder is a data set of `solvar-engine simulate`. Of each start one line: resolution where the FSC with the true
map falls below 0.5, after the better hand was turned onto it; mean error of the orientations, and the share that is off
by more than 20 degrees; the verdict; seconds of the CPU. The alignment is a minimal one, from the orientations,
polished on the maps.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import linear_sum_assignment, minimize
from scipy.spatial.transform import Rotation
from torch import Tensor

from solvar_engine.abinitio.moments.search import find_structure_by_moments
from solvar_engine.abinitio.semi_amortized.search import find_structure_by_semi_amortized
from solvar_engine.abinitio.sgd.search import find_structure_by_sgd
from solvar_engine.abinitio.structure import AbinitioOptions, Structure, find_structure
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume
from solvar_engine.imaging.fourier import fourier_crop_volume, shift_phases
from solvar_engine.imaging.gauge import best_global_rotation
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.shells import fsc, resolution_at
from solvar_engine.imaging.symmetry import symmetry_operators

_INLIER_DEG = 20.0
_TRIES = 100
_POLISHED_BOX = 40  # px
_HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


def load(folder: Path, device: str = "cpu") -> tuple[PreparedParticles, Tensor, Tensor]:
    """Images, their true orientations (n, 3, 3), and which show the molecule."""
    stack = ParticleStack.from_star(folder / "truth" / "particles.star", folder)
    source = prepare_particles(stack, stack.box_size, scratch=None, device=device)
    states = np.genfromtxt(folder / "truth" / "states.csv", delimiter=",", names=True)
    junk = states["junk"] if "junk" in (states.dtype.names or ()) else np.zeros(len(stack))
    return source, stack.pose.rotation, torch.from_numpy(junk == 0)


def chosen(source: PreparedParticles, rows: Tensor) -> PreparedParticles:
    """Some of the images only."""
    return replace(
        source,
        coefficients=source.coefficients[rows],
        pose=source.pose[rows],
        ctf=source.ctf[rows],
        group=source.group[rows],
        image_scale=source.image_scale[rows],
        digest=None,
        is_bad=None,
        single_pixels=None,
        repeated_edges=None,
    )


def moved(source: PreparedParticles, std_px: float) -> PreparedParticles:
    """Images that are moved farther, at random."""
    shift = std_px * torch.randn(len(source), 2, generator=torch.Generator().manual_seed(99))
    return replace(source, coefficients=source.coefficients * shift_phases(source.disk, shift, source.box_size))


def distances(rotation: Tensor, reference: Tensor, turn: Tensor, operators: Tensor) -> Tensor:
    """Angles (n,) between orientations and turned references, the smallest of those that the symmetry makes equal."""
    all_angles = [angular_distance_deg(operator.float() @ rotation, turn @ reference) for operator in operators]
    return torch.stack(all_angles).min(dim=0).values


def align(rotation: Tensor, truth: Tensor, operators: Tensor) -> tuple[Tensor, bool, Tensor]:
    """Turn (3, 3) from the frame of the truth to that of the result, whether the hand is the other, and errors (n,)."""
    best: tuple[float, Tensor, bool] = (-1.0, torch.eye(3), False)
    for is_mirrored in (False, True):
        reference = truth @ _HALF_TURN if is_mirrored else truth
        for row in torch.randperm(len(truth), generator=torch.Generator().manual_seed(0))[:_TRIES]:
            turn = rotation[row] @ reference[row].T
            share = float((distances(rotation[:400], reference[:400], turn, operators) < _INLIER_DEG).float().mean())
            if share > best[0]:
                best = (share, turn, is_mirrored)
    _, turn, is_mirrored = best
    reference = truth @ _HALF_TURN if is_mirrored else truth
    for _ in range(4):
        turned = torch.stack([operator.float() @ rotation for operator in operators])
        angle = torch.stack([angular_distance_deg(one, turn @ reference) for one in turned])
        nearest = turned[angle.argmin(dim=0), torch.arange(len(rotation))]
        near = angle.min(dim=0).values < _INLIER_DEG
        turn = best_global_rotation(nearest[near], reference[near])
    return turn, is_mirrored, distances(rotation, reference, turn, operators)


def resolution(volume: Tensor, truth: Tensor, turn: Tensor, is_mirrored: bool, pixel_size: float) -> float:
    """Where the FSC with the truth falls below 0.5, Angstrom, after a polish of rotation and shift on cropped maps."""
    box_size = len(truth)
    crop = min(_POLISHED_BOX, box_size - box_size % 2)
    small, target = fourier_crop_volume(volume, crop), fourier_crop_volume(truth, crop)
    spline = spline_filter(small.double().numpy(), order=3)

    def cost(parameters: np.ndarray) -> float:
        return -float(fsc(brought(spline, parameters, is_mirrored), target)[1:].sum())

    start = np.concatenate((Rotation.from_matrix(turn.double().numpy()).as_rotvec(), np.zeros(3)))
    at_start = brought(spline, start, is_mirrored).double().numpy()
    spectrum = np.fft.rfftn(target.double().numpy()).conj() * np.fft.rfftn(at_start)
    peak = np.unravel_index(np.fft.irfftn(spectrum, s=target.shape, axes=(0, 1, 2)).argmax(), target.shape)
    lag = (np.array(peak)[::-1] + crop // 2) % crop - crop // 2
    start[3:] = Rotation.from_rotvec(start[:3]).as_matrix() @ lag
    simplex = np.vstack((start, start + np.diag([0.05, 0.05, 0.05, 0.5, 0.5, 0.5])))
    found = minimize(cost, start, method="Nelder-Mead", options={"maxfev": 150, "initial_simplex": simplex}).x
    found[3:] *= box_size / crop
    whole = brought(spline_filter(volume.double().numpy(), order=3), found, is_mirrored)
    return resolution_at(fsc(whole, truth), 0.5, box_size, pixel_size)


def brought(spline: np.ndarray, parameters: np.ndarray, is_mirrored: bool) -> Tensor:
    """Map of spline coefficients (z, y, x), turned by a rotation vector and moved (px), its hand changed if need be."""
    centre = len(spline) // 2
    z, y, x = np.meshgrid(*[np.arange(len(spline)) - centre] * 3, indexing="ij")
    grid = np.stack((x, y, z), axis=-1).reshape(-1, 3)
    points = grid @ Rotation.from_rotvec(parameters[:3]).as_matrix().T + parameters[3:]
    points = (-points if is_mirrored else points)[:, ::-1].T + centre
    values = map_coordinates(spline, points, order=3, prefilter=False)
    return torch.from_numpy(values.reshape(spline.shape)).float()


def line(
    name: str, seed: int, found: Structure, rotation: Tensor, shows: Tensor, truth: Tensor, pixel_size: float,
    operators: Tensor, seconds: float,
) -> str:  # fmt: skip
    """One row of the table."""
    turn, is_mirrored, error = align(found.pose.rotation[shows], rotation[shows], operators)
    reached = resolution(found.volumes[0], truth, turn, is_mirrored, pixel_size)
    verdict, junk = found.verdict, found.is_junk
    flagged = 100 * float(junk[~shows].float().mean()) if bool((~shows).any()) else float("nan")
    return (
        f"{name:>12} seed {seed}: {reached:5.1f} A, {float(error.mean()):6.2f} deg,"
        f" {100 * float((error > _INLIER_DEG).float().mean()):5.1f} % > 20 deg,"
        f" {'structure' if verdict.found else 'NO STRUCTURE'} ({verdict.gain:.2f} +- {verdict.error:.2f}, hole"
        f" {verdict.hole_deg:.0f} deg), shift {found.shift_std_px:.2f} px, sign {found.contrast_sign},"
        f" junk {100 * float(junk[shows].float().mean()):.1f} % of good {flagged:.0f} % of bad,"
        f" expected error {float(found.rotation_std_deg.median()):.2f} deg, {seconds:.0f} s"
    )


def share_right(class_of: Tensor, state: Tensor) -> float:
    """Share of the images whose class is that of their state, classes matched to states as fits best."""
    count = np.zeros((int(class_of.max()) + 1, int(state.max()) + 1))
    np.add.at(count, (class_of.numpy(), state.numpy()), 1)
    return float(count[linear_sum_assignment(count, maximize=True)].sum() / len(state))


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--extra-shift", type=float, default=0.0, help="px")
    parser.add_argument("--planar", type=float, default=0.0, help="views within so many degrees of one only")
    parser.add_argument("--noise", action="store_true", help="noise instead of the images")
    parser.add_argument("--only-junk", action="store_true", help="only images that do not show the molecule")
    parser.add_argument("--dark", action="store_true", help="turn the contrast")
    parser.add_argument("--most", type=int, default=100_000, help="images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--classes", type=int, default=1, help="only their shares are looked at")
    parser.add_argument("--sgd", action="store_true", help="by stochastic gradient descent")
    parser.add_argument("--moments", action="store_true", help="from a map of the images' moments")
    parser.add_argument("--semi-amortized", action="store_true", help="from poses that a network names")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    operators = symmetry_operators(options.symmetry)
    for folder in options.folders:
        source, rotation, shows = load(folder)
        rows = torch.arange(len(source))
        if options.planar:
            rows = rows[rotation[:, 2, 2].abs() > np.cos(np.radians(options.planar))]
        if options.only_junk:
            rows = rows[~shows]
        rows = rows[: options.most]
        source, rotation, shows = chosen(source, rows), rotation[rows], shows[rows]
        if options.noise:
            noise = torch.randn(
                *source.coefficients.shape, 2, generator=torch.Generator().manual_seed(5)
            ) * source.noise_variance[0, source.disk.shell, None].div(2).sqrt()
            source = replace(source, coefficients=torch.view_as_complex(noise.contiguous()))
        if options.dark:
            source = replace(source, coefficients=-source.coefficients)
        if options.extra_shift:
            source = moved(source, options.extra_shift)
        if not bool(shows.any()):
            shows = ~shows
        truth = read_volume(folder / "truth" / "mean.mrc").data / source.grey_unit
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            start = time.process_time()

            def report(
                stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False,
                start: float = start,
            ) -> None:  # fmt: skip
                if sentence and options.verbose:
                    print(f"  {time.process_time() - start:5.0f} s {stage} {100 * share:.0f} %: {sentence}", flush=True)

            search = find_structure_by_sgd if options.sgd else find_structure
            search = find_structure_by_moments if options.moments else search
            search = find_structure_by_semi_amortized if options.semi_amortized else search
            wanted = AbinitioOptions(symmetry=options.symmetry, classes=options.classes, seed=seed)
            found = search(source, wanted, report)
            seconds = time.process_time() - start
            if options.classes > 1:
                states = np.genfromtxt(folder / "truth" / "states.csv", delimiter=",", names=True)
                share = share_right(found.class_of, torch.from_numpy(states["state"].astype(int))[rows])
                name = f"{folder.name:>12} seed {seed}"
                print(f"{name}: {100 * share:.2f} % in the right class, {seconds:.0f} s", flush=True)
                continue
            row = line(
                folder.name, seed, found, rotation, shows, truth, source.pixel_size, operators, seconds
            )
            print(row, flush=True)


if __name__ == "__main__":
    main()
