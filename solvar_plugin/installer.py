"""Makes the environment that the engine runs in: a folder of its own, with its own Python and libraries.

Scipion runs this file as a program when it installs the plugin's binaries, with its own Python and with the
command of `install_commands`. It uses the standard library only and imports nothing of the plugin, so that it
works before anything else does.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "scipion-em-solvar"
MANAGERS = ("auto", "conda", "venv")
PYTHONS = ("3.12", "3.11", "3.10")
CONDA_PYTHON = "3.11"
# conda's own default channel wants its terms accepted first
CONDA_CHANNEL = ("--override-channels", "--channel", "conda-forge")
TORCH_INDEX = "https://download.pytorch.org/whl/"
# builds of torch by the newest CUDA that the driver knows; pip's default one is for the newest
TORCH_BUILDS = (((13, 0), ""), ((12, 8), "cu128"), ((12, 0), "cu126"))

_ROOT = Path(__file__).resolve().parents[1]
_REQUIREMENTS = _ROOT / "solvar_engine" / "requirements.txt"
_CONSTRAINTS = _ROOT / "solvar_engine" / "constraints.txt"
# what would make the new environment see the packages of another one, or pip put its packages there
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV")


class InstallError(Exception):
    """What went wrong, in one sentence for the person who installs."""


@dataclass(frozen=True)
class Settings:
    """What defines the engine's environment.

    Attributes
    ----------
    home : Path
        Folder that holds the environment (``env``), the log and the flag file.
    manager : str
        ``conda``, ``venv``, or ``auto``: conda if it can be called and no interpreter is named, else venv.
    python : str
        Interpreter, or version such as ``3.11``; empty: the first suitable one (venv), 3.11 (conda).
    source : str
        What pip installs: a path, an address or a requirement.
    editable : bool
        Whether `source` is a source tree that the environment follows as it is edited.
    conda_activation : str
        Shell text that goes before every conda command; empty if conda is in the PATH.
    """

    home: Path
    manager: str = "auto"
    python: str = ""
    source: str = ""
    editable: bool = False
    conda_activation: str = ""

    @property
    def environment(self) -> Path:
        """Folder of the environment."""
        return self.home / "env"

    @property
    def engine_python(self) -> Path:
        """Interpreter of the environment."""
        return self.environment / "bin" / "python"

    @property
    def log(self) -> Path:
        """What the commands of the last installation printed."""
        return self.home / "install.log"

    @property
    def unfinished(self) -> Path:
        """File that is there while the environment is being made, and after that was broken off."""
        return self.home / "unfinished"

    @property
    def flag(self) -> Path:
        """File that exists once an installation with just these settings passed its self-test."""
        text = "\n".join(
            [
                *(self.manager, self.python, self.source, str(self.editable)),
                *(path.read_text(encoding="utf-8") for path in (_REQUIREMENTS, _CONSTRAINTS)),
            ]
        )
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.home / f"installed-{running_version()}-{digest}"


# ---------------------------------------------------------------- for the plugin


def install_commands(
    home: str | os.PathLike[str],
    *,
    manager: str = "auto",
    python: str = "",
    source: str = "",
    conda_activation: str = "",
) -> list[tuple[str, str]]:
    """Return what ``env.addPackage(..., commands=...)`` of Scipion needs: each command with the file that it makes.

    The file's name depends on everything that defines the environment: Scipion skips a command whose file exists,
    so an installation is repeated when the settings or the pinned versions have changed, and only then.

    Parameters
    ----------
    home : path
        Value of SOLVAR_HOME; made if it is not there.
    manager, python, source : str
        Values of SOLVAR_ENV_MANAGER, SOLVAR_PYTHON and SOLVAR_ENGINE_SOURCE.
    conda_activation : str
        Scipion's CONDA_ACTIVATION_CMD, with or without its final ``&&``.

    Examples
    --------
    >>> [(command, target)] = install_commands("/opt/scipion/software/em/solvar-0.1.0")
    """
    editable = False
    if not source:
        source, editable = running_source()
    settings = Settings(Path(os.path.abspath(home)), manager, python, source, editable, conda_activation)
    words = [sys.executable, "-I", str(Path(__file__).resolve()), f"--home={settings.home}"]
    words += [f"--manager={manager}", f"--python={python}", f"--source={source}"]
    words += ["--editable"] if editable else []
    words += [f"--conda-activation={conda_activation}"]
    # Scipion looks for the file by a pattern.
    return [(shlex.join(words), glob.escape(str(settings.flag)))]


def running_version() -> str:
    """Version of the running package, read from its text: engine and plugin have one version."""
    source = (_ROOT / "solvar_engine" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise InstallError(f"{_ROOT / 'solvar_engine'} does not say which version it is.")
    return match.group(1)


def running_source(root: Path = _ROOT) -> tuple[str, bool]:
    """Find what pip must install to get the running package again.

    Returns
    -------
    source : str
        The source tree if the package runs from one, else where it was installed from, else its name and version.
    editable : bool
        Whether it is a source tree in use.
    """
    if (root / "setup.py").is_file():
        return str(root), True
    origin = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        origin = json.loads(importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    return _source_from_origin(origin) or f"{DISTRIBUTION}=={running_version()}", False


def _source_from_origin(origin: dict) -> str:
    """What pip installed, from its record of a direct installation (PEP 610); empty if that is gone."""
    url = origin.get("url", "")
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if url.startswith("file:"):
        path = unquote(urlsplit(url).path)
        return path if os.path.exists(path) else ""
    return url


# ---------------------------------------------------------------- the installation


def main(arguments: list[str] | None = None) -> int:
    """Install, and return the exit code."""
    parser = argparse.ArgumentParser(description="Make the environment of the SOLVAR engine anew.")
    parser.add_argument("--home", type=Path, required=True, help="folder that holds the environment")
    parser.add_argument("--manager", default="auto", help=_choice(MANAGERS))
    parser.add_argument("--python", default="", help="interpreter, or version such as 3.11")
    parser.add_argument("--source", required=True, help="what pip installs as the engine")
    parser.add_argument("--editable", action="store_true", help="the source is a source tree in use")
    parser.add_argument("--conda-activation", default="", help="shell text that goes before every conda command")
    settings = Settings(**vars(parser.parse_args(arguments)))
    try:
        install(settings)
    except (InstallError, OSError) as error:
        say(f"The SOLVAR engine was not installed: {error}")
        return 1
    return 0


def install(settings: Settings) -> None:
    """Make the environment anew and test it; the flag file is written last.

    Raises
    ------
    InstallError
        If a step fails. The flag file is not there then, and the next installation starts afresh.
    """
    version = running_version()
    say(f"SOLVAR engine {version}: an environment in {settings.environment}")
    build = choose_torch()
    manager = choose_manager(settings)
    start_afresh(settings)
    try:
        create_environment(settings, manager)
        install_packages(settings, build)
        self_test(settings, version, has_gpu=build != "cpu")
    except BaseException:
        # What is there must work: the plugin takes the engine's program for the sign that it is installed.
        shutil.rmtree(settings.environment, ignore_errors=True)
        raise
    settings.unfinished.unlink()
    settings.flag.touch()
    say(f"The SOLVAR engine is installed. What the commands printed: {settings.log}")


def start_afresh(settings: Settings) -> None:
    """Remove what an earlier, maybe unfinished, installation left; never a folder that is no environment."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        for flag in settings.home.glob("installed-*"):
            flag.unlink()
        folder = settings.environment
        if folder.is_dir() and any(folder.iterdir()):
            signs = (settings.unfinished, folder / "pyvenv.cfg", folder / "conda-meta")
            if not any(sign.exists() for sign in signs):
                raise InstallError(
                    f"{folder} exists and is no Python environment: move it away, or set SOLVAR_HOME to another folder."
                )
            say("Removing the earlier environment")
            shutil.rmtree(folder)
        settings.unfinished.touch()
        settings.log.write_text("", encoding="utf-8")
    except OSError as error:
        raise InstallError(f"{error.filename}: {error.strerror}; check SOLVAR_HOME.") from error


