"""The engine's environment: how it is made, with stand-ins for conda, Python and pip; and the one that is installed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from scipion.install.funcs import Environment
from scipion.install.plugin_funcs import PluginInfo

from solvar_plugin import Plugin, __version__, installer

# A Python that notes how it is called. It answers as 3.12, makes environments that hold itself, and pip "installs" an
# engine. PIP_FAILS is a word of the pip command that fails.
PYTHON = r"""#!/bin/sh
echo "$(basename "$0") $*" >> {log}
echo "PYTHONPATH=${{PYTHONPATH-unset}}" >> {log}
case "$*" in
    "-I -c "*) echo {version}; exit {exit_code} ;;
    "-I -m venv "*) mkdir -p "$4/bin"; touch "$4/pyvenv.cfg"; cp "$0" "$4/bin/python" ;;
    *" {pip_fails} "*) echo "no network here"; exit 1 ;;
    *"--no-deps"*"{source}"*) cp {engine} "$(dirname "$0")/solvar-engine" ;;
esac
"""
CONDA = r"""#!/bin/sh
echo "conda $*" >> {log}
[ "$1" = create ] || exit 0
mkdir -p "$4/bin" "$4/conda-meta"
cp {python} "$4/bin/python"
"""
ENGINE = r"""#!/bin/sh
echo "solvar-engine $1" >> {log}
case $1 in
    --version) echo "solvar-engine {version}" ;;
    {fails}) echo "it went wrong"; exit 1 ;;
    analyze) mkdir -p "$2"; touch "$2/report.html" ;;
