"""The table of deliberate faults fits the engine, and the program tells which of them are noticed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import mutants
from benchmarks.faults import FAULTS, Fault
from benchmarks.mutants import Outcome, OutdatedError, Workplace, engine_texts, find, report


@pytest.fixture(scope="module")
def places() -> list[str]:
    """File of each fault; fails with a sentence that names the first one that is not in the engine once."""
    texts = engine_texts(mutants.ROOT)
    return [find(fault, texts).removeprefix(f"{mutants.ENGINE}/") for fault in FAULTS]


def test_every_fault_is_found_once_and_says_what_is_wrong(places) -> None:
    assert len({fault.text for fault in FAULTS}) == len(FAULTS)
    phrases = Counter(fault.wrong for fault in FAULTS)
    assert max(phrases.values()) == 1
    for fault in FAULTS:
        assert fault.instead != fault.text and fault.instead.count("\n") == fault.text.count("\n"), fault.wrong
        assert fault.tests and all((mutants.ROOT / test).is_file() for test in fault.tests), fault.wrong


def test_faults_are_in_all_modules_that_compute(places) -> None:
    rooms = Counter(place.split("/")[0] for place in places)
    assert rooms["estimation"] + rooms["reconstruction"] + rooms["data"] >= 60
    assert min(rooms[room] for room in ("estimation", "reconstruction", "data")) >= 20


def engine_of(folder: Path, **modules: str) -> Path:
    (folder / mutants.ENGINE).mkdir()
    for name, text in modules.items():
        (folder / mutants.ENGINE / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def test_a_text_that_is_not_there_once_is_named(tmp_path) -> None:
    texts = engine_texts(engine_of(tmp_path, one="a = 1\nb = 2\n", two="a = 1\n"))
    assert find(Fault("b = 2", "b = 3", "b is three", ("t",)), texts) == "solvar_engine/one.py"
    with pytest.raises(OutdatedError, match=r"'a = 1' of the fault \"a is two\" is found 2 times .*one.py, .*two.py"):
        find(Fault("a = 1", "a = 2", "a is two", ("t",)), texts)
    with pytest.raises(OutdatedError, match="found 0 times in solvar_engine .nowhere., not once"):
        find(Fault("c = 1", "c = 2", "c is two", ("t",)), texts)


def test_faults_are_noticed_or_survive_in_copies_of_the_tree(tmp_path, monkeypatch) -> None:
    """Tests that do not pass without a fault, or do not run with one, are neither."""
    root = engine_of(tmp_path, __init__="", sums="def twice(x):\n    return 2 * x\n\n\nUNUSED = 1\nLIMIT = 5\n")
    (root / "pyproject.toml").write_text("", encoding="utf-8")
    (root / "tests").mkdir()
    check = "from solvar_engine.sums import LIMIT, twice\n\n\ndef test_twice():\n    assert twice(2) == 4\n"
    (root / "tests" / "test_sums.py").write_text(check, encoding="utf-8")
    (root / "tests" / "test_wrong.py").write_text("def test_wrong():\n    assert False\n", encoding="utf-8")
    monkeypatch.setattr(mutants, "ROOT", root)
    tests = ("tests/test_sums.py",)
    factor, unused = Fault("2 * x", "3 * x", "factor", tests), Fault("UNUSED = 1", "UNUSED = 2", "unused", tests)
    workplace = Workplace(tmp_path / "work")
    with pytest.raises(OutdatedError, match="do not pass without a fault"):
        workplace.prepare(["tests/test_wrong.py"])
    workplace.prepare(tests)
    noticed, survivor = workplace.attempt(factor), workplace.attempt(unused)
    assert noticed.noticed_by == "tests/test_sums.py::test_twice" and noticed.place == "solvar_engine/sums.py"
    assert survivor.noticed_by == ""
    with pytest.raises(OutdatedError, match="fault .name. in solvar_engine/sums.py did not run"):
        workplace.attempt(Fault("LIMIT = 5", "BOUND = 5", "name", tests))
    assert (root / mutants.ENGINE / "sums.py").read_text(encoding="utf-8").startswith("def twice(x):\n    return 2")


def test_survivors_stand_out_in_the_report() -> None:
    faults = [Fault("a", "b", "first", ("t",)), Fault("c", "d", "second", ("t",))]
    outcomes = [Outcome("solvar_engine/x/one.py", "tests/x/test_one.py::test[a|b]", 1.0), Outcome("y.py", "", 2.0)]
    text = report(faults, outcomes)
    assert text.startswith("2 faults, 1 unnoticed.")
    assert "| `x/one.py` | first | `test_one.py::test[a\\|b]` |" in text and "| second | **nobody** |" in text
