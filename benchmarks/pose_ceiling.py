"""What images tell of the state of their particle at best, when their poses are known and when they are not.

    solvar-engine simulate --output DATA --phantom hinge --snr 0.1 --rotation-error 3 --shift-error 1
    python -m benchmarks.pose_ceiling DATA [--particles 1000] [--states 18]

Every state of the phantom is held against every image with its true volume and the true distribution of states: at the
true pose, and with the pose integrated out under a prior about the given one that has the true spread of its errors
(Laplace's approximation about the best pose in each state). The posterior mean of the coordinate that results is the
best estimate there is; no program that has to find the volumes from the images can do better on average.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import table
from benchmarks.poses import Model, Setting, model_of, refined_once
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.poses.likelihood import PoseModel, pose_covariance
from solvar_engine.estimation.poses.uncertainty import PosePrior, PoseSpread
from solvar_engine.evaluation.latent_scores import latent_r2
from solvar_engine.evaluation.pose_scores import pose_errors
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.simulate.files import DataSetFiles

_STEPS = 8  # of Gauss and Newton, in every state


@dataclass(frozen=True)
class Candidate:
    """One state held against all images."""

    at_true: Tensor  # negative log-likelihoods at the true poses
    integrated: Tensor  # negative logarithms of the evidence
    pose: Pose  # the best in this state


def candidate(source: PreparedParticles, index: Tensor, model: Model, true: Pose, spread: PoseSpread) -> Candidate:
    """Hold the only volume of a model against the images."""
    at_true = torch.zeros(len(index), dtype=torch.float64)
    likelihood = PoseModel(model.band, model.factors)
    for batch in source.with_pose(true).batches(index, model.band.disk, likelihood.images_per_call):
        at_true[batch.index] = likelihood.evaluate(batch).objective
    prior = PosePrior.about(source.pose, source.pose, source.pixel_size, spread)
    best, integrated = refined_once(source, index, model, prior, _STEPS)
    for rows, covariance in pose_covariance(source.with_pose(best), index, model.band, model.factors, spread):
        integrated[rows] -= 0.5 * torch.logdet(covariance)
    return Candidate(at_true, integrated, best[index])


def posterior_mean(objectives: list[Tensor], coordinate: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean coordinate of each image when all states were equally likely before."""
    weights = torch.softmax(-torch.stack(objectives, dim=1), dim=1).numpy()
    return weights @ coordinate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=DataSetFiles, help="folder that simulate wrote, of states along one coordinate")
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--states", type=int, default=18, help="how many of the states, evenly spread")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data: DataSetFiles = options.data
    setting = Setting.read(data, options.particles)
    source, index, true, truth = setting.source, setting.index, setting.true, setting.truth
    of_state = dict(zip(truth["state"].astype(int).tolist(), truth["coordinate_1"].tolist(), strict=True))
    numbers = sorted(of_state)
    chosen = [numbers[row] for row in np.linspace(0, len(numbers) - 1, options.states).round().astype(int)]
    coordinate = np.array([of_state[number] for number in chosen])
    candidates = []
    for number in chosen:
        volume = read_volume(data.truth.volume(number)).data / setting.scale
        model = model_of(source, volume, torch.zeros(0, *volume.shape), setting.contrast_variance)
        candidates.append(candidate(source, index, model, true, setting.spread))
        sys.stderr.write(f"\rstate {len(candidates)} of {len(chosen)}")
    wanted = truth["coordinate_1"][: len(index), None]
    rows = []
    found = {"true": [c.at_true for c in candidates], "given, integrated out": [c.integrated for c in candidates]}
    for name, objectives in found.items():
        mean = posterior_mean(objectives, coordinate)[:, None]
        share = 1 - float(((mean - wanted) ** 2).mean() / wanted.var())
        rows.append((name, f"{share:.4f}", f"{latent_r2(mean, wanted):.4f}"))
    print("\n" + table(("poses", "R2 of the posterior mean", "latent R2 (30 nearest neighbours)"), rows))
    nearest = torch.from_numpy(np.abs(coordinate[:, None] - wanted[:, 0]).argmin(axis=0))
    rotation = torch.stack([c.pose.rotation for c in candidates])[nearest, index]
    shift = torch.stack([c.pose.shift for c in candidates])[nearest, index]
    turn, move = pose_errors(Pose(rotation, shift), true[index], source.pixel_size)
    print(f"\nErrors of the poses under the volume of the true state: {turn:.3f} degrees, {move:.4f} px")


if __name__ == "__main__":
    main()
