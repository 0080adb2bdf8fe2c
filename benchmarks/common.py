"""What the benchmarks share: calls of the engine that are not repeated, names of commit and machine, tables.

Data sets and runs lie in a folder of their own and are taken as they are when a script is called again: a run that
was interrupted is resumed, and nothing is deleted. The name of a run holds the commit of the engine that made it, so
another version makes runs of its own beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
ENGINE = "solvar_engine"
FIT = ("-m", ENGINE, "fit")
_SAMPLING_SECONDS = 0.05


# ---------------------------------------------------------------- the engine as a program


@dataclass(frozen=True)
class Call:
    """What a call of the engine cost.

    Attributes
    ----------
    seconds : float
        From the start of the process to its end, start of the interpreter and compilation included.
    cpu_seconds : float
        That all its threads computed, which other programs on the machine change much less.
    memory_mb : float
        Largest anonymous memory: what the process itself holds, without files that are mapped.
    """

    seconds: float
    cpu_seconds: float
    memory_mb: float


def engine(
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", ENGINE),
    log: Path | None = None,
) -> Call:
    """Run a command of the engine of this source tree, as a user would.

    Parameters
    ----------
    *arguments
        Of the command line.
    environment : mapping, optional
        Variables to set beside those of this process.
    program : sequence of str
        What Python runs in place of the engine's command line.
    log : Path, optional
        File for its messages (default: they appear here).

    Raises
    ------
    subprocess.CalledProcessError
        If the command fails; its own sentence is among the messages.
    """
    command = [sys.executable, *program, *map(str, arguments)]
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    environment = {**os.environ, **(environment or {}), "PYTHONPATH": path}
    with contextlib.ExitStack() as stack:
        stderr = None if log is None else stack.enter_context(log.open("w", encoding="utf-8"))
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )
        memory = _PeakMemory(process.pid)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Call(seconds, usage.ru_utime + usage.ru_stime, memory.stop())


class _PeakMemory:
    """Watches the anonymous memory of a process from a thread."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/status")
        self._peak_kb = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLING_SECONDS):
            try:
                text = self._path.read_text(encoding="ascii", errors="replace")
                self._peak_kb = max(self._peak_kb, int(text.split("RssAnon:", 1)[1].split()[0]))
            except (OSError, IndexError):
                return

    def stop(self) -> float:
        """Stop watching; the largest memory, MB."""
        self._stopped.set()
        self._thread.join()
        return self._peak_kb / 1024


# ---------------------------------------------------------------- data sets and runs that are made once


def simulated(folder: Path, phantom: str, **options: object) -> Path:
    """Data set of a phantom in `folder`; simulated unless it is there.

    Parameters
    ----------
    folder : Path
    phantom : str
    **options
        Of `simulate`, by their names with underscores.
    """
    name = "-".join([phantom, *(f"{key}{value}" for key, value in options.items() if key != "threads")])
    data = folder / name
    if not (data / "particles.star").is_file():  # the file that is written last
        engine("simulate", "--output", data, "--phantom", phantom, *as_options(options))
    return data


def fitted(folder: Path, data: Path, *, program: Sequence[str] = FIT, label: str = "", **options: object) -> Path:
    """Finished run of this version of the engine on a data set; fitted, or resumed, unless it is there.

    Parameters
    ----------
    folder, data : Path
    program : sequence of str
        What Python runs in place of the command `fit`.
    label : str
        Of that program, which becomes a part of the run's name.
    **options
        Of `fit`; None stands for an option that is left out.
    """
    given = {key: value for key, value in options.items() if value is not None}
    choices = [f"{key}{value}" for key, value in given.items() if key != "threads"]
    run = folder / "-".join([data.name, *choices, *([label] if label else []), engine_commit()])
    state = state_of(run)
    if state != "finished":
        call = engine(data / "particles.star", "--output", run, "--resume", *as_options(given), program=program)
        if not state:  # the cost of what was interrupted is not known
            _cost_path(run).write_text(json.dumps(call.cpu_seconds), encoding="ascii")
    return run


def cpu_seconds_of(run: Path) -> float | None:
    """CPU-seconds that a run of `fitted` took; None if it was interrupted."""
    path = _cost_path(run)
    return float(json.loads(path.read_text(encoding="ascii"))) if path.is_file() else None


def _cost_path(run: Path) -> Path:
    return run.parent / f"{run.name}.cost.json"


