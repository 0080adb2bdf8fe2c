"""A visit to Scipion's project window: add the protocol, fill in its form, run it, look at the results, as users do.

    python -O -m solvar_plugin.tests.gui_session PROJECT_FOLDER PICTURE_FOLDER FACTS.json

It starts from a project that holds imported particles. What is seen goes to FACTS.json, with a picture of every step;
`test_gui` says what it should be.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shlex
import sys
import tempfile
import tkinter as tk
import webbrowser
from pathlib import Path
from typing import Any

import pyworkflow

# before the forms, which import it half-made otherwise
import pyworkflow.gui.project
from matplotlib import pyplot
from pyworkflow.gui.form import FormWindow
from pyworkflow.gui.project.constants import ACTION_EDIT
from pyworkflow.gui.widgets import ComboBox
from pyworkflow.utils import isProcessAlive

from solvar_plugin.protocols.covariance_form import FIXED_RANK
from solvar_plugin.tests.gui_player import (
    Player,
    Script,
    Until,
    button,
    choose,
    cut_off,
    dialog_text,
    double_click,
    form_rows,
    open_dialog,
    tab_names,
    tabs,
    tree_items,
    tree_path,
    within,
)

PROTOCOL = "SolvarProtCovariance"
VIEWS = ("Flexibility Hub", "Protocols SPA")
LEVELS = ("Normal", "Advanced")
RANK, CLUSTERS = 2, 3
IMPOSSIBLE_RANK = 5000
RUN_SECONDS = 150
# the whole visit; afterwards a hanging window is killed
LIMIT_SECONDS = 400
# in which all parameters of the form can be seen
LARGE_FORM = (1100, 800)


class Browser(webbrowser.BaseBrowser):
    """Stands in for the user's web browser and remembers what it was asked to open."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.pages: list[str] = []

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        """Remember a page."""
        self.pages.append(url)
        return True


class ChimeraX:
    """Stands in for ChimeraX, where Scipion looks for it, and keeps the script that it was started with.

    Parameters
    ----------
    folder : Path
        To be its installation; empty.
    """

    def __init__(self, folder: Path) -> None:
        self.script = folder / "script.cxc"
        program = folder / "bin" / "ChimeraX"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\ncp "$1" {shlex.quote(str(self.script))}\n')
        program.chmod(0o755)
        os.environ["CHIMERA_HOME"] = str(folder)


class Forms:
    """Knows the form that was opened last: Scipion keeps no reference to it."""

    def __init__(self) -> None:
        self.last: FormWindow | None = None
        show = FormWindow.show

        def remember(form: FormWindow, *args: Any, **kwargs: Any) -> Any:
            self.last = form
            return show(form, *args, **kwargs)

        FormWindow.show = remember

    def opened(self) -> FormWindow | None:
        """Return the open form, None if there is none or it is not drawn yet."""
        form = self.last
        return form if form is not None and form.root.winfo_exists() and form.root.winfo_viewable() else None

    def closed(self) -> bool:
        """Whether the last form is gone."""
        return self.last is not None and not self.last.root.winfo_exists()


