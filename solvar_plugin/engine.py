"""Talking to the engine: its command lines, how a call ended, and which version is installed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, Iterable, Mapping

from solvar_engine.contract.errors import INTERRUPTED, TERMINATED, UserError
from solvar_engine.contract.params import AbinitioParams, FitParams, Params, options_of
from solvar_engine.contract.status import FAILED, FINISHED, Status, read_status
from solvar_plugin.constants import ENGINE_PACKAGE, ENGINE_PROGRAM, SOLVAR_ENV_ACTIVATION

GPU_PLACEHOLDER = "%(GPU)s"
"""What Scipion replaces by the ids of the GPUs that it gives to a step."""

_RESUMED = (FitParams.command, AbinitioParams.command)  # commands that go on where they were stopped
_SECONDS_FOR_VERSION = 60
# Scipion starts a protocol by a shell command in which the project's path stands between double quotes.
_UNSAFE_IN_PROJECT_PATH = '"$`\\'


class EngineError(Exception):
    """The engine did not do what it was asked; the text is one sentence for the user."""


# ---------------------------------------------------------------- command lines


def quote(argument: Any, is_format: bool) -> str:
    """Write one argument such that the shell hands it to the engine unchanged.

    Parameters
    ----------
    argument : object
        Text, path or number.
    is_format : bool
        Whether Scipion will use the command line as a %-format, as it does whenever the GPU placeholder stands in it;
        then every % is doubled.

    Examples
    --------
    >>> print(quote("100% sure; really", is_format=True))
    '100%% sure; really'
    """
    text = shlex.quote(str(argument))
    return text.replace("%", "%%") if is_format else text


def arguments_of(params: Params) -> list[str]:
    """Return the words of a command line that say the same as `params`, the command first.

    Examples
    --------
    >>> from solvar_engine.contract.params import AnalyzeParams
    >>> arguments_of(AnalyzeParams(run="a run", clusters=5))
    ['analyze', 'a run', '--clusters', '5']
    """
    words: list[str] = []
    for option in options_of(type(params)):
        value = getattr(params, option.name)
        if option.positional:
            words.append(str(value))
        elif value is None or value is False or (not option.is_required and value == option.default):
            continue
        elif value is True:
            words.append(option.label)
        elif option.is_list:
            words += [option.label, *map(str, value)]
        else:
            words += [option.label, str(value)]
    # a path that begins with a dash would be taken for an option
    return [params.command, *words]


def command_line(
    engine: str, arguments: Iterable[Any], *, activation: str = "", gpu: bool = False, in_queue: bool = False,
    in_step_queue: bool = False,
) -> tuple[str, str]:
    """Return program and arguments for Scipion's ``runJob``.

    Parameters
    ----------
    engine : str
        Shell text of the engine's command.
    arguments : iterable
        Its arguments, not quoted.
    activation : str
        Shell text that comes before, empty or ending with ``&&``.
    gpu : bool
        Give the engine the GPUs that Scipion assigns, by CUDA_VISIBLE_DEVICES.
    in_queue : bool
        The protocol runs in a queue; then the GPUs that the queue gave to the job come first, because Scipion numbers
        those of the form anew from 0 for every job.
    in_step_queue : bool
        The call is a job script of its own.
    """
    prefix, program = activation, engine
    if gpu:
        devices = f"${{CUDA_VISIBLE_DEVICES:-{GPU_PLACEHOLDER}}}" if in_queue else GPU_PLACEHOLDER
        prefix, program = prefix.replace("%", "%%"), program.replace("%", "%%")
        # the form numbers GPUs as nvidia-smi lists them
        program = f"env CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={devices} {program}"
    if not in_step_queue:
        # The engine takes the place of the shell, so that its parent is Scipion's protocol, with which it stops. A job
        # script may go on after the call.
        program = f"exec {program}"
    return prefix + program, " ".join(quote(argument, gpu) for argument in arguments)


# ---------------------------------------------------------------- how a call ended


def require_finished(path: Path, command: str, exit_code: int | None = None) -> Status:
    """Check by its status file that a call of the engine came to its end.

    The exit code alone does not do: when steps are jobs of a queue, Scipion only sees that the job is gone.

    Parameters
    ----------
    path : Path
        The status file of the call.
    command : str
        Such as ``fit``.
    exit_code : int, optional
        If it is known and is not 0.

    Raises
    ------
    EngineError
        With the engine's own sentence if it left one.
    """
    try:
        status = read_status(path)
    except UserError as error:
        raise EngineError(str(error)) from error
    was_stopped = status is not None and status.message in (INTERRUPTED, TERMINATED)
    if status is not None and status.state == FAILED and status.message and not was_stopped:
        raise EngineError(status.message)
    if status is not None and status.state == FINISHED and not exit_code:
        return status
    raise EngineError(_sentence_without_message(status, command, exit_code))


def _sentence_without_message(status: Status | None, command: str, exit_code: int | None) -> str:
    if exit_code == 127:
        return f"The SOLVAR engine could not be started: {how_to_install()}."
    if status is None or status.state == FINISHED:
        code = "" if exit_code is None else f" (exit code {exit_code})"
        return f"The engine's {command} did not start{code}: its message is at the end of the protocol's error log."
    where = f" in stage '{status.stage}', step {status.step} of {status.steps}" if status.steps else ""
    on = "goes on from there" if command in _RESUMED else "is done anew"
    return (
        f"The engine's {command} was stopped{where}, by a signal, the queue's time limit or a lack of memory: "
        f"run the protocol again with Continue, and it {on}."
    )


def progress_text(status: Status | None) -> str:
    """Say how far a run is; empty if it has not begun or is over."""
    if status is None or status.state in (FINISHED, FAILED) or not status.steps:
        return ""
    minutes = status.seconds / 60
    so_far = f"{minutes:.1f} minutes" if minutes >= 1 else f"{status.seconds:.0f} seconds"
    return f"Stage {status.step} of {status.steps}: {status.stage} ({so_far} so far)."


def unfinished_text(status: Status | None) -> str:
    """Say what there is of a run that does not go on and is not finished."""
    if status is None or not status.steps:
        return "No results yet."
    on = "goes on from there" if status.command in _RESUMED else "does it anew"
    return f"Interrupted at stage {status.step} of {status.steps} ({status.stage}): Continue {on}."


# ---------------------------------------------------------------- what is installed


def how_to_install() -> str:
    """Tell how the engine is installed, as the second half of a sentence."""
    return f"run 'scipion installb {ENGINE_PACKAGE}', or set {SOLVAR_ENV_ACTIVATION} to the environment that has it"


def installed_version(activation: str, engine: str, environ: Mapping[str, str]) -> str:
    """Ask the engine for its version.

    Raises
    ------
    EngineError
        If it cannot be started or does not answer.
    """
    # exec, so that a timeout ends the engine and not only the shell
    command = f"{activation}exec {engine} --version"
    try:
        answer = subprocess.run(
            command,
            shell=True,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS_FOR_VERSION,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"The SOLVAR engine did not answer within {_SECONDS_FOR_VERSION} seconds: try '{command}' in a terminal."
        ) from None
    version = re.search(rf"^{ENGINE_PROGRAM} (\S+)", answer.stdout, re.MULTILINE)
    if answer.returncode != 0 or version is None:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError(f"The SOLVAR engine is not installed ({last}): {how_to_install()}.")
    return version.group(1)


def engine_problems(activation: str, engine: str, environ: Mapping[str, str], expected: str) -> list[str]:
    """Return sentences that say why the engine cannot be used; none if it can."""
    try:
        version = installed_version(activation, engine, environ)
    except EngineError as error:
        return [str(error)]
    if version != expected:
        return [
            f"The SOLVAR engine has version {version}, but this plugin needs {expected}: "
            f"run 'scipion installb {ENGINE_PACKAGE}'."
        ]
    return []


def project_path_problems(path: str) -> list[str]:
    """Return why Scipion cannot run protocols in a project of this path; none if it can."""
    found = sorted({character for character in os.path.abspath(path) if character in _UNSAFE_IN_PROJECT_PATH})
    if not found:
        return []
    return [
        f"Scipion cannot run protocols in {path}, because the path holds {' and '.join(found)}: "
        "move or rename the project."
    ]