def evaluated(run: Path, data: Path, threads: int) -> dict[str, Any]:
    """Scores of a run, under the keys of `evaluate`; computed unless they lie beside the run."""
    path = run.parent / f"{run.name}.json"
    if not path.is_file():
        engine("evaluate", run, data, "--json", path, "--threads", threads)
    scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return scores


def state_of(run: Path) -> str:
    """How a run stands: running, finished, failed, or nothing if there is none."""
    path = run / "status.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["state"]) if path.is_file() else ""


def as_options(options: Mapping[str, object]) -> list[str]:
    """Write options as on the command line.

    Examples
    --------
    >>> as_options({"pixel_size": 3.0, "rank": 6})
    ['--pixel-size', '3.0', '--rank', '6']
    """
    return [text for key, value in options.items() for text in ("--" + key.replace("_", "-"), str(value))]


# ---------------------------------------------------------------- what a number belongs to


def engine_commit() -> str:
    """Last commit that changed the engine; with "+" after it if there are changes that are not committed."""
    commit = _git("log", "-1", "--format=%h", "--", ENGINE)
    return (commit or "unknown") + ("+" if _git("status", "--porcelain", "--", ENGINE) else "")


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def machine() -> str:
    """Describe this machine in a phrase."""
    cpu = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return f"{len(os.sched_getaffinity(0))} cores of {cpu}, {memory / 2**20:.0f} GB"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def provenance(threads: int | Sequence[int]) -> str:
    """One sentence: date, commit of the engine, machine, threads, and how busy the machine was."""
    count = threads if isinstance(threads, int) else ", ".join(map(str, threads))
    return (
        f"{datetime.date.today().isoformat()}, engine at commit {engine_commit()}, {machine()}, {count} thread(s); "
        f"load average {os.getloadavg()[1]:.1f} at the end."
    )


# ---------------------------------------------------------------- tables


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a table in Markdown.

    Examples
    --------
    >>> print(table(["a", "b"], [[1, 2]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [_row(header), "|" + "---|" * len(header), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def shown(value: object) -> str:
    """Write a number, a list of them, or a dash for what does not apply."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(f"{item:.3g}" for item in value[:4]) + (" ..." if len(value) > 4 else "") or "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def publish(name: str, text: str, results: Path = RESULTS) -> None:
    """Write a part of the results between its two marks, in place of what stood there; the rest is left alone.

    Parameters
    ----------
    name : str
        Of the part; if the file has no marks for it, they are added at the end.
    text : str
        Markdown.
    results : Path
    """
    begin, end = f"<!-- {name}: written by the script, do not edit -->", f"<!-- {name}: end -->"
    content = results.read_text(encoding="utf-8")
    if begin not in content:
        content = f"{content.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = content.split(begin, 1)
    after = rest.split(end, 1)[1]
    results.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


_HELP = {
    "particles": "of a data set",
    "box": "edge of the volumes, px",
    "rank": "components",
    "seed": "of data set and fit",
    "images": "of a pass or a batch",
    "threads": "ours; a baseline has set its own to 2",
    "repeats": "the median of these is reported",
}


def script_parser(
    description: str | None, *, work: bool = False, publishes: bool = True, **defaults: float
) -> argparse.ArgumentParser:
    """Make the parser of a script.

    Parameters
    ----------
    description : str
        The script's documentation.
    work : bool
        Whether it keeps data sets and runs in a folder, `--work`.
    publishes : bool
        Whether it writes into RESULTS.md, unless `--print` is given.
    **defaults
        Of its numbers, by the names of the options with underscores.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if work:
        parser.add_argument("--work", type=Path, required=True, help="folder for data sets and runs; made if need be")
    for name, default in defaults.items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(default), default=default, help=_HELP.get(name))
    if publishes:
        parser.add_argument("--print", action="store_true", help="print the tables and leave RESULTS.md alone")
    return parser


def finish(name: str, text: str, arguments: argparse.Namespace) -> None:
    """Print what was measured, and publish it unless `--print` is given."""
    if not arguments.print:
        publish(name, text)
    print(text)


def use_threads(count: int) -> None:
    """Let the libraries of this process use so many threads."""
    import numba
    import torch

    torch.set_num_threads(count)
    numba.set_num_threads(count)


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of a call, of all threads together: other programs on the machine change it little."""
    start = time.process_time()
    function()
    return time.process_time() - start
