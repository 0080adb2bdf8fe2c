"""eigenvalues.csv and rank.csv: the components that were found, and those that were tried."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from solvar_engine.contract.files import as_text
from solvar_engine.contract.results.tables import Table, read_columns, write_columns

EIGENVALUE_COLUMNS = (
    "component",
    "eigenvalue",
    "eigenvalue_in_sample",
    "fraction",
    "half_set_agreement",
    "nuisance_overlap",
    "label",
)
RANK_COLUMNS = (
    "candidate",
    "eigenvalue",
    "half_set_agreement",
    "gain_half1",
    "gain_half2",
    "decoy_max_half1",
    "decoy_max_half2",
    "kept",
)

NOT_REPRODUCIBLE = "not reproducible"
"""Label of a component that held-out particles do not confirm."""

OVERFIT = "overfit"
"""Label of a component that is much larger on the particles that it was fitted to than on others."""

SLOW = "slow background"
"""Label of a component that varies over the molecule as slowly as a background does."""

DOUBTFUL_POSES = "doubtful poses"
"""Label of a component of images whose poses are those of other images, or have wrong origins, which leave as much."""

NUISANCE = "nuisance"
"""Label of a component that looks like errors of contrast, orientation or shift."""


@dataclass(frozen=True)
class Components:
    """The table of eigenvalues, sorted by descending eigenvalue; row i is component i + 1.

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
        return ~self.has_label(NOT_REPRODUCIBLE)

    @property
    def compared(self) -> np.ndarray:
        """Components (0-based) in which particles are compared: the reproducible ones, or all if none is."""
        found = np.flatnonzero(self.is_reproducible)
        return found if len(found) else np.arange(len(self))

    def has_label(self, word: str) -> np.ndarray:
        """Whether each component has a label; shape (r,), bool."""
        return np.array([word in label for label in self.label], dtype=bool)

    def title(self, index: int) -> str:
        """Name a component (0-based index) by its 1-based number and its label."""
        label = self.label[index]
        return f"component {index + 1}" + (f" ({label})" if label else "")

    def deviation(self, index: int) -> float:
        """Standard deviation of the particles along a component (0-based index), from the held-out eigenvalue."""
        return float(np.sqrt(max(np.nan_to_num(self.eigenvalue[index]), 0.0)))


def write_eigenvalues(path: str | os.PathLike[str], columns: Table) -> None:
    """Write eigenvalues.csv: one row per component, numbered from 1 in descending order of eigenvalue.

    `eigenvalue` is held out and `eigenvalue_in_sample` is not, both the variance of z for eigenvolumes
    of unit norm; `fraction` is of the sum; `label` is empty for a component that is taken at face value.
    """
    write_columns(path, EIGENVALUE_COLUMNS, columns)


def read_components(path: str | os.PathLike[str]) -> Components:
    """Read eigenvalues.csv; numbers that the table of an older run does not have are NaN.

    Raises
    ------
    UserError
        If the file is absent or damaged, or has no column ``eigenvalue``.
    """
    table = read_columns(path, ("eigenvalue",), text=("label",))
    unknown = np.full(len(table["eigenvalue"]), np.nan)
    label = tuple(table["label"].tolist()) if "label" in table else ("",) * len(unknown)
    names = EIGENVALUE_COLUMNS[1:-1]  # all but the number of the component and the label
    return Components(**{name: np.asarray(table.get(name, unknown), dtype=np.float64) for name in names}, label=label)


@dataclass(frozen=True)
class Candidates:
    """The components that were tried.

    Attributes
    ----------
    number : ndarray of int, shape (k,)
        From 1.
    eigenvalue, half_set_agreement : ndarray, shape (k,)
        As of `Components`.
    gain : ndarray, shape (k, 2)
        By how much each component raises the log-likelihood of the particles of one half-set when it was found in the
        other.
    decoy_gain : ndarray, shape (k, 2)
        The most that components without any meaning raised it.
    is_real : ndarray of bool, shape (k,)
        Whether it gains more than they do, both ways; with an automatic number, only these components are kept.
    """

    number: np.ndarray
    eigenvalue: np.ndarray
    half_set_agreement: np.ndarray
    gain: np.ndarray
    decoy_gain: np.ndarray
    is_real: np.ndarray

    def __len__(self) -> int:
        return len(self.number)


def write_rank(path: str | os.PathLike[str], columns: Table) -> None:
    """Write rank.csv: one row per component that was tried, numbered from 1 in descending order of eigenvalue.

    `gain_half1` is what the first half-set's version of the component adds to the log-likelihood of particles of the
    second, `decoy_max_half1` the most that a decoy adds to the same particles; `kept` is 1 for a component that passes.
    """
    write_columns(path, RANK_COLUMNS, columns)


def read_candidates(path: str | os.PathLike[str]) -> Candidates:
    """Read rank.csv.

    Raises
    ------
    UserError
        If the file is absent or damaged.
    """
    table = read_columns(path, RANK_COLUMNS)
    gain, decoy_gain = (
        np.stack([table[f"{name}_half{half}"] for half in (1, 2)], axis=1) for name in ("gain", "decoy_max")
    )
    return Candidates(
        table["candidate"].astype(int),
        table["eigenvalue"],
        table["half_set_agreement"],
        gain,
        decoy_gain,
        np.isin(as_text(table["kept"]), ("1", "True")),
    )
