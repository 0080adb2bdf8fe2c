"""The table that says which components stand out from meaningless ones on particles held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import as_text, read_csv
from solvar_engine.contract.run import RunDir

_COLUMNS = {"candidate", "gain_half1", "gain_half2", "decoy_max_half1", "decoy_max_half2", "kept"}


@dataclass(frozen=True)
class RankTable:
    """The components that were tried.

    Attributes
    ----------
    candidate : ndarray of int, shape (k,)
        Their numbers, from 1.
    gain : ndarray, shape (k, 2)
        By how much each component raises the log-likelihood of the particles of one half when it was found in the
        other half.
    decoy_gain : ndarray, shape (k, 2)
        The most that components without any meaning raised it.
    is_real : ndarray of bool, shape (k,)
        Whether it gains more than they do, both ways; with an automatic number, only these components are kept.
    """

    candidate: np.ndarray
    gain: np.ndarray
    decoy_gain: np.ndarray
    is_real: np.ndarray

    def __len__(self) -> int:
        return len(self.candidate)


def read_rank_table(run: RunDir) -> RankTable | None:
    """Read the table of a run; None if it has none, as runs of earlier versions.

    Raises
    ------
    UserError
        If the table is damaged.
    """
    if not run.rank.exists():
        return None
    table = read_csv(run.rank)
    missing = sorted(_COLUMNS - set(table))
    if missing:
        raise UserError(f"{run.rank} has no column {', '.join(missing)}: run the protocol again.")
    return RankTable(
        table["candidate"].astype(int),
        np.stack([table["gain_half1"], table["gain_half2"]], axis=1),
        np.stack([table["decoy_max_half1"], table["decoy_max_half2"]], axis=1),
        np.isin(as_text(table["kept"]), ("1", "True")),
    )
