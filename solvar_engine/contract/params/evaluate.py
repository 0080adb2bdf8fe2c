"""Options of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from solvar_engine.contract.params.options import Params, option


@dataclass(frozen=True)
class EvaluateParams(Params):
    """Options of `evaluate`."""

    command: ClassVar[str] = "evaluate"
    summary: ClassVar[str] = "compare a run with the truth of a simulated data set"

    run: str = option(str, help="folder of a finished fit", positional=True, metavar="RUN", is_path=True)
    truth: str = option(
        str, help="folder truth/ of a simulated data set", positional=True, metavar="TRUTH", is_path=True
    )
    align: bool = option(
        bool, False, help="bring the run into the frame of the truth first: hand, rotation and place; always done for"
        " runs of `abinitio`",
    )
    json: str | None = option(
        str, None, help="file for the numbers as JSON", metavar="OUT.json", is_path=True
    )
