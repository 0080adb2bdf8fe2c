"""Command lines, status files and versions: how the plugin talks to the engine. No engine is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import pyworkflow.utils as pwutils
from pyworkflow.utils.process import buildRunCommand

from solvar_engine.contract.params import AnalyzeParams, FitParams
from solvar_engine.contract.status import FAILED, FINISHED, Status, write_status
from solvar_plugin import Plugin, __version__
from solvar_plugin.engine import (
    EngineError,
    arguments_of,
    command_line,
    engine_problems,
    installed_version,
    progress_text,
    project_path_problems,
    quote,
    require_finished,
    unfinished_text,
)

AWKWARD = [
    "plain", "two words", "it's", 'a "quote"', "a;b", "100%", "%(GPU)s", "%%", "$HOME", "`date`", "a&b|c>d",
    "back\\slash", "*", "line\nbreak", "ünï", "",
]  # fmt: skip
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('CUDA_VISIBLE_DEVICES'), os.getppid()]))"


class TestCommandLine(unittest.TestCase):
    """What the shell hands on is what was meant, through Scipion's own way of building commands."""

    def setUp(self):
        self.engine = f"{quote(sys.executable, False)} -c {quote(SHOW, False)}"

    def received(self, gpus, environ=None, **options):
        """Run a command as Scipion does, and return what arrived."""
        program, arguments = command_line(self.engine, AWKWARD, **options)
        command = buildRunCommand(program, arguments, 1, gpuList=gpus, env=pwutils.Environ(os.environ))
        environ = {**os.environ, **(environ or {})}
        answer = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, check=True, env=environ)
        return json.loads(answer.stdout.decode())

    def test_every_argument_arrives_unchanged_without_gpu(self):
        self.assertEqual(self.received([])[0], AWKWARD)

    def test_every_argument_arrives_unchanged_with_gpus(self):
        arguments, devices, _ = self.received([1, 3], gpu=True)
        self.assertEqual(arguments, AWKWARD)
        self.assertEqual(devices, "1,3")

    def test_activation_comes_first(self):
        arguments, devices, _ = self.received([0], gpu=True, activation="A='100%' && ")
        self.assertEqual((arguments, devices), (AWKWARD, "0"))

    def test_gpus_of_the_queue_win_over_those_of_the_form(self):
        _, devices, _ = self.received([0], {"CUDA_VISIBLE_DEVICES": "5"}, gpu=True, in_queue=True)
        self.assertEqual(devices, "5")

    def test_gpus_of_the_form_are_used_if_the_queue_gives_none(self):
        environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        program, arguments = command_line(self.engine, [], gpu=True, in_queue=True)
        command = buildRunCommand(program, arguments, 1, gpuList=[2], env=pwutils.Environ(environ))
        answer = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, check=True, env=environ)
        self.assertEqual(json.loads(answer.stdout.decode())[1], "2")

    def test_engine_is_a_child_of_the_protocol(self):
        self.assertEqual(self.received([])[2], os.getpid())
        self.assertEqual(self.received([0], gpu=True, activation="true && ")[2], os.getpid())

    def test_job_script_goes_on_after_the_call(self):
        program, arguments = command_line(self.engine, [], in_step_queue=True)
        answer = subprocess.run(f"{program} {arguments}\necho after", shell=True, stdout=subprocess.PIPE, check=True)
        self.assertTrue(answer.stdout.decode().endswith("after\n"))

    def test_options_become_arguments(self):
        params = FitParams(particles="a b.star", output="run", rank=3, resume=True, mask=None, box=64)
        self.assertEqual(
            arguments_of(params),
            ["fit", "a b.star", "--output", "run", "--rank", "3", "--box", "64", "--resume"],
        )
        self.assertEqual(arguments_of(AnalyzeParams(run="run"))[:2], ["analyze", "run"])

    def test_paths_with_what_scipion_cannot_quote_are_refused(self):
        self.assertEqual(project_path_problems("/data/it's 100% fine; really"), [])
        for character in '"$`\\':
            (problem,) = project_path_problems(f"/data/a{character}b")
            self.assertIn(character, problem)


