"""Memory that is available, and plans that fit in it."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.data.volumes import read_volume
from solvar_engine.jobs import run_reconstruct
from solvar_engine.jobs.fit.plan import FitDemand, plan_fit, plan_within
from solvar_engine.jobs.running.memory import available_bytes
from solvar_engine.jobs.running.plans import Plan, require_disk
from solvar_engine.jobs.states import kernel_problem
from solvar_engine.jobs.states import plan as kernel_plan
from solvar_engine.jobs.states.plan import KernelDemand, plan_kernel_states
from solvar_engine.reconstruction.windows import LocalWindows

DEMAND = FitDemand(particles=100_000, box_size=128, rank=6, oversampling=2, threads=2, cache_mb=20_000)
STATES = KernelDemand(
    100_000, input_box=128, working_box=64, windows=LocalWindows.create(128), components=4, states=10, threads=16,
    cache_mb=20_000,
)  # fmt: skip


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


def test_solvers_of_all_images_are_in_the_plan() -> None:
    """Beside the default: ten passes more, and for SQUAREM seven sets of factors in double precision."""
    batches, em, squarem = (plan_fit(replace(DEMAND, solver=name)) for name in ("batches", "em", "squarem"))
    assert em.memory_bytes == batches.memory_bytes
    factors = DEMAND.rank * DEMAND.box_size**3 * 8
    # a little less where decoys need more than the default's factors
    assert 6 * factors < squarem.memory_bytes - batches.memory_bytes <= 7 * factors
    assert batches.seconds < em.seconds < squarem.seconds < 2 * batches.seconds


def test_images_go_to_a_scratch_file_where_memory_is_short(caplog):
    smaller = plan_fit(replace(DEMAND, cache_mb=0))
    with caplog.at_level(logging.WARNING):
        assert plan_within(DEMAND, smaller.memory_bytes) == smaller
    assert not smaller.images_in_memory
    assert "scratch file" in caplog.text


def test_fit_without_enough_memory_is_refused_with_advice():
    least = plan_fit(replace(DEMAND, cache_mb=0, projector="nufft")).memory_bytes
    with pytest.raises(UserError, match=r"needs about \d+ MB of memory.*--rank or --box, or --projector nufft"):
        plan_within(DEMAND, least)
    with pytest.raises(UserError, match=r"only 1 MB are available: choose a smaller --rank or --box\."):
        plan_within(DEMAND, 1e6)


def test_images_of_a_reconstruction_go_to_a_scratch_file_where_memory_is_short(caplog):
    plan, smaller = plan_kernel_states(STATES), plan_kernel_states(replace(STATES, cache_mb=0))
    assert kernel_plan.plan_within(STATES, plan.memory_bytes) == plan and plan.images_in_memory
    with caplog.at_level(logging.WARNING):
        assert kernel_plan.plan_within(STATES, plan.memory_bytes - 1) == smaller
    assert smaller.scratch_bytes == plan.memory_bytes - smaller.memory_bytes > 0
    assert "scratch file" in caplog.text


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "a smaller --box or fewer --threads or --method linear"),
        ({"threads": 2}, "a smaller --box or --method linear"),
        ({"threads": 2, "working_box": 128}, "choose --method linear"),
    ],
)
def test_reconstruction_without_enough_memory_is_refused_with_what_needs_less(changes, advice):
    demand = replace(STATES, **changes)
    least = plan_kernel_states(replace(demand, cache_mb=0)).memory_bytes
    with pytest.raises(UserError, match=rf"The reconstruction needs about \d+ MB of memory, but only .*{advice}"):
        kernel_plan.plan_within(demand, least - 1)


def test_reconstruction_is_refused_before_images_are_read(fitted, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_problem, "available_bytes", lambda: 1e6)
    monkeypatch.setattr(kernel_problem, "prepare", lambda *_: pytest.fail("images are read"))
    outcome = engine("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 2)
    assert outcome.code == 2 and "but only 1 MB are available" in outcome.error
    assert not list((tmp_path / "out").glob("*.mrc"))


def test_scratch_file_counts_on_the_disk_that_it_lies_on(tmp_path, monkeypatch):
    plan = Plan(working_bytes=0.0, images_bytes=4e6, cache_mb=0, disk_bytes=3e6, seconds=0.0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=6e6))
    require_disk(replace(plan, cache_mb=4), tmp_path, tmp_path)
    with pytest.raises(UserError, match="needs 7 MB in .*, but only 6 MB are free"):
        require_disk(plan, tmp_path, tmp_path)
    monkeypatch.setattr("os.stat", lambda path: SimpleNamespace(st_dev=str(path)))
    require_disk(plan, tmp_path, tmp_path / "other")


@pytest.mark.parametrize(("cache_mb", "advice"), [(0, " or --scratch, or raise --cache-mb"), (4, "")])
def test_disk_that_is_too_small_is_named_with_what_needs_less(tmp_path, monkeypatch, cache_mb, advice):
    plan = Plan(working_bytes=0.0, images_bytes=4e6, cache_mb=cache_mb, disk_bytes=3e6, seconds=0.0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e6))
    with pytest.raises(UserError) as error:
        require_disk(plan, tmp_path, tmp_path, "reconstruction")
    assert str(error.value) == (
        f"The reconstruction needs {plan.disk_bytes / 1e6 + plan.scratch_bytes / 1e6:.0f} MB in {tmp_path}, but only"
        f" 1 MB are free: choose another disk for --output{advice}."
    )


@pytest.mark.parametrize("method", ["kernel", "linear"])
def test_reconstruction_is_refused_where_its_files_do_not_fit(fitted, engine, tmp_path, monkeypatch, method):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e4))
    monkeypatch.setattr(kernel_problem, "prepare", lambda *_: pytest.fail("images are read"))
    call = ("reconstruct", fitted.path, "--output", tmp_path / "out", "--clusters", 2, "--method", method)
    outcome = engine(*call)
    sentence = rf"The reconstruction needs \d MB in {tmp_path / 'out'}, but only 0 MB are free: choose another disk"
    assert outcome.code == 2 and re.search(sentence, outcome.error), outcome.error
    assert not list((tmp_path / "out").glob("*.mrc"))


def test_plan_of_linear_states_is_what_they_take(fitted, engine, tmp_path, monkeypatch):
    plans = plans_held_against_the_disk(run_reconstruct, monkeypatch)
    assert engine("reconstruct", fitted.path, "--output", tmp_path, "--clusters", 2, "--method", "linear").code == 0
    (plan,) = plans
    voxels = sum(read_volume(path).data.numel() for path in tmp_path.glob("*.mrc"))
    assert 4 * voxels < plan.disk_bytes < 4 * voxels + 3 * (tmp_path / "particles.csv").stat().st_size


def plans_held_against_the_disk(module, monkeypatch) -> list[Plan]:
    """Collect the plans that a module asks the disk about."""
    plans = []

    def keep(plan, *arguments) -> None:
        plans.append(plan)
        require_disk(plan, *arguments)

    monkeypatch.setattr(module, "require_disk", keep)
    return plans
