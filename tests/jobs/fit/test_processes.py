"""Several processes share the images of a fit: the same result, one voice, and one end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from subprocess import Popen

import numpy as np
import pytest

from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import FAILED, FINISHED, read_status
from solvar_engine.data.volumes import read_volume
from solvar_engine.jobs.decisions import read_cautions, read_decisions
from solvar_engine.jobs.simulate.files import DataSetFiles
from tests.jobs.conftest import run_in_process
from tests.jobs.programs import wait_until

TOGETHER = ("--rank", "auto", "--refine-poses", "--skip-bad-images")


@pytest.fixture(scope="module")
def rough(simulate: Callable[..., DataSetFiles]) -> DataSetFiles:
    """Few images with wrong poses, of which the first two cannot be used."""
    data = simulate(
        *("--phantom", "hinge", "--particles", 400, "--box", 18, "--pixel-size", 10.0, "--snr", 2.0),
        *("--rotation-error", 2, "--shift-error", 0.5),
    )
    with open(next(data.particles.parent.glob("*.mrcs")), "r+b") as stack:
        stack.seek(1024)
        stack.write(np.zeros((2, 18, 18), np.float32).tobytes())
    return data


@pytest.fixture(scope="module")
def alone(rough: DataSetFiles, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A fit by one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert run_in_process("fit", rough.particles, "--output", folder, *TOGETHER) == 0
    return RunDir(folder)


def two_processes(start: Callable[..., Popen[str]], data: DataSetFiles, folder: Path) -> Popen[str]:
    """Start a fit by two processes with a thread each."""
    return start("fit", data.particles, "--output", folder, *TOGETHER, "--processes", 2)


def assert_same_results(found: RunDir, expected: RunDir) -> None:
    paths = [path.relative_to(expected.path) for path in expected.path.rglob("*.mrc")]
    assert len(paths) > 6
    for path in paths:
        volume, known = (read_volume(run.path / path).data.double() for run in (found, expected))
        assert float((volume - known).norm()) < 1e-5 * float(known.norm()), path
    latents, known_latents = read_latents(found.latents), read_latents(expected.latents)
    for name in ("z", "precision", "contrast"):
        table, known_table = getattr(latents, name), getattr(known_latents, name)
        np.testing.assert_allclose(table, known_table, rtol=1e-4, atol=1e-4 * np.abs(known_table).max())
    for table in ("rank", "eigenvalues", "noise", "fsc", "bad_images", "metrics"):
        known_table = read_csv(getattr(expected, table))
        for name, column in read_csv(getattr(found, table)).items():
            if column.dtype.kind == "f" and name != "seconds":
                np.testing.assert_allclose(column, known_table[name], rtol=1e-4, atol=1e-4, err_msg=f"{table} {name}")
    columns, known_columns = (StarFile.read(run.particles).particles for run in (found, expected))
    for name in ("solvarOutlier", "solvarHalfSet"):
        np.testing.assert_array_equal(columns.integers(name), known_columns.integers(name))
    name = "solvarLogLikelihood"
    np.testing.assert_allclose(columns.numbers(name)[name], known_columns.numbers(name)[name], rtol=1e-3, atol=1e-3)
    decided, known_decided = (asdict(read_decisions(run)) for run in (found, expected))
    assert decided == pytest.approx(known_decided, rel=1e-4) and decided["pose_gain"] is not None
    assert len(read_cautions(found)) == len(read_cautions(expected))


def test_two_processes_find_what_one_finds_and_one_of_them_speaks(rough, alone, engine_program, tmp_path) -> None:
    process = two_processes(engine_program, rough, tmp_path / "run")
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 0, error
    run = RunDir(tmp_path / "run")
    assert_same_results(run, alone)
    assert error.count("all particles, epoch 1,") == 1
    assert "2 processes share the images" in run.log.read_text()
    assert not run.lock.exists()


def test_if_one_is_killed_all_end_with_a_sentence_and_another_number_of_processes_goes_on(
    rough, alone, engine_program, tmp_path
) -> None:
    run = RunDir(tmp_path / "run")
    process = two_processes(engine_program, rough, run.path)
    assert wait_until((run.checkpoint / "halves.npz").exists)
    (other,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(other), signal.SIGKILL)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    sentence = "One of the 2 processes of this run was killed, perhaps because memory was short: go on with --resume."
    assert error.splitlines()[-1] == f"error: {sentence}"
    status = read_status(run.status)
    assert status is not None and (status.state, status.message) == (FAILED, sentence)
    assert run_in_process("fit", rough.particles, "--output", run.path, *TOGETHER, "--resume") == 0
    status = read_status(run.status)
    assert status is not None and status.state == FINISHED
    assert_same_results(run, alone)


