"""What a user installs: metadata, pins, the two commands and their scripts, and continuous integration."""

from __future__ import annotations

import ast
import configparser
import email
import importlib
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

import solvar_engine
from solvar_engine.contract.files import FileIn
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import StatusTracker, status_path

ROOT = Path(__file__).resolve().parents[1]
ENGINE_PYTHONS = ("3.10", "3.11", "3.12")


def requirements_of_tests() -> list[Requirement]:
    """Read the list TEST from the text of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "TEST":
            return [Requirement(text) for text in ast.literal_eval(node.value)]
    raise AssertionError("setup.py has no list TEST")


def requirements_of_the_engine() -> list[Requirement]:
    text = importlib.resources.files("solvar_engine").joinpath("requirements.txt").read_text(encoding="utf-8")
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The built distribution; nothing is written into the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder),
        "build", "--build-base", str(folder / "build"), "bdist_wheel", "--dist-dir", str(folder),
    ]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def metadata_file(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


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
    for requirement in (*requirements_of_the_engine(), *requirements_of_tests()):
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
    # The plugin repeats it, since it imports nothing of the engine but the contract.
    plugin = (ROOT / "solvar_plugin" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{solvar_engine.__version__}"' in plugin.splitlines()


def test_wheel_holds_what_scipion_and_the_installer_read(wheel: zipfile.ZipFile) -> None:
    expected = {
        "solvar_plugin/protocols.conf",
        "solvar_plugin/installer.py",
        "solvar_plugin/tests/test_installer.py",
        "solvar_engine/requirements.txt",
        "solvar_engine/constraints.txt",
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "solvar_engine" / "explorer" / "web").iterdir()),
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "solvar_plugin").glob("*.png")),
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "solvar_plugin" / "templates").iterdir()),
    }
    assert expected <= set(wheel.namelist())
    logo = re.search(r'^_logo = "(.+)"$', (ROOT / "solvar_plugin" / "__init__.py").read_text("utf-8"), re.MULTILINE)
    assert logo is not None
    assert f"solvar_plugin/{logo.group(1)}" in wheel.namelist()


def test_wheel_is_a_plugin_and_a_command(wheel: zipfile.ZipFile) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(metadata_file(wheel, "entry_points.txt"))
    assert dict(entry_points["pyworkflow.plugin"]) == {"solvar_plugin": "solvar_plugin"}
    assert dict(entry_points["console_scripts"]) == {"solvar-engine": "solvar_engine.cli:main"}


def test_first_package_of_the_wheel_is_the_one_that_scipions_installer_takes(wheel: zipfile.ZipFile) -> None:
    # It takes the first by name, in an editable installation that of top_level.txt.
    packages = sorted({path.split("/")[0] for path in wheel.namelist() if path.endswith("/__init__.py")})
    assert packages[0] == "scipion_em_solvar"
    assert metadata_file(wheel, "top_level.txt").split() == packages
    source = wheel.read("scipion_em_solvar/__init__.py").decode()
    assert "from solvar_plugin import Plugin" in source


def test_base_requirements_are_light_and_without_scipion(wheel: zipfile.ZipFile) -> None:
    metadata = email.message_from_string(metadata_file(wheel, "METADATA"))
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    base = {requirement.name for requirement in requirements if requirement.marker is None}
    assert base == {"numpy", "scipy", "mrcfile", "matplotlib"}
    engine = {item.name for item in requirements if item.marker and item.marker.evaluate({"extra": "engine"})}
    assert engine == {requirement.name for requirement in requirements_of_the_engine()}
    assert [name for name in base | engine if name.lower().startswith(("scipion", "pyworkflow", "pyqt"))] == []
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert (ROOT / "README.md").read_text(encoding="utf-8").strip() in metadata.get_payload()


def test_makefile_has_the_two_commands_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert sorted(phony.group(1).split()) == ["demo", "test"]
    assert "--constraint $(CONSTRAINTS)" in makefile
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in readme
    assert "make test" in readme


def test_readme_lists_every_file_of_a_run() -> None:
    listed = {
        name
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]*)`", line.split("|")[1])
    }
    run = RunDir("run")
    named = [getattr(run, name) for name, member in vars(RunDir).items() if isinstance(member, FileIn)]
    files = [path.relative_to(run.path).as_posix() for path in (*named, run.eigenvolume(1))]
    folders = {name.rpartition("/")[0] for name in listed}
    assert [name for name in files if name not in listed | folders] == []


def test_continuous_integration_installs_what_the_readme_names() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    packages = re.search(r"^packages=\(([^)]*)\)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert packages is not None
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    named = {word for line in re.findall(r"apt-get install (.*)", readme) for word in line.split()}
    assert set(packages.group(1).split()) == named


@pytest.mark.parametrize("script", ["install_scipion.sh", "scipion", "test_plugin.sh"])
def test_scripts_can_be_run_and_parse(script: str) -> None:
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    result = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_scipion_is_pinned() -> None:
    script = (ROOT / "scripts" / "install_scipion.sh").read_text(encoding="utf-8")
    packages = re.search(r"^packages=\((.*)\)$", script, re.MULTILINE)
    assert packages is not None
    scipion = [word for word in packages.group(1).split() if word.startswith("scipion")]
    assert len(scipion) == 4
    assert all("==" in word for word in scipion)


def test_scipion_is_not_made_where_its_installer_cannot_work(tmp_path: Path) -> None:
    scripts = tmp_path / "a folder" / "scripts"
    scripts.mkdir(parents=True)
    script = shutil.copy2(ROOT / "scripts" / "install_scipion.sh", scripts)
    result = subprocess.run([script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith(f"{scripts.parent}: ")
    assert "holds a space" in result.stderr
    assert not (scripts.parent / ".scipion").exists()


def test_scipion_starts_in_an_environment_of_its_own(tmp_path: Path) -> None:
    program = tmp_path / ".scipion" / "venv" / "bin" / "scipion"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@"\nenv\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "scripts").mkdir()
    script = shutil.copy2(ROOT / "scripts" / "scipion", tmp_path / "scripts")
    foreign = {
        "SCIPION_HOME": "/other", "SCIPION_USER_DATA": "/other", "SCIPION_TESTS": "/other", "EM_ROOT": "/other",
        "CONDA_PREFIX": "/other", "PYTHONPATH": "/other", "PYTHONHOME": "/other", "SOLVAR_HOME": "/other",
    }  # fmt: skip
    kept = {"SOLVAR_PYTHON": "3.12", "DISPLAY": ":7"}
    variables = {**os.environ, **foreign, **kept}
    command = [script, "project", "A project"]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    arguments, *lines = result.stdout.splitlines()
    assert arguments == "project A project"
    environment = dict(line.partition("=")[::2] for line in lines)
    assert "/other" not in environment.values()
    assert kept.items() <= environment.items()
    assert environment["SCIPION_HOME"] == str(tmp_path / ".scipion" / "home")
    assert environment["PATH"].startswith(f"{program.parent}:")


def test_scipion_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = shutil.copy2(ROOT / "scripts" / "scipion", tmp_path / "scripts")
    result = subprocess.run([script], capture_output=True, text=True, timeout=60)
    assert (result.returncode, "make demo" in result.stderr) == (1, True)


# --- the plugin that forbids skips


@pytest.mark.parametrize(
    ("source", "forbidding", "workers", "exit_code"),
    [
        ("def test(): pytest.skip('no data')", "1", 0, pytest.ExitCode.TESTS_FAILED),
        ("def test(): pytest.skip('no data')", "1", 1, pytest.ExitCode.TESTS_FAILED),
        ("def test(): pytest.skip('no data')", "", 0, pytest.ExitCode.OK),
        ("@pytest.mark.gpu\ndef test(): pytest.skip('no device')", "1", 0, pytest.ExitCode.OK),
        ("@pytest.mark.xfail\ndef test(): assert 0", "1", 0, pytest.ExitCode.OK),
        ("def test(): pass", "1", 1, pytest.ExitCode.OK),
    ],
)
def test_forbidden_skips_fail_the_run(
    tmp_path: Path, source: str, forbidding: str, workers: int, exit_code: int
) -> None:
    module = f"import pytest\n{source}\ndef test_other(): pass\n"
    (tmp_path / "test_one.py").write_text(module, encoding="utf-8")
    result = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.forbid_skips", "-p", "no:cacheprovider", "--numprocesses",
            str(workers), "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path),
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
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("demo")


def test_demo_replaces_an_earlier_demo(demo: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "demo"
    demo.start_afresh(folder)
    (folder / "old.txt").write_text("old", encoding="utf-8")
    demo.start_afresh(folder)
    assert [path.name for path in folder.iterdir()] == [demo.MARKER]


def test_demo_says_how_far_the_protocol_is(demo: ModuleType, tmp_path: Path) -> None:
    class Analysis:
        def getRunDir(self) -> RunDir:
            return RunDir(tmp_path / "run")

        def getStatesFolder(self) -> Path:
            return tmp_path / "states"

    progress = importlib.import_module("demo_project").progress
    assert progress(object()) == ""
    assert progress(Analysis()) == ""
    for folder in ("run", "states"):
        (tmp_path / folder).mkdir()
    fit = StatusTracker(Analysis().getRunDir().status, "fit")
    fit.update(stage="mean", step=3, steps=9)
    assert progress(Analysis()) == "fit: stage 3 of 9, mean"
    fit.update(state="finished")
    assert progress(Analysis()) == ""
    StatusTracker(status_path(tmp_path / "states"), "reconstruct").update(stage="states", step=1, steps=2)
    assert progress(Analysis()) == "reconstruct: stage 1 of 2, states"


def test_demo_never_empties_a_folder_of_the_user(demo: ModuleType, tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work", encoding="utf-8")
    with pytest.raises(SystemExit, match="choose another with --output"):
        demo.start_afresh(tmp_path)
    assert precious.read_text(encoding="utf-8") == "years of work"
