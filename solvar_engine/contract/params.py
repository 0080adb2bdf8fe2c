"""The options of every command: one frozen dataclass each, with help, unit and range beside every field.

The command line is built from these classes, a run directory stores them, and a graphical interface can make
its form from `options_of`. Options that are not built yet are absent.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Mapping, Sequence, TypeVar

from solvar_engine.contract.errors import UserError

MIN_PARTICLES = 100
MIN_PARTICLES_PER_COMPONENT = 20
"""How many particles a fit needs, at least and for each of its components."""

AUTO_RANK = "auto"
"""Rank of a fit that keeps what is reproducible of as many components as `FitParams.components_for` tries."""

MAX_AUTO_RANK = 10
"""Most components that a fit with `AUTO_RANK` tries."""

SUPPORTED_DEVICES = ("cpu",)
"""Kinds of device that this version computes on; a form offers a GPU only if ``cuda`` is among them."""

PHANTOMS = ("hinge", "linker", "assembly", "mixture", "flexible", "static")
"""Molecules that `simulate` knows by name."""

DEFAULT_BOX = 64
DEFAULT_PIXEL_SIZE = 3.0
"""Box, px, and pixel size, Angstrom, of a simulated data set whose molecule does not come from maps."""

_REQUIRED = "<required>"
_METADATA_KEY = "option"
_MAP_SUFFIXES = (".mrc", ".map")
_KIND_IN_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_DEVICE_PATTERN = re.compile(r"auto|cpu|cuda(:\d+)?")

P = TypeVar("P", bound="Params")


@dataclass(frozen=True)
class Option:
    """What a person needs to know about one field of a `Params` class.

    Attributes
    ----------
    kind : type
        One of int, float, str and bool (a bool is a switch that is off by default).
    help : str
        One phrase, without unit, range and default, which `describe` adds.
    unit : str
        Unit of the value, empty for a pure number or text.
    minimum, maximum : float or None
        Inclusive range.
    choices : tuple of str
        All values allowed, empty for free text.
    words : tuple of str
        Texts that may stand in place of a number.
    positional : bool
        Given on the command line by its place, not by its name.
    metavar : str or None
        Stands for the value in the help.
    is_path : bool
        The value is a file or a folder.
    is_list : bool
        One or more values, kept as a tuple; a single one may be given as it is.
    one_of : str or None
        Name of a set of options of which exactly one must be given.
    may_differ_on_resume : bool
        The value changes how a run is computed, not what.
    name : str
        Name of the field; set by `options_of`.
    default : object
        Default of the field; set by `options_of`.
    is_required : bool
        The field has no default.
    """

    kind: type[Any]
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    positional: bool = False
    metavar: str | None = None
    is_path: bool = False
    is_list: bool = False
    one_of: str | None = None
    may_differ_on_resume: bool = False
    name: str = ""
    default: Any = None
    is_required: bool = False

    @property
    def label(self) -> str:
        """How the user writes the option: ``--pixel-size``, or ``PARTICLES`` for a positional one."""
        return (self.metavar or self.name.upper()) if self.positional else "--" + self.name.replace("_", "-")

    @property
    def kind_text(self) -> str:
        """The kind of value in words, such as ``a whole number or auto``."""
        return " or ".join((_KIND_IN_WORDS[self.kind], *self.words))

    @property
    def range_text(self) -> str:
        """The allowed range in words, such as ``at least 1``; empty if there is none."""
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum} to {self.maximum}"
        if self.minimum is not None:
            return f"at least {self.minimum}"
        if self.maximum is not None:
            return f"at most {self.maximum}"
        return ""

    def describe(self) -> str:
        """Help with unit, range and default."""
        details = [text for text in (self.unit, self.range_text) if text]
        if not self.is_required and self.default is not None and self.default is not False:
            details.append(f"default {self.default}")
        return f"{self.help} ({'; '.join(details)})" if details else self.help

    def check(self, value: Any) -> None:
        """Raise UserError unless `value` is of the right kind and in range."""
        if value is None and not self.is_required:
            return
        if self.is_list:
            self._check_list(value)
            return
        if isinstance(value, str) and value in self.words:
            return
        if not self._is_of_kind(value):
            raise UserError(f"{self.label} is {value!r} but must be {self.kind_text}.")
        if self.is_path and not value:
            raise UserError(f"{self.label} is empty: give a path, or leave it out.")
        if self.choices and value not in self.choices:
            raise UserError(f"{self.label} is {value!r} but must be one of {', '.join(self.choices)}.")
        if self.kind in (int, float) and not self._is_in_range(value):
            allowed = " ".join(text for text in (self.range_text or "a finite number", self.unit) if text)
            allowed = " or ".join((allowed, *self.words))
            raise UserError(f"{self.label} is {value} but must be {allowed}.")

    def _check_list(self, values: Any) -> None:
        if not isinstance(values, tuple) or not values:
            raise UserError(f"{self.label} is {values!r} but must be one or more values.")
        for value in values:
            dataclasses.replace(self, is_list=False).check(value)

    def _is_of_kind(self, value: Any) -> bool:
        if self.kind is float:
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        if self.kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, self.kind)

    def _is_in_range(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        above = self.minimum is None or value >= self.minimum
        return above and (self.maximum is None or value <= self.maximum)


def option(kind: type[Any], default: Any = _REQUIRED, **details: Any) -> Any:
    """Declare a field of a `Params` class; `details` are the attributes of `Option`.

    Parameters
    ----------
    kind : type
        int, float, str or bool.
    default : object
        Left out for a required option.
    **details
        Attributes of `Option`, at least `help`.

    Returns
    -------
    dataclasses.Field
    """
    return dataclasses.field(default=default, metadata={_METADATA_KEY: Option(kind, **details)})


@dataclass(frozen=True)
class Params:
    """Options that all commands share, and what can be done with any set of options.

    Raises
    ------
    TypeError
        When made without a required option.
    """

    command: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    threads: int | None = option(
        int, None, help="CPU threads; without it, all that CPU affinity or SLURM_CPUS_PER_TASK allow",
        minimum=1, maximum=4096, metavar="N", may_differ_on_resume=True,
    )
    device: str = option(
        str, "auto", help="where to compute; this version knows the CPU only, and refuses cuda or cuda:N",
        metavar="DEVICE", may_differ_on_resume=True,
    )
    seed: int = option(
        int, 0, help="seed of all random choices: the same seed gives the same numbers",
        minimum=0, maximum=2**31 - 1, metavar="N",
    )
    debug: bool = option(
        bool, False, help="show debugging messages, and the traceback of an error", may_differ_on_resume=True
    )

    def __post_init__(self) -> None:
        for spec in options_of(type(self)):
            if spec.is_required and getattr(self, spec.name) == _REQUIRED:
                raise TypeError(f"{type(self).__name__} needs the option {spec.name!r}")
            if spec.is_list:
                value = getattr(self, spec.name)
                if value is None and not spec.is_required:
                    continue
                # the only way to set an attribute of a frozen dataclass
                object.__setattr__(self, spec.name, tuple(value) if isinstance(value, (list, tuple)) else (value,))

    def validate(self) -> None:
        """Check every value; files are not opened.

        Raises
        ------
        UserError
            For the first value that is of the wrong kind or out of range, or if not exactly one of a set of
            options that exclude each other is given.
        """
        for spec in options_of(type(self)):
            spec.check(getattr(self, spec.name))
        if not _DEVICE_PATTERN.fullmatch(self.device):
            raise UserError(f"--device is {self.device!r} but must be auto, cpu, cuda or a GPU: cuda:0.")
        for specs in exclusive_sets_of(type(self)).values():
            if sum(getattr(self, spec.name) is not None for spec in specs) != 1:
                labels = [spec.label for spec in specs]
                raise UserError(f"Give exactly one of {', '.join(labels[:-1])} and {labels[-1]}.")

    def to_dict(self) -> dict[str, Any]:
        """Return all options as JSON-compatible values, by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[P], values: Mapping[str, Any]) -> P:
        """Make the options from what `to_dict` returned.

        Raises
        ------
        UserError
            If there is an unknown option, as in a file of a newer version, or a required one is absent.

        Examples
        --------
        >>> AnalyzeParams.from_dict({"run": "hinge/run", "clusters": 5}).clusters
        5
        """
        known = {spec.name for spec in options_of(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            names = ", ".join(unknown)
            raise UserError(f"{cls.command} has no option {names}: another version wrote it.")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"Incomplete options: {error}.") from error


def options_of(params: type[Params]) -> list[Option]:
    """List the options of a command: its own in order of declaration, then the common ones.

    Parameters
    ----------
    params : type
        A subclass of `Params`.

    Returns
    -------
    list of Option

    Examples
    --------
    >>> [option.label for option in options_of(AnalyzeParams)][:2]
    ['RUN', '--clusters']
    """
    common = {field.name for field in dataclasses.fields(Params)}
    fields = sorted(dataclasses.fields(params), key=lambda field: field.name in common)
    return [
        dataclasses.replace(
            field.metadata[_METADATA_KEY],
            name=field.name,
            default=None if field.default is _REQUIRED else field.default,
            is_required=field.default is _REQUIRED,
        )
        for field in fields
    ]


def exclusive_sets_of(params: type[Params]) -> dict[str, list[Option]]:
    """Return the sets of options of which exactly one must be given, by the name of the set."""
    sets: dict[str, list[Option]] = {}
    for spec in options_of(params):
        if spec.one_of:
            sets.setdefault(spec.one_of, []).append(spec)
    return sets


def _default_of(params: type[Params], name: str) -> Any:
    """Default value of one option."""
    return next(spec.default for spec in options_of(params) if spec.name == name)


@dataclass(frozen=True)
class SimulateParams(Params):
    """Options of `simulate`."""

    command: ClassVar[str] = "simulate"
    summary: ClassVar[str] = "make a data set with a known answer"

    output: str = option(str, help="folder for the data set: new or empty", metavar="DIR", is_path=True)
    phantom: Sequence[str] = option(
        str, help="molecule: hinge (one domain turns), linker (two bodies on two hinges), assembly (pieces come and"
        " go), mixture (100 different molecules), flexible (bends in six ways), static; or maps of your own, MRC files"
        " of equal size, one for each state, of which all are equally frequent",
        metavar="NAME|MAP.mrc", is_list=True,
    )
    particles: int = option(int, 10000, help="number of images", minimum=1, maximum=10_000_000, metavar="N")
    box: int | None = option(
        int, None, help=f"box size; without it, {DEFAULT_BOX}, or that of the maps",
        unit="px", minimum=16, maximum=1024, metavar="N",
    )
    pixel_size: float | None = option(
        float, None, help=f"pixel size; without it, {DEFAULT_PIXEL_SIZE}, or that of the maps",
        unit="Angstrom/px", minimum=0.1, maximum=100, metavar="X",
    )
    snr: float = option(
        float, 0.05, help="signal variance over noise variance in the whole box",
        minimum=0.0001, maximum=1_000_000, metavar="X",
    )
    contrast_std: float = option(
        float, 0.0, help="standard deviation of the contrast, whose mean is 1",
        minimum=0, maximum=1, metavar="X",
    )
    rotation_error: float = option(
        float, 0.0, help="standard deviation, per axis, of the error of the orientations",
        unit="degrees", minimum=0, maximum=180, metavar="X",
    )
    shift_error: float = option(
        float, 0.0, help="standard deviation, per axis, of the error of the shifts",
        unit="px", minimum=0, maximum=100, metavar="X",
    )

    @property
    def uses_maps(self) -> bool:
        """Whether the molecule comes from files; only after `validate`."""
        return self.phantom[0] not in PHANTOMS

    def validate(self) -> None:
        """Check every value, and that the molecule is one name, or maps."""
        super().validate()
        if len(self.phantom) == 1 and self.phantom[0] in PHANTOMS:
            return
        for name in self.phantom:
            if name in PHANTOMS:
                raise UserError(f"--phantom takes one name, or maps: {name} cannot be combined with anything else.")
            if not name.lower().endswith(_MAP_SUFFIXES):
                raise UserError(
                    f"--phantom is {name!r} but must be one of {', '.join(PHANTOMS)}, or maps with names that end in"
                    f" {' or '.join(_MAP_SUFFIXES)}."
                )


@dataclass(frozen=True)
class FitParams(Params):
    """Options of `fit`."""

    command: ClassVar[str] = "fit"
    summary: ClassVar[str] = "find the principal motions and the place of every particle along them"

    particles: str = option(
        str, help="STAR file of refined particles (RELION 3.0 to 5)",
        positional=True, metavar="PARTICLES.star", is_path=True,
    )
    output: str = option(str, help="run folder: new or empty, or to be resumed", metavar="RUN", is_path=True)
    rank: int | str = option(
        int, help=f"number of principal components, needs {MIN_PARTICLES_PER_COMPONENT} particles for each; or"
        f" {AUTO_RANK}: of at most {MAX_AUTO_RANK}, those that hold on particles that did not shape them, perhaps none",
        minimum=1, words=(AUTO_RANK,), metavar=f"N|{AUTO_RANK}",
    )
    mask: str | None = option(
        str, None, help="soft mask around all that moves; without it, one is made from the mean",
        metavar="MASK.mrc", is_path=True,
    )
    focus_mask: str | None = option(
        str, None, help="soft mask around the region whose motions are sought: components live inside both masks, the"
        " mean keeps the whole molecule; without it, motions are sought everywhere inside the mask",
        metavar="MASK.mrc", is_path=True,
    )
    box: int | None = option(
        int, None, help="working box to which images are Fourier-cropped; without it, the input box or 128,"
        " whichever is smaller",
        unit="px", minimum=16, maximum=4096, metavar="N",
    )
    objective: str = option(
        str, "ml", help="how the components are found: ml, by maximum likelihood, or ls, by least squares between"
        " the covariance of the images and the model's",
        choices=("ml", "ls"),
    )
    projector: str = option(
        str, "trilinear", help="interpolation in Fourier space; nufft does without: exact, some three times slower",
        choices=("trilinear", "nearest", "nufft"),
    )
    oversampling: int = option(
        int, 2, help="zero-padding factor of volumes before trilinear or nearest interpolation",
        minimum=1, maximum=4, metavar="N",
    )
    refine_poses: bool = option(
        bool, False, help="refine the orientation and the shift of every particle between the bands of the fit",
    )
    refine_contrast: bool = option(
        bool, False, help="estimate the contrast of every image between the bands of the fit, and use it; without, its"
        " spread is accounted for, and each image's contrast estimated at the end",
    )
    pose_schedule: str = option(
        str, "newton", help="how poses are refined: newton, by damped Gauss-Newton steps, or paper, by gradient descent"
        " for orientations and Newton steps for shifts, slower and for comparison",
        choices=("newton", "paper"),
    )
    invert_contrast: str = option(
        str, "auto", help="whether the molecule is dark in the images: auto finds out and says so",
        choices=("auto", "yes", "no"),
    )
    root: str | None = option(
        str, None, help="folder that relative stack paths start from; without it, the STAR file's folder,"
        " then the current one",
        metavar="DIR", is_path=True,
    )
    skip_bad_images: bool = option(
        bool, False, help="leave out images that are constant, cut off, masked or not finite, as outliers,"
        " instead of naming them all in an error",
        may_differ_on_resume=True,
    )
    cache_mb: int = option(
        int, 2000, help="memory for preprocessed images; more than fits goes to a scratch file",
        unit="MB", minimum=0, metavar="MB", may_differ_on_resume=True,
    )
    scratch: str | None = option(
        str, None, help="folder for the scratch file; without it, the run folder",
        metavar="DIR", is_path=True, may_differ_on_resume=True,
    )
    resume: bool = option(
        bool, False, help="go on where an interrupted run stopped; start if there is none",
        may_differ_on_resume=True,
    )

    def validate(self) -> None:
        """Check every value, and that no option is given that would be ignored."""
        super().validate()
        if self.projector == "nufft" and self.oversampling != _default_of(FitParams, "oversampling"):
            raise UserError(
                "--oversampling belongs to --projector trilinear and nearest: leave it out with nufft, which does not"
                " interpolate."
            )
        if self.pose_schedule != _default_of(FitParams, "pose_schedule") and not self.refine_poses:
            raise UserError("--pose-schedule belongs to --refine-poses: leave it out, or refine poses.")
        if self.refine_poses and self.projector == "nearest":
            raise UserError(
                "--refine-poses needs --projector trilinear or nufft: slices by nearest interpolation do not change"
                " with small turns."
            )

    def components_for(self, n_particles: int) -> int:
        """Return how many components the fit of so many particles tries; with a number as rank, that number.

        Examples
        --------
        >>> FitParams(particles="particles.star", output="run", rank="auto").components_for(150)
        7
        """
        if isinstance(self.rank, int):
            return self.rank
        return max(1, min(MAX_AUTO_RANK, n_particles // MIN_PARTICLES_PER_COMPONENT))


@dataclass(frozen=True)
class ReconstructParams(Params):
    """Options of `reconstruct`."""

    command: ClassVar[str] = "reconstruct"
    summary: ClassVar[str] = "make the volumes of states from a run"

    run: str = option(str, help="folder of a finished fit", positional=True, metavar="RUN", is_path=True)
    output: str = option(
        str, help="folder for the volumes: new or empty, or to be resumed", metavar="DIR", is_path=True
    )
    clusters: int | None = option(
        int, None, help="one volume for each of N k-means centres", minimum=1, metavar="N", one_of="states"
    )
    mixture: int | None = option(
        int, None, help="one volume for each of N Gaussians fitted to the particles", minimum=1, metavar="N",
        one_of="states",
    )
    points: str | None = option(
        str, None, help="one volume for each row of a table with columns z_1, z_2 and so on",
        metavar="POINTS.csv", is_path=True, one_of="states",
    )
    trajectory: str | None = option(
        str, None, help="volumes along the path through the rows of a table with columns z_1, z_2 and so on",
        metavar="PATH.csv", is_path=True, one_of="states",
    )
    between: Sequence[int] | None = option(
        int, None, help="volumes along the path through the centres of these clusters of `analyze`", minimum=1,
        metavar="CLUSTER", is_list=True, one_of="states",
    )
    path: str = option(
        str, "density", help="how a trajectory leads from point to point: density, where particles are dense, or"
        " straight",
        choices=("density", "straight"),
    )
    frames: int = option(
        int, 10, help="number of volumes along a trajectory", minimum=2, maximum=1000, metavar="N"
    )
    method: str = option(
        str, "kernel", help="kernel: from the images near the state, with half-maps, local filter and local resolution;"
        " linear: mean plus eigenvolumes times z, instant",
        choices=("kernel", "linear"),
    )
    b_factor: str = option(
        str, "none", help="kernel: sharpening of the volumes, not of their half-maps: none, auto (fitted to the"
        " half-maps between 10 Angstrom and the resolution, one for all states) or a number, negative to sharpen",
        unit="Angstrom^2", metavar="B",
    )
    particles: str | None = option(
        str, None, help="kernel: the same particles with larger images, such as before down-sampling; without it, those"
        " of the run",
        metavar="FULL.star", is_path=True,
    )
    box: int | None = option(
        int, None, help="kernel: box of the volumes; without it, the working box of the run, or that of the larger"
        " images",
        unit="px", minimum=16, maximum=4096, metavar="N",
    )
    root: str | None = option(
        str, None, help="kernel: folder that relative stack paths start from; without it, as in the fit",
        metavar="DIR", is_path=True,
    )
    skip_bad_images: bool = option(
        bool, False, help="kernel: leave out images that are constant, cut off, masked or not finite",
        may_differ_on_resume=True,
    )
    cache_mb: int = option(
        int, 2000, help="kernel: memory for preprocessed images; more than fits goes to a scratch file",
        unit="MB", minimum=0, metavar="MB", may_differ_on_resume=True,
    )
    scratch: str | None = option(
        str, None, help="kernel: folder for the scratch file; without it, that of the volumes",
        metavar="DIR", is_path=True, may_differ_on_resume=True,
    )
    resume: bool = option(
        bool, False, help="kernel: keep the states that an interrupted call has finished; start if there is none",
        may_differ_on_resume=True,
    )

    def validate(self) -> None:
        """Check every value, and that no option is given that would be ignored."""
        super().validate()
        if self.trajectory is None and self.between is None:
            for label in self._changed("frames", "path"):
                raise UserError(f"{label} belongs to --trajectory and --between: leave it out, or give one of them.")
        if self.between is not None and len(self.between) < 2:
            raise UserError("--between needs at least two clusters.")
        if self.method != "kernel":
            options = ("b_factor", "particles", "box", "root", "cache_mb", "scratch", "resume", "skip_bad_images")
            for label in self._changed(*options):
                raise UserError(f"{label} belongs to --method kernel: leave it out with {self.method}.")
        if self.b_factor not in ("none", "auto") and self.fixed_b_factor is None:
            raise UserError(f"--b-factor is {self.b_factor!r} but must be none, auto or a number of Angstrom^2.")

    @property
    def fixed_b_factor(self) -> float | None:
        """The number that --b-factor is; None if it is none or auto."""
        try:
            value = float(self.b_factor)
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def _changed(self, *names: str) -> list[str]:
        """Labels of those options that do not have their default value."""
        specs = {spec.name: spec for spec in options_of(ReconstructParams)}
        return [specs[name].label for name in names if getattr(self, name) != specs[name].default]


@dataclass(frozen=True)
class AnalyzeParams(Params):
    """Options of `analyze`."""

    command: ClassVar[str] = "analyze"
    summary: ClassVar[str] = "embed and cluster the particles, and write figures and a report into the run"

    run: str = option(str, help="folder of a finished fit", positional=True, metavar="RUN", is_path=True)
    clusters: int = option(int, 10, help="number of k-means clusters", minimum=1, maximum=1000, metavar="N")


@dataclass(frozen=True)
class EvaluateParams(Params):
    """Options of `evaluate`."""

    command: ClassVar[str] = "evaluate"
    summary: ClassVar[str] = "compare a run with the truth of a simulated data set"

    run: str = option(str, help="folder of a finished fit", positional=True, metavar="RUN", is_path=True)
    truth: str = option(
        str, help="folder truth/ of a simulated data set", positional=True, metavar="TRUTH", is_path=True
    )
    json: str | None = option(
        str, None, help="file for the numbers as JSON", metavar="OUT.json", is_path=True
    )


COMMANDS: Sequence[type[Params]] = (
    SimulateParams,
    FitParams,
    ReconstructParams,
    AnalyzeParams,
    EvaluateParams,
)
