"""Where a stored run differs from what is asked for now, so that it cannot be resumed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from solvar_engine.contract.params.options import Params, options_of
from solvar_engine.contract.run.inputs import has_changed
from solvar_engine.contract.run.names import RunDir
from solvar_engine.contract.run.record import read_record


def differing_options(run: RunDir, params: Params) -> list[str]:
    """Name the options in which the stored run differs from `params`, by the rules of ``--resume``.

    Where this is not empty, `prepared` refuses to resume; a caller may then start anew after `clear_run`. Options
    that only change how a run is computed do not count, nor does another spelling of the same path.

    Returns
    -------
    list of str
        Such as ``--rank (was 3, now 5)``; empty if nothing is stored.

    Raises
    ------
    UserError
        If params.json was not written by this program, or by a newer version.
    """
    if not run.params.exists():
        return []
    record = read_record(run)
    if record["command"] != params.command:
        return [f"the command (was {record['command']}, now {params.command})"]
    stored = record["options"]
    return [
        f"{spec.label} (was {stored.get(spec.name)}, now {getattr(params, spec.name)})"
        for spec in options_of(type(params))
        # the folder itself may have been moved
        if not spec.may_differ_on_resume and spec.name != "output"
        if not _is_same(stored.get(spec.name), getattr(params, spec.name), spec.is_path, record["folder"])
    ]


def changed_inputs(run: RunDir) -> list[Path]:
    """List the input files whose content is another than when the run was started, for which `prepared` refuses it.

    Returns
    -------
    list of Path
        Empty if nothing is stored; an input that is gone is not listed.

    Raises
    ------
    UserError
        If params.json was not written by this program, or by a newer version.
    """
    if not run.params.exists():
        return []
    inputs = {Path(entry["path"]): entry for entry in read_record(run)["inputs"]}
    return [path for path, entry in inputs.items() if path.exists() and has_changed(path, entry)]


def _is_same(stored: Any, given: Any, is_path: bool, folder: str) -> bool:
    if is_path and isinstance(stored, str) and isinstance(given, str):
        return os.path.realpath(os.path.join(folder, stored)) == os.path.realpath(given)
    return bool(stored == given)
