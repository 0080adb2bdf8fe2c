from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from solvar_engine import __version__, cli
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import COMMANDS, FitParams, SelectParams, SimulateParams, options_of
from tests.jobs.programs import heed_signals

REPOSITORY = Path(__file__).resolve().parents[1]
ANALYZE = ["analyze", "run", "--device", "cpu", "--threads", "1"]


@pytest.fixture
def run_job(monkeypatch, capsys):
    """Run the command line with a job of our own; returns (exit code, stderr)."""
    monkeypatch.setattr(cli, "_set_threads", lambda threads: None)
    monkeypatch.setattr(cli, "_prepare_libraries", lambda threads: None)

    def run(job, *extra: str) -> tuple[int, str]:
        monkeypatch.setitem(sys.modules, "solvar_engine.jobs.run_analyze", SimpleNamespace(run=job))
        code = cli.main([*ANALYZE, *extra])
        return code, capsys.readouterr().err

    return run


def fail_with(error: BaseException):
    def job(params) -> None:
        raise error

    return job


# ---------------------------------------------------------------- arguments


def test_every_option_arrives():
    arguments = (
        "fit p.star --output run --rank 6 --mask m.mrc --box 64 --objective ml --projector nearest"
        " --oversampling 1 --invert-contrast no --one-frame no --root . --cache-mb 100 --scratch /s --resume"
        " --threads 2 --device cuda:1 --seed 7 --debug"
    )
    assert cli.parse_arguments(arguments.split()) == FitParams(
        particles="p.star", output="run", rank=6, mask="m.mrc", box=64, objective="ml", projector="nearest",
        oversampling=1, invert_contrast="no", one_frame="no", root=".", cache_mb=100, scratch="/s", resume=True,
        threads=2, device="cuda:1", seed=7, debug=True,
    )  # fmt: skip


def test_a_word_arrives_in_place_of_a_number():
    params = cli.parse_arguments("fit p.star --output run --rank auto".split())
    assert params == FitParams(particles="p.star", output="run", rank="auto")


def test_several_values_arrive():
    arguments = "simulate --phantom a.mrc b.mrc --output data --particles 5"
    params = cli.parse_arguments(arguments.split())
    assert params == SimulateParams(output="data", phantom=("a.mrc", "b.mrc"), particles=5)


def test_negative_numbers_may_have_exponents():
    params = cli.parse_arguments("select run --output a.star --near -1 0.5 -1e-3 -.5 -2.E+1".split())
    assert params == SelectParams(run="run", output="a.star", near=(-1, 0.5, -1e-3, -0.5, -20))


def test_defaults_are_those_of_the_contract():
    arguments = "fit p.star --output run --rank 6".split()
    assert cli.parse_arguments(arguments) == FitParams(particles="p.star", output="run", rank=6)


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.command)
def test_help_shows_every_option_with_unit_range_and_default(kind, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([kind.command, "--help"])
    assert exit_.value.code == 0
    text = _unwrapped(capsys.readouterr().out)
    for option in options_of(kind):
        assert option.label in text
        assert _unwrapped(option.describe()) in text


def _unwrapped(text: str) -> str:
    """Undo line breaks, which may come after hyphens."""
    return " ".join(text.split()).replace("- ", "-")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("align p.star", "invalid choice: 'align'"),
        ("fit p.star --output run", "required: --rank"),
        ("fit p.star --output run --rank all", "argument --rank: 'all' is not a whole number or auto"),
        ("fit p.star --output run --rank 3 --objective em", "argument --objective: invalid choice: 'em'"),
        ("fit p.star --output run --rank 3 --gpu 0", "unrecognized arguments: --gpu"),
        ("fit p.star --out run --rank 3", "required: --output"),
        ("simulate --output d --phantom", "argument --phantom: expected at least one argument"),
        ("simulate --output d --phantom hinge --snr low", "argument --snr: 'low' is not a number"),
        ("reconstruct run --output d", "one of the arguments --clusters --mixture"),
        ("reconstruct run --output d --clusters 2 --points a.csv", "not allowed with argument --clusters"),
        ("reconstruct run --output d --clusters 2 --method nearest", "invalid choice: 'nearest'"),
    ],
)
def test_what_cannot_be_parsed_is_one_sentence_and_exit_2(arguments, text, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments.split())
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_value_out_of_range_ends_before_anything_is_done(run_job, capsys):
    assert cli.main("fit p.star --output run --rank 0".split()) == 2
    assert capsys.readouterr().err == "error: --rank is 0 but must be at least 1 or auto.\n"


# ---------------------------------------------------------------- exit codes and messages


