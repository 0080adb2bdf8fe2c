"""The command line: options from `contract.params`, exit codes, messages, threads, device.

Exit codes are 0 for success, 2 for a mistake of the user, with one sentence on stderr, and 1 for an error of
ours, with one sentence on stderr and the traceback in the log of the run or with ``--debug``. A command that
is stopped from outside ends with 130 (Ctrl-C) or 143.

The program stops when the program that started it dies, so that no orphan goes on computing when a workflow
manager is killed. It does not when a shell started it to run on its own: as a job of an interactive shell,
with nohup or setsid, or with ``&`` in a script.

Heavy libraries are imported when a command needs them, after the number of threads is known; ``--help`` needs
none and is quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from solvar_engine import __version__
from solvar_engine.contract.errors import INTERRUPTED, TERMINATED, UserError
from solvar_engine.contract.params import (
    ALL_GPUS,
    COMMANDS,
    FitParams,
    Option,
    Params,
    exclusive_sets_of,
    options_of,
)
from solvar_engine.distributed.launch import is_one_of_several, launched, local_rank, local_size, rank, visible_gpus
from solvar_engine.jobs.running.failures import sentence_of, user_sentence

PROGRAM = "solvar-engine"
_COMMANDS_ON_GPUS = ("fit", "reconstruct", "simulate")
_EXIT_INTERNAL, _EXIT_USER, _EXIT_INTERRUPTED, _EXIT_TERMINATED = 1, 2, 130, 143

logger = logging.getLogger("solvar_engine")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the name of the program. Without it, those of this process, which then also reacts
        to SIGTERM and to the death of its parent.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version`` (code 0) and for arguments that cannot be parsed (code 2).

    Examples
    --------
    >>> main(["analyze", "run"])  # doctest: +SKIP
    0
    """
    params = parse_arguments(argv)
    if argv is None:
        _stop_when_asked()
    with _console(params.debug):
        return _run(params, sys.argv[1:] if argv is None else argv)


# ---------------------------------------------------------------- arguments


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of repeating the usage; takes -1e-3 for a number."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")

    def error(self, message: str) -> NoReturn:
        self.exit(_EXIT_USER, f"error: {message} (see {self.prog} --help).\n")


def parse_arguments(argv: Sequence[str] | None = None) -> Params:
    """Turn arguments into the options of a command; ranges are checked later, by `Params.validate`."""
    namespace = vars(_build_parser().parse_args(argv))
    kind: type[Params] = namespace.pop("params")
    return kind(**namespace)


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Principal motions of a molecule from the particles of a cryo-EM refinement.",
        epilog=f"Options of a command: {PROGRAM} COMMAND --help. A command stops when the program that"
        " started it dies, unless a shell started it in the background.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for kind in COMMANDS:
        summary = kind.summary[0].upper() + kind.summary[1:] + "."
        command = commands.add_parser(
            kind.command, help=kind.summary, description=summary, allow_abbrev=False, add_help=False
        )
        _add_options(command, kind)
        command.set_defaults(params=kind)
    return parser


def _add_options(parser: argparse.ArgumentParser, kind: type[Params]) -> None:
    common_names = {field.name for field in dataclasses.fields(Params)}
    own = parser.add_argument_group("options")
    common = parser.add_argument_group("common options")
    exclusive = {name: own.add_mutually_exclusive_group(required=True) for name in exclusive_sets_of(kind)}
    for option in options_of(kind):
        group = common if option.name in common_names else exclusive.get(option.one_of or "", own)
        group.add_argument(*_names(option), **_settings(option))
    common.add_argument("-h", "--help", action="help", help="show this text")


def _names(option: Option) -> list[str]:
    return [option.name] if option.positional else [option.label]


def _settings(option: Option) -> dict[str, Any]:
    text = option.describe().replace("%", "%%")
    if option.kind is bool:
        return {"action": "store_true", "help": text}
    if option.is_required and not option.positional:
        text += " [required]"
    settings: dict[str, Any] = {"help": text, "type": _value_parser(option)}
    if option.is_list:
        settings["nargs"] = "+"
    if option.choices:
        settings["choices"] = option.choices
    else:
        settings["metavar"] = option.metavar or option.name.upper()
    if not option.positional:
        settings["required"] = option.is_required
        settings["default"] = option.default
    return settings


