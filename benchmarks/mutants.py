"""Do the tests notice? One fault after the other in a copy of the engine, and the tests that should fail with it.

    python -m benchmarks.mutants --jobs 2

The faults are in `faults.py`. For each, the tree is copied anew, the fault is written into the copy, and the files of
tests that are named with it run there; it survives if all of them pass. First the same tests run without any fault.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ENGINE, ROOT, engine_commit, machine, publish, table, use_threads
from benchmarks.faults import FAULTS, Fault

_COPIED = (ENGINE, "tests", "pyproject.toml")
_MOST_SURVIVORS = 0.05  # of all faults
_TIMEOUT_SECONDS = 900.0  # a fault may make a loop endless: that is noticed, too
_PASSED, _FAILED = 0, 1  # exit codes of pytest

# Loading the libraries takes longer than most tests: it is done once, and every run is a fork of that process.
_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["torch", "numba", "scipy.fft", "scipy.spatial.transform", "mrcfile", "pytest"])


class OutdatedError(Exception):
    """A fault that does not fit the engine, or tests that do not run."""


@dataclass(frozen=True)
class Outcome:
    """What became of a fault.

    Attributes
    ----------
    place : str
        File with the fault.
    noticed_by : str
        First test that failed; nothing if the fault survived.
    seconds : float
    """

    place: str
    noticed_by: str
    seconds: float


def engine_texts(root: Path) -> dict[str, str]:
    """Text of every file of the engine, by its path from `root`."""
    paths = sorted((root / ENGINE).rglob("*.py"))
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}


def find(fault: Fault, texts: Mapping[str, str]) -> str:
    """Return the file that holds the text of a fault.

    Raises
    ------
    OutdatedError
        If the text is not found exactly once in all files.
    """
    found = [path for path, text in texts.items() for _ in range(text.count(fault.text))]
    if len(found) != 1:
        places = ", ".join(dict.fromkeys(found)) or "nowhere"
        raise OutdatedError(
            f"The text {fault.text!r} of the fault \"{fault.wrong}\" is found {len(found)} times in {ENGINE}"
            f" ({places}), not once: bring benchmarks/faults.py up to date."
        )
    return found[0]


class Workplace:
    """A folder in which one fault after the other is tried.

    Copies of the tree have the same path each time, so that code which Numba compiled for the tree without faults can
    be taken again, unless the fault is in a file that has to do with compiled code.
    """

    def __init__(self, folder: Path) -> None:
        self._tree, self._cache, self._compiled = folder / "tree", folder / "cache", folder / "compiled"
        self._output = folder / "output.txt"

    def prepare(self, tests: Sequence[str]) -> None:
        """Run tests without any fault, and keep what they compile.

        Raises
        ------
        OutdatedError
            If they do not pass.
        """
        self._copy_tree()
        code, output = self._run(tests)
        if code != _PASSED:
            raise OutdatedError(f"The tests do not pass without a fault either:\n{output}")
        self._cache.rename(self._compiled)

    def attempt(self, fault: Fault) -> Outcome:
        """Try a fault.

        Raises
        ------
        OutdatedError
            If its text is not there once, or its tests cannot run.
        """
        start = time.perf_counter()
        self._copy_tree()
        texts = engine_texts(self._tree)
        place = find(fault, texts)
        (self._tree / place).write_text(texts[place].replace(fault.text, fault.instead), encoding="utf-8")
        if "numba" not in texts[place]:
            shutil.copytree(self._compiled, self._cache, dirs_exist_ok=True)
        code, output = self._run(fault.tests)
        if code not in (_PASSED, _FAILED):
            raise OutdatedError(f"The tests of the fault \"{fault.wrong}\" in {place} did not run:\n{output}")
        return Outcome(place, "" if code == _PASSED else _first_failure(output), time.perf_counter() - start)

    def _copy_tree(self) -> None:
        for folder in (self._tree, self._cache):
            shutil.rmtree(folder, ignore_errors=True)
        for name in _COPIED:
            source, target = ROOT / name, self._tree / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))
            else:
                shutil.copy2(source, target)
        self._cache.mkdir()

    def _run(self, tests: Sequence[str]) -> tuple[int, str]:
        """Exit code and output of pytest, in a process that has loaded the libraries, but nothing of the engine."""
        process = _LOADED.Process(target=_run_tests, args=(self._tree, self._cache, self._output, list(tests)))
        process.start()
        process.join(_TIMEOUT_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            return _FAILED, f"FAILED more than {_TIMEOUT_SECONDS:.0f} s"
        return process.exitcode, self._output.read_text(encoding="utf-8", errors="replace")


def _run_tests(tree: Path, cache: Path, output: Path, tests: list[str]) -> None:
    """Run tests of a tree in this process, and end it with pytest's exit code."""
    import numba
    import pytest

    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = str(cache)
    os.environ["PYTHONPATH"] = str(tree)  # of programs that tests start
    os.chdir(tree)
    sys.pycache_prefix = str(cache / "bytecode")
    sys.path.insert(0, str(tree))
    use_threads(1)
    origin = str(importlib.import_module(ENGINE).__file__)
    if not origin.startswith(str(tree)):
        sys.exit(f"Python takes {ENGINE} from {origin}, not from {tree}.")
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header", "--tb=no"]
    sys.exit(int(pytest.main([*options, *tests])))