def choose_manager(settings: Settings) -> str:
    """Settle between conda and venv.

    Raises
    ------
    InstallError
        If what the settings ask for cannot be had.
    """
    names_interpreter = bool(settings.python) and not _is_version(settings.python)
    if settings.manager not in MANAGERS:
        raise InstallError(f"SOLVAR_ENV_MANAGER is {settings.manager}, but it must be {_choice(MANAGERS)}.")
    if settings.manager == "auto":
        return "conda" if not names_interpreter and has_conda(settings.conda_activation) else "venv"
    if settings.manager == "venv":
        return "venv"
    if names_interpreter:
        raise InstallError(
            f"conda needs a version such as {CONDA_PYTHON} in SOLVAR_PYTHON, not {settings.python}; "
            "for an interpreter of your own set SOLVAR_ENV_MANAGER to venv."
        )
    if not has_conda(settings.conda_activation):
        raise InstallError(
            "SOLVAR_ENV_MANAGER is conda, but conda cannot be called: check CONDA_ACTIVATION_CMD, "
            "or set SOLVAR_ENV_MANAGER to venv."
        )
    return "conda"


def choose_torch() -> str:
    """Say what GPU there is, and settle the build of torch: empty for pip's default, ``cpu`` where none can be used."""
    gpu = find_gpu()
    if not gpu:
        say("No GPU found by nvidia-smi: the engine computes on the CPU.")
        return "cpu"
    cuda = driver_cuda()
    for least_cuda, build in TORCH_BUILDS:
        if cuda >= least_cuda:
            say(f"GPU found: {gpu}, with a driver for CUDA {cuda[0]}.{cuda[1]}.")
            return build
    known = ".".join(map(str, cuda)) if any(cuda) else "of a version that it does not tell"
    least = ".".join(map(str, TORCH_BUILDS[-1][0]))
    say(f"GPU found: {gpu}, with a driver for CUDA {known}; {least} is needed: the engine computes on the CPU.")
    return "cpu"


