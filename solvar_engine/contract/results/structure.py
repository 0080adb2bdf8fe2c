"""What `abinitio` says of the structure that it found, or did not find: part of params.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Mapping

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import write_json
from solvar_engine.contract.run import RunDir, read_record

_KEY = "structure"


@dataclass(frozen=True)
class FoundStructure:
    """What a search for a structure came to.

    Attributes
    ----------
    found : bool
        Images that took no part prefer the volume to its radially symmetric part, and views are not all alike.
    gain, gain_error : float
        By how much, log-likelihood per image, and its standard error.
    hole_deg : float
        Radius of the largest cap of directions without views, degrees.
    hole_rot_deg, hole_tilt_deg : float or None
        Its centre as rot and tilt of RELION; None if views cover the sphere.
    shift_std : float
        Standard deviation of the shifts along each axis, Angstrom.
    populations : tuple of float
        Share of each class.
    resolutions : tuple of float or None
        Of each class at FSC 0.143, Angstrom; None for a class without volume.
    """

    found: bool
    gain: float
    gain_error: float
    hole_deg: float
    hole_rot_deg: float | None
    hole_tilt_deg: float | None
    shift_std: float
    populations: tuple[float, ...] = ()
    resolutions: tuple[float | None, ...] = ()

    def evidence(self) -> str:
        """Say what held-out images gain by the volume."""
        return (
            f"held-out images gain {self.gain:.3g} +- {self.gain_error:.2g} in log-likelihood over a ball without"
            " structure"
        )

    def views(self) -> str:
        """Say which views are missing; empty if none are."""
        if self.hole_rot_deg is None or self.hole_tilt_deg is None:
            return ""
        return (
            f"views within {self.hole_deg:.0f} degrees of rot {self.hole_rot_deg:.0f}, tilt {self.hole_tilt_deg:.0f},"
            " and those opposite to them, are missing"
        )


def write_structure(run: RunDir, structure: FoundStructure) -> None:
    """Add it to params.json."""
    write_json(run.params, {**read_record(run), _KEY: asdict(structure)})


def refuse_without_structure(run: RunDir) -> None:
    """Check that a run is not one of `abinitio` that found no structure.

    Raises
    ------
    UserError
        If it is.
    """
    structure = read_structure(run)
    if structure is not None and not structure.found:
        raise UserError(f"The run in {run.path} found no structure to go on from: its {run.log.name} says why.")


def read_structure(run: RunDir) -> FoundStructure | None:
    """Read it from params.json; None for a run of another command.

    Raises
    ------
    UserError
        If params.json is absent, not ours, or of a newer format.
    """
    return structure_of(read_record(run))


def structure_of(record: Mapping[str, Any]) -> FoundStructure | None:
    """The same of the content of params.json."""
    content = record.get(_KEY)
    if content is None:
        return None
    known = {field.name for field in fields(FoundStructure)}
    values: dict[str, Any] = {name: content[name] for name in content if name in known}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return FoundStructure(**{**values, **lists})
