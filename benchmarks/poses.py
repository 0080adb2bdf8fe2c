"""What limits refined poses and latent coordinates: the refinement of `fit --refine-poses` under the true volumes.

    solvar-engine simulate --output DATA --phantom hinge --snr 0.1 --rotation-error 3 --shift-error 1
    python -m benchmarks.poses DATA [--run RUN]

Prints mean errors of the poses, by how much the map as a whole has turned, and how well the latent coordinates found
there tell the state (latent R2), under the true volumes and, with a run on these data, under those that it found.
Nothing that starts from estimated volumes can do better on average than what starts from the true ones.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import table
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.data.metadata import read_metadata
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.model.bands import Band, make_band
from solvar_engine.estimation.model.expectation import posterior_pass
from solvar_engine.estimation.poses.refinement import refine_poses
from solvar_engine.estimation.poses.uncertainty import LEAST_SPREAD, PosePrior, PoseSpread
from solvar_engine.evaluation.latent_scores import latent_r2
from solvar_engine.evaluation.pose_scores import pose_errors
from solvar_engine.imaging.gauge import best_global_rotation
from solvar_engine.imaging.rotation import angular_distance_deg, rotation_to_rotvec
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.outputs import OutputScale
from solvar_engine.jobs.run_evaluate import match_particles
from solvar_engine.jobs.simulate.files import DataSetFiles
from solvar_engine.projectors.options import SliceOptions

_ROUNDS = 3  # of refinement, until nothing moves


@dataclass(frozen=True)
class Model:
    """Mean (in its band) and factors in the units of the estimators."""

    band: Band
    factors: Tensor


def true_volumes(data: DataSetFiles, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Mean and leading factors of the states, in the units of the estimators."""
    state = torch.from_numpy(read_csv(data.truth.states)["state"]).long() - 1
    share = torch.bincount(state) / len(state)
    volumes = torch.stack([read_volume(data.truth.volume(number + 1)).data for number in range(len(share))]) / scale
    mean = torch.einsum("s,szyx->zyx", share, volumes)
    weighted = (volumes - mean).flatten(1) * share.sqrt()[:, None]
    _, values, directions = torch.linalg.svd(weighted, full_matrices=False)
    return mean, (values[:rank, None] * directions[:rank]).reshape(-1, *mean.shape)


def fitted_volumes(run: RunDir, scale: float) -> tuple[Tensor, Tensor]:
    """Masked mean and factors that a run found."""
    values = np.atleast_1d(read_csv(run.eigenvalues)["eigenvalue"]).astype(float)
    factors = [read_volume(run.eigenvolume(j + 1)).data * value**0.5 for j, value in enumerate(values)]
    return read_volume(run.mean).data * read_volume(run.mask).data / scale, torch.stack(factors) / scale


def model_of(source: PreparedParticles, mean: Tensor, factors: Tensor, contrast_variance: float) -> Model:
    """Volumes with what passes over images under them need."""
    band = make_band(source.disk.shell_max, source.disk, mean, SliceOptions())
    return Model(replace(band, contrast_variance=contrast_variance), factors)


def spread_of(given: Pose, true: Pose, pixel_size: float) -> PoseSpread:
    """Standard deviations, per axis, of the errors of poses, as wide at least as a fit takes them to be."""
    turn = rotation_to_rotvec(true.rotation.double().mT @ given.rotation.double())
    move = (given.shift - true.shift).double() / pixel_size
    found = PoseSpread(float(turn.square().mean()) ** 0.5, float(move.square().mean()) ** 0.5)
    return found.at_least(LEAST_SPREAD)


@dataclass(frozen=True)
class Setting:
    """A simulated data set as both benchmarks of poses take it.

    Attributes
    ----------
    source : PreparedParticles
    index : Tensor, shape (n,), int64
        The first particles.
    true : Pose
        Of all particles.
    truth : dict of ndarray
        Columns of the table of states.
    spread : PoseSpread
        Of the prior about the given poses.
    scale : float
        Of volumes in their own units over those of the estimators.
    contrast_variance : float
    """

    source: PreparedParticles
    index: Tensor
    true: Pose
    truth: dict[str, NDArray[np.floating]]
    spread: PoseSpread
    scale: float
    contrast_variance: float

    @staticmethod
    def read(data: DataSetFiles, particles: int) -> Setting:
        """Prepare the images of a folder that simulate wrote."""
        stack = ParticleStack.from_star(data.particles)
        source = prepare_particles(stack, stack.box_size, scratch=None)
        true = ParticleStack.from_star(data.truth.particles, data.path).pose
        truth = read_csv(data.truth.states)
        return Setting(
            source,
            torch.arange(min(particles, len(source))),
            true,
            truth,
            spread_of(source.pose, true, source.pixel_size),
            OutputScale.of(source).volume,
            float(np.var(truth["contrast"])),
        )


