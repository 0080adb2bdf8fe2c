"""Which particle of one list is which of another, and how far its image has moved between them."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.words import counted
from solvar_engine.data.cryosparc.columns import UID_COLUMN
from solvar_engine.data.image_names import keys_by_stacks
from solvar_engine.data.metadata import SHIFT_COLUMNS, SHIFT_COLUMNS_PX, micrograph_pixel_size
from solvar_engine.jobs.fit.families import MOST_AT_ONE_PLACE, SAME_PLACE

logger = logging.getLogger(__name__)

_NAME, _ORIGINAL_NAME = "rlnImageName", "rlnImageOriginalName"
_MICROGRAPH = "rlnMicrographName"
_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")
_SAME_PLACE_PX = 0.75  # both coordinates rounded to whole pixels, and a little
_NEIGHBOUR_PX = 60.0  # re-centring moves no particle farther, and few have a neighbour as near
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV")
_SAME_DEFOCUS = 200.0  # Angstrom; refined values differ by less for most
_BINNINGS, _NEARLY_ALL = (1.5, 2, 3, 4, 6, 8), 0.9  # of micrographs that coordinates are told in, and of the rows
_MOST_REFUSED = 0.5  # of rows or of a distance, beyond which two columns contradict each other

Rows = NDArray[np.int64]
Places = NDArray[np.float64]


@dataclass(frozen=True)
class ParticleList:
    """A list of particles, and where they were extracted.

    Attributes
    ----------
    star : StarFile
    shift : ndarray, shape (n, 2)
        Origins, Angstrom.
    pixel_size : float
        Of the images, Angstrom.
    """

    star: StarFile
    shift: Places
    pixel_size: float

    @property
    def table(self) -> StarTable:
        """The particles."""
        return self.star.particles

    @cached_property
    def has_coordinates(self) -> bool:
        """Whether the list says from where in which micrograph each image is; many images are at no one place."""
        columns = (_MICROGRAPH, *_COORDINATES)
        if not all(column in self.table for column in columns):
            return False
        images = set(zip(*(self.table.cells(column) for column in (*columns, _NAME)), strict=True))
        at_place = Counter(image[:-1] for image in images)
        return max(at_place.values(), default=0) <= max(MOST_AT_ONE_PLACE, len(self.table) // 20)

    @property
    def has_origins(self) -> bool:
        """Whether the list has origins at all."""
        return any(column in self.table for column in (*SHIFT_COLUMNS, *SHIFT_COLUMNS_PX))

    def coordinates(self) -> Places:
        """Centres of the images in their micrographs, px of these, shape (n, 2)."""
        return np.stack(list(self.table.numbers(*_COORDINATES).values()), axis=1)


def match_rows(known: ParticleList, other: ParticleList) -> Rows:
    """Find each particle of one list in another.

    By the uid of cryoSPARC, which down-sampling keeps, else by image name (also the name that an image had before),
    else by micrograph and coordinates, compared as numbers, or by the particle's position, which re-centring does not
    change. Only where lists share no key, rows are taken in order, if nothing contradicts that. A particle of which
    the other list has fewer rows is found in these again.

    Returns
    -------
    ndarray of int64, shape (rows of known,)
        Row of ``other``.

    Raises
    ------
    UserError
        If a particle is not found, or may be several of the other list; the text says by which key, and which row.
    """
    row = _matched_rows(known, other)
    _, firsts, label = np.unique(row, return_index=True, return_inverse=True)
    first = firsts[label.reshape(-1)]  # row of known that has the same row of other
    again = np.flatnonzero(first != np.arange(len(row)))
    if len(again):
        _refuse_several_places(known, other, first)
        of_run = known.star.source
        logger.info(
            "%s (row %d that of row %d), of which %s has fewer rows: each image is taken for all rows of its particle",
            counted(len(again), f"row of {of_run} lists a particle again", f"rows of {of_run} list particles again"),
            again[0] + 1, first[again[0]] + 1, other.star.source,
        )  # fmt: skip
    return row


def _refuse_several_places(known: ParticleList, other: ParticleList, first: Rows) -> None:
    """Refuse rows that show other places of one image than the ``first`` ones (n,), as parts of a capsid do."""
    apart = np.linalg.norm(known.shift - known.shift[first], axis=1)
    names = known.table.text(_NAME)
    for row in np.flatnonzero(apart > SAME_PLACE):
        if names[row] == names[first[row]]:
            raise UserError(
                f"Rows {first[row] + 1} and {row + 1} of {known.star.source} show places of one image that are"
                f" {apart[row]:.0f} Angstrom apart, and {other.star.source} has one of them only: give a list with a"
                " row for each place, as the one that was fitted."
            )


def _matched_rows(known: ParticleList, other: ParticleList) -> Rows:
    uids = _by_uid(known.table, other.table)
    if (uids >= 0).all():
        return uids
    names = _by_names(known.table, other.table)
    is_complete = bool((names >= 0).all())
    is_believed = is_complete and _agree_on_micrographs(known.table, other.table, names)
    if known.has_coordinates and other.has_coordinates:
        if is_believed and _are_at_one_place(known, other, names):
            return names
        try:
            return _by_coordinates(known, other)
        except UserError:
            # re-centred in a way that is not understood, but these are names of images
            if not is_believed:
                raise
    if is_believed:
        return names
    if is_complete:
        raise UserError(
            f"Image names of {other.table.source} are those of {known.table.source}, but on other micrographs"
            f" (column {_MICROGRAPH}): give the list that belongs to the run."
        )
    of_files = _by_files(known.table, other.table)
    if (of_files >= 0).all() and _agree_on_micrographs(known.table, other.table, of_files):
        logger.info("Particles of %s are found by the names of the files of their images", other.table.source)
        return of_files
    if (names >= 0).any():
        row = int(np.flatnonzero(names < 0)[0])
        raise UserError(
            f"{int((names < 0).sum())} of {len(known.table)} particles of {known.table.source} are not in"
            f" {other.table.source}; the first is row {row + 1}, {_NAME} {known.table.text(_NAME)[row]}: give a list"
            " with all particles of the run."
        )
    return _in_order(known.table, other.table)


def _by_uid(known: StarTable, other: StarTable) -> Rows:
    """Rows by uid, which rows of symmetry share; -1 for a particle that is not found."""
    if UID_COLUMN not in known or UID_COLUMN not in other:
        return np.full(len(known), -1)
    return _by_keys(known.text(UID_COLUMN), other.text(UID_COLUMN))


def _are_at_one_place(known: ParticleList, other: ParticleList, row: Rows) -> bool:
    return bool(np.abs(other.coordinates()[row] - known.coordinates()).max() <= _SAME_PLACE_PX)


def moved_images(known: ParticleList, other: ParticleList, row: Rows) -> Places:
    """How far the centre of each image lies from where it was, Angstrom, shape (rows of known, 2).

    A particle at centre c with origin s lies at c - s. Where it stays, a centre moved by d gives the origin s + d: the
    difference of the origins of the two lists, which also is that of images moved without their coordinates.

    Raises
    ------
    UserError
        If coordinates moved, and origins do not follow.
    """
    moved = other.shift[row] - known.shift
    if not other.has_origins:
        if known.has_origins and not (known.has_coordinates and other.has_coordinates):
            logger.warning(
                "%s has no origins: its images are taken to be centred as those of the fit", other.star.source
            )
            return np.zeros_like(moved)
        if known.has_origins and _are_at_one_place(known, other, row):
            return np.zeros_like(moved)
    if known.has_coordinates and other.has_coordinates:
        _check_that_origins_follow(known, other, row, moved)
    distance = np.linalg.norm(moved, axis=1)
    if distance.max() > 1e-3:
        logger.info(
            "Images of %s are centred %.2f Angstrom from those of the fit on average: origins are corrected by that",
            other.star.source,
            float(distance.mean()),
        )
    return moved


def _check_that_origins_follow(known: ParticleList, other: ParticleList, row: Rows, moved: Places) -> None:
    step = other.coordinates()[row] - known.coordinates()
    has_moved = np.linalg.norm(step, axis=1) > _SAME_PLACE_PX
    if not has_moved.any():
        return
    step, follows = step[has_moved], moved[has_moved]
    unit = micrograph_pixel_size(other.star) or micrograph_pixel_size(known.star)
    if unit is None:
        unit = max(0.0, float((step * follows).sum() / (step**2).sum()))
    wrong = np.linalg.norm(follows - unit * step, axis=1) > _MOST_REFUSED * unit * np.linalg.norm(step, axis=1)
    # whole pixels of a coordinate against fractions in an origin
    wrong &= np.linalg.norm(follows - unit * step, axis=1) > _SAME_PLACE_PX * max(unit, other.pixel_size)
    if unit == 0 or wrong.mean() > _MOST_REFUSED:
        first = int(np.flatnonzero(has_moved)[0])
        raise UserError(
            f"Coordinates of {other.star.source} differ from those of {known.star.source} (row {first + 1} by"
            f" {np.linalg.norm(step[0]):.1f} px), but origins do not follow: give the list whose origins belong to its"
            " images."
        )


def _by_names(known: StarTable, other: StarTable) -> Rows:
    """Row of ``other`` by image name, or by that before some change, -1 where there is none."""
    found = [_by_keys(asked, there) for asked, there in _names_to_compare(known, other)]
    return max(found, key=_count, default=_none(known))


def _by_files(known: StarTable, other: StarTable) -> Rows:
    """The same by the number of the image in a stack that has another path in the other list.

    Raises
    ------
    UserError
        If a stack may be several of the other list, and nothing else tells.
    """
    best, doubt = _none(known), ""
    for asked, there in _names_to_compare(known, other):
        keys = keys_by_stacks(asked, there)
        best = max(best, _by_keys(keys.wanted, keys.given), key=_count)
        if keys.unclear is not None:
            stack, (one, another, *_) = keys.unclear
            doubt = doubt or f"Stack {stack} of {known.source} may be {one} or {another} of {other.source}"
    if doubt and (best < 0).any():
        raise UserError(
            f"{doubt}: give a list whose stacks have the same folders, or both lists with the columns {_MICROGRAPH},"
            f" {_COORDINATES[0]} and {_COORDINATES[1]}."
        )
    return best


def _names_to_compare(known: StarTable, other: StarTable) -> Iterator[tuple[list[str], list[str]]]:
    """Yield names of images, as they are and as they were before some change, of both lists."""
    for wanted, given in ((_NAME, _NAME), (_NAME, _ORIGINAL_NAME), (_ORIGINAL_NAME, _NAME), (_ORIGINAL_NAME,) * 2):
        if wanted in known and given in other:
            yield known.text(wanted), other.text(given)


def _none(known: StarTable) -> Rows:
    return np.full(len(known), -1, dtype=np.int64)


def _count(rows: Rows) -> int:
    return int((rows >= 0).sum())


def _by_keys(wanted: Sequence[str], given: Sequence[str]) -> Rows:
    """Row of ``given`` for each key, -1 where there is none or the key is empty.

    Rows of equal keys are of one particle, and taken in order; where fewer are given, from the first again.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(given):
        places[key].append(row)
    taken: dict[str, int] = defaultdict(int)
    rows = np.full(len(wanted), -1, dtype=np.int64)
    for row, key in enumerate(wanted):
        if key and key in places:
            rows[row] = places[key][taken[key] % len(places[key])]
            taken[key] += 1
    return rows


