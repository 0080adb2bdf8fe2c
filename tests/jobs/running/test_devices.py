"""The device of a command reaches its projectors."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from solvar_engine.contract.params import FitParams
from solvar_engine.jobs.fit.job import DEFAULT_SCHEDULE, FitJob
from solvar_engine.jobs.running.devices import compute_device
from solvar_engine.projectors.options import SliceOptions

PARAMS = FitParams(particles="particles.star", output="run", rank=2, projector="nearest", oversampling=3)


@pytest.mark.parametrize(("asked", "device"), [("auto", "cpu"), ("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1")])
def test_device_reaches_the_options_of_the_projectors(asked, device):
    params = replace(PARAMS, device=asked)
    assert compute_device(params) == device
    nowhere = SimpleNamespace()
    job = FitJob(params, nowhere, nowhere, nowhere, nowhere, DEFAULT_SCHEDULE, 1)
    assert job.projector_options == SliceOptions("nearest", 3, device)