def refined_once(
    source: PreparedParticles, index: Tensor, model: Model, prior: PosePrior, steps: int
) -> tuple[Pose, Tensor]:
    """Poses of all particles after one refinement of some, and what their objective is there."""
    rotation, shift = source.pose.rotation.clone(), source.pose.shift.clone()
    objective = torch.zeros(len(source), dtype=torch.float64)
    for part in refine_poses(source, index, model.band, model.factors, steps=steps, prior=prior):
        rotation[part.index] = part.rotation
        shift[part.index] += part.shift_px * source.pixel_size
        objective[part.index] = part.objective
    return Pose(rotation, shift), objective[index]


def refined(source: PreparedParticles, index: Tensor, model: Model, spread: PoseSpread) -> Pose:
    """Poses after some rounds under the same volumes."""
    given = source.pose
    for _ in range(_ROUNDS):
        prior = PosePrior.about(given, source.pose, source.pixel_size, spread)
        source = source.with_pose(refined_once(source, index, model, prior, steps=3)[0])
    return source.pose


def latents(source: PreparedParticles, index: Tensor, model: Model) -> Tensor:
    """Posterior means (n, r) of the latent coordinates."""
    passes = posterior_pass(source, index, model.band, model.factors)
    rank = model.factors.shape[0]
    return torch.cat([posterior.mean[:, :rank] for _, _, _, posterior in passes])


def frame_turn_deg(pose: Pose, true: Pose) -> float:
    """By how much the map as a whole is turned against the truth."""
    turn = best_global_rotation(pose.rotation.double(), true.rotation.double())
    return float(angular_distance_deg(turn[None], torch.eye(3, dtype=torch.float64)[None]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=DataSetFiles, help="folder that simulate wrote")
    parser.add_argument("--run", type=RunDir, help="a finished fit of these data, at the box of the images")
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data: DataSetFiles = options.data
    setting = Setting.read(data, options.particles)
    source, index, true, scale = setting.source, setting.index, setting.true, setting.scale
    variance = setting.contrast_variance
    angles = np.stack([column for name, column in setting.truth.items() if name.startswith("coordinate_")], axis=1)
    under_true = model_of(source, *true_volumes(data, options.rank, scale), variance)
    began = time.perf_counter()
    floor = refined(source, index, under_true, setting.spread)
    milliseconds = 1e3 * (time.perf_counter() - began) / len(index) / _ROUNDS
    from_true = refined(source.with_pose(true), index, under_true, LEAST_SPREAD)
    rows = [
        ("true", "given", under_true, source.pose),
        ("true", "true", under_true, true),
        ("true", "refined under them", under_true, floor),
        ("true", "refined under them from the true ones", under_true, from_true),
    ]
    if options.run is not None:
        star = StarFile.read(options.run.particles)
        names = StarFile.read(data.particles).particles.text("rlnImageName")
        order = match_particles(names, star.particles.text("rlnImageName"), options.run.particles)
        found = read_metadata(star).pose[torch.from_numpy(order)]
        model = model_of(source, *fitted_volumes(options.run, scale), variance)
        rows += [
            ("true", "of the run", under_true, found),
            ("of the run", "true", model, true),
            ("of the run", "of the run", model, found),
        ]
    print(f"{len(index)} particles, {milliseconds:.1f} ms an image and round\n")
    heads = ("volumes", "poses", "rotation, degrees", "shift, px", "frame turned by, degrees", "latent R2")
    cells = []
    for volumes, name, model, pose in rows:
        turn, move = pose_errors(pose[index], true[index], source.pixel_size)
        score = latent_r2(latents(source.with_pose(pose), index, model).numpy(), angles[: len(index)])
        frame = frame_turn_deg(pose, true)  # of all particles
        cells.append((volumes, name, f"{turn:.3f}", f"{move:.4f}", f"{frame:.3f}", f"{score:.3f}"))
    print(table(heads, cells))


if __name__ == "__main__":
    main()
