"""Programs outside Scipion that show results: the web browser and ChimeraX. Neither may block the window."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import webbrowser
from pathlib import Path
from typing import Iterable, Mapping

from solvar_engine.contract.errors import UserError

TEXT_BROWSERS = ("www-browser", "links", "elinks", "lynx", "w3m")
"""Would take over the terminal from which Scipion was started."""

CHIMERAX_ADVICE = (
    "ChimeraX was not found. Install it from https://www.rbvi.ucsf.edu/chimerax, then either put its command on the "
    "PATH or set CHIMERA_HOME in Scipion's configuration to its folder."
)


def open_in_browser(path: Path) -> None:
    """Open a page in the user's browser and return at once.

    Raises
    ------
    UserError
        If there is no graphical browser.
    """
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        browser = None
    name = os.path.basename(str(getattr(browser, "name", "")))
    if browser is None or name in TEXT_BROWSERS:
        raise UserError(f"No web browser was found: open this file in one, {path.resolve()}")
    # some browsers are waited for until they close
    threading.Thread(target=browser.open, args=(path.resolve().as_uri(),), daemon=True).start()


def find_chimerax(homes: Iterable[str | None], path: str | None = None) -> str | None:
    """Find the ChimeraX program.

    Parameters
    ----------
    homes : iterable of str or None
        Folders that may be its installation, the best first.
    path : str, optional
        Folders of programs as in PATH; default: PATH.

    Returns
    -------
    str or None
        Path of the program; None if there is none.
    """
    for home in homes:
        for name in ("ChimeraX", "chimerax"):
            program = os.path.join(home or "", "bin", name)
            if home and os.access(program, os.X_OK) and os.path.isfile(program):
                return program
    return shutil.which("ChimeraX", path=path) or shutil.which("chimerax", path=path)


def quoted(path: Path, folder: Path) -> str:
    """Write a path for a ChimeraX script in a folder: relative to it, so that odd characters above do not matter.

    Raises
    ------
    UserError
        If the path holds both kinds of quotes, which such a script cannot write.
    """
    text = os.path.relpath(path, folder)
    if "'" in text and '"' in text:
        raise UserError(f"{path} cannot be opened in ChimeraX, because its name holds both kinds of quotes.")
    return f'"{text}"' if '"' not in text else f"'{text}'"


def volume_script(path: Path, volume: Path, level: float) -> None:
    """Write a ChimeraX script that shows one map.

    Parameters
    ----------
    path : Path
        The script to write, name ending with .cxc; its folder must exist.
    volume : Path
        MRC file.
    level : float
        Of the surface.
    """
    lines = [
        f"open {quoted(volume, path.parent)}",
        f"volume #1 level {level:.6g} style surface step 1 color #c2ccd6",
    ]
    _write(path, lines)


def component_script(
    path: Path, mean: Path, eigenvolume: Path, level: float, limit: float, ends: tuple[Path, Path] | None
) -> None:
    """Write a ChimeraX script that colours the mean by an eigenvolume and morphs between the ends of the motion.

    Parameters
    ----------
    path : Path
        The script to write, name ending with .cxc; its folder must exist.
    mean, eigenvolume : Path
        MRC files.
    level : float
        Of the surfaces.
    limit : float
        Value of the eigenvolume that has the full colour.
    ends : (Path, Path), optional
        MRC files of the states at both ends.
    """
    lines = [
        f"open {quoted(mean, path.parent)}",
        f"open {quoted(eigenvolume, path.parent)}",
        f"volume #1 level {level:.6g} style surface step 1",
        "hide #2 models",
        f"color sample #1 map #2 palette blue:white:red range {-limit:.6g},{limit:.6g}",
    ]
    if ends is not None:
        lines += [f"open {quoted(end, path.parent)}" for end in ends]
        lines += [
            f"volume #3 level {level:.6g} style surface step 1 color #73b0e0",
            f"volume #4 level {level:.6g} style surface step 1 color #f2996b",
            "hide #3,4 models",
            "# to see the motion: hide #1 models; volume morph #3,4",
        ]
    _write(path, lines)


def _write(path: Path, lines: list[str]) -> None:
    lines = ["# Opens maps of a SOLVAR run in ChimeraX.", *lines, "lighting soft", "view"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def start_chimerax(program: str, script: Path, environ: Mapping[str, str]) -> None:
    """Start ChimeraX with a script and return at once.

    Raises
    ------
    UserError
        If it cannot be started.
    """
    try:
        process = subprocess.Popen(
            [program, str(script.resolve())],
            cwd=str(script.parent),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"{program} cannot be started: {error.strerror}.") from error
    # so that nothing is left of it when it has ended
    threading.Thread(target=process.wait, daemon=True).start()
