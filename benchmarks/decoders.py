"""Volumes of single images: the linear model, kernels, local models around centres, and what images can tell at all.

    python -m benchmarks.decoders RUN DATA [--images 50] [--centres 16] [--rounds 2] [--threads 2]

DATA is a folder of `solvar-engine simulate` with contrasts of 1, RUN a finished fit of it at the true poses. Each row
of the table is a way to say what the molecule in an image looks like: mean FSC with its true volume, over all shells
and over images spread evenly, inside the mask of the run and inside the region that moves.

- linear: mean and eigenvolumes at the latent coordinates of the image.
- kernels: kernel regression there, as `reconstruct` does; with its own coordinates of the images, or those of the fit,
  which know the density of the particles.
- local models: kernel volumes at centres of the particles (k-means) with the linear model around each of them. Images
  of one half-set ask the volumes of the other; the posteriors under all centres, weighted by what each makes of the
  image, are what the next round starts from. The volume is the posterior mean.
- kernels at the true places: coordinates of the true states in the components for weights and for the image.
- the same, images in their ideal place: the truth for weights, but the image's own place is the posterior mean under
  the true volumes, which no estimate can know better.
- true volumes, posterior mean: the limit of any decoder.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import table, use_threads
from benchmarks.states import Truth
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import StatusTracker
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.model.bands import make_band
from solvar_engine.estimation.model.fixed_factors import collect_statistics
from solvar_engine.estimation.model.half_models import scale_to_images
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.imaging.fourier import nyquist_shell
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.shells import fsc
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.jobs.states.kernel_problem import SETUP_STEPS, KernelProblem, set_up
from solvar_engine.jobs.states.kernel_volumes import KernelVolumes, finish_state, kernel_volumes
from solvar_engine.jobs.states.latent_space import LatentSpace, open_latent_space
from solvar_engine.latent import kmeans_clusters
from solvar_engine.reconstruction.filtering import local_filter, local_fsc
from solvar_engine.reconstruction.windows import LocalWindows

_SCALE_IMAGES = 1_000
_STEPS = 30  # of expectation maximisation of the populations of centres
_LEAST_SPREAD = 1e-3  # of the variance of all particles, around a centre

Places = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Coordinates (n, r) of images in the compared components, and their precision (n, r, r)."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--centres", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


@dataclass(frozen=True)
class Comparison:
    """What volumes of images are made from, and compared with.

    Attributes
    ----------
    problem : KernelProblem
    images : PreparedParticles
        All that they show: those of the problem are less what the models explain.
    truth : Truth
    mean : Tensor, shape (z, y, x)
    eigenvolumes : Tensor, shape (r, z, y, x)
        Of the compared components.
    of_halves : tuple of two Tensors
        What each half-set alone makes of them.
    of_fit : Places
        Of the run's particles, in their order, as are those of ``truth``.
    good : ndarray, int64
        Particles that are no outliers.
    """

    problem: KernelProblem
    images: PreparedParticles
    truth: Truth
    mean: Tensor
    eigenvolumes: Tensor
    of_halves: tuple[Tensor, Tensor]
    of_fit: Places
    good: NDArray[np.int64]

    @staticmethod
    def start(run: RunDir, data: Path, space: LatentSpace, states: int) -> Comparison:
        """Read the run and its particles."""
        mean, columns = read_volume(run.mean), space.columns
        with tempfile.TemporaryDirectory() as folder:
            params = ReconstructParams(run=str(run.path), output=folder, points="-", box=mean.box_size)
            status = StatusTracker(Path(folder) / "status.json", params.command)
            with closing(Progress(status, SETUP_STEPS)) as progress:
                problem = set_up(params, run, space, states, Path(folder), progress)
        images = prepare_particles(ParticleStack.from_star(data / "particles.star"), mean.box_size, scratch=None)
        numbers = [int(column) + 1 for column in columns]
        eigenvolumes, first, second = (
            torch.stack([read_volume(path).data for path in paths])
            for paths in (
                [run.eigenvolume(number) for number in numbers],
                *([run.half_eigenvolume(number, half) for number in numbers] for half in (1, 2)),
            )
        )
        latents = read_latents(run.latents)
        of_fit = (latents.z[:, columns].astype(float), latents.precision[:, columns][:, :, columns].astype(float))
        truth, good = Truth(data, mean.box_size), np.flatnonzero(~space.is_outlier)
        return Comparison(problem, images, truth, mean.data, eigenvolumes, (first, second), of_fit, good)

    @property
    def rank(self) -> int:
        """Compared components."""
        return len(self.eigenvolumes)

    @property
    def true_places(self) -> NDArray[np.float64]:
        """Coordinates (states, r) of the true states in the components."""
        seen = (self.truth.volumes - self.mean).flatten(1).double()
        return torch.linalg.lstsq(self.eigenvolumes.flatten(1).double().T, seen.T).solution.T.numpy()

    def particles(self, half: int) -> NDArray[np.int64]:
        """Particles of the run in a half-set, in the order of its rows."""
        of_row = np.full(len(self.problem.source), -1)
        of_row[self.problem.row] = np.arange(len(self.problem.row))
        return of_row[self.problem.rows[half].numpy()]

    def linear(self, z: NDArray[np.float64]) -> Tensor:
        """Volume (z, y, x) of the linear model."""
        return self.mean + torch.tensordot(torch.from_numpy(z).float(), self.eigenvolumes, dims=1)

    def placed(self, places: Places) -> KernelProblem:
        """The problem with other coordinates of the particles."""
        z, precision = np.zeros_like(self.problem.z), np.zeros_like(self.problem.precision)
        z[self.problem.row], precision[self.problem.row] = places
        return replace(self.problem, z=z, precision=precision)

    def statistics(self, half: int, centre: Tensor, factors: Tensor) -> Statistics:
        """Of the images of a half-set, under volumes in the units of the run's files."""
        disk, options = self.images.disk.prefix(nyquist_shell(len(self.mean))), self.problem.options
        sample = sample_of(torch.cat(self.problem.rows), _SCALE_IMAGES)
        scale = scale_to_images(self.images, sample, disk, self.mean * self.problem.mask, options)
        band = make_band(disk.shell_max, disk, scale * centre, options)
        return collect_statistics(self.images, self.problem.rows[half], band, scale * factors)

    def scores(self, volume_of: Callable[[int], Tensor], count: int) -> list[str]:
        """Mean FSC of the volumes of some particles with the true ones, in the mask and where it moves."""
        chosen = self.good[np.linspace(0, len(self.good) - 1, count).astype(int)]
        found = []
        for particle in chosen:
            volume, reference = volume_of(int(particle)), self.truth.volumes[self.truth.state[particle]]
            found.append([fsc(volume, reference, where)[1:].mean() for where in (self.problem.mask, self.truth.moving)])
        return [f"{value:.4f}" for value in np.mean(found, axis=0)]


