"""How options are declared, described and checked, and those that all commands share."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Mapping, TypeVar

from solvar_engine.contract.errors import UserError

SUPPORTED_DEVICES = ("cpu", "cuda")
"""Kinds of device that this version computes on; a form offers a GPU only if ``cuda`` is among them."""

_REQUIRED = "<required>"
_METADATA_KEY = "option"
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
        str, "auto", help="where to compute: cpu, cuda or cuda:N; auto takes a GPU if there is one and the command can"
        " use it",
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

    def changed(self, *names: str) -> list[str]:
        """Labels of those of the named options that do not have their default value."""
        specs = {spec.name: spec for spec in options_of(type(self))}
        return [specs[name].label for name in names if getattr(self, name) != specs[name].default]

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
        >>> from solvar_engine.contract.params import AnalyzeParams
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

    Examples
    --------
    >>> from solvar_engine.contract.params import AnalyzeParams
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