def test_success_passes_what_is_in_force(run_job):
    seen = []
    code, error = run_job(seen.append)
    assert (code, error) == (0, "")
    assert seen[0].run == "run" and seen[0].threads == 1 and seen[0].device == "cpu"


def test_messages_go_to_stderr(run_job):
    def job(params) -> None:
        logger = logging.getLogger("solvar_engine.somewhere")
        logger.debug("only for us")
        logger.info("box %d px", 64)
        logger.warning("odd")

    assert run_job(job) == (0, "box 64 px\nwarning: odd\n")
    assert run_job(job, "--debug") == (0, "only for us\nbox 64 px\nwarning: odd\n")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("mask.mrc is not a cube."), 2, "error: mask.mrc is not a cube.\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: The disk is full: free some space"),
        (OSError("16384 requested and 0 written"), 2, "error: The disk is full"),
        (PermissionError(errno.EACCES, "Not yours", "/r"), 2, "error: /r cannot be used: Not yours.\n"),
        (PermissionError(errno.EACCES, "No", "/r/.m.mrc.1.tmp"), 2, "error: /r cannot be used: No.\n"),
        (MemoryError(), 2, "error: There is too little memory"),
        (OSError(errno.EIO, "Input/output error"), 1, "error: internal error, OSError: "),
        (ValueError("odd box"), 1, "error: internal error, ValueError: odd box (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_errors_are_one_sentence_with_their_exit_code(error, code, text, run_job):
    found, message = run_job(fail_with(error))
    assert found == code
    assert message.startswith(text) and message.count("\n") == 1


def test_debug_shows_the_traceback(run_job):
    for error in (UserError("a mistake"), ValueError("a bug")):
        _, message = run_job(fail_with(error), "--debug")
        assert "Traceback" in message and "in job" in message


def test_log_of_the_run_gets_the_traceback_and_is_closed(run_job, tmp_path):
    handlers = list(cli.logger.handlers)

    def job(params) -> None:
        cli.logger.addHandler(logging.FileHandler(tmp_path / "log.txt"))
        raise RuntimeError("a bug")

    code, message = run_job(job)
    assert code == 1 and "Traceback" not in message
    assert "Traceback" in (tmp_path / "log.txt").read_text()
    assert cli.logger.handlers == handlers


def test_full_disk_for_real(run_job):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")

    def job(params) -> None:
        with open("/dev/full", "wb") as stream:
            stream.write(bytes(100_000))

    code, message = run_job(job)
    assert code == 2 and "disk is full" in message


# ---------------------------------------------------------------- threads, device, cache


def test_threads_follow_slurm_and_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert cli.allowed_cpus() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert cli.allowed_cpus() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "64")
    assert cli.allowed_cpus() == 8


