"""How far the particles of a run reach in latent space: a volume beyond is an extrapolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results.images import read_images
from solvar_engine.contract.results.latents import Latents, read_latents
from solvar_engine.contract.run import RunDir

_NEAREST = 100  # particles; the narrowest kernel holds as many
_EDGE = 0.99  # of particles, beyond which they are as far from others as the sparsest
_BEYOND = 2.0  # times as far as there is outside
_COMPARED = 200  # particles that tell how far they are from one another
_COUNTED, _FEWEST = 20_000, 5  # particles at most, and nearest ones among them


@dataclass(frozen=True)
class Reach:
    """Where there are particles; made by `of`.

    Attributes
    ----------
    z : ndarray, shape (n, r)
        Of particles that are no outliers.
    covariance : ndarray, shape (r, r)
        Typical uncertainty of a particle's place.
    nearest : int
        Particles that a place must have around it.
    """

    z: np.ndarray
    covariance: np.ndarray
    nearest: int

    @staticmethod
    def of(latents: Latents, is_outlier: np.ndarray | None = None) -> Reach:
        """Reach of all particles, or of a sample of so many that the rest would not change it."""
        is_used = np.ones(len(latents.z), dtype=bool) if is_outlier is None or is_outlier.all() else ~is_outlier
        rows = np.flatnonzero(is_used)
        count = len(rows)
        if count > _COUNTED:
            rows = np.sort(np.random.default_rng(0).choice(rows, _COUNTED, replace=False))
        nearest = max(1, min(max(_NEAREST * len(rows) // count, _FEWEST), len(rows) // 4))
        precision = latents.precision[rows].mean(axis=0, dtype=np.float64)
        return Reach(latents.z[rows].astype(np.float64), np.linalg.inv(precision), nearest)

    def excess(self, points: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Distance of points from their nearest particles, over the largest that is no extrapolation.

        That is twice the distance at the edge of the particles' own distribution, or what their uncertainty explains,
        whichever is larger, in units of that uncertainty; the worst of all compared coordinates together and of each
        by itself, since many coordinates together hide what is far along one.

        Parameters
        ----------
        points : ndarray, shape (m, r)
        columns : ndarray of int
            Coordinates (from 0) that are compared.

        Returns
        -------
        ndarray, shape (m,)
            Above 1 where there are no particles.
        """
        together = [np.asarray(columns)] if len(columns) > 1 else []
        parts = [*together, *(np.array([column]) for column in columns)]
        return np.max([self._excess(np.asarray(points, dtype=np.float64), part) for part in parts], axis=0)

    def refuse_beyond(self, points: np.ndarray, columns: np.ndarray, names: list[str]) -> None:
        """Refuse points (m, r) where there are no particles; ``names`` says what each is called at the beginning.

        Raises
        ------
        UserError
            That says how far the first one is.
        """
        found = self.beyond(points, columns, names)
        if found:
            raise UserError(f"{found}: correct it, or accept an extrapolation with --allow-extrapolation.")

    def beyond(self, points: np.ndarray, columns: np.ndarray, names: list[str]) -> str:
        """Say how far the first point is where there are no particles, and how many are such; empty if none is."""
        excess = self.excess(points, columns)
        beyond = np.flatnonzero(excess > 1)
        if not len(beyond):
            return ""
        first = int(beyond[0])
        point, others = points[first], f" ({len(beyond)} of {len(points)} are such)" if len(beyond) > 1 else ""
        place = ", ".join(f"z_{column + 1} = {point[column]:.4g}" for column in columns)
        alone = [column for column in columns if self.excess(points[first : first + 1], np.array([column]))[0] > 1]
        if alone:
            lowest, highest = self.z[:, alone[0]].min(), self.z[:, alone[0]].max()
            found = f"; the particles reach from {lowest:.4g} to {highest:.4g} along z_{alone[0] + 1}"
        else:
            found = f", {_BEYOND * excess[first]:.1f} times as far from its nearest ones as they are at their edge"
        return f"{names[first]} ({place}) is far from all particles{found}{others}"

    def _excess(self, points: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """As `excess`, of all columns together."""
        root = np.linalg.cholesky(np.linalg.inv(self.covariance[np.ix_(columns, columns)]))
        particles = self.z[:, columns] @ root
        compared = np.random.default_rng(0).permutation(len(particles))[:_COMPARED]
        edge = np.quantile(self._distance(particles[compared], particles), _EDGE)
        uncertain = np.sqrt(len(columns) + 4 * np.sqrt(2 * len(columns)))  # chi-squared, four deviations above its mean
        return self._distance(points[:, columns] @ root, particles) / max(_BEYOND * edge, uncertain)

    def _distance(self, points: np.ndarray, particles: np.ndarray) -> np.ndarray:
        """Distance (m,) to the particle that is the last of the nearest."""
        squared = [np.square(particles - point).sum(axis=1) for point in points]
        return np.sqrt([np.partition(values, self.nearest - 1)[self.nearest - 1] for values in squared])


def read_reach(run: RunDir) -> Reach:
    """Read how far the particles of a run reach.

    Raises
    ------
    UserError
        If a file is absent or damaged.
    """
    return Reach.of(read_latents(run.latents), read_images(run.particles).is_outlier)