def _value_parser(option: Option) -> Any:
    def parse(text: str) -> Any:
        if text in option.words:
            return text
        try:
            return option.kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {option.kind_text}") from None

    return parse


# ---------------------------------------------------------------- running


def _run(params: Params, arguments: Sequence[str]) -> int:
    try:
        params.validate()
        params = _with_visible_gpus(params)
        _check_processes(params)
        processes = len(params.devices()) if isinstance(params, FitParams) else 1
        with launched(processes, arguments) as has_failed:
            work = _start(params)
            if is_one_of_several():
                _work_together(work, has_failed)
            else:
                work()
    except KeyboardInterrupt:
        logger.error(INTERRUPTED)
        return _EXIT_INTERRUPTED
    except _Terminated as reason:
        logger.error("stopped: %s", reason)
        return _EXIT_TERMINATED
    except Exception as error:
        sentence = user_sentence(error)
        if sentence is not None:
            logger.error(sentence, exc_info=params.debug)
            return _EXIT_USER
        hint = "" if params.debug else " (--debug shows where)"
        logger.exception("internal error, %s: %s%s", type(error).__name__, error, hint)
        return _EXIT_INTERNAL
    return 0


def _with_visible_gpus(params: Params) -> Params:
    """Name the GPUs where all are asked for."""
    if not (isinstance(params, FitParams) and params.gpus == ALL_GPUS):
        return params
    count = visible_gpus()
    if not count:
        raise UserError("--gpus all was asked for, but no CUDA GPU is visible: use --device cpu.")
    return dataclasses.replace(params, gpus=",".join(map(str, range(count))))


def _check_processes(params: Params) -> None:
    """Refuse to be one of several processes where that does not make sense."""
    if not is_one_of_several():
        return
    if not isinstance(params, FitParams):
        raise UserError(f"{params.command} works in one process: start it without torchrun.")
    if params.processes not in (None, local_size()):
        raise UserError(f"--processes is {params.processes}, but {local_size()} were started: leave it out.")


def _work_together(work: Callable[..., None], has_failed: Callable[[], bool]) -> None:
    """Do the work of a command as one of several processes."""
    from solvar_engine.distributed.join import joined

    with joined(has_failed) as world, world.telling(sentence_of):
        work(world=world)