def _micrographs(*tables: StarTable) -> list[list[str]]:
    """Names of micrographs as they can be compared: whole where all of the first are in the second, else of files."""
    names = [table.text(_MICROGRAPH) for table in tables]
    if set(names[0]) <= set(names[1]):
        return names
    return [[PurePath(name).name for name in cells] for cells in names]


def _agree_on_micrographs(known: StarTable, other: StarTable, row: Rows) -> bool:
    if _MICROGRAPH not in known or _MICROGRAPH not in other:
        return True
    wanted, given = _micrographs(known, other)
    if not set(wanted) & set(given):  # they were renamed
        return True
    return all(name == given[place] for name, place in zip(wanted, row, strict=True))


def _by_coordinates(known: ParticleList, other: ParticleList) -> Rows:
    wanted, given = _micrographs(known.table, other.table)
    missing = sorted(set(wanted) - set(given))
    if missing:
        row = wanted.index(missing[0])
        raise UserError(
            f"Micrograph {missing[0]} of row {row + 1} of {known.table.source} is not in column {_MICROGRAPH} of"
            f" {other.table.source}: give a list with all particles of the run."
        )
    number = {name: place for place, name in enumerate(dict.fromkeys(given))}
    micrographs = (np.array([number[name] for name in wanted]), np.array([number[name] for name in given]))
    best = _none(known.table)
    for places in _positions(known, other, micrographs):
        rows = _with_copies(known.table, _nearest(places, micrographs, _SAME_PLACE_PX))
        if (rows >= 0).all():
            return rows
        best = max(best, rows, key=_count)
    _refuse_other_binning(known, other, micrographs)
    row = int(np.flatnonzero(best < 0)[0])
    x, y = known.coordinates()[row]
    raise UserError(
        f"{int((best < 0).sum())} of {len(best)} particles of {known.table.source} are not in {other.table.source}, by"
        f" micrograph and coordinates; the first is row {row + 1}, {_COORDINATES[0]} {x:g}, {_COORDINATES[1]} {y:g} of"
        f" {wanted[row]}: give a list with all particles of the run."
    )