def kernel_volume(problem: KernelProblem, place: NDArray[np.float64]) -> Tensor:
    """Volume at coordinates (r,) in the compared components."""
    return finish_state(problem, kernels_at(problem, place)).volume * problem.scale.volume


def kernels_at(problem: KernelProblem, place: NDArray[np.float64]) -> KernelVolumes:
    """Half-maps at coordinates (r,) in the compared components."""
    point = np.zeros(int(problem.columns.max()) + 1)
    point[problem.columns] = place
    return kernel_volumes(problem, point)


def posterior_of_states(comparison: Comparison) -> NDArray[np.float64]:
    """Probability (n, states) of the true states, under their volumes."""
    volumes, count = comparison.truth.volumes * comparison.problem.mask, len(comparison.truth.volumes)
    share = np.bincount(comparison.truth.state, minlength=count) / len(comparison.truth.state)
    found, centre = np.zeros((len(comparison.truth.state), count)), volumes.mean(dim=0)
    for half in range(2):
        seen = comparison.statistics(half, centre, volumes - centre)
        gain = (seen.inner - 0.5 * seen.gram.diagonal(dim1=1, dim2=2)).double().numpy()
        found[comparison.particles(half)] = softmax(gain + np.log(np.maximum(share, 1e-12)))[0]
    return found


