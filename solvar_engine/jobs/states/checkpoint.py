"""What of a reconstruction is done, so that one that was interrupted goes on with the next state."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_json, write_json
from solvar_engine.contract.params import ReconstructParams, options_of
from solvar_engine.contract.run import RunDir, read_record


@dataclass(frozen=True)
class StateSummary:
    """What the table of states says of one, and the sharpening of all needs.

    Attributes
    ----------
    images_used : int
    resolution : float
        Angstrom.
    b_factor : float or None
        Angstrom^2, fitted to the half-maps.
    """

    images_used: int
    resolution: float
    b_factor: float | None


class StateCheckpoint:
    """File that lists the finished states of a call, in order.

    Parameters
    ----------
    path : Path
    call : dict
        What the states depend on; a list of another call is refused.
    """

    def __init__(self, path: Path, call: dict[str, Any]) -> None:
        self._path, self._call = path, call
        self.states: list[StateSummary] = []

    @staticmethod
    def open(path: Path, params: ReconstructParams, run: RunDir, points: NDArray[np.float64]) -> StateCheckpoint:
        """Begin a list, or go on with the one that is there.

        Raises
        ------
        UserError
            If that belongs to another call, or another fit.
        """
        options = params.to_dict()
        kept = [spec.name for spec in options_of(type(params)) if not spec.may_differ_on_resume]
        call = {name: options[name] for name in kept if name not in ("run", "output", "particles", "points", "root")}
        # coordinates as they are written: 17 digits come back the same
        call |= {"fit": read_record(run).get("created"), "points": np.asarray(points).tolist()}
        call["larger_images"] = params.particles is not None
        checkpoint = StateCheckpoint(path, call)
        if path.exists():
            content = read_json(path)
            different = sorted(name for name, value in call.items() if content.get("call", {}).get(name) != value)
            if different:
                raise UserError(
                    f"The states in {path.parent} were begun with other options ({', '.join(different)}): resume with"
                    " the same ones or give a new folder for --output."
                )
            checkpoint.states = [StateSummary(**state) for state in content["states"]]
        return checkpoint

    def add(self, state: StateSummary) -> None:
        """Note that the files of the next state are written."""
        self.states.append(state)
        write_json(self._path, {"call": self._call, "states": [asdict(state) for state in self.states]})

    def remove(self) -> None:
        """Forget the list: there is nothing left to go on with."""
        self._path.unlink(missing_ok=True)
