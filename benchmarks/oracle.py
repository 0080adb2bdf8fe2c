"""What a linear model of some rank can tell about the particles of a simulated data set, if only z is unknown.

    python -m benchmarks.oracle DATA [--rank 6] [--run RUN] [--threads 2]

The oracle is given the true mean, the principal components of the true states (weighted by their populations, inside
the true mask, at the working box) with their true eigenvalues, and the true poses; only the latent coordinates are
estimated, by the engine's own code from images that are prepared as in a fit. The noise is measured as in a fit too,
with the true volumes. With a run, the fit's scores stand beside.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import evaluated, shown, table, use_threads
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.judging.components import Components, latent_coordinates
from solvar_engine.estimation.model.bands import Band, make_band
from solvar_engine.estimation.model.residuals import ResidualNoise, residual_power
from solvar_engine.evaluation.covariance_scores import state_factor
from solvar_engine.evaluation.metrics import Estimate, Truth, evaluate_estimate
from solvar_engine.imaging.fourier import nyquist_shell
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.jobs.fit.outputs import OutputScale
from solvar_engine.jobs.run_evaluate import read_truth
from solvar_engine.jobs.simulate.files import TruthFiles
from solvar_engine.projectors.options import SliceOptions

SCORES = ("captured_variance", "latent_r2", "latent_r2_poly", "state_accuracy", "fsc_auc_mean")
"""Scores of the oracle that stand beside those of a fit."""

NOISE_PARTICLES = 5_000


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder that `simulate` wrote")
    parser.add_argument("--rank", type=int, default=6, help="components; with a run, as many as that has")
    parser.add_argument("--run", type=Path, help="finished run of `fit` to be set beside")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def true_components(truth: Truth, rank: int) -> tuple[Tensor, Components]:
    """Mean and principal components of the true states, in the units of their files.

    Parameters
    ----------
    truth : Truth
    rank : int
        At most this many; fewer if the states span fewer dimensions.

    Returns
    -------
    mean : Tensor, shape (z, y, x)
    components : Components
        Inside the mask; states weigh as many particles as they have.
    """
    weight = np.bincount(truth.state, minlength=len(truth.volumes)).astype(np.float64)
    mean, factor = state_factor(truth.volumes, weight)
    masked = torch.from_numpy(factor * truth.mask)
    flat = masked.flatten(1)
    values, vectors = torch.linalg.eigh((flat @ flat.T).double())
    values, vectors = values.flip(0), vectors.flip(1)
    kept = min(rank, int((values > 1e-6 * values.sum()).sum()))
    values, vectors = values[:kept], vectors[:, :kept]
    volumes = torch.tensordot((vectors / values.sqrt()).T.float(), masked, dims=1)
    ones = torch.ones(kept, dtype=torch.float64)
    return torch.from_numpy(mean), Components(volumes, values, values, ones, ones)


def with_measured_noise(source: PreparedParticles, band: Band, components: Components) -> PreparedParticles:
    """Same particles, whitened by the noise that the true components leave, as a fit measures it."""
    noise = ResidualNoise(source.noise_variance.shape[0], source.disk)
    rows = sample_of(torch.arange(len(source)), NOISE_PARTICLES)
    for index, power in residual_power(source, rows, band, components.scaled()):
        noise.add(power, source.group[index])
    return source.with_noise(noise.update(source.noise_variance))


def oracle_estimate(data: Path, rank: int, box_size: int | None = None) -> tuple[Estimate, Truth]:
    """Estimate the latent coordinates of a simulated data set with everything else known.

    Parameters
    ----------
    data : Path
        Folder that `simulate` wrote; protein is bright in its images.
    rank : int
    box_size : int, optional
        Working box (default: that of the images).

    Returns
    -------
    estimate : Estimate
        In the units of the truth.
    truth : Truth
    """
    files = TruthFiles.find(data)
    stack = ParticleStack.from_star(files.particles, data)
    box_size = box_size or stack.box_size
    truth = read_truth(files, stack.image_names, box_size)
    source = prepare_particles(stack, box_size, scratch=None)
    unit = OutputScale.of(source).volume
    mean, components = true_components(truth, rank)
    known = Components(
        components.eigenvolumes,
        components.eigenvalues / unit**2,
        components.eigenvalues_in_sample / unit**2,
        components.agreement,
        components.likelihood_gain,
    )
    band = make_band(nyquist_shell(box_size), source.disk, mean / unit, SliceOptions())
    z = torch.zeros(len(stack), len(known.eigenvalues))
    if len(known.eigenvalues):
        source = with_measured_noise(source, band, known)
        for batch in latent_coordinates(source, torch.arange(len(stack)), band, known):
            z[batch.index] = batch.z * unit
    estimate = Estimate(
        mean=mean.numpy(),
        eigenvolumes=components.eigenvolumes.numpy(),
        eigenvalues=components.eigenvalues.numpy(),
        z=z.numpy(),
        contrast=np.ones(len(stack), dtype=np.float32),
        pose=stack.pose,
        start_pose=None,
    )
    return estimate, truth


def oracle_scores(data: Path, rank: int, threads: int) -> dict[str, Any]:
    """Scores of the oracle, under the keys of `evaluate`."""
    use_threads(threads)
    scores = evaluate_estimate(*oracle_estimate(data, rank)).scores
    return {key: scores[key] for key in SCORES}


def main() -> None:
    arguments = parse_arguments()
    fit = {} if arguments.run is None else evaluated(arguments.run, arguments.data, arguments.threads)
    rank = len(fit["eigenvalues_estimated"]) if fit else arguments.rank
    oracle = oracle_scores(arguments.data, rank, arguments.threads)
    rows = [[key, shown(fit.get(key)), shown(oracle[key])] for key in SCORES]
    print(f"{arguments.data}, {rank} components\n\n{table(['', 'fit', 'oracle'], rows)}")
    if fit and oracle["latent_r2"] is not None:
        print(f"\nlatent_r2 of the fit over that of the oracle: {fit['latent_r2'] / oracle['latent_r2']:.3f}")


if __name__ == "__main__":
    main()
