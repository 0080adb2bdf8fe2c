"""The optics groups of a set of particles.

Scipion keeps them in three places, of which an import may fill any: the acquisition of every particle, a STAR table
as text in the acquisition of the set, and the group number of a particle in an extra attribute. Imports lose some of
it, so the table may also come from the STAR file that the particles came from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable
from solvar_plugin.convert.locations import image_name, split_image_name

GROUP_ATTRIBUTE = "_rlnOpticsGroup"
_PIXEL_SIZE_TOLERANCE = 1e-4
_PREMULTIPLIED = "rlnCtfDataAreCtfPremultiplied"
# columns that the engine reads, and that Scipion keeps in the text of the table alone
_TEXT_ONLY = (
    *("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike"),
    *("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"),
    _PREMULTIPLIED,
)


class Optics:
    """Optics groups: to be asked for the group of every particle first, then for the table.

    Subclasses differ in where the groups are from.
    """

    _table: StarTable

    def group_of(self, particle: Any) -> int:
        """Return the number of the particle's optics group."""
        raise NotImplementedError

    def table(self) -> StarTable:
        """Return the table of the groups that were met."""
        return self._table


class AcquisitionOptics(Optics):
    """One group for each distinct microscope setting of the particles; what one stored group says holds for all."""

    def __init__(self, particles: Any) -> None:
        self._default = particles.getAcquisition()
        self._common = _common_columns(particles)
        table = stored_table(particles)
        if table is not None and len(table) == 1:
            self._common.update({name: table.text(name)[0] for name in _TEXT_ONLY if name in table})
        self._groups: dict[tuple[float, float, float], int] = {}

    def group_of(self, particle: Any) -> int:
        """Return the number of the particle's optics group."""
        own = particle.getAcquisition() if particle.hasAcquisition() else None
        settings = tuple(
            _first_number(getter(own) if own is not None else None, getter(self._default)) for getter, _ in _SETTINGS
        )
        for value, (_, name) in zip(settings, _SETTINGS):
            if value is None:
                raise UserError(
                    f"Particle {particle.getObjId()} has no {name}: import the particles with their acquisition."
                )
        return self._groups.setdefault(settings, len(self._groups) + 1)

    def table(self) -> StarTable:
        """Return the table of the groups."""
        voltage, cs, amplitude_contrast = zip(*self._groups)
        numbers = list(self._groups.values())
        return StarTable.create(
            "optics",
            {
                "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers],
                "rlnOpticsGroup": numbers,
                "rlnVoltage": list(map(float, voltage)),
                "rlnSphericalAberration": list(map(float, cs)),
                "rlnAmplitudeContrast": list(map(float, amplitude_contrast)),
                **{name: [value] * len(numbers) for name, value in self._common.items()},
            },
        )


class StoredOptics(Optics):
    """The table that an import has left in the set, for particles that know their group."""

    def __init__(self, particles: Any, table: StarTable) -> None:
        common = _common_columns(particles)
        self._table = table.with_columns({name: [value] * len(table) for name, value in common.items()})
        self._known = set(table.integers("rlnOpticsGroup").tolist())

    def group_of(self, particle: Any) -> int:
        """Return the number of the particle's optics group."""
        group = particle.getAttributeValue(GROUP_ATTRIBUTE, None)
        if group is None or int(group) not in self._known:
            raise UserError(
                f"Particle {particle.getObjId()} is in optics group {group}, which the set does not describe: "
                "give the original STAR file for the optics."
            )
        return int(group)


class OriginalOptics(Optics):
    """Groups and table of the STAR file that the particles were imported from, matched by image.

    Raises
    ------
    UserError
        If the file has no optics table or no groups.
    """

    def __init__(self, particles: Any, path: Path) -> None:
        star = StarFile.read(path)
        if star.optics is None:
            raise UserError(
                f"{path} has no table of optics groups (data_optics): give a STAR file of RELION 3.1 or later."
            )
        self._path = path
        self._table = self._rescaled(star.optics, particles)
        self._rows = _ImageIndex(star.particles.text("rlnImageName"), path)
        self._groups = star.particles.integers("rlnOpticsGroup")

    def _rescaled(self, table: StarTable, particles: Any) -> StarTable:
        """Bring the pixel sizes to the set's, which were changed if the images were rescaled after the import."""
        common = _common_columns(particles)
        sampling = common.pop("rlnImagePixelSize")
        columns: dict[str, list[Any]] = {name: [value] * len(table) for name, value in common.items()}
        if "rlnImagePixelSize" not in table:
            columns["rlnImagePixelSize"] = [sampling] * len(table)
        else:
            pixel_sizes = table.numbers("rlnImagePixelSize")["rlnImagePixelSize"]
            if abs(sampling / pixel_sizes[0] - 1) > _PIXEL_SIZE_TOLERANCE:
                columns["rlnImagePixelSize"] = (pixel_sizes * sampling / pixel_sizes[0]).tolist()
        return table.with_columns(columns)

    def group_of(self, particle: Any) -> int:
        """Return the number of the particle's optics group."""
        row = self._rows.find(image_name(particle))
        if row is None:
            raise UserError(
                f"Particle {particle.getObjId()} ({image_name(particle)}) is not in {self._path}: give the STAR file "
                "that the particles were imported from, or leave it out."
            )
        return int(self._groups[row])