class TestStatus(unittest.TestCase):
    """How a call ended is read from its status file."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "status.json"

    def error(self, exit_code=None):
        with self.assertRaises(EngineError) as caught:
            require_finished(self.path, "fit", exit_code)
        return str(caught.exception)

    def test_finished(self):
        write_status(self.path, Status("fit", state=FINISHED, message="done"))
        self.assertEqual(require_finished(self.path, "fit").message, "done")

    def test_sentence_of_the_engine_is_the_error(self):
        write_status(self.path, Status("fit", state=FAILED, message="Row 7 of p.star has no defocus."))
        self.assertEqual(self.error(2), "Row 7 of p.star has no defocus.")
        self.assertEqual(self.error(), "Row 7 of p.star has no defocus.")

    def test_killed(self):
        write_status(self.path, Status("fit", stage="mean", step=3, steps=40))
        for exit_code in (137, None):
            message = self.error(exit_code)
            self.assertIn("'mean', step 3 of 40", message)
            self.assertIn("Continue", message)

    def test_stopped_with_the_time_to_say_so(self):
        for message in ("terminated by a signal, or because the program that started it has ended", "interrupted"):
            write_status(self.path, Status("fit", state=FAILED, stage="mean", step=3, steps=40, message=message))
            self.assertIn("'mean', step 3 of 40", self.error(143))
            self.assertIn("Continue", self.error())

    def test_not_started(self):
        self.assertIn("did not start", self.error())
        self.assertIn("installb", self.error(127))

    def test_old_success_does_not_hide_a_failure(self):
        write_status(self.path, Status("fit", state=FINISHED))
        self.assertIn("exit code 1", self.error(1))

    def test_damaged_status(self):
        self.path.write_text("{")
        self.assertIn("status.json", self.error())

    def test_interrupted(self):
        self.assertEqual(unfinished_text(None), "No results yet.")
        text = unfinished_text(Status("fit", stage="mean", step=3, steps=40))
        self.assertEqual(text, "Interrupted at stage 3 of 40 (mean): Continue goes on from there.")

    def test_progress(self):
        running = Status("fit", stage="half-sets", step=12, steps=40, seconds=90)
        self.assertEqual(progress_text(running), "Stage 12 of 40: half-sets (1.5 minutes so far).")
        self.assertEqual(progress_text(None), "")
        self.assertEqual(progress_text(Status("fit", state=FINISHED, step=40, steps=40)), "")


class TestVersion(unittest.TestCase):
    """The engine that would be called is asked who it is."""

    def test_right_version(self):
        engine = f"echo solvar-engine {__version__} #"
        self.assertEqual(engine_problems("true && ", f"sh -c {quote(engine, False)}", os.environ, __version__), [])

    def test_other_version(self):
        (problem,) = engine_problems("", "sh -c 'echo solvar-engine 9.9.9 #'", os.environ, __version__)
        self.assertIn("9.9.9", problem)
        self.assertIn(__version__, problem)

    def test_absent(self):
        with self.assertRaises(EngineError) as caught:
            installed_version("", "/nowhere/solvar-engine", os.environ)
        self.assertIn("/nowhere/solvar-engine", str(caught.exception))
        self.assertIn("installb", str(caught.exception))

    def test_plugin_and_engine_are_of_one_version(self):
        import solvar_engine

        self.assertEqual(__version__, solvar_engine.__version__)

    def test_environment_hides_scipions_python(self):
        os.environ["PYTHONPATH"] = "/somewhere"
        self.addCleanup(os.environ.pop, "PYTHONPATH")
        self.assertNotIn("PYTHONPATH", Plugin.getEnviron())


if __name__ == "__main__":
    unittest.main()
