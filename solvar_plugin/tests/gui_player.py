"""Plays a script of what a user does in Scipion's windows, from within Tk's event loop, and takes pictures.

Nothing here knows the plugin. Windows are found by their classes and widgets by their texts, not by pixel coordinates.
"""

from __future__ import annotations

import os
import sys
import time
import tkinter as tk
import traceback
from dataclasses import dataclass
from pathlib import Path
from tkinter import ttk
from typing import Any, Callable, Generator, Iterator

# before the forms, which import it half-made otherwise
import pyworkflow.gui.project  # noqa: F401
from PIL import ImageGrab
from pyworkflow.gui.dialog import Dialog
from pyworkflow.gui.form import FormWindow, ParamWidget

_POLL_MS = 100
# what has to be there for a window to be read
_READ_WIDGETS = (tk.Label, tk.Button, tk.Entry, tk.Radiobutton, ttk.Combobox)


@dataclass(frozen=True)
class Until:
    """What a script waits for.

    Attributes
    ----------
    what : str
        As it is told when it does not come.
    condition : callable
        Its value is handed to the script as soon as it is true.
    seconds : float
        How long to wait.
    """

    what: str
    condition: Callable[[], Any]
    seconds: float = 30


Script = Generator[Until, Any, None]


class Player:
    """Plays a script, one step at a time, between the events of Tk.

    Scipion's windows and dialogs do not return before they are closed. What opens one is therefore handed to `do`, and
    the script goes on by waiting for the window.

    Parameters
    ----------
    root : tk.Misc
        Main window.
    pictures : Path
        Folder for the pictures; it must exist.
    """

    def __init__(self, root: tk.Misc, pictures: Path) -> None:
        self.root = root
        self.error = ""
        self._pictures = pictures
        self._count = 0
        self._goal: Until | None = None
        self._is_over = False
        self._since = 0.0
        # what goes wrong in a callback would only be printed otherwise
        top_of(root).report_callback_exception = self._callback_failed

    # ---------------------------------------------------------------- for the script

    def do(self, action: Callable[[], Any]) -> None:
        """Do something that may not return before its window is closed."""
        self.root.after_idle(action)

    def picture(self, name: str) -> str:
        """Take a picture of the whole screen, and return its file name."""
        self._count += 1
        path = self._pictures / f"gui_{self._count:02d}_{name}.png"
        self.root.update_idletasks()
        ImageGrab.grab(xdisplay=os.environ["DISPLAY"]).save(path)
        return path.name

    def screen(self) -> bytes:
        """Return what the whole screen shows."""
        self.root.update_idletasks()
        return ImageGrab.grab(xdisplay=os.environ["DISPLAY"]).tobytes()

    def pause(self, seconds: float) -> Until:
        """Wait until the window manager and Tk have drawn what was changed."""
        end = time.monotonic() + seconds
        return Until("time to draw", lambda: time.monotonic() >= end)

    def centre(self, window: tk.Toplevel, size: tuple[int, int] | None = None) -> Script:
        """Move a window to the middle of the screen, as far as it fits, and change its size if one is given."""
        window.update_idletasks()
        width, height = size or (window.winfo_width(), window.winfo_height())
        left = max(0, (window.winfo_screenwidth() - width) // 2)
        top = max(0, (window.winfo_screenheight() - height) // 2)
        window.geometry(f"{width}x{height}+{left}+{top}")
        yield self.pause(0.6)

    # ---------------------------------------------------------------- playing

    def play(self, script: Script, at_end: Callable[[], None]) -> None:
        """Start to play; comes back at once. At the end `at_end` is called, whether it went well or not."""
        self._at_end = at_end
        self._script = script
        self._advance(None)

    def _advance(self, value: Any) -> None:
        try:
            self._goal = self._script.send(value)
        except StopIteration:
            self._end()
            return
        except Exception as error:
            traceback.print_exc()
            self._fail(f"{type(error).__name__}: {error}")
            return
        self._since = time.monotonic()
        # if all comes to a halt, the log tells where
        sys.stderr.write(f"waiting for {self._goal.what}\n")
        sys.stderr.flush()
        self.root.after(_POLL_MS, self._poll)

    def _poll(self) -> None:
        goal = self._goal
        if goal is None:
            return
        try:
            value = goal.condition()
        except Exception as error:
            traceback.print_exc()
            self._fail(f"while waiting for {goal.what}: {type(error).__name__}: {error}")
            return
        if value:
            self._advance(value)
        elif time.monotonic() - self._since > goal.seconds:
            self._fail(f"waited {goal.seconds:g} s in vain for {goal.what}")
        else:
            self.root.after(_POLL_MS, self._poll)

    def _callback_failed(self, kind: type, error: BaseException, trace: Any) -> None:
        # closing the windows ends what they have planned with errors
        if self._is_over:
            return
        traceback.print_exception(kind, error, trace)
        self._fail(f"a callback failed with {kind.__name__}: {error}")

    def _fail(self, error: str) -> None:
        self._goal = None
        name = self.picture("failed")
        self.error = f"{error}; open were {', '.join(titles(self.root)) or 'no windows'}; see {name}."
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._at_end()


# ---------------------------------------------------------------- looking around


def below(widget: tk.Misc) -> Iterator[tk.Misc]:
    """Yield a widget and all that it holds, windows that it opened included."""
    yield widget
    for child in widget.winfo_children():
        yield from below(child)


def within(window: tk.Misc) -> Iterator[tk.Misc]:
    """Yield what a window holds, without the windows that it opened."""
    for child in window.winfo_children():
        if not isinstance(child, tk.Toplevel):
            yield child
            yield from within(child)


def top_of(root: tk.Misc) -> tk.Misc:
    """Return the widget that holds all windows."""
    return root.nametowidget(".")


def titles(root: tk.Misc) -> list[str]:
    """Return the titles of all windows that can be seen."""
    return [
        widget.title() for widget in below(top_of(root)) if isinstance(widget, tk.Toplevel) and widget.winfo_viewable()
    ]


def open_dialog(root: tk.Misc) -> Dialog | None:
    """Return the dialog that is open, None if there is none."""
    dialogs = (widget for widget in below(top_of(root)) if isinstance(widget, Dialog) and widget.winfo_viewable())
    return next(dialogs, None)


def dialog_text(dialog: Dialog) -> str:
    """Return what a dialog says."""
    return "\n".join(
        widget.get("1.0", "end").strip() for widget in within(dialog) if isinstance(widget, tk.Text)
    ).strip()


def button(window: tk.Misc, text: str) -> tk.Button:
    """Return the button of a window that has this text."""
    for widget in within(window):
        if isinstance(widget, tk.Button) and widget["text"] == text:
            return widget
    raise LookupError(f"there is no button {text!r}")


def options(window: tk.Misc) -> dict[str, tk.Radiobutton]:
    """Return the options of a window by their texts."""
    return {widget["text"]: widget for widget in within(window) if isinstance(widget, tk.Radiobutton)}


def choose(window: tk.Misc, text: str) -> None:
    """Choose the option of a window that has this text."""
    options(window)[text].invoke()


def tabs(window: tk.Misc, with_tab: str = "") -> ttk.Notebook:
    """Return the first set of tabs of a window, or the one that has this tab."""
    for widget in within(window):
        if isinstance(widget, ttk.Notebook) and (not with_tab or with_tab in tab_names(widget)):
            return widget
    raise LookupError(f"there are no tabs with {with_tab!r}")


def tab_names(notebook: ttk.Notebook) -> list[str]:
    """Return the titles of the tabs."""
    return [notebook.tab(name, "text") for name in notebook.tabs()]


def tree_path(tree: ttk.Treeview, item: str) -> list[str]:
    """Return the texts on the way from the root of a tree to an item, and open the way."""
    path: list[str] = []
    while item:
        path.insert(0, tree.item(item, "text"))
        tree.item(item, open=True)
        item = tree.parent(item)
    return path


def tree_items(tree: ttk.Treeview, parent: str = "") -> Iterator[str]:
    """Yield all items of a tree."""
    for item in tree.get_children(parent):
        yield item
        yield from tree_items(tree, item)


def double_click(tree: ttk.Treeview, item: str) -> None:
    """Click twice on an item of a tree that can be seen."""
    left, top, width, height = tree.bbox(item)
    place = {"x": left + width // 2, "y": top + height // 2}
    for event in ("<Motion>", *("<ButtonPress-1>", "<ButtonRelease-1>") * 2):
        tree.event_generate(event, **place)


def form_rows(form: FormWindow) -> dict[str, dict[str, Any]]:
    """Describe the parameters of a form: label, value as it is shown, and whether it can be seen."""
    rows = {}
    for name, widget in form.widgetDict.items():
        if isinstance(widget, ParamWidget):
            variable = getattr(widget.var, "tkVar", widget.var)
            buttons = within(widget.btnFrame) if widget.btnFrame is not None else ()
            rows[name] = {
                "label": widget.label["text"],
                "value": "" if variable is None else str(variable.get()),
                "visible": bool(widget.label.winfo_viewable()),
                "buttons": [child["text"] for child in buttons if isinstance(child, tk.Button)],
            }
    return rows


def cut_off(window: tk.Misc) -> list[str]:
    """Name what can only be seen in part in a window because there is no room for it."""
    found = []
    for widget in within(window):
        if isinstance(widget, _READ_WIDGETS) and widget.winfo_viewable() and _is_cut(widget):
            text = widget.get() if isinstance(widget, tk.Entry) else widget["text"]
            found.append(f"{type(widget).__name__} '{text or widget}'")
    return found


def _is_cut(widget: tk.Misc) -> bool:
    # a pixel for rounding
    if widget.winfo_width() + 1 < widget.winfo_reqwidth() or widget.winfo_height() + 1 < widget.winfo_reqheight():
        return True
    holder = widget
    while not isinstance(holder, (tk.Toplevel, tk.Tk)):
        holder = holder.nametowidget(holder.winfo_parent())
        if not _is_inside(widget, holder):
            return True
    return False


def _is_inside(widget: tk.Misc, holder: tk.Misc) -> bool:
    left, top = widget.winfo_rootx() - holder.winfo_rootx(), widget.winfo_rooty() - holder.winfo_rooty()
    right, bottom = left + widget.winfo_width(), top + widget.winfo_height()
    return min(left, top) >= -1 and right <= holder.winfo_width() + 1 and bottom <= holder.winfo_height() + 1