def create_environment(settings: Settings, manager: str) -> None:
    """Make an empty environment, with conda or with Python's own venv."""
    if manager == "venv":
        python = find_python(settings.python)
        command = [python, "-I", "-m", "venv", str(settings.environment)]
        run(f"Making an environment with {python} (venv)", command, settings.log)
        return
    python = settings.python or CONDA_PYTHON
    if python not in PYTHONS:
        raise InstallError(f"SOLVAR_PYTHON is {python}, but the engine needs {_choice(PYTHONS)}.")
    command = ["conda", "create", "--yes", "--prefix", str(settings.environment), *CONDA_CHANNEL]
    command += [f"python={python}", "pip"]
    run(
        f"Making a Python {python} environment with conda",
        ["/bin/sh", "-c", _after_activation(settings.conda_activation, command)],
        settings.log,
        hint=" SOLVAR_ENV_MANAGER=venv does without conda.",
    )


def install_packages(settings: Settings, build: str) -> None:
    """Put what the engine needs into the environment, torch in a certain build, and then the running package."""
    pip = [str(settings.engine_python), "-m", "pip", "install", "--no-input"]
    pinned = [*pip, "--constraint", str(_CONSTRAINTS)]
    if build:
        # pip's default torch would bring gigabytes of GPU libraries for nothing; only torch itself comes from here
        index = TORCH_INDEX + build
        only = ["--no-deps", "--index-url", index, "--retries", "0", "--timeout", "15", "torch"]
        try:
            run(f"Installing torch for {'the CPU' if build == 'cpu' else build} from {index}", [*pinned, *only],
                settings.log, tail=0)  # fmt: skip
        except InstallError:
            say("  it is not to be had there; pip's default build will do")
    run("Installing the libraries (some minutes)", [*pinned, "--requirement", str(_REQUIREMENTS)], settings.log)
    source = ["--editable", settings.source] if settings.editable else [settings.source]
    run(f"Installing {settings.source}", [*pip, "--no-deps", *source], settings.log)


def self_test(settings: Settings, version: str, has_gpu: bool) -> None:
    """Check the version, then take a tiny simulated data set from images to report.

    This also compiles the engine's kernels, so that the user's first run need not. A GPU that cannot be used is no
    failure: that is said, and the engine computes on the CPU.
    """
    engine = str(settings.environment / "bin" / "solvar-engine")
    answer = run("Asking the engine for its version", [engine, "--version"], settings.log).split()
    if answer[-1:] != [version]:
        raise InstallError(
            f"{settings.source} is SOLVAR {answer[-1] if answer else 'of no version'}, "
            f"but the plugin is {version}: check SOLVAR_ENGINE_SOURCE."
        )
    with tempfile.TemporaryDirectory(prefix="solvar-self-test-") as folder:
        data, result = os.path.join(folder, "data"), os.path.join(folder, "run")
        fit = ["fit", os.path.join(data, "particles.star"), "--rank", "1"]
        steps = (
            ["simulate", "--output", data, "--phantom", "hinge", "--particles", "120", "--box", "16"],
            [*fit, "--output", result, "--device", "cpu"],
            ["analyze", result, "--clusters", "2"],
        )
        for step in steps:
            run(f"Self-test: {step[0]}", [engine, *step], settings.log)
        if has_gpu:
            try:
                on_gpu = [engine, *fit, "--output", os.path.join(folder, "gpu"), "--device", "cuda"]
                run("Self-test: fit on the GPU", on_gpu, settings.log)
            except InstallError as error:
                say(f"The GPU cannot be used, the engine computes on the CPU: {error}")
        if not os.path.isfile(os.path.join(result, "report.html")):
            raise InstallError(f"the self-test ended without a report: see {settings.log}.")


