"""What of a reconstruction is done, so that one that was interrupted goes on with the next state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import file_digest, read_json, write_json
from solvar_engine.contract.params import ReconstructParams, options_of
from solvar_engine.contract.results import StateFolder
from solvar_engine.contract.run import RunDir, read_record

_IN_WORDS = {"fit": "the run", "eigenvalues": "the run's eigenvalues", "larger_images": "particles"}


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
    def open(files: StateFolder, call: dict[str, Any]) -> StateCheckpoint:
        """Begin a list, or go on with the one that is there.

        Raises
        ------
        UserError
            If that belongs to another call, or another fit.
        """
        checkpoint = StateCheckpoint(files.checkpoint, call)
        if files.checkpoint.exists():
            content = read_json(files.checkpoint)
            _refuse_other_call(files.path, content.get("call", {}), call)
            checkpoint.states = [StateSummary(**state) for state in content["states"]]
        return checkpoint

    def add(self, state: StateSummary) -> None:
        """Note that the files of the next state are written."""
        self.states.append(state)
        self.save()

    def save(self) -> None:
        """Write the list, from the beginning on: a call that is stopped before its first state can be resumed."""
        write_json(self._path, {"call": self._call, "states": [asdict(state) for state in self.states]})

    def finish(self, files: StateFolder, cautions: Sequence[str]) -> None:
        """Forget the list, as there is nothing left to go on with, but not what the states were made from."""
        write_json(files.call, {**self._call, "cautions": list(cautions)})
        self._path.unlink(missing_ok=True)


def describe_call(params: ReconstructParams, run: RunDir, points: NDArray[np.float64]) -> dict[str, Any]:
    """Everything that states depend on: options, coordinates, the fit, and the list of images."""
    options = params.to_dict()
    kept = [spec.name for spec in options_of(type(params)) if not spec.may_differ_on_resume]
    call = {name: options[name] for name in kept if name not in ("run", "output", "particles", "points", "root")}
    # coordinates as they are written: 17 digits come back the same
    call |= {"fit": read_record(run).get("created"), "points": np.asarray(points).tolist()}
    call["eigenvalues"] = file_digest(run.eigenvalues)
    call["larger_images"] = None if params.particles is None else file_digest(params.particles)
    return json.loads(json.dumps(call))  # tuples as they are read back


def check_finished(files: StateFolder, call: dict[str, Any]) -> None:
    """Check that a folder of finished states is of this call.

    Raises
    ------
    UserError
        If it is of another, or of an earlier version, which did not say.
    """
    if not files.call.exists():
        raise UserError(
            f"{files.path} is finished, but an earlier version, which did not note its options, made it: give a new"
            " folder for --output."
        )
    _refuse_other_call(files.path, read_json(files.call), call)


def _refuse_other_call(folder: Path, stored: dict[str, Any], call: dict[str, Any]) -> None:
    different = sorted(name for name, value in call.items() if stored.get(name) != value)
    if different:
        names = ", ".join(_IN_WORDS.get(name, name) for name in different)
        raise UserError(
            f"The states in {folder} were begun with other options ({names}): resume with the same ones or give a new"
            " folder for --output."
        )