@pytest.mark.parametrize(
    ("gpus", "name", "local_rank", "device"),
    [
        (0, "auto", 0, "cpu"),
        (2, "auto", 0, "cuda:0"),
        (2, "auto", 1, "cuda:1"),
        (2, "cpu", 0, "cpu"),
        (2, "cuda", 1, "cuda:1"),
        (2, "cuda:1", 0, "cuda:1"),
    ],
)
def test_device_is_a_gpu_if_there_is_one(gpus, name, local_rank, device, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    assert cli.resolve_device(name) == device


@pytest.mark.parametrize(
    ("gpus", "name", "processes", "reason"),
    [
        (0, "cuda", 1, "--device cuda was asked for, but no CUDA GPU is available"),
        (0, "cuda:0", 1, "--device cuda:0 was asked for, but no CUDA GPU is available"),
        (2, "cuda:2", 1, "cuda:2 was asked for, but there are 2 GPUs, numbered from 0"),
        (2, "auto", 3, "3 processes need a GPU each, but there are 2"),
    ],
)
def test_gpu_that_is_not_there(gpus, name, processes, reason, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    with pytest.raises(UserError, match=reason):
        cli.resolve_device(name)


def test_all_gpus_are_those_that_the_driver_shows(monkeypatch):
    params = FitParams(particles="particles.star", output="run", rank=2, gpus="all")
    params.validate()
    monkeypatch.setattr(cli, "visible_gpus", lambda: 3)
    assert cli._with_visible_gpus(params).devices() == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(cli, "visible_gpus", lambda: 0)
    with pytest.raises(UserError, match="--gpus all was asked for, but no CUDA GPU is visible: use --device cpu"):
        cli._with_visible_gpus(params)


def test_compiled_code_goes_to_a_private_writable_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cli._numba_cache() == tmp_path / "cache" / "solvar-engine" / "numba"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fallback = cli._numba_cache()
    assert fallback.parent == tmp_path and fallback.stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------- as a program


def run_program(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "solvar_engine", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, **options)


def test_version():
    result = run_program("--version")
    assert (result.returncode, result.stdout) == (0, f"solvar-engine {__version__}\n")


def test_help_needs_no_heavy_library():
    code = "import sys, solvar_engine.cli as c\ntry: c.main(['-h'])\nexcept SystemExit: print(*sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "numba"} & set(result.stdout.split("\n")[-2].split())


def test_user_mistake_of_the_whole_program(tmp_path):
    arguments = ("fit", str(tmp_path / "no.star"), "--output", str(tmp_path / "run"), "--rank", "0")
    result = run_program(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: --rank is 0 but must be at least 1 or auto.\n"


def test_number_of_threads_reaches_the_libraries():
    code = """
import os, sys, types
def job(params):
    import numba, torch
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    print(torch.get_num_threads(), numba.get_num_threads(), *(os.environ[name] for name in names))
sys.modules["solvar_engine.jobs.run_analyze"] = types.SimpleNamespace(run=job)
from solvar_engine import cli
sys.exit(cli.main(["analyze", "run", "--threads", "1"]))
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1"] * 5


# ---------------------------------------------------------------- parent and signals

LAUNCH = cli.Launch(parent=100, parent_name="python", leads_group=False, ignores_signals=False)


@pytest.mark.parametrize(
    ("launch", "depends"),
    [
        # a workflow manager, whether or not it gives its children a session or was itself started with nohup
        (LAUNCH, True),
        (cli.Launch(100, "python3", leads_group=True, ignores_signals=True), True),
        # a script that waits for the command
        (cli.Launch(100, "bash", leads_group=False, ignores_signals=False), True),
        # a job of an interactive shell or behind setsid; nohup, or & in a script
        (cli.Launch(100, "bash", leads_group=True, ignores_signals=False), False),
        (cli.Launch(100, "-zsh", leads_group=True, ignores_signals=False), False),
        (cli.Launch(100, "sh", leads_group=False, ignores_signals=True), False),
        # the first process of a container, or an orphan
        (cli.Launch(1, "sh", leads_group=False, ignores_signals=False), False),
        (cli.Launch(0, "", leads_group=False, ignores_signals=False), False),
    ],
)
def test_which_parent_is_followed(launch, depends):
    assert launch.depends_on_parent is depends


SLEEPER = """
import os, sys, time, types
from solvar_engine import cli
cli._SECONDS_BETWEEN_LOOKS = 0.05
cli._set_threads = lambda threads: None
def job(params):
    try:
        open(sys.argv[2], "w").write(str(os.getpid()))
        time.sleep(40)
    finally:
        open(sys.argv[2], "a").write(" done")
sys.modules["solvar_engine.jobs.run_analyze"] = types.SimpleNamespace(run=job)
note = sys.argv.pop()
sys.argv[1:] = ["analyze", note, "--device", "cpu"]
sys.exit(cli.main())
"""


def wait_for(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def note_of(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def start_parent(tmp_path: Path, tail: str, **options) -> tuple[subprocess.Popen, Path]:
    """Start a shell that starts the engine in the given way."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    note = tmp_path / "note"
    command = f"{sys.executable} {tmp_path / 'sleeper.py'} {note} {tail}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(["bash", "-c", command], env=environment, preexec_fn=heed_signals, **options), note


def test_engine_stops_in_order_when_its_parent_is_killed(tmp_path):
    parent, note = start_parent(tmp_path, "; true", stderr=subprocess.PIPE)
    assert wait_for(lambda: note_of(note))
    os.kill(parent.pid, signal.SIGKILL)
    _, message = parent.communicate(timeout=20)
    assert wait_for(lambda: note_of(note)[1:] == ["done"])
    assert b"stopped: terminated" in message


def test_engine_in_the_background_of_a_script_outlives_it(tmp_path):
    parent, note = start_parent(tmp_path, "& while ! test -s note; do sleep 0.05; done", cwd=tmp_path)
    assert parent.wait(timeout=20) == 0
    time.sleep(0.5)
    (pid,) = note_of(note)
    os.kill(int(pid), signal.SIGTERM)
    assert wait_for(lambda: note_of(note)[1:] == ["done"])


def test_terminated_engine_ends_in_order_with_143(tmp_path):
    process, note = start_parent(tmp_path, "; exit $?", stderr=subprocess.PIPE)
    assert wait_for(lambda: note_of(note))
    os.kill(int(note_of(note)[0]), signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    process.communicate()
    assert note_of(note)[1:] == ["done"]