def _refuse_other_binning(known: ParticleList, other: ParticleList, micrographs: tuple[Rows, Rows]) -> None:
    """Say if coordinates are those of the same particles in micrographs of another binning."""
    first, second = known.coordinates(), other.coordinates()
    for factor in (*_BINNINGS, *(1 / binning for binning in _BINNINGS)):
        rows = _nearest((factor * first, second), micrographs, _SAME_PLACE_PX * max(1.0, factor))
        if _count(rows) > _NEARLY_ALL * len(rows):
            raise UserError(
                f"The coordinates in {other.table.source} are {factor:.3g} times those in {known.table.source}, as of"
                f" micrographs of another binning: bring {_COORDINATES[0]} and {_COORDINATES[1]} to those of the run."
            )


def _with_copies(known: StarTable, row: Rows) -> Rows:
    """Give rows (n,) that were not found that of another row of the same image: its origin may differ a little."""
    if (row >= 0).all():
        return row
    names = known.text(_NAME)
    of_image = {name: place for name, place in zip(names, row.tolist(), strict=True) if place >= 0}
    return np.array([of_image.get(name, -1) for name in names]) if of_image else row


def _positions(
    known: ParticleList, other: ParticleList, micrographs: tuple[Rows, Rows]
) -> Iterator[tuple[Places, Places]]:
    """Yield places to compare: coordinates; then positions of the particles, by all that a pixel may be."""
    first, second = known.coordinates(), other.coordinates()
    yield first, second
    units = [micrograph_pixel_size(known.star), micrograph_pixel_size(other.star)]
    if units == [None, None]:
        units = [other.pixel_size, known.pixel_size, _estimated_unit(known, other, micrographs)]
    for unit in units:
        if unit is not None:
            yield first - known.shift / unit, second - other.shift / unit


