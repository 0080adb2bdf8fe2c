"""noise.csv, fsc.csv and metrics.csv: what is known shell by shell, and how the fit went on."""

from __future__ import annotations

import os
import zipfile

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import append_csv, as_text, atomic_path
from solvar_engine.contract.results.tables import Table, read_columns, write_columns

NOISE_COLUMNS = ("shell", "frequency", "noise_variance", "group")
FSC_COLUMNS = ("shell", "frequency", "fsc_mean", "fsc_covariance")
METRICS_COLUMNS = ("iteration", "stage", "half", "shell_max", "objective", "seconds")

FSC_THRESHOLD = 0.143
"""Correlation of half-maps at which the resolution is read off (Rosenthal and Henderson, 2003)."""


def write_noise(path: str | os.PathLike[str], columns: Table) -> None:
    """Write noise.csv: per shell (and group) the frequency in 1/Angstrom and the noise variance per pixel."""
    write_columns(path, NOISE_COLUMNS, columns)


def read_noise(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read noise.csv by columns; ``group`` is text, "1" where the table does not tell."""
    table = read_columns(path, ("frequency", "noise_variance"))
    return {**table, "group": as_text(table.get("group", np.full(len(table["frequency"]), "1")))}


def write_noise_ratio(path: str | os.PathLike[str], micrograph: np.ndarray, ratio: np.ndarray) -> None:
    """Write the number of each particle's micrograph (n,), and noise variances over those of the groups (m, shells)."""
    arrays = {"micrograph": np.asarray(micrograph, dtype=np.int32), "ratio": np.asarray(ratio, dtype=np.float32)}
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def read_noise_ratio(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read what :func:`write_noise_ratio` wrote.

    Raises
    ------
    UserError
        If the file does not hold it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["micrograph"], archive["ratio"]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} does not hold the noise of micrographs ({error}): fit the run again.") from error


def write_fsc(path: str | os.PathLike[str], columns: Table) -> None:
    """Write fsc.csv: per shell the frequency in 1/Angstrom and the half-set FSC of mean and covariance."""
    write_columns(path, FSC_COLUMNS, columns)


def read_fsc(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read fsc.csv by columns."""
    return read_columns(path, ("frequency", "fsc_mean", "fsc_covariance"))


def append_metrics(path: str | os.PathLike[str], row: Table) -> None:
    """Append one row to metrics.csv; a column that does not apply is left empty."""
    append_csv(path, {name: dict(row).get(name) for name in METRICS_COLUMNS})


def read_metrics(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read metrics.csv by columns; ``stage`` and ``half`` are text."""
    return read_columns(path, METRICS_COLUMNS[1:], text=("stage", "half"))


def curves_by_stage(metrics: Table, at_least: int = 1) -> dict[tuple[str, float], dict[str, np.ndarray]]:
    """Part the rows of metrics.csv into curves whose values can be compared.

    Parameters
    ----------
    metrics : mapping of columns
        As `read_metrics` returns them.
    at_least : int
        Stages with fewer values are left out.

    Returns
    -------
    dict
        (stage, shell_max) -> half -> its rows, as indices; rows without an objective are left out.

    Examples
    --------
    >>> columns = {"stage": ["a", "a"], "half": ["1", "2"], "shell_max": [8, 8], "objective": [3, 4], "seconds": [0, 1]}
    >>> {key: sorted(curves) for key, curves in curves_by_stage({k: np.array(v) for k, v in columns.items()}).items()}
    {('a', 8.0): ['1', '2']}
    """
    curves: dict[tuple[str, float], dict[str, list[int]]] = {}
    for row in np.flatnonzero(np.isfinite(metrics["objective"])):
        shell_max = float(metrics["shell_max"][row])
        key = (str(metrics["stage"][row]), shell_max if np.isfinite(shell_max) else 0.0)
        curves.setdefault(key, {}).setdefault(str(metrics["half"][row]), []).append(int(row))
    return {
        key: {half: np.array(rows) for half, rows in halves.items()}
        for key, halves in curves.items()
        if sum(map(len, halves.values())) >= at_least
    }


def resolution_at_threshold(
    frequency: np.ndarray, fsc: np.ndarray, threshold: float = FSC_THRESHOLD
) -> tuple[float, bool] | None:
    """Find where a Fourier shell correlation first falls below a threshold.

    Parameters
    ----------
    frequency : ndarray, shape (shells,)
        1/Angstrom, ascending; a shell of frequency 0 is left out.
    fsc : ndarray, shape (shells,)
        The correlation of each shell; shells that are not finite are left out.
    threshold : float
        0.143 for half-maps (Rosenthal and Henderson, 2003).

    Returns
    -------
    (float, bool) or None
        The resolution in Angstrom, and whether the curve fell below the threshold at all: if it did not, the
        resolution is that of the last shell. None if no shell is usable or the first is already below.

    Examples
    --------
    >>> resolution_at_threshold(np.array([0.125, 0.375]), np.array([1.0, 0.0]), 0.5)
    (4.0, True)
    """
    is_usable = np.isfinite(fsc) & (frequency > 0)
    frequency, fsc = frequency[is_usable], fsc[is_usable]
    if not len(fsc) or fsc[0] < threshold:
        return None
    is_below = fsc < threshold
    if not is_below.any():
        return 1.0 / float(frequency[-1]), False
    last = int(is_below.argmax())
    step = (fsc[last - 1] - threshold) / (fsc[last - 1] - fsc[last])
    crossing = frequency[last - 1] + step * (frequency[last] - frequency[last - 1])
    return 1.0 / float(crossing), True
