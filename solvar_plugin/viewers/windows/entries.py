"""What the sections of the viewers share: entries of the form, which turn what cannot be shown into messages."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import pyworkflow.protocol.params as params
import pyworkflow.utils as pwutils
from pwem.viewers import EmProtocolViewer
from pyworkflow.viewer import View

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import Components
from solvar_plugin.protocols.summaries import NO_VARIABILITY
from solvar_plugin.viewers.data.run_reader import RunReader
from solvar_plugin.viewers.windows import explorer

NONE_YET = "none yet"
RUN_HAS_CHANGED = "The run has gone on since this window was opened: close it and open it again."


def entry(name: str, label: str, text: str, important: bool = False) -> Callable[[Any], Any]:
    """Make a button of the form from a method that returns views: what cannot be shown becomes a message.

    Parameters
    ----------
    name : str
        Of the form's parameter.
    label, text : str
        What the button and its help say.
    important : bool
        Whether the button stands out.
    """

    def decorate(method: Callable[[Any], list[View]]) -> Callable[..., list[View]]:
        @wraps(method)
        def wrapper(self: Any, paramName: str | None = None) -> list[View]:
            try:
                with _busy(self.getTkRoot()):
                    return method(self)
            except (UserError, OSError) as error:
                return [self.errorMessage(str(error), "SOLVAR")]

        wrapper.parameter = name
        wrapper.button = {"label": label, "help": text, "important": important}
        return wrapper

    return decorate


def add_button(form: Any, method: Any, **details: Any) -> None:
    """Add the button of an entry to a form, with other details than its own where they are given."""
    form.addParam(method.parameter, params.LabelParam, **{**method.button, **details})


def add_section(form: Any, label: str, *entries: Any) -> None:
    """Add a section to a form, with the buttons of its entries."""
    form.addSection(label=label)
    for one in entries:
        add_button(form, one)


def add_choice(form: Any, name: str, label: str, choices: Sequence[str], text: str, default: int = 0) -> None:
    """Add a list of names to choose one from; without any, it says so."""
    form.addParam(
        name,
        params.EnumParam,
        choices=list(choices) or [NONE_YET],
        default=default,
        display=params.EnumParam.DISPLAY_COMBO,
        label=label,
        help=text,
    )


def add_level(form: Any, name: str, text: str) -> None:
    """Add the level of a surface."""
    form.addParam(
        name,
        params.FloatParam,
        default=None,
        allowsNull=True,
        label="Surface level (empty: automatic)",
        help=f"{text} If it is empty, the level is chosen from the densities within the mask. The level in use is "
        "written below each picture.",
    )


@contextmanager
def _busy(window: Any) -> Iterator[None]:
    """Show the clock as the cursor of a Tk window, if there is one."""
    if window is None:
        yield
        return
    window.config(cursor="watch")
    window.update_idletasks()
    try:
        yield
    finally:
        window.config(cursor="")


class RunViewer(EmProtocolViewer):
    """Base of the sections of the viewer of one run.

    Attributes
    ----------
    _data : RunReader
    _component_names : list of str
        As the form offers them, fixed when it was opened.
    """

    _data: RunReader
    _component_names: list[str]

    def _open(self, data: RunReader) -> None:
        """Fix what the form offers, because the numbers that it gives back count these."""
        self._data = data
        self._component_names = self._known_components()

    def _getVisualizeDict(self) -> dict[str, Callable[..., list[View]]]:
        entries = inspect.getmembers(type(self), lambda member: hasattr(member, "button"))
        return {member.parameter: getattr(self, name) for name, member in entries}

    def _define_explorer(self, form: Any) -> None:
        """Add the first entry of every form."""
        add_section(form, "Explorer", self._show_explorer)

    @entry("displayExplorer", explorer.LABEL, explorer.HELP, important=True)
    def _show_explorer(self) -> list[View]:
        self._data.latents()  # says why, if the fit has not finished
        explorer.start_explorer(self._data.run, self._states_to_explore())
        return []

    def _states_to_explore(self) -> Path | None:
        """Folder of volumes that the explorer can lay over the molecule; None without any."""
        return None

    def _known_components(self) -> list[str]:
        """Names of the components, as far as the run goes."""
        try:
            components = self._data.components()
        except UserError:
            return []
        return [components.title(index) for index in range(len(components))]

    def _leading(self) -> tuple[int, int]:
        """Positions of the two components that are shown first: those without a label before the others."""
        if len(self._component_names) < 2:
            return 0, 0
        labels = self._data.components().label
        first, second = sorted(sorted(range(len(labels)), key=lambda index: bool(labels[index]))[:2])
        return first, second

    def _components(self) -> Components:
        """Components of the run, of which there must be one."""
        components = self._data.components()
        if not len(components):
            raise UserError(NO_VARIABILITY)
        return components

    def _chosen_from(self) -> Components:
        """Components of the run, which must be those that the form offers."""
        components = self._components()
        if self._component_names != self._known_components():
            raise UserError(RUN_HAS_CHANGED)
        return components

    def _file(self, name: str) -> Path:
        """Path of a file that the viewer makes, beside the results of the protocol."""
        folder = self.protocol._getExtraPath("viewer")
        pwutils.makePath(folder)
        return Path(folder).resolve() / name