class _ImageIndex:
    """Finds the row of an image by its place in a stack; stacks are compared by where they really are, or, if they were
    copied, by their names as long as these are distinct.
    """

    def __init__(self, names: list[str], star_path: Path) -> None:
        self._folders = [star_path.resolve().parent, *star_path.resolve().parent.parents]
        self._real: dict[str, str] = {}
        self._rows: dict[tuple[str, int], int] = {}
        owners: dict[str, set] = {}
        for row, name in enumerate(names):
            index, stack = split_image_name(name)
            real = self._resolve(stack)
            self._rows[real, index] = row
            owners.setdefault(os.path.basename(stack), set()).add(real)
        self._by_basename = {name: next(iter(paths)) for name, paths in owners.items() if len(paths) == 1}

    def find(self, name: str) -> int | None:
        index, stack = split_image_name(name)
        if stack not in self._real:
            self._real[stack] = os.path.realpath(stack)
        row = self._rows.get((self._real[stack], index))
        if row is None:
            row = self._rows.get((self._by_basename.get(os.path.basename(stack), ""), index))
        return row

    def _resolve(self, stack: str) -> str:
        """Find a stack whose path starts from the project folder, somewhere above the STAR file."""
        if stack not in self._real:
            candidates = (os.path.join(folder, stack) for folder in self._folders)
            found = next((path for path in candidates if os.path.exists(path)), stack)
            self._real[stack] = os.path.realpath(found)
        return self._real[stack]


def read_optics(particles: Any, original: Path | None = None) -> Optics:
    """Choose where the optics groups of a set come from.

    Parameters
    ----------
    particles : SetOfParticles
    original : Path, optional
        The STAR file that the particles were imported from, if the user gave it.
    """
    if original is not None:
        return OriginalOptics(particles, original)
    table = stored_table(particles)
    if table is not None and len(table) > 1 and _knows_group(particles):
        return StoredOptics(particles, table)
    return AcquisitionOptics(particles)


def lost_groups(particles: Any) -> int:
    """Return how many optics groups the particles had before an import forgot who is in which; 0 if none were lost."""
    table = stored_table(particles)
    return len(table) if table is not None and len(table) > 1 and not _knows_group(particles) else 0


def are_premultiplied(particles: Any, original: Path | None = None) -> bool:
    """Whether the optics groups say that the images are multiplied with their CTF."""
    table = stored_table(particles) if original is None else StarFile.read(original).optics
    return table is not None and _PREMULTIPLIED in table and bool(table.integers(_PREMULTIPLIED).any())


def stored_table(particles: Any) -> StarTable | None:
    """Return the optics table that the set holds as text, None if there is none."""
    text = particles.getAcquisition().opticsGroupInfo.get()
    if not text:
        return None
    table = StarFile.parse(text.splitlines(), "the optics groups of the set").get("optics")
    return table if table is not None and "rlnOpticsGroup" in table else None


def _knows_group(particles: Any) -> bool:
    return particles.getFirstItem().getAttributeValue(GROUP_ATTRIBUTE, None) is not None


def _common_columns(particles: Any) -> dict[str, Any]:
    """Values that one Scipion set has for all its particles."""
    columns: dict[str, Any] = {
        "rlnImagePixelSize": float(particles.getSamplingRate()),
        "rlnImageSize": int(particles.getXDim()),
        "rlnImageDimensionality": 2,
    }
    if particles.isPhaseFlipped():
        columns["rlnCtfDataArePhaseFlipped"] = 1
    return columns


def _first_number(*values: Any) -> float | None:
    return next((float(value) for value in values if value is not None), None)


_SETTINGS = (
    (lambda acquisition: acquisition.getVoltage(), "voltage"),
    (lambda acquisition: acquisition.getSphericalAberration(), "spherical aberration"),
    (lambda acquisition: acquisition.getAmplitudeContrast(), "amplitude contrast"),
)
