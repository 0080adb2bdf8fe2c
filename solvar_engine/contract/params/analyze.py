"""Options of `analyze`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from solvar_engine.contract.params.options import Params, option


@dataclass(frozen=True)
class AnalyzeParams(Params):
    """Options of `analyze`."""

    command: ClassVar[str] = "analyze"
    summary: ClassVar[str] = "embed and cluster the particles, and write figures and a report into the run"

    run: str = option(str, help="folder of a finished fit", positional=True, metavar="RUN", is_path=True)
    clusters: int = option(int, 10, help="number of k-means clusters", minimum=1, maximum=1000, metavar="N")