def _estimated_unit(known: ParticleList, other: ParticleList, micrographs: tuple[Rows, Rows]) -> float | None:
    """Pixel size of the micrographs, from how coordinates and origins of nearest neighbours differ."""
    places = (known.coordinates(), other.coordinates())
    row = _nearest(places, micrographs, _NEIGHBOUR_PX, is_mutual=True)
    found = np.flatnonzero(row >= 0)
    step = places[1][row[found]] - places[0][found]
    follows = other.shift[row[found]] - known.shift[found]
    is_long = np.abs(step) > 1
    return float(np.median(follows[is_long] / step[is_long])) if is_long.any() else None


def _nearest(
    places: tuple[Places, Places], micrographs: tuple[Rows, Rows], distance: float, is_mutual: bool = False
) -> Rows:
    """Row of the second list nearest to each of the first, -1 where there is none; equal places in order.

    Neighbours that are ``is_mutual`` are the nearest of each other; at one place are all rows of one particle.
    """
    (wanted, asking), (given, labels) = (
        _distinct(place, micrograph, 4 * distance) for place, micrograph in zip(places, micrographs, strict=True)
    )
    length, nearest = cKDTree(given).query(wanted, distance_upper_bound=distance)
    is_found = np.isfinite(length)
    if is_mutual:
        backward = cKDTree(wanted).query(given, distance_upper_bound=distance)[1]
        is_found[is_found] = backward[nearest[is_found]] == np.flatnonzero(is_found)
    keys = [str(nearest[label]) if is_found[label] else "" for label in asking]
    return _by_keys(keys, [str(label) for label in labels])


def _distinct(place: Places, micrograph: Rows, apart: float) -> tuple[Places, Rows]:
    """Distinct places, with micrographs kept apart along a dimension of their own, and which each row is at."""
    distinct, label = np.unique(np.column_stack([place, apart * micrograph]), axis=0, return_inverse=True)
    return distinct, label.reshape(-1)


def _in_order(known: StarTable, other: StarTable) -> Rows:
    """Take rows in order, unless something says that this is wrong."""
    if len(known) != len(other):
        raise UserError(
            f"{other.source} has {len(other)} particles and {known.source} has {len(known)}, and neither image names"
            " nor micrographs with coordinates tell which is which: give the same particles in the same order."
        )
    rows = np.arange(len(known), dtype=np.int64)
    if not _agree_on_micrographs(known, other, rows):
        wanted, given = _micrographs(known, other)
        row = next(row for row, name in enumerate(wanted) if name != given[row])
        raise UserError(
            f"Row {row + 1} of {known.source} is of micrograph {wanted[row]}, that of {other.source} of {given[row]},"
            " and nothing else tells which particle is which: give the same particles in the same order."
        )
    if all(column in table for column in _DEFOCUS for table in (known, other)):
        first, second = (np.mean(list(table.numbers(*_DEFOCUS).values()), axis=0) for table in (known, other))
        differs = np.abs(first - second) > _SAME_DEFOCUS
        sorted_differs = np.abs(np.sort(first) - np.sort(second)) > _SAME_DEFOCUS
        if differs.mean() > _MOST_REFUSED and sorted_differs.mean() < differs.mean() / 4:
            row = int(np.flatnonzero(differs)[0])
            raise UserError(
                f"Rows of {other.source} seem to be in another order than those of {known.source} (defocus of row"
                f" {row + 1} is {second[row]:.0f} and {first[row]:.0f} Angstrom), and neither image names nor"
                " micrographs with coordinates tell which is which: give the same particles in the same order."
            )
    logger.warning(
        "Particles of %s are taken in the order of the rows of %s: neither image names nor coordinates tell",
        other.source,
        known.source,
    )
    return rows
