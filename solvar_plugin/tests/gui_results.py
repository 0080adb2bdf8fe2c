"""A visit to the finished runs of a project: their forms, their viewers, and every kind of output in its own window.

    python -O -m solvar_plugin.tests.gui_results PROJECT_FOLDER PICTURE_FOLDER FACTS.json
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import psutil

from solvar_plugin.tests.gui_player import Script, Until, choose, options
from solvar_plugin.tests.gui_visit import LARGE_FORM, LEVELS, Visit, open_project

ENTRIES = {
    "SolvarProtRefine": ("displayPoseChanges", "displayDirections"),
    "SolvarProtReconstruct": (
        "displayStateSurfaces", "displayStateSlices", "displayStateTable", "displayStateFsc", "displayLatent",
        "displaySurface",
    ),
    "SolvarProtSelectParticles": (),
}  # fmt: skip
"""Protocols whose last run is looked at, with the entries of their viewers that are not those of the first protocol."""

OUTPUTS = {
    "SolvarProtRefine": ("outputParticles", "outputStates"),
    "SolvarProtReconstruct": ("outputVolumes", "outputLocalResolution", "outputClasses"),
    "SolvarProtSelectParticles": ("outputParticles",),
}
"""Outputs that are opened; Scipion opens a single volume with ChimeraX, which need not be there."""

SECONDS_TO_SETTLE = 1.5


class ResultsVisit(Visit):
    """Looks at the last run of each protocol of `ENTRIES` that the project has."""

    def script(self) -> Script:
        """All of the visit."""
        yield self.player.pause(1)
        yield from self._look_at_finished_runs()

    def _look_at_finished_runs(self) -> Script:
        self.facts["runs"] = {}
        for name in ENTRIES:
            if any(run.getClassName() == name for run in self.window.project.getRuns()):
                self.facts["runs"][name] = yield from self._look_at_run(name)

    def _look_at_run(self, name: str) -> Script:
        """Look at the form of a run, at the entries of its viewer, and at its outputs; return what was seen."""
        facts: dict[str, Any] = {}
        short = name.replace("SolvarProt", "")
        self._select(name)
        yield self.player.pause(0.5)
        facts["summary"] = self.view.summaryText.get("1.0", "end").strip()
        self._picture(f"{short}_finished")
        yield from self._open_form_of_run()
        form = self.forms.last
        facts["form"] = {}
        # a form without advanced parameters does not ask for a level
        if LEVELS[-1] in options(form.root):
            choose(form.root, LEVELS[-1])
        yield from self.player.centre(form.root, LARGE_FORM)
        yield from self._look_at_sections(form, f"{short}_form", facts["form"])
        yield from self._close_form()
        facts["entries"], facts["outputs"] = {}, {}
        if ENTRIES[name]:
            facts["viewer"] = yield from self._open_viewer(f"{short}_viewer")
            yield from self._open_entries(facts["entries"], ENTRIES[name], f"{short}_")
        for output_name in OUTPUTS[name]:
            output = getattr(self.view.getSelectedProtocol(), output_name)
            facts["outputs"][output_name] = yield from self._open_output(f"{short}_{output_name}", output)
        return facts

    def _open_output(self, name: str, output: Any) -> Script:
        """Open an output as a double click in the project window does; return what has come up."""
        before = self.player.screen()
        self.player.do(lambda: self.view._viewObject(output.getObjId()))
        yield Until(f"a window with {name}", lambda: self.player.screen() != before, 60)
        yield from self._settle()
        seen = self._came_up()
        self._picture(name)
        self._close_what_came_up()
        end_programs()
        yield Until(f"the window with {name} to close", lambda: not programs(), 20)
        yield self.player.pause(0.5)
        return {"type": type(output).__name__, **seen}

    def _settle(self) -> Script:
        """Wait until the screen has not changed for a while."""
        state = {"screen": self.player.screen(), "since": time.monotonic()}

        def is_still() -> bool:
            screen = self.player.screen()
            if screen != state["screen"]:
                state.update(screen=screen, since=time.monotonic())
            return time.monotonic() - state["since"] > SECONDS_TO_SETTLE

        yield Until("the window to be drawn", is_still, 60)


def programs() -> list[psutil.Process]:
    """Return the programs that viewers have started and that still run."""
    return [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]


def end_programs() -> None:
    """End the programs that viewers have started, as closing their windows does."""
    for program in programs():
        program.terminate()


if __name__ == "__main__":
    sys.exit(open_project(*(Path(argument).absolute() for argument in sys.argv[1:]), ResultsVisit))
