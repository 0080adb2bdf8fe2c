"""Runs to explore, a server for each, and a way to look inside a page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from solvar_engine.contract.results import write_centres, write_clusters, write_embedding
from solvar_engine.contract.run import RunDir
from solvar_engine.explorer.data import load_run
from solvar_engine.explorer.server import ExplorerServer
from tests.reports.synthetic_run import Synthetic, write_mrc, write_synthetic_run


def analysed_run(path: Path, **options: int) -> tuple[RunDir, Synthetic]:
    """Write a run with clusters 1 to 3 and a flat map."""
    run, arrays = write_synthetic_run(path, **options)
    run.analysis.mkdir()
    cluster = 1 + (arrays.z[:, 0] > 0) + (arrays.z[:, 0] > np.quantile(arrays.z[:, 0], 0.9))
    centres = np.stack([arrays.z[cluster == number].mean(axis=0) for number in (1, 2, 3)])
    write_clusters(run.clusters, cluster)
    write_centres(run.centres, np.bincount(cluster)[1:], centres)
    write_embedding(run.embedding, arrays.z[:, :2] @ np.array([[1.0, 0.3], [-0.2, 1.0]]))
    return run, arrays


def replace_volume(path: Path, volume: np.ndarray) -> None:
    """Write another volume in place of one of a run."""
    path.unlink()
    write_mrc(path, volume)


@contextmanager
def served(run: RunDir, states: Path | None = None) -> Iterator[ExplorerServer]:
    """Serve a run in a thread of this process."""
    server = ExplorerServer(load_run(str(run.path), None if states is None else str(states)))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.handle_request()

    server.timeout = 0.05
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.server_close()


def inside(page: Page, script: str, *given: object) -> object:
    """Evaluate the body of a function in the page, where `e` is its state and `app` its main module."""
    return page.evaluate(
        f"async given => {{ const app = await import('/app.js'), e = app.explorer; {script} }}", list(given)
    )