def _start(params: Params) -> Callable[..., None]:
    """Make all ready for a command, and return what does its work and keeps its status file.

    If that fails, the status file says so: in a queue it may be all that the user gets to see.
    """
    try:
        threads = max(1, (params.threads or allowed_cpus()) // local_size())
        _prepare_libraries(threads)
        device = _device_of(params)
        if device != "cpu":
            import torch

            torch.cuda.set_device(device)  # where kernels are started that name none
        job = importlib.import_module(f"solvar_engine.jobs.run_{params.command}")
        _set_threads(threads)
    except Exception as error:
        # imported here because it brings NumPy, which must not come before the number of threads is set
        from solvar_engine.jobs.running.tracking import record_unstarted

        if rank() == 0:
            record_unstarted(params, error)
        raise
    return partial(job.run, dataclasses.replace(params, threads=threads, device=device))


@contextmanager
def _console(debug: bool) -> Iterator[None]:
    """Show messages on stderr, and remove at the end all handlers that were added meanwhile.

    A job adds a handler for the log file of its run and leaves it there: the error that ends the job belongs
    into that file too.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # paths may hold bytes that are no text
    before = list(logger.handlers)
    level = logger.level
    # of several processes the first one speaks for all
    handler = logging.StreamHandler(sys.stderr) if rank() == 0 or debug else logging.NullHandler()
    handler.setFormatter(_ConsoleFormatter(debug))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield
    finally:
        for added in [handler for handler in logger.handlers if handler not in before]:
            logger.removeHandler(added)
            added.close()
        logger.setLevel(level)


class _ConsoleFormatter(logging.Formatter):
    """One line per message, with its level if that is a warning or an error; tracebacks only on request."""

    def __init__(self, show_traceback: bool) -> None:
        super().__init__()
        self._show_traceback = show_traceback

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if self._show_traceback and record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


# ---------------------------------------------------------------- threads, device, caches


def allowed_cpus() -> int:
    """CPUs that this process may use, by affinity and by SLURM's ``--cpus-per-task``."""
    by_affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(by_affinity, int(by_slurm)) if by_slurm.isdecimal() and int(by_slurm) > 0 else by_affinity


def resolve_device(name: str) -> str:
    """Settle the device; of several processes each takes the GPU of its number on this machine.

    Parameters
    ----------
    name : str
        auto, cpu, cuda or cuda:N.

    Raises
    ------
    UserError
        If a GPU is asked for that is not there, or there are fewer than processes.
    """
    if name == "cpu":
        return name
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and not count:
        return "cpu"
    if not count:
        raise UserError(f"--device {name} was asked for, but no CUDA GPU is available: use --device cpu.")
    if ":" in name and int(name[5:]) >= count:
        raise UserError(f"{name} was asked for, but there are {count} GPUs, numbered from 0: choose one of them.")
    if ":" not in name and local_size() > count:
        raise UserError(
            f"{local_size()} processes need a GPU each, but there are {count}: start as many, or use --device cpu."
        )
    return name if ":" in name else f"cuda:{local_rank()}"


def _device_of(params: Params) -> str:
    """Device of this process, for commands that can use a GPU."""
    if isinstance(params, FitParams):
        devices = [resolve_device(name) for name in params.devices()]
        return devices[local_rank()] if params.gpus is not None else devices[0]
    if params.command in _COMMANDS_ON_GPUS or params.device in ("auto", "cpu"):
        return resolve_device(params.device if params.command in _COMMANDS_ON_GPUS else "cpu")
    raise UserError(f"--device {params.device} was asked for, but {params.command} computes on the CPU: leave it out.")


def _prepare_libraries(threads: int) -> None:
    """Set what libraries that are not imported yet will read from the environment."""
    if "numpy" not in sys.modules:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(threads)
        # On a shared machine threads that spin while they wait steal the time of those they wait for: with two other
        # jobs on two cores a fit took 2.5 times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "numba" not in sys.modules:
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
        os.environ.setdefault("NUMBA_CACHE_DIR", str(_numba_cache()))


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def _numba_cache() -> Path:
    """A private folder for compiled code, since the environment may be read-only and shared by users."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / PROGRAM / "numba"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        # not a fixed name, under which another user could leave code for us
        return Path(tempfile.mkdtemp(prefix=f"{PROGRAM}-numba-"))


# ---------------------------------------------------------------- parent and signals


class _Terminated(BaseException):
    """The process was asked to stop."""


@dataclass(frozen=True)
class Launch:
    """How this process was started.

    Attributes
    ----------
    parent : int
        Process id.
    parent_name : str
        Such as ``bash``.
    leads_group : bool
        Whether it leads its own process group, as every job of an interactive shell does.
    ignores_signals : bool
        Whether it was started with SIGHUP (by nohup) or SIGINT (by ``&`` in a script) ignored.
    """

    parent: int
    parent_name: str
    leads_group: bool
    ignores_signals: bool

    @classmethod
    def current(cls) -> Launch:
        """Describe this process."""
        parent = os.getppid()
        try:
            name = Path(f"/proc/{parent}/comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            name = ""
        handlers = (signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT))
        return cls(parent, name, os.getpgrp() == os.getpid(), signal.SIG_IGN in handlers)

    @property
    def depends_on_parent(self) -> bool:
        """Whether the process shall stop when its parent dies."""
        if self.parent <= 1:
            return False
        from_shell = self.parent_name.lstrip("-") in _SHELLS
        return not (from_shell and (self.leads_group or self.ignores_signals))


_SHELLS = {"sh", "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "tcsh", "zsh"}
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_STOP = 10.0


def _stop_when_asked() -> None:
    """Turn SIGTERM and the death of the parent into an orderly end."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated(TERMINATED)

    signal.signal(signal.SIGTERM, stop)
    launch = Launch.current()
    if launch.depends_on_parent:
        threading.Thread(target=_watch, args=(launch.parent,), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    """Wait for the death of the parent, then end this process.

    Looking at the parent's number rather than asking the kernel for a signal (PR_SET_PDEATHSIG), which would
    come when the thread ends that started us, though its program lives on.
    """
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_STOP)
    os._exit(_EXIT_TERMINATED)


if __name__ == "__main__":
    raise SystemExit(main())
