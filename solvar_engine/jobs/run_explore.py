"""`explore`: a run in the web browser, or as one file."""

from __future__ import annotations

import fcntl
import getpass
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from solvar_engine.contract.files import atomic_path
from solvar_engine.contract.params import ExploreParams
from solvar_engine.contract.run import EXPLORER_PAGES, refuse_file_of_a_run
from solvar_engine.explorer.data import load_run
from solvar_engine.explorer.server import IDLE_SECONDS, LOOPBACK, ExplorerServer
from solvar_engine.explorer.standalone import standalone_page

logger = logging.getLogger(__name__)

_LEADING_PAGE = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={url}">\n'


def run(params: ExploreParams) -> None:
    """Serve the page until it is not used any more, or write it into one file.

    When the page can be opened, one line of JSON on stdout says its address, and how a computer that the user sits at
    reaches it. The address holds the token that gives access, so it goes into no log and no command line.

    Parameters
    ----------
    params : ExploreParams

    Raises
    ------
    UserError
        If the folder is not a finished run, its files are damaged, or the port is taken.
    """
    params.validate()
    explored = load_run(params.run, params.states)
    for note in explored.notes:
        logger.info(note)
    if params.export is not None:
        refuse_file_of_a_run(explored.run, params.export)
        page = standalone_page(explored, params.seed)
        with atomic_path(params.export) as path:
            path.write_text(page, encoding="utf-8")
        logger.info("Wrote %s (%.1f MB)", params.export, len(page) / 1e6)
        return
    server = ExplorerServer(explored, params.port)
    try:
        browser = None if params.no_browser else _graphical_browser()
        tunnel = _tunnel(server.port)
        ready = {"url": server.url, "browser": browser is not None, "tunnel": tunnel}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        if tunnel is not None:
            logger.info("On your own computer: %s, then open the page there.", tunnel)
        with nullcontext() if browser is None else _opened(server, explored.run.path, browser):
            server.serve_while_used()
        logger.info("Nobody has used the page for %.0f minutes.", IDLE_SECONDS / 60)
    finally:
        server.server_close()


def _tunnel(port: int) -> str | None:
    """Return the command by which another computer reaches the page, if the user sits at one."""
    if not os.environ.get("SSH_CONNECTION"):
        return None
    return f"ssh -N -L {port}:{LOOPBACK}:{port} {getpass.getuser()}@{socket.gethostname()}"


def _graphical_browser() -> webbrowser.BaseBrowser | None:
    """Return the user's browser; None for one that would take over the terminal, unless the user names it."""
    with suppress(webbrowser.Error):
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser or "BROWSER" in os.environ:
            return browser
    return None


@contextmanager
def _opened(server: ExplorerServer, folder: Path, browser: webbrowser.BaseBrowser) -> Iterator[None]:
    """Open the page in a browser.

    The browser is given a private file that leads to the page: its own command line can be read by every user. The
    file lies in the folder of the run, since browsers in containers see no folder for temporary files; it is gone as
    soon as the page asks for data. A server that is killed before that leaves it behind, for the next one to remove.
    """
    place = folder.resolve() if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    _remove_abandoned_pages(place)
    prefix, suffix = EXPLORER_PAGES.split("*")
    with tempfile.NamedTemporaryFile("w", suffix=suffix, prefix=prefix, dir=place, delete=False) as stream:
        path = Path(stream.name)

        def remove() -> None:
            path.unlink(missing_ok=True)

        server.when_opened = remove
        try:
            _locked(stream.fileno())  # as long as this process lives
            stream.write(_LEADING_PAGE.format(url=server.url))
            stream.flush()
            # some browsers are waited for until they close
            threading.Thread(target=browser.open, args=(path.as_uri(),), daemon=True).start()
            yield
        finally:
            with suppress(OSError):
                remove()


def _remove_abandoned_pages(place: Path) -> None:
    """Remove the leading pages whose server is dead: the kernel has given up its lock."""
    for path in place.glob(EXPLORER_PAGES):
        with suppress(OSError):  # of another user
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _locked(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Take the lock of a file unless another process holds it; say whether it is ours."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
