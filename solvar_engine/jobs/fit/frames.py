"""Parts of a list whose poses are in a frame of their own, as of refinements that were joined: brought into one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import degrees

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.words import counted
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.pixel_faults import are_mostly_cut
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.means import half_set_equations
from solvar_engine.estimation.judging.other_frames import (
    AS_ONE,
    FEWEST,
    OtherFrames,
    find_mixed_frames,
    find_other_frames,
)
from solvar_engine.imaging.frames import Frame
from solvar_engine.imaging.rotation import rotation_to_rotvec
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.fit.first_mean import evidence_of_poses
from solvar_engine.jobs.fit.job import FitJob, LeftFrame
from solvar_engine.jobs.pose_doubts import BLOCKS, listed, named_parts, row_blocks
from solvar_engine.reconstruction.mean import estimate_mean

_MOST_PARTS = 16  # that are looked at: lists that were joined are few
_FINE_BLOCKS = 16  # of rows, by which a part is found that has few
_IMAGES_A_BLOCK = 2.5 * FEWEST
_STATES_DIFFER = ", the more so as their states differ as well, of which a part may be taken for the frame"
_SEED = 15
_LEAST_TURN_DEG, _LEAST_MOVE = 1.5, 0.5  # that are named; the move in px
_SCATTER_TURN_DEG = 10.0  # of classes that are moved, where origins are inaccurate
_SCATTER = 0.1  # of the gain from other places, left once classes are in one frame; seen 0.2 to 0.8, of frames none
_LEAST_IN_PART, _UNEVEN = 50, 0.5  # images of a part, and of the largest share in one, the least other where unrelated
_CHANCE = 5.0  # standard errors by which shares in parts differ


@dataclass(frozen=True)
class SettledFrames:
    """Frames that were found, and whether origins are so inaccurate that images fall into classes by them."""

    found: OtherFrames
    has_scatter: bool


def settle_frames(job: FitJob, source: PreparedParticles) -> tuple[FitJob, PreparedParticles]:
    """Find parts whose images see the molecule in another frame than most, and bring their poses into that one.

    If that is not wanted it is only said. If the molecule may have moved as a whole between them, it is taken for that,
    and what could be said is kept in the job until more is known.

    Returns
    -------
    job : FitJob
        With the poses in its list.
    source : PreparedParticles
        At these poses.
    """
    stack = job.inputs.stack
    if are_mostly_cut(source):  # edges, at any side, look like the molecule in as many frames
        return job, source
    settled = job.checkpoint.load("frames", SettledFrames)
    if settled is None:
        job.progress.stage("frames")
        one, two = _any_halves(stack, torch.cat(job.inputs.halves))
        rows = stack.each_image_once(torch.arange(len(stack)))
        found = OtherFrames.none(len(stack))
        for part in _ways_to_part(stack):  # a list may have been joined twice
            together = source.with_pose(found.in_one(stack.pose))
            found = found.then(find_other_frames(together, (one, two), rows, part, job.projector_options))
        together = source.with_pose(found.in_one(stack.pose))  # or mixed
        mixed = find_mixed_frames(together, (one, two), rows, job.projector_options)
        mixed, found = (replace(one, of_image=one.of_image[stack.first_of_image()]) for one in (mixed, found))
        has_scatter = are_scatter(job, source, found, mixed)
        found = found if has_scatter else found.then(mixed)
        differs = [bool(in_words(found.frame(number), stack.pixel_size)) for number in range(len(found))]
        found = found.only(torch.tensor(differs, dtype=torch.bool))
        settled = SettledFrames(found, has_scatter)
        job.checkpoint.save("frames", settled)
    job, found = replace(job, has_scatter=settled.has_scatter), settled.found
    if not len(found):
        return job, source
    asked = job.params.one_frame
    is_mended = found.is_far if asked == "auto" else torch.full_like(found.is_mirrored, asked == "yes")
    sentences = list(sentences_of_frames(found, stack, asked, is_mended))
    is_open = (~is_mended & (asked == "auto")).tolist()  # other doubts may explain more
    job.add_cautions([one for one, later in zip(sentences, is_open, strict=True) if not later], come_first=True)
    left = (
        LeftFrame(sentence, is_mixed(found.of_image == number, stack))
        for number, (sentence, later) in enumerate(zip(sentences, is_open, strict=True), start=1)
        if later
    )
    job = replace(job, left_frames=tuple(left))
    found = found.only(is_mended)
    if not len(found):
        return job, source
    pose = _in_one_frame(stack, found)
    inputs = replace(job.inputs, stack=stack.with_pose(pose), other_frame=found.of_image)
    return replace(job, inputs=inputs), source.with_pose(pose)


def _in_one_frame(stack: ParticleStack, found: OtherFrames) -> Pose:
    """Poses in one frame; what a symmetry makes of one is made anew, about the axes there."""
    if stack.list_row is None:
        return found.in_one(stack.pose)
    first = stack.first_of_image()
    one = found.in_one(stack.pose[first])
    turn = stack.pose.rotation.double() @ stack.pose.rotation[first].double().mT
    return Pose((turn @ one.rotation.double()).to(one.rotation), one.shift)


def _any_halves(stack: ParticleStack, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Two halves of some images at random: of two refinements each may be one of the half-sets that were given."""
    rows = stack.each_image_once(rows.sort().values)
    drawn = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(_SEED))]
    return drawn[::2].sort().values, drawn[1::2].sort().values


