"""Starting the explorer: the engine serves a page to the user's browser, as a child of this process.

The server ends with this process, or when nobody has asked it for anything for half an hour.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from pathlib import Path

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import ExploreParams
from solvar_engine.contract.run import RunDir
from solvar_plugin import Plugin
from solvar_plugin.engine import arguments_of, command_line, how_to_install

LABEL = "Explore"
_ERROR = "error: "  # what the engine's sentences begin with
HELP = (
    "Opens a page in the web browser in which the molecule follows the mouse over the particles. Particles, points and "
    "paths that you pick there and save by name are offered by the protocols 'select particles' and 'volume "
    "reconstruction'."
)


def start_explorer(run: RunDir, states: Path | None = None) -> None:
    """Start the explorer and return when its page can be seen.

    Parameters
    ----------
    run : RunDir
    states : Path, optional
        Folder of the volumes of states of the run.

    Raises
    ------
    UserError
        With the engine's sentence if it does not start, or with the address if there is no browser.
    """
    params = ExploreParams(run=str(run.path.resolve()), states=None if states is None else str(states.resolve()))
    program, arguments = command_line(
        Plugin.getEngineProgram(), arguments_of(params), activation=Plugin.getActivation()
    )
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as messages:
        process = subprocess.Popen(
            f"{program} {arguments}",
            shell=True,
            env=dict(Plugin.getEnviron()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            universal_newlines=True,
        )
        assert process.stdout is not None
        ready = process.stdout.readline()
        threading.Thread(target=process.wait, daemon=True).start()  # nothing is left of it when it has ended
        if not ready:
            process.wait()
            messages.seek(0)
            last = (messages.read().strip().splitlines() or [""])[-1]
            if not last.startswith(_ERROR):
                raise UserError(f"The SOLVAR engine did not start ({last}): {how_to_install()}.")
            raise UserError(last[len(_ERROR) :])
    started = json.loads(ready)
    if not started["browser"]:
        first = f"run on your own computer {started['tunnel']} and " if started["tunnel"] else ""
        raise UserError(f"No web browser was found: {first}open this address in one, {started['url']}")
