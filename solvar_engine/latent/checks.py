"""The one check that every function of this room makes on its input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def as_latent_matrix(z: NDArray[np.floating], name: str = "z") -> NDArray[np.float64]:
    """Return latent coordinates as a finite float64 matrix.

    Parameters
    ----------
    z : ndarray, shape (n, r)
        Latent coordinates, one row per particle.
    name : str
        What to call the array in an error.

    Returns
    -------
    ndarray, shape (n, r), float64
        A copy when a conversion was needed, otherwise the same array.

    Raises
    ------
    ValueError
        If ``z`` is not a matrix or holds a value that is not finite; the first such row is named.

    Examples
    --------
    >>> as_latent_matrix(np.zeros((3, 2), dtype=np.float32)).dtype
    dtype('float64')
    """
    matrix = np.asarray(z, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"{name} must be a matrix of shape (n, r), but its shape is {matrix.shape}")
    is_bad = ~np.isfinite(matrix).all(axis=1)
    if is_bad.any():
        row = int(is_bad.argmax())
        raise ValueError(f"{name} holds a value that is not a finite number in row {row} (0-based)")
    return matrix
