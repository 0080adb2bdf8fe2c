"""A visit to Scipion's project window: what all visits share, from opening the window to looking at what comes up."""

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
from typing import Any, Callable, Sequence

import pyworkflow

# before the forms, which import it half-made otherwise
import pyworkflow.gui.project
from matplotlib import pyplot
from pyworkflow.gui.form import FormWindow
from pyworkflow.gui.project.constants import ACTION_EDIT

from solvar_plugin.tests.gui_player import (
    Player,
    Script,
    Until,
    button,
    cut_off,
    dialog_text,
    form_rows,
    open_dialog,
    tabs,
)
from solvar_plugin.viewers.windows import explorer

# the whole visit; afterwards a hanging window is killed
LIMIT_SECONDS = 400
LEVELS = ("Normal", "Advanced")
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
    """A base of visits: `script` is what is done, and `facts` what was seen.

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
        # by test_explorer it is started in earnest
        explorer.start_explorer = lambda run, states=None: self.browser.open(f"explorer of {run.path}")
        self.facts: dict[str, Any] = {"optimised": not __debug__, "pictures": [], "cut_off": {}}

    def script(self) -> Script:
        """All of the visit."""
        raise NotImplementedError

    # ---------------------------------------------------------------- forms

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

    def _open_form_of_run(self) -> Script:
        """Open the form of the selected run."""
        self.player.do(lambda: self.view._runActionClicked(ACTION_EDIT))
        form = yield Until("the form of the finished protocol", self.forms.opened)
        yield from self.player.centre(form.root)

    def _close_form(self) -> Script:
        button(self.forms.last.root, "Close").invoke()
        yield Until("the form to close", self.forms.closed)

    # ---------------------------------------------------------------- viewers

    def _open_viewer(self, name: str = "Viewer") -> Script:
        """Press Analyze Results, and look at every section of the viewer's form; return what is there."""
        self.player.do(lambda: self.view.btnAnalyze.event_generate("<Button-1>"))
        form = yield Until("the form of the viewer", self.forms.opened)
        yield from self.player.centre(form.root)
        facts: dict[str, Any] = {"title": form.root.title(), "viewer": type(form.protocol).__name__, "rows": {}}
        yield from self._look_at_sections(form, name, facts["rows"])
        return facts

    def _open_entries(self, entries: dict[str, Any], names: Sequence[str] = (), prefix: str = "") -> Script:
        """Press the eye of entries of the viewer, by default of all, see what comes up, and close the viewer."""
        form = self.forms.last
        notebook = tabs(form.root)
        for name in names or form.protocol._getVisualizeDict():
            widget = form.widgetDict[name]
            notebook.select(next(tab for tab in notebook.tabs() if str(widget.label).startswith(f"{tab}.")))
            self.player.do(button(widget.btnFrame, "Visualize").invoke)
            yield Until(f"what {name} shows", self._came_up, 60)
            yield self.player.pause(0.5)
            seen = entries[name] = self._came_up()
            # programs other than Scipion are only pretended here
            if {"plots", "dialog"} & set(seen):
                self._picture(prefix + name.replace("display", ""))
            self._close_what_came_up()
            yield self.player.pause(0.3)
        yield from self._close_form()

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


def open_project(project: Path, pictures: Path, facts: Path, visit_of: Callable[..., Visit]) -> int:
    """Open the project window, make a visit, and write down what was seen; return an exit code."""
    # a window that does not come back must not keep the test waiting
    faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
    try:
        tk.Tk().destroy()
    except tk.TclError as error:
        sys.stderr.write(f"The display {os.environ.get('DISPLAY')} cannot be used ({error}): start an X server.\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        _open_window(project, pictures, facts, visit_of, ChimeraX(Path(folder)))
    return 0


def _open_window(
    project: Path, pictures: Path, facts: Path, visit_of: Callable[..., Visit], chimerax: ChimeraX
) -> None:
    pyworkflow.Config.getDomain().getPlugins()
    window = pyworkflow.gui.project.ProjectWindow(str(project))
    root = window.root
    visit = visit_of(window, pictures, chimerax)

    def finish() -> None:
        screen = [root.winfo_screenwidth(), root.winfo_screenheight()]
        seen = {**visit.facts, "error": visit.player.error, "screen": screen}
        facts.write_text(json.dumps(seen, indent=1), encoding="utf-8")
        # ends the process, as it does for a user
        root.after_idle(window._onClosing)

    root.after(500, lambda: visit.player.play(visit.script(), finish))
    window.show()
