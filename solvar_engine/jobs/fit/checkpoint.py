"""What `fit` writes down so that a killed run can go on: plain arrays, one file per stage, each replaced atomically."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solvar_engine.contract.files import atomic_path
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import FullSetState, HalfSetState


class Checkpoint:
    """Named sets of arrays in a folder.

    Parameters
    ----------
    folder : Path
        Created if needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def save(self, name: str, **arrays: Tensor | float | int) -> None:
        """Replace a set of arrays; a reader sees the old one or the new one, never half of each."""
        with atomic_path(self._folder / f"{name}.npz") as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **{key: np.asarray(value) for key, value in arrays.items()})  # type: ignore[arg-type]

    def load(self, name: str) -> dict[str, Tensor] | None:
        """Read a set of arrays; None if it was never saved."""
        path = self._folder / f"{name}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as archive:
            return {key: torch.from_numpy(np.array(archive[key])) for key in archive.files}

    def save_halves(self, state: HalfSetState) -> None:
        """Store where the fit of the half-sets stands."""
        first, second = state.factors
        self.save(
            "halves",
            done=state.done,
            volumes_1=first.volumes,
            volumes_2=second.volumes,
            second_moment_1=first.second_moment,
            second_moment_2=second.second_moment,
            contrast_variance_1=first.contrast_variance,
            contrast_variance_2=second.contrast_variance,
            correlation=state.correlation,
            objective_1=state.objective[0],
            objective_2=state.objective[1],
        )

    def load_halves(self) -> HalfSetState | None:
        """Read where the fit of the half-sets stood."""
        arrays = self.load("halves")
        if arrays is None:
            return None
        factors = [_factors(arrays, f"_{half}") for half in (1, 2)]
        return HalfSetState(
            int(arrays["done"]),
            (factors[0], factors[1]),
            arrays["correlation"],
            (float(arrays["objective_1"]), float(arrays["objective_2"])),
        )

    def save_full(self, state: FullSetState) -> None:
        """Store where the fit of all images stands."""
        self.save(
            "full",
            done=state.done,
            volumes=state.factors.volumes,
            second_moment=state.factors.second_moment,
            contrast_variance=state.factors.contrast_variance,
            objective=state.objective,
        )

    def load_full(self) -> FullSetState | None:
        """Read where the fit of all images stood."""
        arrays = self.load("full")
        if arrays is None:
            return None
        return FullSetState(int(arrays["done"]), _factors(arrays), float(arrays["objective"]))


def _factors(arrays: dict[str, Tensor], suffix: str = "") -> Factors:
    return Factors(
        arrays["volumes" + suffix],
        arrays["second_moment" + suffix],
        float(arrays["contrast_variance" + suffix]),
    )