def _ways_to_part(stack: ParticleStack) -> Iterator[Tensor]:
    """Number of the part of each row (n,): by what may have been joined, and by the order of rows."""
    rows = np.arange(len(stack))
    for names, part in named_parts(stack, rows):
        if 1 < len(names) <= _MOST_PARTS:
            yield torch.from_numpy(part)
    most = int(len(stack) / _IMAGES_A_BLOCK)
    usual = max((count for count in BLOCKS if count <= most), default=BLOCKS[0])
    for _, block in row_blocks(stack, rows, (usual, _FINE_BLOCKS) if most >= _FINE_BLOCKS else (usual,)):
        yield torch.from_numpy(block)


def sentences_of_frames(
    found: OtherFrames, stack: ParticleStack, asked: str, is_mended: Tensor
) -> Iterator[str]:
    """Say which images are in which frame beside the others, and what is done about it, as was asked."""
    for number in range(len(found)):
        members = found.of_image == number + 1
        frame, before, after = found.frame(number), found.agreement[number], found.agreement_in_frame[number]
        rows = stack.each_image_once(torch.nonzero(members).flatten())
        images = f"{counted(len(rows), 'image')} of {stack.path} ({_where(members, stack)})"
        agree = f"the means agree by {float(before):.2f}, in one frame by {float(after):.2f}"
        is_left = asked == "auto" and not is_mended[number]
        if is_left and is_mixed(members, stack):
            yield (
                f"{images} {'shows' if len(rows) == 1 else 'show'} the molecule {in_words(frame, stack.pixel_size)}"
                f" against the others ({agree}): taken for a motion; if it is none and lists of two refinements were"
                " joined, give --one-frame yes"
            )
            continue
        done = "they are left there, as asked for"
        if is_left:
            done = "they are left there, as a molecule may move like that: give --one-frame yes if it has not"
        if is_mended[number]:
            done = "they are brought into that of the others, which --one-frame no prevents"
        yield (
            f"The poses of {images} are in another frame than those of the others,"
            f" {in_words(frame, stack.pixel_size)}, as after joining refinements ({agree}): {done};"
            f" refining all together would be more accurate{'' if float(after) > AS_ONE else _STATES_DIFFER}"
        )


def are_scatter(job: FitJob, source: PreparedParticles, found: OtherFrames, mixed: OtherFrames) -> bool:
    """Whether the frames of classes of images, beside others that were found, are errors of origins, which make such.

    Images of inaccurate origins still gain from other places once classes are in one frame, those of frames do not.
    """
    stack = job.inputs.stack
    if not may_be_scatter(mixed, stack):
        return False
    poses = (_in_one_frame(stack, frames) for frames in (found, found.then(mixed)))
    before, left = (_gain_from_other_places(job, source.with_pose(pose)) for pose in poses)
    return job.world.agreed(left > _SCATTER * before)


def may_be_scatter(mixed: OtherFrames, stack: ParticleStack) -> bool:
    """Whether all frames are of images from all over a list that are moved, and hardly turned."""
    if not len(mixed):
        return False
    turn = torch.rad2deg(rotation_to_rotvec(mixed.rotation).norm(dim=1))
    are_moved = bool((turn < _SCATTER_TURN_DEG).all()) and not bool(mixed.is_mirrored.any())
    return are_moved and all(is_mixed(mixed.of_image == number + 1, stack) for number in range(len(mixed)))


def _gain_from_other_places(job: FitJob, source: PreparedParticles) -> float:
    """Log-likelihood that an image gains on average if it is moved to where it agrees best with the mean."""
    mean = estimate_mean(*half_set_equations(source, job.inputs.halves, job.projector_options), world=job.world)
    return -float(evidence_of_poses(job, source, mean).place_gain.mean())


def is_mixed(members: Tensor, stack: ParticleStack) -> bool:
    """Whether some images (n,), bool, are all over a list: in no group, file, half-set or block of it much more often.

    Lists that were joined are told by one of these; states of one molecule are not.
    """
    rows = np.arange(len(stack))
    ways = [part for _, part in (*named_parts(stack, rows), *row_blocks(stack, rows))]
    if stack.random_subset is not None:
        ways.append(stack.random_subset.numpy())
    for part in ways:
        size, inside = np.bincount(part), np.bincount(part[members.numpy()], minlength=int(part.max()) + 1)
        is_judged = size >= _LEAST_IN_PART
        if is_judged.sum() > 1 and _are_uneven(inside[is_judged], size[is_judged]):
            return False
    return True


def _are_uneven(inside: NDArray[np.int64], size: NDArray[np.int64]) -> bool:
    """Whether parts of some sizes hold images of a kind in shares that surely differ by much."""
    share = inside / size
    most, least = int(share.argmax()), int(share.argmin())
    in_all = inside.sum() / size.sum()
    error = (in_all * (1 - in_all) * (1 / size[most] + 1 / size[least])) ** 0.5
    return bool(share[least] < _UNEVEN * share[most] and share[most] - share[least] > _CHANCE * error)


def in_words(frame: Frame, pixel_size: float) -> str:
    """What a frame is beside another one; the pixel size in Angstrom."""
    turn = degrees(float(rotation_to_rotvec(frame.rotation[None]).norm()))
    move = float(frame.move.norm())
    what = ["of the other hand"] if frame.is_mirrored else []
    what += [f"turned by {turn:.0f} degrees"] if turn > _LEAST_TURN_DEG else []
    what += [f"moved by {move:.1f} Angstrom"] if move > _LEAST_MOVE * pixel_size else []
    return " and ".join(what)


def _where(members: Tensor, stack: ParticleStack) -> str:
    """Name some images by the parts that they are, else by their rows."""
    is_member = members.numpy()
    for names, part in named_parts(stack, np.arange(len(stack))):
        size, inside = (np.bincount(one, minlength=len(names)) for one in (part, part[is_member]))
        if len(names) > 1 and ((inside == 0) | (inside == size)).all():
            return listed([name for name, count in zip(names, inside, strict=True) if count])
    return stack.rows_in_words(members)
