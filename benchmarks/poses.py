"""The statistical floor of pose errors: the refinement of `fit --refine-poses` under the true volumes.

    solvar-engine simulate --output DATA --phantom hinge --snr 0.1 --rotation-error 3 --shift-error 1
    python benchmarks/poses.py DATA

Prints the mean errors before and after, from the poses as given and from the true ones. Nothing that starts from
estimated volumes can do better on average; compare with `rotation_error_deg` and `shift_error_px` of `evaluate`.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor

from solvar_engine.contract.files import read_csv
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.bands import Band, ProjectorOptions, make_band
from solvar_engine.estimation.poses import refine_poses
from solvar_engine.evaluation.pose_scores import pose_errors
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit_outputs import OutputScale
from solvar_engine.jobs.simulated_files import DataSetFiles


def true_volumes(data: DataSetFiles, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Mean and leading factors of the states, in the units of the estimators."""
    state = torch.from_numpy(read_csv(data.truth.states)["state"]).long() - 1
    share = torch.bincount(state) / len(state)
    volumes = torch.stack([read_volume(data.truth.volume(number + 1)).data for number in range(len(share))]) / scale
    mean = torch.einsum("s,szyx->zyx", share, volumes)
    weighted = (volumes - mean).flatten(1) * share.sqrt()[:, None]
    _, values, directions = torch.linalg.svd(weighted, full_matrices=False)
    return mean, (values[:rank, None] * directions[:rank]).reshape(-1, *mean.shape)


def refined(source: PreparedParticles, index: Tensor, band: Band, factors: Tensor, rounds: int) -> PreparedParticles:
    """Poses after some rounds under the same volumes."""
    for _ in range(rounds):
        rotation, shift = source.pose.rotation.clone(), source.pose.shift.clone()
        for part in refine_poses(source, index, band, factors, steps=4):
            rotation[part.index] = part.rotation
            shift[part.index] += part.shift_px * source.pixel_size
        source = source.with_pose(Pose(rotation, shift))
    return source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=DataSetFiles, help="folder that simulate wrote, without --box smaller than it")
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    data: DataSetFiles = options.data
    stack = ParticleStack.from_star(data.particles)
    true = ParticleStack.from_star(data.truth.particles, data.path).pose
    source = prepare_particles(stack, stack.box_size, scratch=None)
    mean, factors = true_volumes(data, options.rank, OutputScale.of(source).volume)
    box = stack.box_size
    everywhere, nothing = torch.ones(box, box, box), torch.ones(box, box, box // 2 + 1)
    band = make_band(source.disk.shell_max, source.disk, mean, everywhere, nothing, ProjectorOptions())
    index = torch.arange(min(options.particles, len(source)))
    for name, start in (("given", source), ("true", source.with_pose(true))):
        began = time.perf_counter()
        end = refined(start, index, band, factors, options.rounds)
        seconds = time.perf_counter() - began
        errors = [pose_errors(of.pose[index], true[index], stack.pixel_size) for of in (start, end)]
        sys.stdout.write(
            f"from the {name} poses: {errors[0][0]:.2f} degrees, {errors[0][1]:.3f} px -> {errors[1][0]:.2f} degrees,"
            f" {errors[1][1]:.3f} px ({1e3 * seconds / len(index) / options.rounds:.1f} ms an image and round)\n"
        )


if __name__ == "__main__":
    main()
