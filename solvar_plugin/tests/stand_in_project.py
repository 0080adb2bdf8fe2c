"""Projects in which a stand-in takes the engine's place, so that it does and fails as the tests ask for."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
from pyworkflow.protocol.constants import MODE_RESUME

from solvar_plugin import Plugin
from solvar_plugin.constants import SOLVAR_ENV_ACTIVATION
from solvar_plugin.engine import quote
from solvar_plugin.tests import stand_in_engine

SECONDS_TO_WAIT = 60


@contextmanager
def variables(**values):
    """Set environment variables for a while; the processes that Scipion starts inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def plugin_variables(**values):
    """Change the plugin's variables in this process for a while; it read them from the environment once."""
    before = dict(Plugin._vars)
    Plugin._vars.update(values)
    try:
        yield
    finally:
        Plugin._vars.update(before)


def process_works(pid):
    """Whether a process lives; one that has ended and was not asked for its exit code does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_for(condition, what):
    """Wait until something is true."""
    end = time.monotonic() + SECONDS_TO_WAIT
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {SECONDS_TO_WAIT} seconds for {what}")
        time.sleep(0.2)


class StandInProject:
    """What test cases share whose project has the stand-in; `folder` is that of the project."""

    folder: Path

    @classmethod
    def _install_stand_in(cls):
        """Put a program named solvar-engine on the PATH of the activation command."""
        folder = cls.folder / "stand-in's 100% bin"
        folder.mkdir(exist_ok=True)
        program = folder / "solvar-engine"
        module = quote(stand_in_engine.__file__, False)
        program.write_text(f'#!/bin/sh\nexec {quote(sys.executable, False)} {module} "$@"\n')
        program.chmod(0o755)
        activation = f"export PATH={quote(folder, False)}:$PATH"
        cls.record = cls.folder / "calls.jsonl"
        # what this process knows of the variable, and what those that Scipion starts inherit
        cls.enter(variables(**{SOLVAR_ENV_ACTIVATION: activation, "SOLVAR_STAND_IN_RECORD": str(cls.record)}))
        cls.enter(plugin_variables(**{SOLVAR_ENV_ACTIVATION: activation}))

    @classmethod
    def enter(cls, context):
        """Enter a context until all tests of the class are done (enterClassContext came with Python 3.11)."""
        context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)

    def run_to_the_end(self, protocol, behaviour="succeed", **environ):
        """Launch a protocol in a process of its own, as the project window does, and return its error."""
        with variables(SOLVAR_STAND_IN=behaviour, **environ):
            self.proj.launchProtocol(protocol, wait=True)
        self.proj._updateProtocol(protocol)
        return protocol.getErrorMessage()

    def go_on(self, protocol, **environ):
        """Press Continue, and return the error of the protocol."""
        protocol.runMode.set(MODE_RESUME)
        error = self.run_to_the_end(protocol, **environ)
        self.assertEqual(protocol.isFinished(), not error, error)
        return error
