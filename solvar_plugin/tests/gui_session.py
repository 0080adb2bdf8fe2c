"""A visit to Scipion's project window: add the protocol, fill in its form, run it, look at the results, as users do.

    python -O -m solvar_plugin.tests.gui_session PROJECT_FOLDER PICTURE_FOLDER FACTS.json

It starts from a project that holds imported particles and finished runs of the other protocols, whose results are
looked at too. What is seen goes to FACTS.json, with a picture of every step; `test_gui` says what it should be.
"""

from __future__ import annotations

import sys
import tkinter as tk
from pathlib import Path
from typing import Any

from pyworkflow.gui.widgets import ComboBox
from pyworkflow.utils import isProcessAlive

from solvar_plugin.protocols.covariance_form import FIXED_RANK
from solvar_plugin.tests.gui_player import (
    Script,
    Until,
    button,
    choose,
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
from solvar_plugin.tests.gui_results import ResultsVisit
from solvar_plugin.tests.gui_visit import LARGE_FORM, LEVELS, open_project

PROTOCOL = "SolvarProtCovariance"
VIEWS = ("Flexibility Hub", "Protocols SPA")
RANK, CLUSTERS = 2, 3
IMPOSSIBLE_RANK = 5000
RUN_SECONDS = 150


class Session(ResultsVisit):
    """The covariance analysis from the tree of protocols to its results, then the results of the other protocols."""

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
        self.facts["viewer"] = yield from self._open_viewer()
        self.facts["entries"] = {}
        yield from self._open_entries(self.facts["entries"])
        yield from self._look_at_finished_runs()

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
        yield from self._open_form_of_run()
        self._picture("form_of_run")
        self.facts["form_of_run"] = form_rows(self.forms.last)
        yield from self._close_form()


if __name__ == "__main__":
    sys.exit(open_project(*(Path(argument).absolute() for argument in sys.argv[1:]), Session))
