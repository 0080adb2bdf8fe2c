"""What the images say of their poses, in words: which parts of a list are foreign, and which origins are in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.data.particles import ParticleStack
from solvar_engine.estimation.judging.given_poses import SHIFT_FACTORS, PoseEvidence, mean_and_error

SIGNIFICANT = 4.0
"""Standard errors of a gain that is one."""

SIGNIFICANT_PART = 5.0
"""The same where many parts are looked at."""

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
_BLOCKS = (2, 4, 8)  # of rows

Finding = TypeVar("Finding")


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
    "as well with those of other images: check the columns of the CTF, and rlnPhaseShift",
    "better with the opposite of what the list says of phase-flipping: check rlnCtfDataArePhaseFlipped",
    "better with those of another voltage, 200 or 300 kV: check rlnVoltage",
    "better with their squares, as of images that were multiplied by them (rlnCtfDataAreCtfPremultiplied): set"
    " that column to 1 for these",
)


def ctf_doubts(evidence: PoseEvidence, stack: ParticleStack) -> list[str]:
    """Say if images, or those of some parts, agree better with other transfer functions than with those of the list."""

    def judged(members: NDArray[np.bool_], significant: float) -> tuple[float, float, str] | None:
        part = torch.from_numpy(members)
        least = _NOTABLE_CTF * float(evidence.orientation_gain.mean())
        gains = [mean_and_error(-column) for column in evidence.ctf_gain[part].T]
        gain, error, what = max((*gain, what) for gain, what in zip(gains, _OTHER_TRANSFER, strict=True))
        is_sure = int(part.sum()) >= _LEAST_OF_CTF and gain > max(significant * error, least)
        return (gain, error, what) if is_sure else None

    found = _first_doubt(evidence, stack, judged)
    if found is None:
        return []
    of_part, (gain, error, what) = found
    return [
        f"The transfer functions {of_part or 'in '}{stack.path} are not those of its images, which agree {what}"
        f" (log-likelihood gain {gain:.2f} +- {error:.2f} an image)"
    ]


def _first_doubt(
    evidence: PoseEvidence, stack: ParticleStack, judged: Callable[[NDArray[np.bool_], float], Finding | None]
) -> tuple[str, Finding] | None:
    """Name the parts of which something is found and not of the others, as "of rows 1 to 9 in "; "" stands for all."""
    for parts in partitions(stack, evidence.index.numpy()):
        found = [(name, members, judged(members, SIGNIFICANT_PART)) for name, members in parts]
        doubtful = [(name, members, finding) for name, members, finding in found if finding is not None]
        others = ~np.any([members for _, members, _ in doubtful], axis=0)
        if doubtful and len(doubtful) < len(parts) and judged(others, SIGNIFICANT) is None:
            (name, _, finding), more = doubtful[0], len(doubtful) - 1
            return f"of {name}{f' and {more} more' if more else ''} in ", finding
    everything = judged(np.ones(len(evidence.index), dtype=bool), SIGNIFICANT)
    return None if everything is None else ("", everything)


def foreign_parts(evidence: PoseEvidence, stack: ParticleStack) -> str:
    """Name the parts of a list whose poses do not belong to their images, unlike those of the others; empty if none."""
    for parts in partitions(stack, evidence.index.numpy()):
        foreign = [name for name, members in parts if _is_foreign(evidence.orientation_gain, members)]
        if foreign:
            return ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
    return ""


def origin_doubts(evidence: PoseEvidence, stack: ParticleStack) -> list[str]:
    """Say if images, or those of some parts, agree better with origins of another unit or sign, or with none."""

    def judged(members: NDArray[np.bool_], significant: float) -> tuple[float, float, float] | None:
        return _better_origins(evidence, stack, members, significant)

    found = _first_doubt(evidence, stack, judged)
    if found is None:
        return []
    of_part, (gain, error, factor) = found
    return [
        f"The images {of_part or 'of '}{stack.path} agree better with {factor:g} times their origins (log-likelihood"
        f" gain {gain:.2f} +- {error:.2f} an image): check their unit and sign, that they are of these images, and how"
        " accurate they are"
    ]


def _better_origins(
    evidence: PoseEvidence, stack: ParticleStack, members: NDArray[np.bool_], significant: float
) -> tuple[float, float, float] | None:
    """Gain, its error, and the factor on their origins that images of a part gain most by; None if by none."""
    part = torch.from_numpy(members)
    if int(part.sum()) < _LEAST_MEMBERS:
        return None
    shift = stack.pose.shift[evidence.index[part]]
    rms_px = float(shift.square().sum(dim=1).mean().sqrt()) / stack.pixel_size
    gains = [mean_and_error(-column[part]) for column in evidence.shift_gain.T]
    gain, error, factor = max((*gain, factor) for gain, factor in zip(gains, SHIFT_FACTORS, strict=True))
    least = max(significant * error, _NOTABLE * float(evidence.orientation_gain[part].mean()))
    return (gain, error, factor) if rms_px > _LEAST_SHIFT and gain > least else None


def _is_foreign(gain: Tensor, members: NDArray[np.bool_]) -> bool:
    """Whether the poses of a part of the images do not belong to them, unlike those of the others."""
    part = torch.from_numpy(members)
    if min(int(part.sum()), int((~part).sum())) < _LEAST_MEMBERS:
        return False
    (own, error), (others, _) = mean_and_error(gain[part]), mean_and_error(gain[~part])
    return own < SIGNIFICANT * error and own + SIGNIFICANT * error < WEAK * others


def partitions(stack: ParticleStack, rows: NDArray[np.int64]) -> Iterator[list[tuple[str, NDArray[np.bool_]]]]:
    """Ways to part some rows as they may have been put together: the name of each part, and which rows it has."""
    group, paths = stack.group.numpy()[rows], stack.index.paths
    yield [(f"optics group {stack.group_names[number]}", group == number) for number in np.unique(group)]
    files = np.array([str(path) for path in paths])[stack.index.stack[rows]]
    folders = np.array([str(path.parent) for path in paths])[stack.index.stack[rows]]
    for names in (folders, files):
        yield [(str(name), names == name) for name in np.unique(names)]
    for count in _BLOCKS:
        edges = np.linspace(0, len(stack), count + 1).astype(int)
        pairs = zip(edges[:-1], edges[1:], strict=True)
        yield [(f"rows {first + 1} to {last}", (first <= rows) & (rows < last)) for first, last in pairs]