# ---------------------------------------------------------------- tools


def find_gpu() -> str:
    """Names of the GPUs that nvidia-smi lists; empty if there are none."""
    answer = _answer(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    if answer is None or answer.returncode != 0:
        return ""
    return ", ".join(line.strip() for line in answer.stdout.splitlines() if line.strip())


def driver_cuda() -> tuple[int, int]:
    """Newest version of CUDA that the driver knows, as nvidia-smi says in its head; zeros if it does not."""
    answer = _answer(["nvidia-smi"])
    match = re.search(r"CUDA[\w ]* Version: *(\d+)\.(\d+)", "" if answer is None else answer.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def has_conda(activation: str) -> bool:
    """Whether conda can be called after Scipion's activation command."""
    answer = _answer(["/bin/sh", "-c", _after_activation(activation, ["conda", "--version"])], seconds=120)
    return answer is not None and answer.returncode == 0


def find_python(wanted: str = "") -> str:
    """Find an interpreter that the engine runs on and that can make environments.

    Parameters
    ----------
    wanted : str
        Interpreter or version; empty: the newest of the supported versions that is there.

    Raises
    ------
    InstallError
        If there is none.
    """
    if wanted:
        name = f"python{wanted}" if _is_version(wanted) else os.path.expanduser(wanted)
        flaw = _flaw_of(name)
        if flaw:
            raise InstallError(f"SOLVAR_PYTHON names {name}, which {flaw}.")
        return name
    for name in (*(f"python{version}" for version in PYTHONS), sys.executable, "python3"):
        if not _flaw_of(name):
            return name
    raise InstallError(
        f"no Python {_choice(PYTHONS)} with the modules venv and ensurepip was found; install one (Debian and "
        "Ubuntu: apt-get install python3.11-venv), or name one in SOLVAR_PYTHON, and repeat: scipion installb solvar"
    )


def _flaw_of(python: str) -> str:
    """Why an interpreter will not do; empty if it will."""
    program = "import sys; print('%d.%d' % sys.version_info[:2]); import venv, ensurepip"
    answer = _answer([python, "-I", "-c", program], env=clean_environment())
    version = "" if answer is None else answer.stdout.strip()
    if answer is None or not version:
        return "cannot be run"
    if version not in PYTHONS:
        return f"is Python {version}, but the engine needs {_choice(PYTHONS)}"
    if answer.returncode != 0:
        return f"lacks the module venv or ensurepip (Debian and Ubuntu: apt-get install python{version}-venv)"
    return ""


def run(title: str, command: list[str], log: Path, *, tail: int = 15, hint: str = "") -> str:
    """Run one command, say how long it took, and return what it printed, which the log keeps too.

    Raises
    ------
    InstallError
        If it fails: its last `tail` lines are shown, and `hint` ends the sentence.
    """
    say(title)
    start = time.monotonic()
    printed = []
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command)}\n")
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=clean_environment(),
            )
        except OSError as error:
            raise InstallError(f"{command[0]} cannot be run: {error.strerror}.") from error
        with process:
            for line in process.stdout or ():
                printed.append(line)
                file.write(line)
                file.flush()
    if process.returncode != 0:
        for line in printed[len(printed) - min(tail, len(printed)) :]:
            say(f"  | {line.rstrip()}")
        raise InstallError(f"'{title}' ended with exit code {process.returncode}; see {log}.{hint}")
    say(f"  done in {time.monotonic() - start:.0f} s")
    return "".join(printed)


def clean_environment() -> dict[str, str]:
    """Environment variables without those that lead to packages outside the engine's environment."""
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return {**environment, "PYTHONNOUSERSITE": "1", "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def say(text: str) -> None:
    """Tell the person who installs, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _answer(
    command: list[str], seconds: float = 60, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """Run a command for what it prints; None if it cannot be run, or takes too long."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, env=env
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _after_activation(activation: str, command: list[str]) -> str:
    activation = activation.strip()
    if activation and activation[-1] not in ";&":
        activation += " &&"
    return f"{activation} {shlex.join(command)}".strip()


def _is_version(text: str) -> bool:
    return re.fullmatch(r"\d+\.\d+", text) is not None


def _choice(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


if __name__ == "__main__":
    sys.exit(main())