class Visit:
    """The script, and what it saw.

    Parameters
    ----------
    window : pyworkflow.gui.project.ProjectWindow
    pictures : Path
        Folder for the pictures.
    chimerax : ChimeraX
    """

    def __init__(self, window: pyworkflow.gui.project.ProjectWindow, pictures: Path, chimerax: ChimeraX) -> None:
        self.window = window
        self.root: tk.Toplevel = window.root
        self.view = window.getViewWidget()
        self.player = Player(self.root, pictures)
        self.forms = Forms()
        self.chimerax = chimerax
        self.browser = Browser()
        webbrowser.register("recorder", None, self.browser, preferred=True)
        self.facts: dict[str, Any] = {"optimised": not __debug__, "pictures": [], "cut_off": {}}

    def script(self) -> Script:
        """All of the visit."""
        yield self.player.pause(1)
        yield from self._look_at_project()
        yield from self._find_protocol()
        yield from self._fill_in_form()
        yield from self._try_wizards()
        yield from self._try_impossible_ranks()
        yield from self._run_protocol()
        yield from self._look_at_results()
        yield from self._open_form_again()
        yield from self._open_viewer()
        yield from self._open_every_entry()

    # ---------------------------------------------------------------- project window

    def _look_at_project(self) -> Script:
        self.facts["title"] = self.root.title()
        self._select("ProtImportParticles")
        yield self.player.pause(1)
        self._picture("project")

    def _find_protocol(self) -> Script:
        """Look for the protocol in both trees, and open the form of a new one from the last."""
        tree = self.view.protTree
        combo = next(w for w in within(self.view) if isinstance(w, ComboBox) and VIEWS[0] in w["values"])
        self.facts["tree"] = {}
        item = ""
        for view in VIEWS:
            combo.set(view)
            found = [item for item in tree_items(tree) if item.endswith(f".{PROTOCOL}")]
            self.facts["tree"][view] = [
                {"path": tree_path(tree, item), "tags": tree.item(item, "tags")} for item in found
            ]
            item = found[0]
            tree.selection_set(item)
            tree.see(item)
            yield self.player.pause(0.5)
            self._picture(f"tree_{view.split()[0].lower()}")
        self.player.do(lambda: double_click(tree, item))

    # ---------------------------------------------------------------- form of the protocol

    def _fill_in_form(self) -> Script:
        """Look at every section of the form, at both levels of expertise, and fill it in."""
        form = yield Until("the form of the protocol", self.forms.opened)
        yield from self.player.centre(form.root)
        facts: dict[str, Any] = {"title": form.root.title(), "rows": {}}
        self.facts["form"] = facts
        yield from self._read_help()
        facts["suggested"] = form_rows(form)["inputParticles"]["value"]
        form.setVar("numberOfClusters", str(CLUSTERS))
        facts["sections"] = tab_names(tabs(form.root))
        for level, size in zip(LEVELS, (None, LARGE_FORM)):
            choose(form.root, level)
            if level == LEVELS[-1]:
                form.setVar("rankChoice", FIXED_RANK)
                form.setVar("rank", str(RANK))
            yield from self.player.centre(form.root, size)
            yield from self._look_at_sections(form, level, facts["rows"])

    def _read_help(self) -> Script:
        """Press Help in the head of the form."""
        label = next(w for w in within(self.forms.last.root) if isinstance(w, tk.Label) and w["text"] == "Help")
        self.player.do(lambda: label.event_generate("<Button-1>"))
        dialog = yield Until("the help", lambda: open_dialog(self.root))
        yield self.player.pause(0.5)
        self.facts["help"] = dialog_text(dialog)
        self._picture("help")
        button(dialog, "OK").invoke()
        yield Until("the end of the dialog", lambda: open_dialog(self.root) is None)

    def _look_at_sections(self, form: FormWindow, name: str, rows: dict[str, Any]) -> Script:
        """Take a picture of each section of a form, and note what can be seen there."""
        notebook = tabs(form.root)
        rows[name] = {}
        for tab in notebook.tabs():
            section = notebook.tab(tab, "text")
            notebook.select(tab)
            yield self.player.pause(0.4)
            seen = {key: row for key, row in form_rows(form).items() if row["visible"]}
            rows[name][section] = seen
            self.facts["cut_off"][f"{name}, {section}"] = cut_off(form.root)
            self._picture(f"{name}_{section}")
        notebook.select(notebook.tabs()[0])

    def _try_wizards(self) -> Script:
        """Press the wands of the form: choose the smallest of the boxes, and let the imported file be found."""
        form = self.forms.last
        self.player.do(button(form.widgetDict["boxSize"].btnFrame, "Wizard").invoke)
        dialog = yield Until("the list of boxes", lambda: open_dialog(self.root))
        yield self.player.pause(0.5)
        self._picture("wizard_box")
        rows = dialog.tree.get_children()
        texts = [[dialog.tree.item(row, "text"), *dialog.tree.item(row, "values")] for row in rows]
        dialog.tree.selection_set(rows[0])
        button(dialog, "Select").invoke()
        yield Until("the end of the dialog", lambda: open_dialog(self.root) is None)
        button(form.widgetDict["opticsStar"].btnFrame, "Wizard").invoke()
        found = {name: form_rows(form)[name]["value"] for name in ("boxSize", "opticsStar")}
        self.facts["wizards"] = {"boxes": texts, **found}
        form.setVar("boxSize", "0")
        form.setVar("opticsStar", "")

    def _try_impossible_ranks(self) -> Script:
        """Press Execute with numbers that the protocol must refuse."""
        form = self.forms.last
        self.facts["refused"] = {}
        for rank in (str(IMPOSSIBLE_RANK), "0", "two", ""):
            form.setVar("rank", rank)
            self.player.do(form.btnExecute.invoke)
            dialog = yield Until(f"the refusal of {rank!r} components", lambda: open_dialog(self.root))
            yield self.player.pause(0.5)
            self.facts["refused"][rank] = dialog_text(dialog)
            if rank == str(IMPOSSIBLE_RANK):
                self._picture("refused")
            button(dialog, "OK").invoke()
            yield Until("the end of the dialog", lambda: open_dialog(self.root) is None)
        form.setVar("rank", str(RANK))

    # ---------------------------------------------------------------- the run

    def _run_protocol(self) -> Script:
        """Press Execute, and watch the project window until the protocol has ended."""
        form = self.forms.last
        self.facts["summaries"] = []
        self.player.do(form.btnExecute.invoke)
        yield Until("the form to close, because the protocol was launched", self.forms.closed)
        yield Until("the first stage of the engine", lambda: "Stage" in self._summary(), RUN_SECONDS)
        self._picture("running")
        # Scipion may take a run for dead if it looks at the moment in which it ends: look afterwards
        pid = self.view.getSelectedProtocol().getPid()
        yield Until("the end of the protocol", lambda: not isProcessAlive(pid), RUN_SECONDS)

    def _summary(self) -> str:
        """Refresh the project window, and return the summary that it shows."""
        self.view.refreshRuns()
        text = self.view.summaryText.get("1.0", "end").strip()
        if text not in self.facts["summaries"]:
            self.facts["summaries"].append(text)
        return text

    def _look_at_results(self) -> Script:
        """Read the tabs of the finished protocol."""
        summary = self._summary()
        protocol = self.view.getSelectedProtocol()
        self.facts["run"] = {
            "status": protocol.getStatus(),
            "error": protocol.getErrorMessage(),
            "label": protocol.getRunName(),
            "outputs": sorted(name for name, _ in protocol.iterOutputAttributes()),
            "summary": summary,
            "methods": self.view.methodText.get("1.0", "end").strip(),
        }
        notebook = tabs(self.view, with_tab="Summary")
        for name, tab in zip(tab_names(notebook), notebook.tabs()):
            notebook.select(tab)
            yield self.player.pause(0.5)
            self._picture(f"finished_{name}")
        notebook.select(notebook.tabs()[0])

    def _open_form_again(self) -> Script:
        """Open the form of the finished run, and close it."""
        self.player.do(lambda: self.view._runActionClicked(ACTION_EDIT))
        form = yield Until("the form of the finished protocol", self.forms.opened)
        yield from self.player.centre(form.root)
        self._picture("form_of_run")
        self.facts["form_of_run"] = form_rows(form)
        button(form.root, "Close").invoke()
        yield Until("the form to close", self.forms.closed)

    # ---------------------------------------------------------------- viewer

    def _open_viewer(self) -> Script:
        """Press Analyze Results, and look at every section of the viewer's form."""
        self.player.do(lambda: self.view.btnAnalyze.event_generate("<Button-1>"))
        form = yield Until("the form of the viewer", self.forms.opened)
        yield from self.player.centre(form.root)
        facts: dict[str, Any] = {"title": form.root.title(), "viewer": type(form.protocol).__name__, "rows": {}}
        self.facts["viewer"] = facts
        yield from self._look_at_sections(form, "Viewer", facts["rows"])

    def _open_every_entry(self) -> Script:
        """Press the eye of every entry of the viewer, and see what comes up."""
        form = self.forms.last
        notebook = tabs(form.root)
        self.facts["entries"] = {}
        for name in form.protocol._getVisualizeDict():
            widget = form.widgetDict[name]
            notebook.select(next(tab for tab in notebook.tabs() if str(widget.label).startswith(f"{tab}.")))
            self.player.do(button(widget.btnFrame, "Visualize").invoke)
            yield Until(f"what {name} shows", self._came_up, 60)
            yield self.player.pause(0.5)
            seen = self.facts["entries"][name] = self._came_up()
            # programs other than Scipion are only pretended here
            if {"plots", "dialog"} & set(seen):
                self._picture(name.replace("display", ""))
            self._close_what_came_up()
            yield self.player.pause(0.3)
        button(form.root, "Close").invoke()
        yield Until("the viewer to close", self.forms.closed)

    def _came_up(self) -> dict[str, Any]:
        """Describe what an entry has opened; empty if there is nothing yet."""
        figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
        plots = [{"title": figure.canvas.manager.get_window_title(), "axes": len(figure.axes)} for figure in figures]
        dialog = open_dialog(self.root)
        seen = {
            "plots": plots,
            "pages": list(self.browser.pages),
            "dialog": "" if dialog is None else dialog_text(dialog),
            "chimerax": self.chimerax.script.read_text() if self.chimerax.script.exists() else "",
        }
        return {kind: what for kind, what in seen.items() if what}

    def _close_what_came_up(self) -> None:
        pyplot.close("all")
        self.browser.pages.clear()
        self.chimerax.script.unlink(missing_ok=True)
        dialog = open_dialog(self.root)
        if dialog is not None:
            button(dialog, "OK").invoke()

    # ---------------------------------------------------------------- details

    def _select(self, class_name: str) -> None:
        """Click on the box of the last run of a protocol."""
        run = [run for run in self.window.project.getRuns() if run.getClassName() == class_name][-1]
        self.view._runItemClick(self.view.runsGraph.getNode(run.strId()).item)

    def _picture(self, name: str) -> None:
        self.facts["pictures"].append(self.player.picture(name.lower().replace(" ", "_")))


