"""The components of a run, as its table of eigenvalues describes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvar_engine.contract.results import NOT_REPRODUCIBLE, NUISANCE


@dataclass(frozen=True)
class Components:
    """The table of eigenvalues, sorted by descending eigenvalue.

    Attributes
    ----------
    eigenvalue, eigenvalue_in_sample : ndarray, shape (r,)
        Variance along each component, on held-out particles and on those that it was computed from.
    fraction : ndarray, shape (r,)
        Of the sum of the eigenvalues.
    half_set_agreement, nuisance_overlap : ndarray, shape (r,)
        From 0 to 1.
    label : tuple of str
        Empty for a component that is taken at face value.
    """

    eigenvalue: np.ndarray
    eigenvalue_in_sample: np.ndarray
    fraction: np.ndarray
    half_set_agreement: np.ndarray
    nuisance_overlap: np.ndarray
    label: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def is_reproducible(self) -> np.ndarray:
        """Whether held-out particles confirm each component; shape (r,), bool."""
        return np.array([NOT_REPRODUCIBLE not in label for label in self.label], dtype=bool)

    @property
    def is_nuisance(self) -> np.ndarray:
        """Whether each component looks like errors of contrast or pose; shape (r,), bool."""
        return np.array([NUISANCE in label for label in self.label], dtype=bool)

    def title(self, index: int) -> str:
        """Name a component (0-based index) by its 1-based number and its label."""
        label = self.label[index]
        return f"component {index + 1}" + (f" ({label})" if label else "")

    def deviation(self, index: int) -> float:
        """Standard deviation of the particles along a component (0-based index), from the held-out eigenvalue."""
        return float(np.sqrt(max(np.nan_to_num(self.eigenvalue[index]), 0.0)))