def _first_failure(output: str) -> str:
    """Name of the test that failed: its file and function."""
    for line in output.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(" ", 1)[1].split(" - ", 1)[0]
    return "unknown"


def try_all(faults: Sequence[Fault], folder: Path, jobs: int) -> list[Outcome]:
    """Try faults in so many workplaces at a time, saying what comes out."""
    tests = sorted({test for fault in faults for test in fault.tests})
    workplaces = [Workplace(folder / f"workplace{number}") for number in range(jobs)]
    free: queue.SimpleQueue[Workplace] = queue.SimpleQueue()

    def attempt(fault: Fault) -> Outcome:
        workplace = free.get()
        try:
            outcome = workplace.attempt(fault)
        finally:
            free.put(workplace)
        said = f"noticed by {outcome.noticed_by}" if outcome.noticed_by else "SURVIVES"
        print(f"{outcome.seconds:5.1f} s  {outcome.place}: {fault.wrong}: {said}", flush=True)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda workplace: workplace.prepare(tests), workplaces))
        for workplace in workplaces:
            free.put(workplace)
        return list(pool.map(attempt, faults))


def report(faults: Sequence[Fault], outcomes: Sequence[Outcome]) -> str:
    """Lay out the faults by file, with the tests that noticed."""
    survivors = sum(not outcome.noticed_by for outcome in outcomes)
    rows = [
        (f"`{outcome.place.removeprefix(ENGINE + '/')}`", fault.wrong, _shown(outcome.noticed_by))
        for fault, outcome in sorted(zip(faults, outcomes, strict=True), key=lambda pair: pair[1].place)
    ]
    return (
        f"{len(faults)} faults, {survivors} unnoticed. Engine at commit {engine_commit()}, {machine()}.\n\n"
        + table(("file", "fault", "noticed by"), rows)
    )


def _shown(test: str) -> str:
    """A test without the folders of its file."""
    return f"`{test.rpartition('/')[2]}`".replace("|", "\\|") if test else "**nobody**"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="faults that are tried at a time (default: 1)")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="faults whose file or phrase holds one of these texts"
    )
    parser.add_argument("--print", action="store_true", help="leave RESULTS.md alone")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    try:
        texts = engine_texts(ROOT)
        places = [find(fault, texts) for fault in FAULTS]
        chosen = [
            fault
            for fault, place in zip(FAULTS, places, strict=True)
            if any(text in f"{place}: {fault.wrong}" for text in arguments.only)
        ]
        if not chosen:
            raise OutdatedError("No fault has one of these texts in its file or phrase.")
        with tempfile.TemporaryDirectory() as folder:
            outcomes = try_all(chosen, Path(folder), arguments.jobs)
    except OutdatedError as error:
        sys.exit(str(error))
    text = report(chosen, outcomes)
    print(f"\n{text}")
    if len(chosen) == len(FAULTS) and not arguments.print:
        publish("mutants", text)
    survivors = sum(not outcome.noticed_by for outcome in outcomes)
    if survivors > _MOST_SURVIVORS * len(chosen):
        sys.exit(f"{survivors} of {len(chosen)} faults survive, more than {100 * _MOST_SURVIVORS:.0f} %.")


if __name__ == "__main__":
    main()
