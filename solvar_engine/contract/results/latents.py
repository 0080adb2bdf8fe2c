"""latents.npz: where each particle is along the components, and how well that is known."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import atomic_path

_NAMES = ("z", "precision", "contrast")


@dataclass(frozen=True)
class Latents:
    """Where each particle is along the components; row i belongs to row i of particles.star.

    Attributes
    ----------
    z : ndarray, shape (n, r), float32
        Posterior mean, in units in which eigenvolumes have unit norm.
    precision : ndarray, shape (n, r, r), float32
        Posterior precision, prior included, in 1 / units of z squared.
    contrast : ndarray, shape (n,), float32
        Scale of the signal in each image, mean 1.
    """

    z: np.ndarray
    precision: np.ndarray
    contrast: np.ndarray

    def __post_init__(self) -> None:
        count, rank = self.z.shape
        expected = {"z": (count, rank), "precision": (count, rank, rank), "contrast": (count,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    def uncertainty(self, indices: list[int]) -> np.ndarray:
        """Posterior standard deviation of some coordinates, all together.

        Parameters
        ----------
        indices : list of int
            0-based components; the rest is marginalised.

        Returns
        -------
        ndarray, shape (n,)
            Square root of the sum of the posterior variances, in the units of z.

        Raises
        ------
        UserError
            If a precision cannot be inverted.

        Examples
        --------
        >>> Latents(np.zeros((1, 2)), np.array([[[4.0, 0.0], [0.0, 1.0]]]), np.ones(1)).uncertainty([0])
        array([0.5])
        """
        return np.sqrt((self.deviations()[:, indices] ** 2).sum(axis=1))

    def deviations(self) -> np.ndarray:
        """Posterior standard deviation of every coordinate, whatever the others are; shape (n, r).

        Raises
        ------
        UserError
            If a precision cannot be inverted.
        """
        try:
            covariance = np.linalg.inv(self.precision.astype(np.float64))
        except np.linalg.LinAlgError as error:
            raise UserError("The uncertainty of a particle is infinite: colour by something else.") from error
        return np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))


def write_latents(path: str | os.PathLike[str], latents: Latents) -> None:
    """Write latents.npz atomically, as float32 and without pickle."""
    arrays = {name: np.asarray(getattr(latents, name), dtype=np.float32) for name in _NAMES}
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def read_latents(path: str | os.PathLike[str]) -> Latents:
    """Read latents.npz.

    Raises
    ------
    UserError
        If the file is absent or does not hold the arrays z, precision and contrast of matching shapes.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = [archive[name] for name in _NAMES]
        if any(array.dtype.kind != "f" for array in arrays):
            raise ValueError("the arrays do not hold real numbers")
        return Latents(*arrays)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a file of latents ({error}).") from error
