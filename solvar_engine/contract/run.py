"""The run directory of `fit`: the name of every file in it, and the rules for starting and resuming.

Nothing else in the engine, and nothing in a graphical interface, spells these names.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Iterable, Mapping, TypeVar

from solvar_engine import __version__
from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import is_temporary, read_json, write_json
from solvar_engine.contract.lock import FolderLock
from solvar_engine.contract.params import Params, options_of
from solvar_engine.contract.status import (
    FINISHED,
    Status,
    StatusTracker,
    is_failed_start,
    read_status,
    status_path,
    write_status,
)

FORMAT_VERSION = 1
_BLOCK_BYTES = 1 << 20
NEW, RESUME, ALREADY_FINISHED = "new", "resume", "finished"

_LIBRARIES = ("numpy", "scipy", "torch", "numba", "scikit-learn", "umap-learn")
# what a run may hold that ended before it stored its options
_BEFORE_PARAMS = {"lock", "status.json", "log.txt"}
# what a run holds besides the files that `RunDir` has a name for, by folder
_NUMBERED_FILES = {"eigenvolumes": "eigenvolume_*.mrc", "checkpoint": "*.npz"}

FIGURE_NAMES = (
    "scree",
    "states",
    "latent",
    "histograms",
    "umap",
    "maps",
    "fsc",
    "noise",
    "images",
    "poses",
    "orientations",
    "convergence",
)
"""Figures of `analyze`, in the order of the report; a run has those that it has data for."""

P = TypeVar("P", bound=Params)


class RunDir:
    """One run directory.

    Parameters
    ----------
    path : path
        The folder; it need not exist.

    Examples
    --------
    >>> RunDir("run").eigenvolume(1).as_posix()
    'run/eigenvolumes/eigenvolume_001.mrc'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._folder_lock = FolderLock(self.lock)

    # ------------------------------------------------------------------ names

    @property
    def params(self) -> Path:
        """Options in force, seed, versions, input files."""
        return self.path / "params.json"

    @property
    def status(self) -> Path:
        """State and progress of the run."""
        return status_path(self.path)

    @property
    def mean(self) -> Path:
        """Mean volume at the working box."""
        return self.path / "mean.mrc"

    @property
    def mean_half1(self) -> Path:
        """Mean volume of the first half-set."""
        return self.path / "mean_half1.mrc"

    @property
    def mean_half2(self) -> Path:
        """Mean volume of the second half-set."""
        return self.path / "mean_half2.mrc"

    @property
    def mask(self) -> Path:
        """Soft mask in force; that of the mean."""
        return self.path / "mask.mrc"

    @property
    def focus_mask(self) -> Path:
        """Soft mask of the eigenvolumes, the product of the focus mask and the mask; only if there is a focus mask."""
        return self.path / "focus_mask.mrc"

    @property
    def eigenvolumes(self) -> Path:
        """Folder of the eigenvolumes."""
        return self.path / "eigenvolumes"

    def eigenvolume(self, component: int) -> Path:
        """Eigenvolume of one component, numbered from 1."""
        if component < 1:
            raise ValueError(f"components are numbered from 1, got {component}")
        return self.eigenvolumes / f"eigenvolume_{component:03d}.mrc"

    def half_eigenvolume(self, component: int, half: int) -> Path:
        """What one half-set (1 or 2) alone makes of the eigenvolume of a component: volumes of states need it."""
        whole = self.eigenvolume(component)
        return whole.with_name(f"{whole.stem}_half{half}{whole.suffix}")

    @property
    def rank(self) -> Path:
        """Table of the components that the half-sets were tried with, and which of them hold on held-out particles."""
        return self.path / "rank.csv"

    @property
    def eigenvalues(self) -> Path:
        """Table of eigenvalues."""
        return self.path / "eigenvalues.csv"

    @property
    def latents(self) -> Path:
        """Latent coordinates, their precision, and contrasts."""
        return self.path / "latents.npz"

    @property
    def particles(self) -> Path:
        """The input particles, in input order."""
        return self.path / "particles.star"

    @property
    def noise(self) -> Path:
        """Table of the noise spectrum."""
        return self.path / "noise.csv"

    @property
    def fsc(self) -> Path:
        """Table of half-set Fourier shell correlations."""
        return self.path / "fsc.csv"

    @property
    def metrics(self) -> Path:
        """Table of the progress of the optimisation."""
        return self.path / "metrics.csv"

    @property
    def bad_images(self) -> Path:
        """Table of the images that could not be used; only if there are several."""
        return self.path / "bad_images.csv"

    @property
    def log(self) -> Path:
        """Messages."""
        return self.path / "log.txt"

    @property
    def checkpoint(self) -> Path:
        """Folder of what a resumed run needs."""
        return self.path / "checkpoint"

    @property
    def analysis(self) -> Path:
        """Folder of what `analyze` makes."""
        return self.path / "analysis"

    @property
    def analysis_status(self) -> Path:
        """State and progress of `analyze`."""
        return status_path(self.analysis)

    @property
    def embedding(self) -> Path:
        """Table of the two-dimensional embedding."""
        return self.analysis / "embedding.csv"

    @property
    def clusters(self) -> Path:
        """Table of the cluster of each particle."""
        return self.analysis / "clusters.csv"

    @property
    def centres(self) -> Path:
        """Table of the cluster centres."""
        return self.analysis / "centres.csv"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.analysis / "figures"

    def figure(self, name: str) -> Path:
        """One of the figures, `FIGURE_NAMES`."""
        if name not in FIGURE_NAMES:
            raise ValueError(f"there is no figure {name!r}; there are {', '.join(FIGURE_NAMES)}")
        return self.figures / f"{name}.png"

    @property
    def report(self) -> Path:
        """Self-contained report."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """File that says which process works here."""
        return self.path / "lock"

    # -------------------------------------------------------- start and resume

    def prepare(self, params: Params, resume: bool) -> str:
        """Decide how to start, by the rules of ``--resume``, and lock the run unless it is finished.

        Nothing is changed in a folder that is refused. A folder that holds no more than the status, log and lock of a
        start that failed before the options were stored counts as empty. After ``new`` the caller stores the options
        with `write_params`; whoever got ``new`` or ``resume`` calls `release` at the end.

        Parameters
        ----------
        params : Params
            Options asked for now.
        resume : bool
            Whether an existing run may be continued.

        Returns
        -------
        str
            `NEW`, `RESUME` or `ALREADY_FINISHED`.

        Raises
        ------
        UserError
            If the path is a file, the folder is not empty and `resume` is false, it is not a run of this
            command, options or input files differ from those it was started with, or another process uses it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: give a new folder for --output.")
        if not self._has_content() or is_failed_start(self.path, params.command, _BEFORE_PARAMS):
            self._make_folder()
            self._folder_lock.acquire()
            return NEW
        if not resume:
            raise UserError(
                f"{self.path} is not empty: give a new folder for --output, or --resume to continue its run."
            )
        if not self.params.exists():
            self._refuse_foreign_content()
            self._folder_lock.acquire()
            return NEW
        self._refuse_other_options(params)
        if self.is_finished():
            self._refuse_changed_inputs()
            return ALREADY_FINISHED
        self._folder_lock.acquire()
        try:
            self._refuse_changed_inputs()
        except UserError:
            self.release()
            raise
        self._remove_temporary_files()
        return RESUME

    def release(self) -> None:
        """Give back the lock taken by `prepare`."""
        self._folder_lock.release()

    def differing_options(self, params: Params) -> list[str]:
        """Name the options in which the stored run differs from `params`, by the rules of ``--resume``.

        Where this is not empty, `prepare` refuses to resume; a caller may then `clear` the run to start anew. Options
        that only change how a run is computed do not count, nor does another spelling of the same path.

        Parameters
        ----------
        params : Params
            Options asked for now.

        Returns
        -------
        list of str
            Such as ``--rank (was 3, now 5)``; empty if nothing is stored.

        Raises
        ------
        UserError
            If params.json was not written by this program, or by a newer version.
        """
        if not self.params.exists():
            return []
        record = self.read_record()
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

    def changed_inputs(self) -> list[Path]:
        """List the input files whose content is another than when the run was started, for which `prepare` refuses it.

        Returns
        -------
        list of Path
            Empty if nothing is stored; an input that is gone is not listed.

        Raises
        ------
        UserError
            If params.json was not written by this program, or by a newer version.
        """
        if not self.params.exists():
            return []
        inputs = {Path(entry["path"]): entry for entry in self.read_record()["inputs"]}
        return [path for path, entry in inputs.items() if path.exists() and _has_changed(path, entry)]

    def clear(self) -> None:
        """Empty the folder of a run, so that `prepare` starts a new one; an absent folder stays absent.

        Nothing is removed unless all of it belongs to a run. The folder itself stays.

        Raises
        ------
        UserError
            If the path is a file, the folder is not a run, it holds anything that no run has, another process uses it,
            or a newer version wrote it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a run folder: nothing was removed.")
        if not self._has_content():
            return
        if self.params.exists():
            self.read_record()  # refuses what another program or a newer version wrote
        self._refuse_what_is_not_of_a_run()
        self._folder_lock.acquire()
        try:
            self._remove_all()
        finally:
            self.release()

    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        status = self.read_status()
        return status is not None and status.state == FINISHED

    def require_finished(self) -> None:
        """Check that this is a finished fit, as the commands that start from one need.

        Raises
        ------
        UserError
            If it is not.
        """
        if not self.params.is_file():
            raise UserError(f"{self.path} is not a run folder: it has no {self.params.name}.")
        if not self.is_finished():
            raise UserError(f"The fit in {self.path} is not finished: continue it with --resume.")

    def _has_content(self) -> bool:
        return self.path.is_dir() and any(self.path.iterdir())

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"{self.path} cannot be made because a part of its path is a file.") from error

    def _refuse_foreign_content(self) -> None:
        for entry in sorted(self.path.iterdir()):
            if entry.name not in _BEFORE_PARAMS and not is_temporary(entry):
                raise UserError(
                    f"{self.path} holds {entry.name} but no {self.params.name}, so it is not a run to resume:"
                    " give a new folder for --output."
                )

    def _refuse_other_options(self, params: Params) -> None:
        record = self.read_record()
        if record["command"] != params.command:
            raise UserError(f"{self.path} holds a run of {record['command']}, not of {params.command}.")
        different = self.differing_options(params)
        if different:
            raise UserError(
                f"The run in {self.path} was started with other options: {', '.join(different)};"
                " resume it with the same ones or give a new folder for --output."
            )

    def _refuse_changed_inputs(self) -> None:
        for path in self.changed_inputs():
            raise UserError(
                f"{path} has changed since the run in {self.path} was started: give a new folder for --output."
            )

    def _refuse_what_is_not_of_a_run(self) -> None:
        for path in _all_below(self.path):
            if not (is_temporary(path) or self._is_of_a_run(path)):
                raise UserError(
                    f"{self.path} holds {path.relative_to(self.path)}, which is not of a run: nothing was removed;"
                    " move it away or choose another folder."
                )

    def _is_of_a_run(self, path: Path) -> bool:
        if not self.params.exists():
            return path.parent == self.path and path.name in _BEFORE_PARAMS
        form = _NUMBERED_FILES.get(path.parent.relative_to(self.path).as_posix())
        return path in self._named_files() or (form is not None and fnmatch(path.name, form))

    def _named_files(self) -> set[Path]:
        properties = [name for name, member in vars(RunDir).items() if isinstance(member, property)]
        return {getattr(self, name) for name in properties} | {self.figure(name) for name in FIGURE_NAMES}

    def _remove_all(self) -> None:
        """Remove all but the lock; the status first and the options last, so that what a kill leaves is no result."""
        self.status.unlink(missing_ok=True)
        # folders come after what they hold
        for path in sorted(_all_below(self.path), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path not in (self.params, self.lock):
                path.unlink()
        self.params.unlink(missing_ok=True)

    def _remove_temporary_files(self) -> None:
        for path in self.path.rglob(".*"):
            if is_temporary(path):
                path.unlink()

    # --------------------------------------------------------- options, status

    def write_params(
        self,
        params: Params,
        *,
        inputs: Iterable[str | os.PathLike[str]] = (),
        resolved: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the options with what is needed to repeat the run.

        Parameters
        ----------
        params : Params
            As the user gave them.
        inputs : iterable of path
            Files that were read; their sizes are stored.
        resolved : mapping, optional
            What the options left open and the data decided, such as the working box.
        """
        record = {
            "format_version": FORMAT_VERSION,
            "command": params.command,
            "options": params.to_dict(),
            "resolved": dict(resolved or {}),
            "inputs": [_describe(path) for path in inputs],
            "command_line": shlex.join(sys.argv),
            "folder": os.getcwd(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": library_versions(),
        }
        write_json(self.params, record)

    def read_record(self) -> dict[str, Any]:
        """Read all of params.json.

        Raises
        ------
        UserError
            If it is absent, not ours, or of a newer format.
        """
        record = read_json(self.params)
        if not {"format_version", "command", "options", "inputs", "folder"} <= set(record):
            raise UserError(f"{self.params} was not written by this program.")
        if record["format_version"] > FORMAT_VERSION:
            raise UserError(
                f"{self.params} has format {record['format_version']}, but this version knows only"
                f" {FORMAT_VERSION} and earlier: use the version that wrote it."
            )
        return record

    def read_params(self, kind: type[P]) -> P:
        """Read the options of the run as a `Params` class such as `FitParams`."""
        return kind.from_dict(self.read_record()["options"])

    def write_status(self, status: Status) -> None:
        """Write status.json atomically."""
        write_status(self.status, status)

    def read_status(self) -> Status | None:
        """Read status.json; None if there is none."""
        return read_status(self.status)

    def track_status(self, command: str) -> StatusTracker:
        """Start to keep status.json up to date."""
        return StatusTracker(self.status, command)


def library_versions() -> dict[str, str]:
    """Versions of the engine, Python and the numerical libraries that are installed."""
    versions = {"solvar_engine": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _all_below(folder: Path) -> list[Path]:
    """Every file and folder; links are listed, not followed."""
    return [Path(where, name) for where, folders, files in os.walk(folder) for name in folders + files]


def _describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    return {"path": os.path.abspath(path), "bytes": os.path.getsize(path), "sha256": _digest(path)}


def _has_changed(path: Path, entry: Mapping[str, Any]) -> bool:
    # without a digest: a run of an earlier version
    if path.stat().st_size != entry["bytes"]:
        return True
    return "sha256" in entry and _digest(path) != entry["sha256"]


def _digest(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK_BYTES), b""):
            digest.update(block)
    return digest.hexdigest()


def _is_same(stored: Any, given: Any, is_path: bool, folder: str) -> bool:
    if is_path and isinstance(stored, str) and isinstance(given, str):
        return os.path.realpath(os.path.join(folder, stored)) == os.path.realpath(given)
    return bool(stored == given)
