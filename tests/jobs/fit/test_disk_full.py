"""A full disk ends a fit with one sentence and exit 2, before it starts or while it runs, and it can go on later."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from solvar_engine.contract.results import read_latents
from tests.jobs.programs import engine_command, engine_environment

# run in a mount namespace of its own, whose disks go with it
_MOUNT = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec sh -c "$@"'
_FILL_WHILE_IT_RUNS = """
run=$1 filler=$2
shift 2
"$@" 2>error.txt &
fit=$!
until test -e "$run/checkpoint/start.npz"; do kill -0 $fit || exit 99; sleep 0.01; done
cat /dev/zero >"$filler" 2>/dev/null
wait $fit
echo $? >code.txt
cp -r "$run" failed
rm "$filler"
"$@" --resume 2>resumed.txt
echo $? >resumed_code.txt
cp -r "$run" resumed
"""


def in_namespace(*command: str) -> list[str]:
    """Command with mounts of its own; without being root, in the role of root of a user namespace."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *as_root, *command]


@pytest.fixture(scope="module", autouse=True)
def _mounting_is_allowed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    probe = in_namespace("sh", "-c", _MOUNT, "sh", "1m", str(folder), "true")
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root or user namespaces")


def on_small_disk(size: str, disk: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script while a disk of some size is mounted on a folder."""
    disk.mkdir()
    command = in_namespace("sh", "-c", _MOUNT, "sh", size, str(disk), script, "sh", *map(str, arguments))
    options = {"cwd": disk.parent, "env": engine_environment(), "timeout": 120}
    return subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]


def sentence_of(error: str) -> str:
    lines = error.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], error
    assert "Traceback" not in error and "Logging error" not in error
    return lines[-1]


@pytest.mark.parametrize(("size", "options"), [("150k", ()), ("2m", ("--cache-mb", 0))], ids=["results", "scratch"])
def test_disk_that_is_too_small_is_refused_before_the_work(size, options, larger_hinge, tmp_path):
    run = tmp_path / "disk" / "run"
    command = engine_command("fit", larger_hinge.particles, "--output", run, "--rank", 2, *options)
    result = on_small_disk(size, tmp_path / "disk", '"$@"', *command)
    assert result.returncode == 2
    sentence = sentence_of(result.stderr)
    assert "MB are free" in sentence and str(run) in sentence
    assert "half-sets" not in result.stderr


def test_disk_that_fills_up_meanwhile(larger_hinge, tmp_path):
    run = tmp_path / "disk" / "run"
    command = engine_command("fit", larger_hinge.particles, "--output", run, "--rank", 2)
    on_small_disk("20m", tmp_path / "disk", _FILL_WHILE_IT_RUNS, run, tmp_path / "disk" / "filler", *command)
    assert (tmp_path / "code.txt").read_text() == "2\n"
    assert "The disk is full: free some space" in sentence_of((tmp_path / "error.txt").read_text())
    assert not (tmp_path / "failed" / "latents.npz").exists()
    assert not list((tmp_path / "failed").rglob("*.tmp"))
    assert (tmp_path / "resumed_code.txt").read_text() == "0\n", (tmp_path / "resumed.txt").read_text()
    assert json.loads((tmp_path / "resumed" / "status.json").read_text())["state"] == "finished"
    assert read_latents(tmp_path / "resumed" / "latents.npz").z.shape == (800, 2)


@pytest.mark.parametrize("size", ["4k", "40k"])
def test_disk_without_room_for_the_options(size, larger_hinge, tmp_path):
    run = tmp_path / "disk" / "run"
    command = engine_command("fit", larger_hinge.particles, "--output", run, "--rank", 2)
    result = on_small_disk(size, tmp_path / "disk", '"$@"', *command)
    assert result.returncode == 2
    sentence_of(result.stderr)
