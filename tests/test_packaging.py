"""What a user installs: metadata, pins, the two commands, and the script of continuous integration."""

from __future__ import annotations

import ast
import importlib.resources
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

import solvar_engine

ROOT = Path(__file__).resolve().parents[1]
ENGINE_PYTHONS = ("3.10", "3.11", "3.12")


def extra(name: str) -> list[Requirement]:
    """Read one list of requirements from the text of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return [Requirement(text) for text in ast.literal_eval(node.value)]
    raise AssertionError(f"setup.py has no list {name}")


def pins(python: str) -> dict[str, str]:
    """Pinned version of each distribution for one Python."""
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.9"}
    text = importlib.resources.files("solvar_engine").joinpath("constraints.txt").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(environment):
                assert pin.name not in found, f"{pin.name} is pinned twice for Python {python}"
                (specifier,) = pin.specifier
                assert specifier.operator == "==", line
                found[pin.name] = specifier.version
    return found


@pytest.mark.parametrize("python", ENGINE_PYTHONS)
def test_constraints_pin_every_requirement_within_its_range(python: str) -> None:
    pinned = pins(python)
    for requirement in (*extra("ENGINE"), *extra("TEST")):
        assert requirement.name in pinned, f"{requirement.name} is not pinned for Python {python}"
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


@pytest.mark.parametrize("python", ENGINE_PYTHONS)
def test_torch_is_the_pinned_one_with_the_triton_that_it_needs(python: str) -> None:
    assert pins(python)["torch"] == "2.13.0"
    # What torch 2.13.0 requires of its CUDA build on Linux; another pin would make that build uninstallable.
    assert pins(python)["triton"] == "3.7.1"


def test_version_has_one_source() -> None:
    command = [sys.executable, "setup.py", "--version"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.split()[-1] == solvar_engine.__version__, result.stderr


def test_makefile_has_the_two_commands_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert sorted(phony.group(1).split()) == ["demo", "test"]
    assert "--constraint $(CONSTRAINTS)" in makefile
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in readme
    assert "make test" in readme


def test_continuous_integration_installs_what_the_readme_names() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    packages = re.search(r"^packages=\((.*)\)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert packages is not None
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {word for line in re.findall(r"apt-get install (.*)", readme) for word in line.split()}
    assert set(packages.group(1).split()) == named


# --- the plugin that forbids skips


@pytest.mark.parametrize(
    ("source", "forbidding", "exit_code"),
    [
        ("def test(): pytest.skip('no data')", "1", pytest.ExitCode.TESTS_FAILED),
        ("def test(): pytest.skip('no data')", "", pytest.ExitCode.OK),
        ("@pytest.mark.gpu\ndef test(): pytest.skip('no device')", "1", pytest.ExitCode.OK),
        ("@pytest.mark.xfail\ndef test(): assert 0", "1", pytest.ExitCode.OK),
        ("def test(): pass", "1", pytest.ExitCode.OK),
    ],
)
def test_forbidden_skips_fail_the_run(tmp_path: Path, source: str, forbidding: str, exit_code: int) -> None:
    module = f"import pytest\n{source}\ndef test_other(): pass\n"
    (tmp_path / "test_one.py").write_text(module, encoding="utf-8")
    result = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.forbid_skips", "-p", "no:cacheprovider",
            "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path),
        ],
        cwd=ROOT,
        env={**os.environ, "SOLVAR_FORBID_SKIPS": forbidding},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert result.returncode == exit_code, result.stdout
    assert ("skipped, which is forbidden here" in result.stdout) == (exit_code != pytest.ExitCode.OK)


# --- the folder of the demo


@pytest.fixture
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("solvar_demo", ROOT / "docs" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo_replaces_an_earlier_demo(demo: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "demo"
    demo.start_afresh(folder)
    (folder / "old.txt").write_text("old", encoding="utf-8")
    demo.start_afresh(folder)
    assert [path.name for path in folder.iterdir()] == [demo.MARKER]


def test_demo_never_empties_a_folder_of_the_user(demo: ModuleType, tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work", encoding="utf-8")
    with pytest.raises(SystemExit, match="choose another with --output"):
        demo.start_afresh(tmp_path)
    assert precious.read_text(encoding="utf-8") == "years of work"
