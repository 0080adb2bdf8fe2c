"""Memory that is available, and plans that fit in it."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.jobs.fit_plan import FitDemand, plan_fit, plan_within
from solvar_engine.jobs.memory import available_bytes

DEMAND = FitDemand(particles=100_000, box_size=128, rank=6, oversampling=2, threads=2, cache_mb=20_000)


@pytest.fixture
def kernel(tmp_path):
    """Files of a kernel with 8 GB free, and a process in groups of both versions."""
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("4:memory:/queue/job\n1:cpu:/queue\n0::/user.slice/job\n")
    return tmp_path


def limit(kernel, path, text):
    """Write the limit of a group."""
    (kernel / path).parent.mkdir(parents=True)
    (kernel / path).write_text(text + "\n")


def test_free_memory_counts_without_limits(kernel):
    assert available_bytes(kernel, kernel / "groups") == 8e6 * 1024


@pytest.mark.parametrize(
    "path",
    [
        "groups/user.slice/job/memory.max",
        "groups/user.slice/memory.max",
        "groups/memory/queue/job/memory.limit_in_bytes",
    ],
)
def test_limit_of_a_group_or_of_one_around_it_counts(kernel, path):
    limit(kernel, path, "3000000000")
    assert available_bytes(kernel, kernel / "groups") == 3e9


def test_group_without_limit_does_not_count(kernel):
    limit(kernel, "groups/user.slice/job/memory.max", "max")
    assert available_bytes(kernel, kernel / "groups") == 8e6 * 1024


def test_nothing_is_known_elsewhere(tmp_path):
    assert available_bytes(tmp_path / "proc", tmp_path / "groups") == float("inf")


def test_plan_stays_as_it_is_where_memory_suffices(caplog):
    assert plan_within(DEMAND, 1e12) == plan_fit(DEMAND)
    assert not caplog.records


def test_images_go_to_a_scratch_file_where_memory_is_short(caplog):
    smaller = plan_fit(replace(DEMAND, cache_mb=0))
    with caplog.at_level(logging.WARNING):
        assert plan_within(DEMAND, smaller.memory_bytes) == smaller
    assert not smaller.cache_in_memory
    assert "scratch file" in caplog.text


def test_fit_without_enough_memory_is_refused_with_advice():
    least = plan_fit(replace(DEMAND, cache_mb=0, projector="nufft")).memory_bytes
    with pytest.raises(UserError, match=r"needs about \d+ MB of memory.*--rank or --box, or --projector nufft"):
        plan_within(DEMAND, least)
    with pytest.raises(UserError, match=r"only 1 MB are available: choose a smaller --rank or --box\."):
        plan_within(DEMAND, 1e6)
