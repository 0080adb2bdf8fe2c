"""Small data sets, one finished fit, and two ways to run the engine, shared by the tests of this folder."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from solvar_engine import cli
from solvar_engine.contract.results import read_components, read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.data.volumes import read_volume
from solvar_engine.jobs.simulate.files import DataSetFiles
from tests.jobs.programs import engine_command, engine_environment, heed_signals

BOX, PIXEL_SIZE, PARTICLES, RANK = 24, 8.0, 300, 2


@dataclass(frozen=True)
class Outcome:
    """How a run of the command line ended."""

    code: int
    error: str


def run_in_process(*arguments: object) -> int:
    """Run the command line in this process on one thread, and leave the libraries as they were."""
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        return cli.main([*map(str, arguments), "--threads", "1"])
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)


def assert_fits_agree(run: RunDir, expected: RunDir, eigenvalue: float, mean: float, latent: float) -> None:
    """Compare two fits: relative errors of eigenvalues and mean, and correlation of the first coordinate, at least."""
    first, second = (read_components(one.eigenvalues).eigenvalue for one in (run, expected))
    np.testing.assert_allclose(first, second, rtol=eigenvalue)
    found, known = (read_volume(one.mean).data for one in (run, expected))
    assert float((found - known).norm() / known.norm()) < mean
    z, of_known = (read_latents(one.latents).z[:, 0] for one in (run, expected))
    assert abs(np.corrcoef(z, of_known)[0, 1]) > latent


@pytest.fixture
def engine(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The command line on one thread in this process: arguments in, exit code and stderr out."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = run_in_process(*arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Outcome(code, capsys.readouterr().err)

    return run


@pytest.fixture
def engine_program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line as a program of its own; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
        settings = {"cwd": tmp_path, "stderr": subprocess.PIPE, "text": True, "env": engine_environment(), **options}
        settings["preexec_fn"] = heed_signals
        process = subprocess.Popen(engine_command(*arguments), **settings)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@pytest.fixture(scope="session")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DataSetFiles]:
    """Function that simulates a data set: arguments of the command except --output."""

    def run(*arguments: object) -> DataSetFiles:
        folder = tmp_path_factory.mktemp("data")
        assert run_in_process("simulate", "--output", folder, *arguments) == 0
        return DataSetFiles(folder)

    return run


@pytest.fixture(scope="session")
def hinge(simulate: Callable[..., DataSetFiles]) -> DataSetFiles:
    """300 clear images of 24 px of the hinge."""
    return simulate(
        *("--phantom", "hinge", "--particles", PARTICLES, "--box", BOX, "--pixel-size", PIXEL_SIZE, "--snr", 1.0)
    )


@pytest.fixture(scope="session")
def larger_hinge(simulate: Callable[..., DataSetFiles]) -> DataSetFiles:
    """800 images of 32 px, enough that a fit takes some seconds."""
    return simulate("--phantom", "hinge", "--particles", 800, "--box", 32, "--pixel-size", 6.0, "--snr", 0.5)


@pytest.fixture(scope="session")
def fitted(hinge: DataSetFiles, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished fit of `hinge` with two components, not to be changed."""
    folder = tmp_path_factory.mktemp("fit") / "run"
    assert run_in_process("fit", hinge.particles, "--output", folder, "--rank", RANK) == 0
    return RunDir(folder)