def main() -> int:
    """Make the visit and write down what was seen."""
    project, pictures, facts = (Path(argument).absolute() for argument in sys.argv[1:])
    # a window that does not come back must not keep the test waiting
    faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
    try:
        tk.Tk().destroy()
    except tk.TclError as error:
        sys.stderr.write(f"The display {os.environ.get('DISPLAY')} cannot be used ({error}): start an X server.\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        open_project(project, pictures, facts, ChimeraX(Path(folder)))
    return 0


def open_project(project: Path, pictures: Path, facts: Path, chimerax: ChimeraX) -> None:
    """Open the project window, and come back when the visit is over."""
    pyworkflow.Config.getDomain().getPlugins()
    window = pyworkflow.gui.project.ProjectWindow(str(project))
    root = window.root
    visit = Visit(window, pictures, chimerax)

    def finish() -> None:
        screen = [root.winfo_screenwidth(), root.winfo_screenheight()]
        seen = {**visit.facts, "error": visit.player.error, "screen": screen}
        facts.write_text(json.dumps(seen, indent=1), encoding="utf-8")
        # ends the process, as it does for a user
        root.after_idle(window._onClosing)

    root.after(500, lambda: visit.player.play(visit.script(), finish))
    window.show()


if __name__ == "__main__":
    sys.exit(main())