esac
case "$*" in *"--device {broken_device}") echo "no kernel image"; exit 1 ;; esac
"""
SOURCE = "/the/source of the engine"


class StandIns:
    """A PATH of programs that only note how they are called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "calls.txt"
        self.home = folder / "a home with 'quotes' and [brackets]"
        self.write_python()
        self.write_engine()

    def write(self, name: str, text: str, folder: str = "bin") -> Path:
        path = self.folder / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def write_python(self, version: str = "3.12", exit_code: int = 0, pip_fails: str = "nothing") -> Path:
        text = PYTHON.format(
            log=shlex.quote(str(self.log)), engine=shlex.quote(str(self.folder / "store" / "solvar-engine")),
            version=version, exit_code=exit_code, pip_fails=pip_fails, source=SOURCE,
        )  # fmt: skip
        return self.write("python3.12", text)

    def write_engine(self, version: str = __version__, fails: str = "nothing", broken_device: str = "none") -> None:
        text = ENGINE.format(log=shlex.quote(str(self.log)), version=version, fails=fails, broken_device=broken_device)
        self.write("solvar-engine", text, "store")

    def write_conda(self, folder: str = "bin") -> Path:
        python = shlex.quote(str(self.folder / "bin" / "python3.12"))
        return self.write("conda", CONDA.format(log=shlex.quote(str(self.log)), python=python), folder)

    def write_gpu(self, cuda: str) -> None:
        """An nvidia-smi that lists one card, whose driver knows CUDA up to a version."""
        head = f"| NVIDIA-SMI 570.1  Driver Version: 570.1  CUDA Version: {cuda} |" if cuda else "| NVIDIA-SMI 570.1 |"
        listing = "NVIDIA H100 80GB HBM3"
        self.write("nvidia-smi", f"#!/bin/sh\n[ $# = 0 ] && echo '{head}' && exit\necho '{listing}'\n")

    def run(self, home: Path | None = None, **settings: str) -> tuple[int, str, bool]:
        """Run the installer's command as Scipion does: exit code, what it said, whether its target is there."""
        [(command, target)] = installer.install_commands(home or self.home, source=SOURCE, **settings)
        environment = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "HOME": str(self.folder), "PYTHONPATH": "/of/scipion",
        }  # fmt: skip
        result = subprocess.run(
            command, shell=True, cwd=str(self.folder), env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        return result.returncode, result.stdout, bool(installer.glob.glob(target))

    def calls(self, program: str) -> list[str]:
        """Arguments of each call of a program, in order."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [line[len(program) + 1 :] for line in lines if line.startswith(program + " ")]


class TestSolvarInstaller(unittest.TestCase):
    """The steps of an installation, with stand-ins for the programs that it calls."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="solvar installer ")
        self.addCleanup(temporary.cleanup)
        self.stand_ins = StandIns(Path(temporary.name))
        self.home = self.stand_ins.home
        self.environment = self.home / "env"

    def assertInstalled(self, outcome: tuple[int, str, bool]) -> str:
        code, said, is_there = outcome
        self.assertEqual((code, is_there), (0, True), said)
        self.assertTrue((self.environment / "bin" / "solvar-engine").exists())
        return said

    def assertRefused(self, outcome: tuple[int, str, bool], *words: str) -> str:
        """Check that nothing counts as installed, and that the last line says what to do."""
        code, said, is_there = outcome
        self.assertEqual((code, is_there), (1, False), said)
        self.assertFalse((self.environment / "bin" / "solvar-engine").exists())
        sentence = said.splitlines()[-1]
        for word in ("The SOLVAR engine was not installed: ", *words):
            self.assertIn(word, sentence)
        return said

    def test_venv_where_there_is_no_conda(self) -> None:
        said = self.assertInstalled(self.stand_ins.run())
        self.assertIn("No GPU found by nvidia-smi: the engine computes on the CPU.", said)
        self.assertEqual(self.stand_ins.calls("conda"), [])
        made, *_ = [call for call in self.stand_ins.calls("python3.12") if "venv " in call]
        self.assertEqual(made, f"-I -m venv {self.environment}")
        small_build, libraries, engine = self.stand_ins.calls("python")
        self.assertIn(f"--no-deps --index-url {installer.TORCH_INDEX}cpu --retries 0 --timeout 15 torch", small_build)
        for call in (small_build, libraries):
            self.assertRegex(call, r"--constraint \S+/solvar_engine/constraints\.txt")
        self.assertRegex(libraries, r"--requirement \S+/solvar_engine/requirements\.txt$")
        self.assertEqual(engine, f"-m pip install --no-input --no-deps {SOURCE}")
        self.assertEqual(self.stand_ins.calls("solvar-engine"), ["--version", "simulate", "fit", "analyze"])

    def test_other_packages_stay_invisible(self) -> None:
        self.assertInstalled(self.stand_ins.run())
        lines = self.stand_ins.log.read_text(encoding="utf-8").splitlines()
        seen = {line for line in lines if line.startswith("PYTHONPATH=")}
        self.assertEqual(seen, {"PYTHONPATH=unset"})

    def test_conda_is_taken_where_it_can_be_called(self) -> None:
        self.stand_ins.write_conda()
        said = self.assertInstalled(self.stand_ins.run())
        self.assertIn("Making a Python 3.11 environment with conda", said)
        channel = "--override-channels --channel conda-forge"
        create = f"create --yes --prefix {self.environment} {channel} python=3.11 pip"
        self.assertEqual(self.stand_ins.calls("conda"), ["--version", create])
        self.assertEqual(len(self.stand_ins.calls("python")), 3)

    def test_conda_after_its_activation(self) -> None:
        conda = self.stand_ins.write_conda("conda is here")
        activate = self.stand_ins.write("activate.sh", f'PATH="{conda.parent}:$PATH"\n', "conda is here")
        for ending in ("", " &&", ";"):
            activation = f". {shlex.quote(str(activate))}{ending}"
            self.assertInstalled(self.stand_ins.run(manager="conda", conda_activation=activation, python="3.10"))
        self.assertTrue(self.stand_ins.calls("conda")[-1].endswith(" python=3.10 pip"))
        self.assertEqual(len(self.stand_ins.calls("conda")), 6)

    def test_a_failing_conda_is_shown(self) -> None:
        self.stand_ins.write("conda", "#!/bin/sh\n[ $1 = create ] && echo 'no such channel' && exit 1\nexit 0\n")
        said = self.assertRefused(self.stand_ins.run(), "with conda' ended with exit code 1", "SOLVAR_ENV_MANAGER=venv")
        self.assertIn("  | no such channel", said)

    def test_an_activation_without_conda_leaves_venv(self) -> None:
        # what a Scipion without conda is configured with
        self.assertInstalled(self.stand_ins.run(conda_activation="true&&"))
        self.assertTrue((self.environment / "pyvenv.cfg").exists())

    def test_conda_wanted_and_absent(self) -> None:
        outcome = self.stand_ins.run(manager="conda", conda_activation="true&&")
        self.assertRefused(outcome, "conda cannot be called", "CONDA_ACTIVATION_CMD", "SOLVAR_ENV_MANAGER")

    def test_an_unknown_manager(self) -> None:
        outcome = self.stand_ins.run(manager="mamba")
        self.assertRefused(outcome, "SOLVAR_ENV_MANAGER is mamba", "auto, conda or venv")

    def test_a_named_interpreter_means_venv(self) -> None:
        self.stand_ins.write_conda()
        python = self.stand_ins.write("my python", self.stand_ins.write_python().read_text(encoding="utf-8"), "own")
        self.assertInstalled(self.stand_ins.run(python=str(python)))
        self.assertEqual(self.stand_ins.calls("conda"), [])
        self.assertIn(f"-I -m venv {self.environment}", self.stand_ins.calls("my python"))

    def test_interpreters_that_will_not_do(self) -> None:
        self.assertRefused(self.stand_ins.run(python="/no/python"), "SOLVAR_PYTHON names /no/python", "cannot be run")
        self.stand_ins.write_python(version="3.9")
        outcome = self.stand_ins.run(python="3.12")
        self.assertRefused(outcome, "python3.12, which is Python 3.9", "needs 3.12, 3.11 or 3.10")
        self.stand_ins.write_python(exit_code=1)
        outcome = self.stand_ins.run(python="3.12")
        self.assertRefused(outcome, "lacks the module venv or ensurepip", "apt-get install python3.12-venv")
        self.stand_ins.write_conda()
        outcome = self.stand_ins.run(python="/usr/bin/python3", manager="conda")
        self.assertRefused(outcome, "/usr/bin/python3", "SOLVAR_ENV_MANAGER to venv")
        self.assertRefused(self.stand_ins.run(python="3.8", manager="conda"), "SOLVAR_PYTHON is 3.8")

    def indices(self) -> list[str]:
        """Where torch was looked for, of pip's own place none."""
        calls = [call.split() for call in self.stand_ins.calls("python") if "--index-url" in call]
        return [words[words.index("--index-url") + 1] for words in calls]

    def test_a_gpu_is_named_and_gets_the_torch_of_its_driver(self) -> None:
        builds = {"13.2": [], "12.9": ["cu128"], "12.8": ["cu128"], "12.4": ["cu126"]}
        for cuda, build in builds.items():
            self.stand_ins.write_gpu(cuda)
            self.stand_ins.log.unlink(missing_ok=True)
            said = self.assertInstalled(self.stand_ins.run())
            self.assertIn(f"GPU found: NVIDIA H100 80GB HBM3, with a driver for CUDA {cuda}.", said)
            self.assertEqual(self.indices(), [installer.TORCH_INDEX + name for name in build])
            self.assertNotIn("cannot be used", said)
            self.assertEqual(self.stand_ins.calls("solvar-engine")[1:], ["simulate", "fit", "analyze", "fit"])

    def test_a_driver_that_is_too_old_or_says_nothing_leaves_the_cpu(self) -> None:
        for cuda, words in (("11.8", "CUDA 11.8; 12.0 is needed"), ("", "it does not tell; 12.0 is needed")):
            self.stand_ins.write_gpu(cuda)
            self.stand_ins.log.unlink(missing_ok=True)
            self.assertIn(words, self.assertInstalled(self.stand_ins.run()))
            self.assertEqual(self.indices(), [installer.TORCH_INDEX + "cpu"])
            self.assertEqual(self.stand_ins.calls("solvar-engine")[1:], ["simulate", "fit", "analyze"])

    def test_a_gpu_that_fails_its_self_test_is_said_not_to_be_used(self) -> None:
        self.stand_ins.write_gpu("13.0")
        self.stand_ins.write_engine(broken_device="cuda")
        said = self.assertInstalled(self.stand_ins.run())
        self.assertIn("  | no kernel image", said)
        self.assertIn("The GPU cannot be used, the engine computes on the CPU: ", said)

    def test_a_broken_driver_is_no_gpu(self) -> None:
        self.stand_ins.write("nvidia-smi", "#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
        self.assertIn("No GPU found", self.assertInstalled(self.stand_ins.run()))

    def test_without_the_small_torch_the_default_one_is_taken(self) -> None:
        self.stand_ins.write_python(pip_fails="--index-url")
        said = self.assertInstalled(self.stand_ins.run())
        self.assertIn("pip's default build will do", said)
        self.assertNotIn("no network here", said)

    def test_a_failing_step_is_shown_and_leaves_nothing(self) -> None:
        self.stand_ins.write_python(pip_fails="--requirement")
        outcome = self.stand_ins.run()
        said = self.assertRefused(outcome, "ended with exit code 1", str(self.home / "install.log"))
        self.assertIn("  | no network here", said)
        self.assertFalse(self.environment.exists())
        self.assertIn("no network here", (self.home / "install.log").read_text(encoding="utf-8"))

    def test_the_flag_needs_the_self_test(self) -> None:
        self.stand_ins.write_engine(fails="fit")
        said = self.assertRefused(self.stand_ins.run(), "ended with exit code 1")
        self.assertIn("  | it went wrong", said)
        self.assertEqual(self.stand_ins.calls("solvar-engine"), ["--version", "simulate", "fit"])
        self.stand_ins.write_engine(fails="analyze")
        self.assertRefused(self.stand_ins.run())

    def test_an_engine_of_another_version(self) -> None:
        self.stand_ins.write_engine(version="9.9.9")
        self.assertRefused(self.stand_ins.run(), f"is SOLVAR 9.9.9, but the plugin is {__version__}")

    def test_installing_again_removes_what_was_there(self) -> None:
        self.assertInstalled(self.stand_ins.run())
        leftover = self.environment / "leftover"
        leftover.touch()
        self.stand_ins.write_engine(fails="simulate")
        self.assertRefused(self.stand_ins.run())
        self.assertEqual(list(self.home.glob("installed-*")), [])
        self.stand_ins.write_engine()
        self.environment.mkdir()
        (self.environment / "pyvenv.cfg").touch()
        leftover.touch()
        self.assertIn("Removing the earlier environment", self.assertInstalled(self.stand_ins.run()))
        self.assertFalse(leftover.exists())

    def test_what_a_killed_installation_left_is_removed(self) -> None:
        # a kill comes here: nothing but the marker tells that the folder is ours
        listing = self.stand_ins.folder / "listing.txt"
        conda = self.stand_ins.write_conda()
        conda.write_text(conda.read_text() + f'ls "$4/.." > {shlex.quote(str(listing))}\n')
        self.assertInstalled(self.stand_ins.run())
        self.assertEqual(listing.read_text().split(), ["env", "install.log", "unfinished"])
        self.assertFalse((self.home / "unfinished").exists())

        shutil.rmtree(self.environment / "conda-meta")
        (self.home / "unfinished").touch()
        self.assertIn("Removing the earlier environment", self.assertInstalled(self.stand_ins.run()))

    def test_a_folder_that_is_no_environment_is_kept(self) -> None:
        self.environment.mkdir(parents=True)
        precious = self.environment / "thesis.tex"
        precious.write_text("years of work", encoding="utf-8")
        self.assertRefused(self.stand_ins.run(), str(self.environment), "SOLVAR_HOME")
        self.assertEqual(precious.read_text(encoding="utf-8"), "years of work")

    def test_a_home_that_cannot_be_made(self) -> None:
        (self.stand_ins.folder / "file").touch()
        code, said, _ = self.stand_ins.run(home=self.stand_ins.folder / "file" / "home")
        self.assertEqual(code, 1)
        self.assertIn("check SOLVAR_HOME", said.splitlines()[-1])


class TestSolvarInstallerSettings(unittest.TestCase):
    """What the plugin tells Scipion."""

    def test_the_target_changes_with_all_that_defines_the_environment(self) -> None:
        settings = [
            {}, {"python": "3.10"}, {"manager": "venv"}, {"source": "/other"}, {"source": "scipion-em-solvar==9"},
        ]  # fmt: skip
        targets = {installer.install_commands("/home", **{"source": "/a", **each})[0][1] for each in settings}
        self.assertEqual(len(targets), len(settings))
        [(_, again)] = installer.install_commands("/home", source="/a", conda_activation="true&&")
        self.assertIn(again, targets)

    def test_the_running_source_tree_is_followed(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "setup.py").touch()
            self.assertEqual(installer.running_source(Path(folder)), (folder, True))

    def test_an_installed_package_is_found_where_it_came_from(self) -> None:
        git = {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "0123abc"}}
        with tempfile.TemporaryDirectory(prefix="a b") as folder:
            file = {"url": Path(folder).as_uri(), "dir_info": {}}
            self.assertEqual(installer._source_from_origin(file), folder)
        self.assertEqual(installer._source_from_origin(file), "")
        self.assertEqual(installer._source_from_origin(git), "git+https://example.org/x.git@0123abc")
        self.assertEqual(installer._source_from_origin({}), "")

    def test_scipion_knows_the_binaries(self) -> None:
        environment = Environment()
        Plugin.defineBinaries(environment)
        target = environment.getTarget("solvar")
        self.assertEqual(target.getName(), f"solvar-{__version__}")
        self.assertTrue(target.isDefault())
        commands = "\n".join(str(command) for command in target.getCommands())
        self.assertIn("installer.py", commands)
        self.assertIn(f"{Plugin.getHome()}/installed-{__version__}-", commands)
        self.assertNotIn("wget", commands)

    def test_scipion_finds_the_plugin_in_the_distribution(self) -> None:
        plugin = PluginInfo(pipName="scipion-em-solvar", remote=False).getPluginClass()
        self.assertIsInstance(plugin, Plugin)


class TestSolvarInstalledEngine(unittest.TestCase):
    """The environment that ``scipion installb solvar`` made here."""

    def test_engine_and_plugin_have_one_version(self) -> None:
        answer = subprocess.run([Plugin.getEnginePath(), "--version"], stdout=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(answer.stdout.split(), ["solvar-engine", __version__])

    def test_the_flag_is_there(self) -> None:
        self.assertEqual(len(list(Path(Plugin.getHome()).glob(f"installed-{__version__}-*"))), 1)

    def test_it_holds_the_engine_and_nothing_of_scipion(self) -> None:
        command = [Plugin.getHome("env", "bin", "python"), "-m", "pip", "list", "--format=json"]
        environment = installer.clean_environment()
        answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=60)
        versions = {package["name"].lower(): package["version"] for package in json.loads(answer.stdout)}
        self.assertEqual(versions["scipion-em-solvar"], __version__)
        self.assertEqual(versions["torch"].split("+")[0], "2.13.0")
        foreign = ("scipion", "pyworkflow", "pyqt", "pyxmipp", "pwem")
        found = [name for name in versions if name.startswith(foreign) and name != "scipion-em-solvar"]
        self.assertEqual(found, [])

    def test_it_is_not_scipions_own(self) -> None:
        self.assertNotEqual(os.path.realpath(Plugin.getHome("env")), os.path.realpath(sys.prefix))


if __name__ == "__main__":
    unittest.main()
