"""One synthetic run and its figures, shared by the tests of this folder, which only read them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from solvar_engine.contract.run import RunDir
from solvar_engine.reports import Picture, ReportData, draw_figures, load_run
from tests.reports.synthetic_run import Synthetic, write_synthetic_run


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> tuple[RunDir, Synthetic]:
    """A finished fit that has not been analysed."""
    return write_synthetic_run(tmp_path_factory.mktemp("synthetic") / "run")


@pytest.fixture(scope="session")
def data(synthetic) -> ReportData:
    """The run as loaded, with a map and clusters as an analysis would add them."""
    run, arrays = synthetic
    cluster = 1 + (arrays.z[:, 0] > 0) + (arrays.z[:, 0] > np.quantile(arrays.z[:, 0], 0.9))
    centres = np.stack([arrays.z[cluster == number].mean(axis=0) for number in (1, 2, 3)])
    return dataclasses.replace(load_run(run), embedding=arrays.z[:, :2], cluster=cluster, centres=centres)


@pytest.fixture(scope="session")
def pictures(data) -> list[Picture]:
    """All figures of the run."""
    return list(draw_figures(data))
