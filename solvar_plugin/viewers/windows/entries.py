"""What the sections of the viewer share: entries that turn what cannot be shown into messages, and the components."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Callable, Iterator

import pyworkflow.utils as pwutils
from pwem.viewers import EmProtocolViewer
from pyworkflow.viewer import View

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import Components
from solvar_plugin.protocols.summaries import NO_VARIABILITY
from solvar_plugin.viewers.data.run_reader import RunReader

RUN_HAS_CHANGED = "The run has gone on since this window was opened: close it and open it again."


def entry(method: Callable[[Any], list[View]]) -> Callable[..., list[View]]:
    """Make an entry of the form from a method that returns views: what cannot be shown becomes a message."""

    @wraps(method)
    def wrapper(self: Any, paramName: str | None = None) -> list[View]:
        try:
            with _busy(self.getTkRoot()):
                return method(self)
        except (UserError, OSError) as error:
            return [self.errorMessage(str(error), "SOLVAR")]

    return wrapper


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

    def _known_components(self) -> list[str]:
        """Names of the components, as far as the run goes."""
        try:
            components = self._data.components()
        except UserError:
            return []
        return [components.title(index) for index in range(len(components))]

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
