"""A whole fit on a device: from the stacks to the files of results nothing meets a tensor that lies elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from solvar_engine.contract.params import FitParams
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.data.volumes import read_volume
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.run_fit import run
from solvar_engine.projectors.options import SliceOptions
from tests.other_device import OTHER, other_device


def fit_on(device: torch.device, particles: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """Fit on a device that the command line does not know."""
    options = SliceOptions(device=str(device), backend="torch_ref")
    monkeypatch.setattr(FitJob, "projector_options", options)
    run(FitParams(particles=str(particles), output=str(output), rank=1, refine_poses=True, refine_contrast=True))
    return RunDir(output)


def test_a_fit_with_poses_and_contrasts_is_the_same_on_another_device(simulate, tmp_path, monkeypatch) -> None:
    data = simulate(
        *("--phantom", "hinge", "--particles", 100, "--box", 16, "--pixel-size", 10.0, "--snr", 2.0),
        *("--rotation-error", 2),
    )
    expected = fit_on(torch.device("cpu"), data.particles, tmp_path / "here", monkeypatch)
    with other_device():
        found = fit_on(OTHER, data.particles, tmp_path / "there", monkeypatch)
    for path in expected.path.rglob("*.mrc"):
        other = found.path / path.relative_to(expected.path)
        torch.testing.assert_close(read_volume(other).data, read_volume(path).data, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(read_latents(found.latents).z, read_latents(expected.latents).z, rtol=1e-4, atol=1e-5)
    assert {path.name for path in found.path.iterdir()} == {path.name for path in expected.path.iterdir()}
