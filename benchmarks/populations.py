"""Populations of states by the density of the particles in latent space, with their errors, against the truth.

    python -m benchmarks.populations RUN DATA [--wells N] [--bootstraps 20] [--threads 2]

DATA is a folder of `solvar-engine simulate` with contrasts of 1, RUN a finished fit of it at the true poses. Points
that are drawn from the density go to the true state that is nearest in the compared components, in units of their
deviations; with --wells, states are grouped (k-means of their places). The density is fitted as in a fit, to images of
each half-set under the components of the other. Its error is the standard deviation over densities of as many Gaussians
that are fitted to images drawn anew (bootstrap); beside it stand the densities of the half-sets' images alone, and the
shares of the particles themselves, which the noise of their images blurs: by where the fit puts each, and by where its
image alone does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import table, use_threads
from benchmarks.decoders import Comparison
from solvar_engine.contract.run import RunDir
from solvar_engine.estimation.model.mixture import SHAPING_PARTICLES, GaussianMixture, fit_mixture
from solvar_engine.estimation.model.mixture_choice import choose_mixture, find_density
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.jobs.states.latent_space import open_latent_space
from solvar_engine.latent import kmeans_clusters

_DRAWN = 100_000


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--wells", type=int, help="groups of states; without it, each is one")
    parser.add_argument("--bootstraps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class Wells:
    """Where the true states are, in units of the deviations, and the well of each."""

    def __init__(self, places: NDArray[np.float64], count: int | None) -> None:
        self._places = places
        self.of_state = np.arange(len(places))
        if count is not None:
            self.of_state = kmeans_clusters(self._places.astype(np.float32), count, seed=1).labels
        self.count = int(self.of_state.max()) + 1

    def shares(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share (wells,) of points (n, r) in each."""
        distance = (points**2).sum(axis=1)[:, None] - 2 * points @ self._places.T + (self._places**2).sum(axis=1)
        return np.bincount(self.of_state[distance.argmin(axis=1)], minlength=self.count) / len(points)

    def of_density(self, density: GaussianMixture, seed: int) -> NDArray[np.float64]:
        """Share (wells,) of points drawn from a density."""
        generator = torch.Generator().manual_seed(seed)
        kind = torch.multinomial(density.weights, _DRAWN, replacement=True, generator=generator)
        roots = torch.linalg.cholesky(density.covariances)
        noise = torch.randn(_DRAWN, density.means.shape[1], generator=generator, dtype=torch.float64)
        root = roots[kind] if len(roots) > 1 else roots[:1].expand(_DRAWN, -1, -1)
        return self.shares((density.means[kind] + (root @ noise[..., None])[..., 0]).numpy())


def known_of_images(comparison: Comparison, deviation: Tensor) -> Statistics:
    """What images of each half-set know of their coordinates under the other's components, the first half-set first."""
    scale = deviation.float()[:, None, None, None]
    parts = [comparison.statistics(half, comparison.mean, scale * comparison.of_halves[1 - half]) for half in (0, 1)]
    return Statistics(
        *(torch.cat([getattr(part, name) for part in parts]).double() for name in ("gram", "inner", "residual"))
    )


def shaping(known: Statistics) -> Statistics:
    """What those images know that a density is fitted to."""
    return known[sample_of(torch.arange(len(known.inner)), SHAPING_PARTICLES)]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def main() -> None:
    arguments = parse_arguments()
    use_threads(arguments.threads)
    run = RunDir(arguments.run)
    space = open_latent_space(run)
    comparison = Comparison.start(run, arguments.data, space, 1)
    deviation = np.sqrt(space.components.eigenvalue[space.columns])
    wells = Wells(comparison.true_places / deviation, arguments.wells)
    known = known_of_images(comparison, torch.from_numpy(deviation))
    density, first = find_density(shaping(known), _generator(1)), len(comparison.problem.rows[0])
    number = len(choose_mixture(shaping(known), _generator(1)))  # of each that the density may average
    is_shared = len(density.covariances) < len(density)
    drawn = []
    for bootstrap in range(arguments.bootstraps):
        size = min(len(known.inner), SHAPING_PARTICLES)
        again = known[torch.randint(len(known.inner), (size,), generator=_generator(bootstrap))]
        drawn.append(wells.of_density(fit_mixture(again, number, _generator(bootstrap), is_shared), bootstrap))
    state = comparison.truth.state[comparison.good]
    alone = torch.linalg.solve(known.gram + 1e-6 * torch.eye(len(deviation)), known.inner[..., None])[..., 0].numpy()
    true = np.bincount(wells.of_state[state], minlength=wells.count) / len(state)
    found, error = wells.of_density(density, 1), np.std(drawn, axis=0)
    columns = [
        true, found, error,
        *(
            wells.of_density(find_density(shaping(part), _generator(1)), 1)
            for part in (known[:first], known[first:])
        ),
        wells.shares(comparison.of_fit[0][comparison.good] / deviation), wells.shares(alone),
    ]  # fmt: skip
    rows_of_table = [[str(well + 1), *(f"{column[well]:.3f}" for column in columns)] for well in range(wells.count)]
    head = ["", "true", str(density), "error", "half-set 1", "half-set 2", "particles", "images alone"]
    print(table(head, rows_of_table))
    deviations = (found - true) / error
    print(f"\nRoot mean square of (found - true) / error: {np.sqrt(np.mean(deviations**2)):.2f}")
    print("Mean of |found - true|: " + ", ".join(
        f"{name} {np.abs(column - true).mean():.4f}" for name, column in zip(head[2:], columns[1:], strict=True)
        if name != "error"
    ))  # fmt: skip


if __name__ == "__main__":
    main()
