"""Options of `explore`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params.options import Params, option


@dataclass(frozen=True)
class ExploreParams(Params):
    """Options of `explore`."""

    command: ClassVar[str] = "explore"
    summary: ClassVar[str] = "show particles and molecule of a run in the web browser, and let the user select"

    run: str = option(str, help="folder of a finished fit", positional=True, metavar="RUN", is_path=True)
    port: int = option(
        int, 0, help="port of this computer at which the page is served; 0 takes a free one", minimum=0, maximum=65535,
        metavar="N",
    )
    no_browser: bool = option(bool, False, help="only write the address of the page, open no browser")
    states: str | None = option(
        str, None, help="folder of `reconstruct`, whose volumes can be laid over the molecule near their states",
        metavar="DIR", is_path=True,
    )
    export: str | None = option(
        str, None, help="write the page into one file that opens without this program, and end",
        metavar="FILE.html", is_path=True,
    )

    def validate(self) -> None:
        """Check every value, and that no option is given that would be ignored."""
        super().validate()
        if self.export is not None:
            for label in self.changed("port", "no_browser", "states"):
                raise UserError(f"{label} does not go together with --export: leave one of them out.")