def softmax(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of rows (n, k), and the logarithms of their sums (n,)."""
    largest = values.max(axis=1, keepdims=True)
    weights = np.exp(values - largest)
    total = weights.sum(axis=1, keepdims=True)
    return weights / total, (largest + np.log(total))[:, 0]


@dataclass(frozen=True)
class LocalModels:
    """Images under linear models around centres.

    Attributes
    ----------
    volumes : Tensor, shape (centres, z, y, x)
    weight : ndarray, shape (n, centres)
        Probability of each centre.
    step : ndarray, shape (n, r)
        From the centres, on average.
    places : Places
        Posterior mean and precision.
    evidence : float
        Mean log-likelihood of an image, of a half-set under the volumes of the other, up to a constant.
    """

    volumes: Tensor
    weight: NDArray[np.float64]
    step: NDArray[np.float64]
    places: Places
    evidence: float

    @staticmethod
    def fitted(comparison: Comparison, problem: KernelProblem, places: Places, count: int) -> LocalModels:
        """Make volumes at centres of the particles, and ask all images for their place under them."""
        rank, good = comparison.rank, comparison.good
        clusters = kmeans_clusters(places[0][good].astype(np.float32), count, seed=1)
        centres, labels = np.asarray(clusters.centres, dtype=float), clusters.labels
        halves = _half_volumes(problem, centres)
        least = _LEAST_SPREAD * np.diag(places[0][good].var(axis=0))
        spreads = [np.cov(places[0][good[labels == number]].T).reshape(rank, rank) + least for number in range(count)]
        total = len(comparison.truth.state)
        weight, step, z = np.zeros((total, count)), np.zeros((total, rank)), np.zeros((total, rank))
        precision, evidence = np.tile(np.eye(rank), (total, 1, 1)), []
        for half in range(2):
            particles, other = comparison.particles(half), halves[:, 1 - half]
            centre = other.mean(dim=0)
            seen = comparison.statistics(half, centre, torch.cat((other - centre, comparison.of_halves[1 - half])))
            steps, covariances, gains = local_posteriors(seen, spreads)
            share = np.bincount(labels, minlength=count) / len(labels)
            for _ in range(_STEPS):
                probability, logarithm = softmax(gains + np.log(share))
                share = probability.mean(axis=0)
            found = (probability[..., None] * (centres + steps)).sum(axis=1)
            apart = centres + steps - found[:, None]
            spread = np.einsum("nk,nkij->nij", probability, covariances + apart[..., :, None] * apart[..., None, :])
            weight[particles], z[particles], precision[particles] = probability, found, np.linalg.inv(spread)
            step[particles] = (probability[..., None] * steps).sum(axis=1)
            evidence.append(logarithm.mean())
        return LocalModels(halves.mean(dim=1), weight, step, (z, precision), float(np.mean(evidence)))

    def volume(self, particle: int, eigenvolumes: Tensor) -> Tensor:
        """Posterior mean (z, y, x)."""
        weight, step = (torch.from_numpy(part[particle]).float() for part in (self.weight, self.step))
        return torch.tensordot(weight, self.volumes, dims=1) + torch.tensordot(step, eigenvolumes, dims=1)


def _half_volumes(problem: KernelProblem, centres: NDArray[np.float64]) -> Tensor:
    """Half-maps (centres, 2, z, y, x) at centres, in the units of files, filtered by what they agree on."""
    windows, volumes = LocalWindows.create(problem.source.box_size, problem.mask), []
    for centre in centres:
        blend = kernels_at(problem, centre).blend
        correlation = local_fsc(blend.half1, blend.half2, windows)
        halves = [local_filter(half, correlation, windows) * problem.mask for half in (blend.half1, blend.half2)]
        volumes.append(torch.stack(halves) * problem.scale.volume)
    return torch.stack(volumes)


def local_posteriors(
    seen: Statistics, spreads: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps (n, k, r) from centres, their covariances, and log-likelihoods (n, k) that images gain."""
    gram, inner, count = seen.gram.double().numpy(), seen.inner.double().numpy(), len(spreads)
    steps, covariances, gains = [], [], []
    for number, spread in enumerate(spreads):
        prior = np.linalg.inv(spread)
        precision = gram[:, count:, count:] + prior
        left = inner[:, count:] - gram[:, count:, number]
        covariance = np.linalg.inv(precision)
        step = np.einsum("nij,nj->ni", covariance, left)
        size = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(prior)[1]
        gains.append(inner[:, number] - 0.5 * gram[:, number, number] + 0.5 * (left * step).sum(axis=1) - 0.5 * size)
        steps.append(step)
        covariances.append(covariance)
    return np.stack(steps, axis=1), np.stack(covariances, axis=1), np.stack(gains, axis=1)


def main() -> None:
    arguments = parse_arguments()
    use_threads(arguments.threads)
    run = RunDir(arguments.run)
    comparison = Comparison.start(run, arguments.data, open_latent_space(run), arguments.centres)
    problem, z, state = comparison.problem, comparison.of_fit[0], comparison.truth.state
    rows = []

    def add(name: str, volume_of: Callable[[int], Tensor]) -> None:
        rows.append([name, *comparison.scores(volume_of, arguments.images)])

    add("mean", lambda _: comparison.mean)
    add("linear", lambda particle: comparison.linear(z[particle]))
    add("kernels", lambda particle: kernel_volume(problem, z[particle]))
    of_density = comparison.placed(comparison.of_fit)
    add("kernels, weights by the density", lambda particle: kernel_volume(of_density, z[particle]))
    places = comparison.of_fit
    for number in range(1, arguments.rounds + 1):
        local = LocalModels.fitted(comparison, comparison.placed(places), places, arguments.centres)
        add(
            f"local models, round {number} (log-likelihood {local.evidence:.2f} an image)",
            lambda particle, local=local: local.volume(particle, comparison.eigenvolumes),  # type: ignore[misc]
        )
        places = local.places
        moved, found = comparison.placed(places), places[0]
        add(
            f"kernels at the places of round {number}",
            lambda particle, moved=moved, found=found: kernel_volume(moved, found[particle]),  # type: ignore[misc]
        )
    true = comparison.true_places
    sharp = np.tile(np.diag(1e4 / true.var(axis=0)), (len(state), 1, 1))
    at_truth, ideal = comparison.placed((true[state], sharp)), posterior_of_states(comparison)
    add("kernels at the true places", lambda particle: kernel_volume(at_truth, true[state[particle]]))
    add("the same, images in their ideal place", lambda particle: kernel_volume(at_truth, ideal[particle] @ true))
    volumes = comparison.truth.volumes
    add("true volumes, posterior mean", lambda one: torch.tensordot(torch.from_numpy(ideal[one]).float(), volumes, 1))
    print(table(["", "inside the mask", "where it moves"], rows))


if __name__ == "__main__":
    main()
