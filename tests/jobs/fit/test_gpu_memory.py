"""Memory of a GPU: planned before the start, and what happens where it runs out all the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import FAILED, read_status
from solvar_engine.data.preprocess import cache_bytes
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.jobs import run_fit
from solvar_engine.jobs.fit.plan import FitDemand, plan_fit, plan_gpu

DEMAND = FitDemand(100_000, 64, 6, 2, 2, 20_000, device="meta")
IMAGES = cache_bytes(DEMAND.particles, DEMAND.box_size)


def test_batches_shrink_first_then_images_leave_the_gpu() -> None:
    roomy, short, shorter = (plan_gpu(DEMAND, IMAGES + more) for more in (20e9, 1.2e9, 0.9e9))
    assert roomy.images_on_gpu and roomy.largest_batch == 8192
    assert short.images_on_gpu and 16 <= short.largest_batch < 8192
    assert not shorter.images_on_gpu or shorter.largest_batch < short.largest_batch
    assert not plan_gpu(DEMAND, 1.2e9).images_on_gpu
    shared = replace(DEMAND, processes=4)
    assert plan_gpu(shared, IMAGES / 4 + 1.2e9).images_on_gpu


def test_a_gpu_that_is_too_small_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"needs about \d+ MB of GPU memory, but only 500 MB may be used: choose a"):
        plan_gpu(DEMAND, 5e8)
    extrapolated = replace(DEMAND, solver="squarem")
    with pytest.raises(UserError, match="may be used: choose --solver batches, a smaller --rank"):
        plan_gpu(extrapolated, 1.17e9)
    plan_gpu(DEMAND, 1.17e9)
    with pytest.raises(UserError, match="may be used: choose a smaller --rank"):
        plan_gpu(extrapolated, 5e8)


def test_images_on_the_gpu_take_no_memory_of_the_computer() -> None:
    off = plan_fit(DEMAND)
    on = plan_fit(replace(DEMAND, images_on_gpu=True))
    assert off.memory_bytes - on.memory_bytes == pytest.approx(IMAGES)
    assert plan_fit(replace(DEMAND, device="cpu")).memory_bytes > off.memory_bytes


def test_a_fit_goes_on_with_fewer_images_at_a_time(hinge, fitted, engine, monkeypatch, tmp_path) -> None:
    failed: list[int | None] = []
    find_latents = run_fit.find_latents

    def short_of_memory(job, halves, components):
        largest = halves.source.largest_batch
        if largest != 64:
            failed.append(largest)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return find_latents(job, halves, components)

    monkeypatch.setattr(run_fit, "find_latents", short_of_memory)
    outcome = engine("fit", hinge.particles, "--output", tmp_path / "run", "--rank", 2)
    assert outcome.code == 0 and failed == [None, 256]
    assert "going on with at most 64 images at a time" in RunDir(tmp_path / "run").log.read_text()
    assert outcome.error.count("all particles, epoch 1,") == 1  # not again
    found = RunDir(tmp_path / "run")
    assert found.eigenvalues.read_text() == fitted.eigenvalues.read_text()


def test_if_that_does_not_help_a_sentence_says_what_might(hinge, engine, monkeypatch, tmp_path) -> None:
    seen: list[PreparedParticles] = []

    def short_of_memory(job, images):
        seen.append(images)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(run_fit, "settle_sign_and_masks", short_of_memory)
    outcome = engine("fit", hinge.particles, "--output", tmp_path / "run", "--rank", 2)
    assert outcome.code == 2
    assert [images.largest_batch for images in seen] == [None, 256, 64, 16]
    sentence = "The GPU has too little memory: choose a smaller --box, --rank or --oversampling, or the CPU."
    assert outcome.error.splitlines()[-1] == f"error: {sentence}"
    status = read_status(RunDir(tmp_path / "run").status)
    assert status is not None and (status.state, status.message) == (FAILED, sentence)
