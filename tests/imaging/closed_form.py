"""Densities of Gaussian atoms in closed form: maps, projections and transforms without any interpolation.

Written for the tests in plain NumPy and float64, from the definitions alone, so that it shares no line and no
convention by accident with what it tests. Coordinates are pixels from the centre, index box_size // 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Atoms:
    """Gaussian atoms of one width.

    position: (atoms, 3), (x, y, z) in pixels from the centre; amplitude: (atoms,), the integral of each atom;
    sigma: standard deviation in pixels.
    """

    position: np.ndarray
    amplitude: np.ndarray
    sigma: float

    def volume(self, box_size: int) -> np.ndarray:
        """Sample the density, shape (z, y, x)."""
        x, y, z = (_gaussians(column, self.sigma, box_size) for column in self.position.T)
        return np.einsum("a,az,ay,ax->zyx", self.amplitude, z, y, x)

    def projections(
        self, rotation: np.ndarray, box_size: int, shift_px: np.ndarray | None = None
    ) -> np.ndarray:
        """Integrate along the z axis of each view, shape (n, y, x).

        rotation (n, 3, 3) turns view into volume coordinates, so an atom is seen at its transpose times the
        position; shift_px (n, 2), (x, y), moves what is seen.
        """
        seen = np.einsum("nji,aj->nai", rotation, self.position)[:, :, :2]
        if shift_px is not None:
            seen = seen + shift_px[:, None, :]
        images = []
        for view in seen:
            x, y = (_gaussians(column, self.sigma, box_size) for column in view.T)
            images.append(np.einsum("a,ay,ax->yx", self.amplitude, y, x))
        return np.stack(images)

    def transform(self, frequency: np.ndarray) -> np.ndarray:
        """Continuous Fourier transform at frequencies (..., 3), (x, y, z) in cycles per pixel."""
        phase = np.exp(-2j * np.pi * frequency @ self.position.T)
        envelope = np.exp(-2 * np.pi**2 * self.sigma**2 * (frequency**2).sum(axis=-1))
        return (phase @ self.amplitude) * envelope


def _gaussians(centre: np.ndarray, sigma: float, box_size: int) -> np.ndarray:
    """Normalised Gaussians (atoms, box_size) along one axis."""
    axis = np.arange(box_size) - box_size // 2
    return np.exp(-0.5 * ((axis - centre[:, None]) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))


def asymmetric_atoms(box_size: int, count: int = 40, sigma: float = 1.6, seed: int = 7) -> Atoms:
    """Atoms without any symmetry, within a third of the box from its centre."""
    generator = np.random.default_rng(seed)
    direction = generator.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = box_size / 3 * generator.uniform(size=(count, 1)) ** (1 / 3)
    # A ball is too symmetric to tell a hand: stretch one axis and empty one octant.
    position = direction * radius * [1.0, 0.8, 0.6]
    position[(position > 0).all(axis=1)] *= -1
    return Atoms(position, generator.uniform(0.5, 1.5, size=count) * 100.0, sigma)


def random_rotations(count: int, seed: int) -> np.ndarray:
    """Uniform rotations (count, 3, 3) from SciPy."""
    from scipy.spatial.transform import Rotation

    return Rotation.random(count, random_state=np.random.RandomState(seed)).as_matrix()


def relative_error(value: np.ndarray, truth: np.ndarray) -> float:
    """Norm of the difference over the norm of the truth."""
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))
