"""What the images say of their poses, in words: which parts of a list are foreign, and which origins are in doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.data.particles import ParticleStack
from solvar_engine.estimation.judging.given_poses import (
    DEFOCUS_CHANGES,
    PIXEL_FACTORS,
    SHIFT_FACTORS,
    TURN_DEG,
    PoseEvidence,
    mean_and_error,
)

Parts = tuple[list[str], NDArray[np.int64]]
"""Names of parts, and the number of the part of each of some rows."""

BLOCKS = (2, 4, 8)
"""Numbers of blocks of rows that a list is parted into."""

SIGNIFICANT = 4.0
"""Standard errors of a gain that is one."""

SIGNIFICANT_PART = 5.0
"""The same where many parts are looked at."""

OF_ORIENTATIONS = "The orientations in "
"""How what is said of the orientations of all images begins."""

OTHER_CONVENTION = "seem to be of another convention"
"""What is said of orientations where images agree better with such."""

AS_IN_HEADERS = ", that of the headers,"
"""What is said of a pixel size that images agree better with."""

WEAK = 0.5
"""Of the gain that is expected, below which poses are those of other images."""

_ANISOTROPIC = 0.2  # of the signal of a molecule, at least, depends on its orientation; of phantoms 1.2 to 1.7
_USUAL = 0.6  # of balls and shells 0.7 to 1.2; with angles of other conventions 0.1 to 0.4
_MOST_MOLECULES = 1.2  # of phantoms 1.2 to 1.7; with rot of the other sign 0.95
_LEAST_SHIFT = 0.1  # px, of shifts whose unit can be told
_NOTABLE = 0.05  # of the gain of the orientations
_NOTABLE_CTF = 0.001  # of the same, which is all that images at low resolution show of their transfer functions
_LEAST_MEMBERS = 15  # of the sample, in a part that is judged by itself
_LEAST_OF_CTF = 50  # the same where the scale in each shell is found, too
_ROWS = "rows "
_NEAR_SIZE = 0.1  # of a pixel; others are tried in steps of more
_SHOWN = 3  # names in a sentence
_TRANSFER = "transfer functions"
_OTHER_PIXELS = "better with a pixel size of {size:.3g}{headers} than with {listed:.3g} Angstrom"
_TIMES_ORIGINS = "times their origins"
_FACTOR_OF_ORIGINS = f"better with {{factor:g}} {_TIMES_ORIGINS}"
_UNLESS = ", unless all that is left in the images is a part that moves"  # which is displaced as a whole


def comparison(gain: float, error: float) -> str:
    """Say by how much images prefer their own orientations."""
    return f"log-likelihood gain {gain:.2f} +- {error:.2f} an image over orientations of other images"


def are_foreign(evidence: PoseEvidence) -> bool:
    """Whether orientations surely are those of other images: images show the molecule, but not how it is turned.

    Where the images are few or noisy, so that they need not show how it is turned, nothing is sure.
    """
    return _surely_gain_less(evidence, _ANISOTROPIC)


def explain_little(evidence: PoseEvidence) -> bool:
    """Whether orientations surely say less of the images than right ones do, as angles of another convention would."""
    return _surely_gain_less(evidence, _USUAL)


def may_be_of_another_convention(evidence: PoseEvidence) -> bool:
    """Whether orientations say less of the images than those of most molecules do."""
    gain, signal = (float(values.mean()) for values in (evidence.orientation_gain, evidence.signal))
    return gain < _MOST_MOLECULES * signal


def _surely_gain_less(evidence: PoseEvidence, share: float) -> bool:
    gain, error = mean_and_error(evidence.orientation_gain)
    return gain + SIGNIFICANT * error < share * float(evidence.signal.mean())


_OTHER_TRANSFER = (
    ("as well with those of other images", "check the columns of the CTF, and rlnPhaseShift"),
    ("better with the opposite of what the list says of phase-flipping", "check rlnCtfDataArePhaseFlipped"),
    ("better with those of another voltage, 200 or 300 kV", "check rlnVoltage"),
    ("better with those of another phase shift, 0 or 90 degrees", "check rlnPhaseShift"),
    ("better without even aberrations", "check rlnEvenZernike, that it is of these images"),
    ("better without odd aberrations", "check rlnBeamTiltX and rlnOddZernike, that they are of these images"),
    (
        "better with their squares, as of images that were multiplied by them (rlnCtfDataAreCtfPremultiplied)",
        "set that column to 1 for these",
    ),
)


@dataclass(frozen=True)
class _Alternative:
    """Another reading of a list, of one kind: what each image gains by it, (m,), how that is said, and what to check.

    Nothing is said of a gain less than a share of that of the orientations, or of fewer images. What is said has places
    for the ``move`` of images, Angstrom, for a ``factor`` of their origins, and for their pixel ``size``, a factor
    times the ``listed`` one, and what ``headers`` say of it.
    """

    kind: str
    gain: Tensor
    what: str
    check: str
    least_share: float
    least_members: int
    factor: float = 1.0


def _alternatives(evidence: PoseEvidence, stack: ParticleStack) -> Iterator[_Alternative]:
    for factor, loss in zip(SHIFT_FACTORS, evidence.shift_gain.T, strict=True):
        check = "check their unit and sign, that they are of these images, and how accurate they are"
        yield _Alternative("origins", -loss, _FACTOR_OF_ORIGINS, check, _NOTABLE, _LEAST_MEMBERS, factor)
    check = f"check that the list has the origins of these images; fit --refine-poses refines inaccurate ones{_UNLESS}"
    what = "better with other places, {move:.1f} Angstrom from their origins"
    yield _Alternative("origins", -evidence.place_gain, what, check, _NOTABLE, _LEAST_MEMBERS)
    check = f"they are inaccurate, refine them further{_UNLESS}"
    what = f"better with orientations turned by {TURN_DEG:g} degrees, each in a direction of its own"
    yield _Alternative("orientations", -evidence.turn_gain, what, check, _NOTABLE, _LEAST_MEMBERS)
    for factor, loss in zip(PIXEL_FACTORS, evidence.pixel_gain.T, strict=True):
        check = "check it (rlnImagePixelSize), and the units of defocus and origins"
        yield _Alternative("pixel size", -loss, _OTHER_PIXELS, check, _NOTABLE_CTF, _LEAST_OF_CTF, factor)
    for change, loss in zip(DEFOCUS_CHANGES, evidence.defocus_gain.T, strict=True):
        what = f"better with a defocus that is about {abs(change):g} Angstrom {'larger' if change > 0 else 'smaller'}"
        check = "check that rlnDefocusU and rlnDefocusV are of these micrographs, and estimate or refine them again"
        yield _Alternative("defocus", -loss, what, check, _NOTABLE_CTF, _LEAST_OF_CTF)
    for (what, check), loss in zip(_OTHER_TRANSFER, evidence.ctf_gain.T, strict=True):
        yield _Alternative(_TRANSFER, -loss, what, check, _NOTABLE_CTF, _LEAST_OF_CTF)


def reading_doubts(evidence: PoseEvidence, stack: ParticleStack) -> list[str]:
    """Say if images, or those of some parts, agree better with another reading of the list, and with which one.

    Most that is wrong makes more than one of them better than that of the list. So that which explains most is named,
    and others of which it is not clear whether they explain less.
    """
    of_part, members, found = _first_doubt(evidence, stack)
    if not found:
        return []
    told, move = [], max(0.0, float(evidence.move[members].mean())) ** 0.5
    size = stack.pixel_sizes[int(stack.group[evidence.index[members]].mode().values)]
    for one in found:
        gain, error = mean_and_error(one.gain[members])
        is_in_headers = one.what == _OTHER_PIXELS and _is_in_headers(
            one.factor * size, stack, evidence.index[members]
        )
        headers = AS_IN_HEADERS if is_in_headers else ""
        what = one.what.format(move=move, size=one.factor * size, listed=size, headers=headers, factor=one.factor)
        told.append((what, f"(log-likelihood gain {gain:.2f} +- {error:.2f} an image)", one.check))
    (what, gained, check), *others = told
    if found[0].kind == _TRANSFER:
        sentence = (
            f"The transfer functions {of_part or 'in '}{stack.path} are not those of its images, which agree"
            f" {what}: {check} {gained}"
        )
    else:
        sentence = f"The images {of_part or 'of '}{stack.path} agree {what} {gained}: {check}"
    return ["; or else ".join([sentence, *(f"{what} {gained}: {check}" for what, gained, check in others)])]


def gain_of_other_origins(
    doubts: Sequence[str], evidence: PoseEvidence, stack: ParticleStack, has_scatter: bool = False
) -> float:
    """Log-likelihood that all images gain on average by a factor on their origins; 0 unless it is the doubt told.

    Or by other places, if that is told, and origins ``has_scatter`` that makes classes of images.
    """
    if has_scatter and any(are_of_accuracy(doubt) for doubt in doubts):
        return max(0.0, -float(evidence.place_gain.mean()))
    if not any(_TIMES_ORIGINS in doubt for doubt in doubts):
        return 0.0
    _, members, found = _first_doubt(evidence, stack)
    if not found or found[0].what != _FACTOR_OF_ORIGINS:  # or a further one
        return 0.0
    return float(found[0].gain[members].sum()) / len(members)


def _is_in_headers(size: float, stack: ParticleStack, rows: Tensor) -> bool:
    """Whether most of the stacks of some rows (m,) have a pixel size, Angstrom, in their headers."""
    known = np.array([header.voxel_size[0] for header in stack.index.headers])[stack.index.stack[rows.numpy()]]
    return float((np.abs(known / size - 1) < _NEAR_SIZE).mean()) > 0.5


def with_frames(doubts: list[str], left_frames: Sequence[str]) -> list[str]:
    """Doubts about poses, or about frames that may explain them: not where another reading of the list does."""
    explain_nothing = all(are_of_accuracy(doubt) for doubt in doubts)
    return list(left_frames) if left_frames and explain_nothing else doubts


def are_of_accuracy(doubt: str) -> bool:
    """Whether a doubt is that poses are near the true ones, and inaccurate, which a refinement mends."""
    return doubt.endswith(_UNLESS)


def _first_doubt(evidence: PoseEvidence, stack: ParticleStack) -> tuple[str, Tensor, list[_Alternative]]:
    """Name the parts of which something is found and not of the others, as "of rows 1 to 9 in "; "" stands for all.

    Returns
    -------
    of_part : str
    members : Tensor, shape (m,), bool
        Images of the first of these parts.
    found : list of _Alternative
        The best one first; empty if there is none.
    """
    alternatives = list(_alternatives(evidence, stack))

    def better(members: NDArray[np.bool_], significant: float) -> list[_Alternative]:
        return _better(alternatives, evidence, stack, torch.from_numpy(members), significant)

    for parts in partitions(stack, evidence.index.numpy()):
        found = [(name, members, better(members, SIGNIFICANT_PART)) for name, members in parts]
        doubtful = [finding for finding in found if finding[2]]
        others = ~np.any([members for _, members, _ in doubtful], axis=0)
        if not 0 < len(doubtful) < len(parts):
            continue
        (name, members, finding), more = doubtful[0], len(doubtful) - 1
        if _differ(finding[0].gain, members, others) and not better(others, SIGNIFICANT):
            rows = _about_rows(name, finding[0].gain, ~others, evidence.index, stack)
            where = rows or f"{name}{f' and {more} more' if more else ''}"
            return f"of {where} in ", torch.from_numpy(members), finding
    everything = np.ones(len(evidence.index), dtype=bool)
    return "", torch.from_numpy(everything), better(everything, SIGNIFICANT)


def _differ(gain: Tensor, part: NDArray[np.bool_], others: NDArray[np.bool_]) -> bool:
    """Whether a part of the images surely gains more than others: where all gain, some may do so surely alone."""
    (own, error), (of_others, their_error) = (mean_and_error(gain[torch.from_numpy(rows)]) for rows in (part, others))
    return own - of_others > SIGNIFICANT * (error**2 + their_error**2) ** 0.5


def _better(
    alternatives: list[_Alternative], evidence: PoseEvidence, stack: ParticleStack, part: Tensor, significant: float
) -> list[_Alternative]:
    """Readings by which images of a part surely gain: the best one, and the best of each kind that may be as good."""
    count, best = int(part.sum()), dict[str, tuple[float, _Alternative]]()
    if count < _LEAST_MEMBERS:
        return []
    shift = stack.pose.shift[evidence.index[part]]
    has_shifts = float(shift.square().sum(dim=1).mean().sqrt()) / stack.pixel_size > _LEAST_SHIFT
    of_orientations = float(evidence.orientation_gain[part].mean())
    for one in alternatives:
        gain, error = mean_and_error(one.gain[part])
        is_sure = gain > max(significant * error, one.least_share * of_orientations) and _most_gain(one.gain[part])
        is_told = count >= one.least_members and (has_shifts or one.what != _FACTOR_OF_ORIGINS)
        if is_sure and is_told and (one.kind not in best or gain > best[one.kind][0]):
            best[one.kind] = gain, one
    if not best:
        return []
    first, *others = (one for _, one in sorted(best.values(), key=lambda pair: -pair[0]))
    apart = [mean_and_error((first.gain - one.gain)[part]) for one in others]
    return [first, *(one for one, (by, error) in zip(others, apart, strict=True) if by < SIGNIFICANT * error)]


def _most_gain(gain: Tensor) -> bool:
    """Whether the middle half of the images gain: junk, of which any other reading may be better, is fewer."""
    return float(gain.sort().values[len(gain) // 4 : -(len(gain) // 4)].mean()) > 0


def foreign_parts(evidence: PoseEvidence, stack: ParticleStack) -> str:
    """Name the parts of a list whose poses do not belong to their images, unlike those of the others; empty if none."""
    for parts in partitions(stack, evidence.index.numpy()):
        foreign = [part for part in parts if _is_foreign(evidence.orientation_gain, part[1])]
        if foreign:
            members = np.any([members for _, members in foreign], axis=0)
            rows = _about_rows(foreign[0][0], -evidence.orientation_gain, members, evidence.index, stack)
            return rows or listed([name for name, _ in foreign])
    return ""


def _about_rows(name: str, gain: Tensor, members: NDArray[np.bool_], index: Tensor, stack: ParticleStack) -> str:
    """Rows of a list within which images gain as some blocks of rows do (m,), which need not end where these do.

    They are those from and to which what is gained above the middle between blocks and others adds up to most.
    Empty if parts have names of another kind.
    """
    if not name.startswith(_ROWS):
        return ""
    row = index.numpy() if stack.list_row is None else stack.list_row[index.numpy()]
    order = np.argsort(row, kind="stable")
    gains = gain.numpy()[order]
    inside, outside = float(gain.numpy()[members].mean()), float(gain.numpy()[~members].mean())
    above = np.clip(gains, outside, inside) - 0.5 * (inside + outside)
    total = np.concatenate(([0.0], np.cumsum(above)))
    lowest = np.minimum.accumulate(total)
    last = int((total - lowest).argmax())
    first = int(total[: last + 1].argmin())
    return f"about {_ROWS}{row[order][first] + 1} to {row[order][last - 1] + 1}"


def _is_foreign(gain: Tensor, members: NDArray[np.bool_]) -> bool:
    """Whether the poses of a part of the images do not belong to them, unlike those of the others."""
    part = torch.from_numpy(members)
    if min(int(part.sum()), int((~part).sum())) < _LEAST_MEMBERS:
        return False
    (own, error), (others, _) = mean_and_error(gain[part]), mean_and_error(gain[~part])
    return own < SIGNIFICANT * error and own + SIGNIFICANT * error < WEAK * others


def partitions(stack: ParticleStack, rows: NDArray[np.int64]) -> Iterator[list[tuple[str, NDArray[np.bool_]]]]:
    """Ways to part some rows as they may have been put together: the name of each part, and which rows it has."""
    for names, part in chain(named_parts(stack, rows), row_blocks(stack, rows)):
        yield [(name, part == number) for number, name in enumerate(names)]


def named_parts(stack: ParticleStack, rows: NDArray[np.int64]) -> Iterator[Parts]:
    """Optics groups, folders and stacks of some rows: names of those that are there, and the part of each row."""
    paths, where = stack.index.paths, stack.index.stack[rows]
    yield _present([f"optics group {name}" for name in stack.group_names], stack.group.numpy()[rows])
    for of_paths in ([str(path.parent) for path in paths], [str(path) for path in paths]):
        names, number = np.unique(of_paths, return_inverse=True)
        yield _present(names.tolist(), number[where])


def _present(names: list[str], number: NDArray[np.int64]) -> Parts:
    present, part = np.unique(number, return_inverse=True)
    return [names[one] for one in present], part


def row_blocks(
    stack: ParticleStack, rows: NDArray[np.int64], counts: tuple[int, ...] = BLOCKS
) -> Iterator[Parts]:
    """More and more blocks of the rows of a list, by name, and the block of each of some rows."""
    row = rows if stack.list_row is None else stack.list_row[rows]
    length = len(stack) if stack.list_row is None else int(stack.list_row.max()) + 1
    for count in counts:
        edges = np.linspace(0, length, count + 1).astype(int)
        names = [f"{_ROWS}{first + 1} to {last}" for first, last in zip(edges[:-1], edges[1:], strict=True)]
        yield names, np.searchsorted(edges, row, side="right") - 1


def listed(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
