"""Whether parts of a list see the molecule in frames of their own, as refinements that were joined do.

Each refinement has a frame: which hand, how the map is turned, where its centre is. The mean of images of two is that
of neither. So each part gets a mean, at low frequencies; one that disagrees with the mean of the largest part, but
hardly any more once it is mirrored, turned and moved, sits in another frame. Which images do, they tell themselves.
Where frames are mixed whatever the order of a list, the parts are classes that images are put into.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import radians

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.estimation.judging.classes import classes_of_images
from solvar_engine.estimation.judging.low_band import LowBand, rough_mean, scale_evidence
from solvar_engine.estimation.model.bands import band_box
from solvar_engine.imaging.fourier import fourier_crop_volume
from solvar_engine.imaging.frames import Frame, best_frame, in_frame, polished
from solvar_engine.imaging.masks import BALL, sphere_mask
from solvar_engine.imaging.rotation import rotation_to_rotvec
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.shells import fsc
from solvar_engine.imaging.types import ParticleSource, Pose
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import density_skewness, filtered

Map = NDArray[np.float32]

FEWEST = 25
"""Images of each half-set, of a part whose mean can tell."""

AS_ONE = 0.95
"""Agreement of parts in another frame, of which the states are alike."""

_MOST = 2_000  # images of each half-set that are looked at
_FIRST_SHELL, _RESOLVED_SHELL = 2, 0.3  # and correlation of half-maps, of shells that tell of agreement
_ALIKE, _NEARLY_ALIKE = 0.97, 0.8  # agreement of parts in one frame, and of those in frames that hardly differ
_LEFT = 0.15  # of the disagreement, in another frame, at most: else molecules differ
_AS_ONE_AFAR = 0.85  # agreement where no motion leads: the states of each frame may differ
_MOST_SEARCHES = 2  # that find nothing, for a way to part a list
_CLASSES, _CLASSIFIED = 8, 1_000  # and images of each half-set that are put into them
_FAR_RAD = radians(45.0)  # turns between states are smaller
_AS_LIKELY = 0.7  # of what images gain in a far frame, in a near one: seen 0.1 and 0.3 if it is true, 1 and more if not
_SHELL_OF_ENDS, _RESOLVED_END, _ONE_MOLECULE = 16, 0.5, 0.85  # of the ends of a component, whose noise is not known
_ROUNDS_OF_CLUSTERS = 10
_CHANGE, _IMAGES = 20.0, 5.0  # log-likelihood that a change of frame costs, and of so many images what frames gain


@dataclass(frozen=True)
class OtherFrames:
    """Frames that some images see the molecule in, beside that of most.

    Attributes
    ----------
    rotation : Tensor, shape (m, 3, 3), float64
    move : Tensor, shape (m, 3), float64
        Angstrom, (x, y, z).
    is_mirrored : Tensor, shape (m,), bool
        These three as in `Frame`.
    agreement, agreement_in_frame : Tensor, shape (m,), float64
        Correlation of the mean of the images with that of most, noise taken out, as they are and in one frame.
    of_image : Tensor, shape (n,), int64
        0 for the frame of most, else one more than the place above.
    """

    rotation: Tensor
    move: Tensor
    is_mirrored: Tensor
    agreement: Tensor
    agreement_in_frame: Tensor
    of_image: Tensor

    def __len__(self) -> int:
        return len(self.rotation)

    @staticmethod
    def none(count: int) -> OtherFrames:
        """All n images in one frame."""
        empty = torch.zeros(0, dtype=torch.float64)
        return OtherFrames(
            empty.reshape(0, 3, 3), empty.reshape(0, 3), empty.bool(), empty, empty,
            torch.zeros(count, dtype=torch.int64),
        )

    def frame(self, number: int) -> Frame:
        """One of the m frames."""
        return Frame(self.rotation[number], self.move[number], bool(self.is_mirrored[number]))

    @property
    def is_far(self) -> Tensor:
        """Frames (m,) that no motion leads to: of the other hand, or turned by much."""
        return _are_far(self.rotation, self.is_mirrored)

    def only(self, chosen: Tensor) -> OtherFrames:
        """Some of the frames (m,), bool, with their images; the others' are said to be in that of most."""
        number = torch.where(chosen, chosen.cumsum(0), 0)
        of_image = torch.cat((number.new_zeros(1), number))[self.of_image]
        parts = (self.rotation, self.move, self.is_mirrored, self.agreement, self.agreement_in_frame)
        rotation, move, is_mirrored, before, after = (part[chosen] for part in parts)
        return OtherFrames(rotation, move, is_mirrored, before, after, of_image)

    def and_one_more(self, frame: Frame, agreement: tuple[float, float], members: Tensor) -> OtherFrames:
        """The same with one more frame, and its images (n,), bool."""
        agreements = torch.tensor(agreement, dtype=torch.float64)
        parts = (frame.rotation, frame.move, torch.tensor(frame.is_mirrored), *agreements)
        known = (self.rotation, self.move, self.is_mirrored, self.agreement, self.agreement_in_frame)
        turns, moves, hands, before, after = (
            torch.cat((one, more[None])) for one, more in zip(known, parts, strict=True)
        )
        return OtherFrames(turns, moves, hands, before, after, torch.where(members, len(self) + 1, self.of_image))

    def then(self, more: OtherFrames) -> OtherFrames:
        """These frames and those that were found once their images were in one."""
        together = OtherFrames.none(len(self.of_image))
        for first, second in torch.stack((self.of_image, more.of_image), dim=1).unique(dim=0).tolist():
            steps = [(found, number - 1) for found, number in ((self, first), (more, second)) if number]
            if not steps:
                continue
            frame = Frame.same()
            for found, number in steps:
                frame = frame.then(found.frame(number))
            before = min(float(found.agreement[number]) for found, number in steps)
            after = min(float(found.agreement_in_frame[number]) for found, number in steps)
            members = (self.of_image == first) & (more.of_image == second)
            together = together.and_one_more(frame, (before, after), members)
        return together

    def in_one(self, pose: Pose) -> Pose:
        """Poses (n) of all images in the frame of most."""
        rotation, shift = pose.rotation.clone(), pose.shift.clone()
        for number in range(len(self)):
            rows = self.of_image == number + 1
            moved = self.frame(number).posed(pose[rows])
            rotation[rows], shift[rows] = moved.rotation, moved.shift
        return Pose(rotation, shift)


def find_other_frames(
    source: ParticleSource, halves: tuple[Tensor, Tensor], rows: Tensor, part: Tensor, options: SliceOptions
) -> OtherFrames:
    """Compare the means of parts with that of the largest one.

    Parameters
    ----------
    source : ParticleSource
    halves : tuple of two Tensors, int64
        Rows that means are made of.
    rows : Tensor, shape (m,), int64
        That are asked for their frame; the others are said to be in that of most.
    part : Tensor, shape (n,), int64
        Part of each image, from 0. Where frames differ, images of one part may be of several: they are followed in the
        order of parts, and of rows in a part.
    options : SliceOptions
    """
    parts = _Parts(source, LowBand.of(source), halves, options, is_in_order=True)
    return source.world.agreed(_found_frames(parts, rows, part))


def find_mixed_frames(
    source: ParticleSource, halves: tuple[Tensor, Tensor], rows: Tensor, options: SliceOptions
) -> OtherFrames:
    """Compare the means of classes of images that differ by much, and find frames in whatever order they are.

    Parameters
    ----------
    source : ParticleSource
    halves : tuple of two Tensors, int64
        Of which classes are made.
    rows : Tensor, shape (m,), int64
        As in `find_other_frames`: each is asked by itself.
    options : SliceOptions
    """
    first, second = (sample_of(half, _CLASSIFIED) for half in halves)
    count = min(_CLASSES, min(len(first), len(second)) // (2 * FEWEST))
    if count < 2:
        return OtherFrames.none(len(source))
    low, part = LowBand.of(source), torch.zeros(len(source), dtype=torch.int64)
    part[first], part[second] = classes_of_images(low, (first, second), count, options)
    parts = _Parts(source, low, (first, second), options, is_in_order=False)
    return source.world.agreed(_found_frames(parts, rows, part))


def _found_frames(parts: _Parts, rows: Tensor, part: Tensor) -> OtherFrames:
    """Frames beside that of most images, and the images of each."""
    found = OtherFrames.none(len(part))
    frames, followed = parts.frames(rows, part)
    if int(parts.sizes(followed).argmax()) > 0:  # the largest part is not in the frame of most
        frames, followed = parts.frames(rows, followed)
    of_most = parts.mean(followed == 0) if frames else None
    if of_most is None:
        return found
    frames = parts.distinct_frames(rows, followed, frames, of_most)
    followed = parts.followed(rows, part, of_most, frames)
    for number, start in enumerate(frames, start=1):
        members = followed == number
        mean = parts.mean(members)
        if mean is None:
            continue
        frame = polished(start, *_compared(mean, of_most))
        before, after = mean.agreement(of_most), mean.in_frame(frame).agreement(of_most)
        if _is_found(frame, before, after) and parts.is_told(rows, part, of_most, frame):
            found = found.and_one_more(frame, (before, after), members)
    return found


@dataclass(frozen=True)
class _PartMean:
    """Half-maps (z, y, x) of a part at low frequencies, and their correlation by shell."""

    half1: Tensor
    half2: Tensor
    fsc: Tensor
    pixel_size: float

    def filtered(self) -> Tensor:
        """What the half-maps share."""
        return filtered(0.5 * (self.half1 + self.half2), self.fsc)

    def in_frame(self, frame: Frame) -> _PartMean:
        """The same in the frame of the reference."""
        first, second = (
            torch.from_numpy(in_frame(half.cpu().numpy(), frame, self.pixel_size)).to(half)
            for half in (self.half1, self.half2)
        )
        return replace(self, half1=first, half2=second)

    def agreement(self, other: _PartMean) -> float:
        """Correlation with another one without their noise, averaged over the shells that both resolve; else 1."""
        crossed = 0.5 * (fsc(self.half1, other.half2, self.ball) + fsc(self.half2, other.half1, self.ball))
        own, others = self.fsc.to(crossed), other.fsc.to(crossed)
        is_resolved = (own > _RESOLVED_SHELL) & (others > _RESOLVED_SHELL)
        is_resolved[:_FIRST_SHELL] = False
        if not bool(is_resolved.any()):
            return 1.0
        return float((crossed[is_resolved] / (own * others)[is_resolved].sqrt()).mean())

    @property
    def ball(self) -> Tensor:
        """In which maps are compared."""
        return _ball(len(self.half1)).to(self.half1.device)


def _ball(box_size: int) -> Tensor:
    return sphere_mask(box_size, BALL * box_size)


def _compared(mean: _PartMean, reference: _PartMean) -> tuple[Map, Map, Map, float]:
    """Both maps, where they are compared, and their pixel size."""
    first, second, ball = (part.cpu().numpy() for part in (mean.filtered(), reference.filtered(), mean.ball))
    return first, second, ball, mean.pixel_size


@dataclass(frozen=True)
class _Parts:
    """Images at low frequencies, of which parts are looked at: of rows in order, or of such as are alike."""

    source: ParticleSource
    low: LowBand
    halves: tuple[Tensor, Tensor]
    options: SliceOptions
    is_in_order: bool

    def mean(self, members: Tensor, share: int = 1) -> _PartMean | None:
        """Of some images (n,), bool, or of a sample of them; None of too few."""
        rows = [sample_of(half[members[half]], max(_MOST // share, 1)) for half in self.halves]
        if min(len(half) for half in rows) < FEWEST:
            return None
        first, second = (rough_mean(self.low, half, self.options) for half in rows)
        sign = -1.0 if density_skewness(first + second) < 0 else 1.0
        correlation = fsc(first, second, _ball(len(first)).to(first.device))
        return _PartMean(sign * first, sign * second, correlation, self.low.pixel_size)

    def sizes(self, part: Tensor) -> Tensor:
        """Images of the half-sets in each part."""
        return torch.bincount(part[torch.cat(self.halves)])

    def frames(self, rows: Tensor, part: Tensor) -> tuple[list[Frame], Tensor]:
        """Frames beside that of the largest part, and the one of each image: 0 for that, and for all but ``rows``."""
        size = self.sizes(part)
        of_most, *of_others = (
            self.mean(part == number, len(size)) for number in size.argsort(descending=True).tolist()
        )
        known = [mean for mean in of_others if mean is not None]
        frames = [] if of_most is None else _frames_of(known, of_most, also_near=self.is_in_order)
        if of_most is None or not frames:
            return [], torch.zeros_like(part)
        return frames, self.followed(rows, part, of_most, frames)

    def followed(self, rows: Tensor, part: Tensor, of_most: _PartMean, frames: list[Frame]) -> Tensor:
        """Frame of each image (n,): 0 for that of most, and for all but ``rows``, else one more than its place."""
        followed, rows = torch.zeros_like(part), rows[part[rows].argsort(stable=True)]
        gain = torch.stack([self.evidence(rows, of_most, frame) for frame in (Frame.same(), *frames)], dim=1)
        followed[rows] = torch.from_numpy(followed_frames(gain.numpy())) if self.is_in_order else gain.argmax(dim=1)
        return followed

    def is_told(self, rows: Tensor, part: Tensor, of_most: _PartMean, frame: Frame) -> bool:
        """Whether images in order, if they are in one, are in a frame where their neighbours are."""
        if not self.is_in_order:
            return True
        rows = rows[part[rows].argsort(stable=True)]
        gain = [self.evidence(rows, of_most, one).double().numpy() for one in (Frame.same(), frame)]
        return neighbours_tell(gain[1] - gain[0])

    def distinct_frames(
        self, rows: Tensor, followed: Tensor, frames: list[Frame], of_most: _PartMean
    ) -> list[Frame]:
        """Frames that images (n,) are in, as their means lie best: no two that suit one mean, and near ones if they do.

        What is small fits itself in many a way, if little is seen of it: a frame that no motion leads to counts only
        where images are much likelier in it than in any other.
        """
        distinct: list[Frame] = []
        for number, start in enumerate(frames, start=1):
            mean = self.mean(followed == number)
            if mean is None:
                continue
            frame, before = polished(start, *_compared(mean, of_most)), mean.agreement(of_most)
            if _is_far(frame):
                near = best_frame(*_compared(mean, of_most), largest_turn=_FAR_RAD)
                if not _is_far(near) and self.are_as_likely(rows, of_most, near, frame):
                    frame = near
            if not any(_is_found(known, before, mean.in_frame(known).agreement(of_most)) for known in distinct):
                distinct.append(frame)
        return distinct

    def are_as_likely(self, rows: Tensor, of_most: _PartMean, near: Frame, far: Frame) -> bool:
        """Whether images that are in another frame than most are nearly as likely in one as in the other."""
        same, in_near, in_far = (self.evidence(rows, of_most, frame) for frame in (Frame.same(), near, far))
        gains = [float((gain - same).clamp_min(0).sum()) for gain in (in_near, in_far)]
        return gains[0] > _AS_LIKELY * gains[1]

    def evidence(self, rows: Tensor, mean: _PartMean, frame: Frame) -> Tensor:
        """Log-likelihood (m,) of images under a mean, which they see from a frame, over that without a molecule."""
        low = LowBand.of(self.source.with_pose(frame.posed(self.source.pose)))
        power, cross = scale_evidence(low, rows, low.disk, mean.filtered(), self.options).unbind(dim=1)
        return cross.abs() - 0.5 * power  # whether the molecule is bright in them is not known yet


def _frames_of(means: list[_PartMean], reference: _PartMean, *, also_near: bool) -> list[Frame]:
    """Frames of means that disagree with a reference: the worst first, others where none that is known suits them."""
    frames: list[Frame] = []
    in_vain = 0  # parts of several frames, or of other molecules, agree in none
    for before, mean in sorted(((mean.agreement(reference), mean) for mean in means), key=lambda pair: pair[0]):
        if before > (_ALIKE if also_near else _NEARLY_ALIKE) or in_vain == _MOST_SEARCHES:
            break
        if any(_is_found(frame, before, mean.in_frame(frame).agreement(reference)) for frame in frames):
            continue
        frame = _frame_of(mean, reference, before, also_near=also_near)
        if frame is None:
            in_vain += 1
        else:
            frames.append(frame)
    return frames


def _frame_of(mean: _PartMean, reference: _PartMean, before: float, *, also_near: bool) -> Frame | None:
    """Frame in which a mean agrees with a reference, if there is one; ``before`` is how they agree as they are."""
    if also_near:
        near = polished(Frame.same(), *_compared(mean, reference))
        if _is_found(near, before, mean.in_frame(near).agreement(reference)):
            return near
    if before > _NEARLY_ALIKE:
        return None
    far = best_frame(*_compared(mean, reference))
    return far if _is_found(far, before, mean.in_frame(far).agreement(reference)) else None


def _are_far(rotation: Tensor, is_mirrored: Tensor) -> Tensor:
    return is_mirrored | (rotation_to_rotvec(rotation).norm(dim=1) > _FAR_RAD)


def _is_far(frame: Frame) -> bool:
    return bool(_are_far(frame.rotation[None], torch.tensor([frame.is_mirrored])))


def _is_found(frame: Frame, before: float, after: float) -> bool:
    as_one = _AS_ONE_AFAR if _is_far(frame) else AS_ONE
    return before < _ALIKE and after > as_one and 1 - after < _LEFT * (1 - before)


def followed_frames(gain: NDArray[np.float64]) -> NDArray[np.int64]:
    """The likeliest frame of each image in a sequence, of which neighbours mostly are in one.

    Parameters
    ----------
    gain : ndarray, shape (n, frames)
        Log-likelihood of each image in each frame.

    Returns
    -------
    ndarray, shape (n,), int64
        Of the likeliest path (Viterbi 1967). Each change of frame costs what several images gain by one over another:
        in clear images conformations differ by more than chance does.

    Examples
    --------
    >>> gain = np.repeat([[9.0, 0.0], [0.0, 9.0]], 10, axis=0)
    >>> gain[3] = 0.0, 9.0
    >>> np.flatnonzero(followed_frames(gain)).tolist()
    [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    """
    count, frames = gain.shape
    change = max(_CHANGE, _IMAGES * float(np.median(np.ptp(gain, axis=1))))
    came_from = np.zeros((count, frames), dtype=np.int64)
    best = np.zeros(frames)
    for row in range(count):
        leader = int(best.argmax())
        changes = best[leader] - change > best
        came_from[row] = np.where(changes, leader, np.arange(frames))
        best = np.where(changes, best[leader] - change, best) + gain[row]
    path = np.empty(count, dtype=np.int64)
    state = int(best.argmax())
    for row in range(count - 1, -1, -1):
        path[row] = state
        state = int(came_from[row, state])
    return path


def neighbours_tell(gain: NDArray[np.float64]) -> bool:
    """Whether images gain in another frame than that of most where their neighbours in a sequence do.

    They do in lists that were joined. A path among images whose origins are inaccurate finds those that are moved alike
    by chance: that tells nothing of the ones between them.

    Parameters
    ----------
    gain : ndarray, shape (n,)
        Log-likelihood of each image in that frame over that in the one of most.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> in_blocks, at_random = np.arange(400) < 100, rng.random(400) < 0.25
    >>> for is_moved in (in_blocks, at_random):
    ...     print(neighbours_tell(np.where(is_moved, 9.0, -9.0) + rng.normal(size=400)))
    True
    False
    """
    in_either, gained = np.stack((np.zeros(len(gain)), gain), axis=1), 0.0
    for side in (0, 1):
        path, between = followed_frames(in_either[side::2]), gain[1 - side :: 2]
        count = min(len(path), len(between))
        gained += float(between[:count][path[:count] == 1].sum())
    return gained > 0


def frame_between_ends(
    mean: Tensor, eigenvolume: Tensor, z: Tensor, correlation: Tensor, pixel_size: float
) -> tuple[Frame, float, float] | None:
    """Frame of the molecule at one end of a component beside that at the other, if both show one molecule.

    Images of two frames in one list, in no order, are two states, each the other one mirrored, turned and moved.

    Parameters
    ----------
    mean, eigenvolume : Tensor, shape (z, y, x)
    z : Tensor, shape (n,)
        Coordinates along the eigenvolume; their two clusters are the ends.
    correlation : Tensor, shape (shells,)
        Of the half-maps of the mean: shells that both ends are compared in.
    pixel_size : float
        Angstrom.

    Returns
    -------
    tuple of Frame, float, float, or None
        And how the ends agree as they are, and in that frame.
    """
    border = z.double().mean()
    for _ in range(_ROUNDS_OF_CLUSTERS):
        upper, lower = z[z > border].double().mean(), z[z <= border].double().mean()
        border = 0.5 * (upper + lower)
    low = band_box(min(_SHELL_OF_ENDS, len(correlation) - 1), len(mean))
    ends = [fourier_crop_volume((mean + place.to(mean) * eigenvolume).cpu(), low) for place in (upper, lower)]
    ball, size = _ball(low), pixel_size * len(mean) / low
    compared = torch.nonzero(correlation[: _SHELL_OF_ENDS + 1].cpu() > _RESOLVED_END).flatten()
    compared = compared[(compared >= _FIRST_SHELL) & (compared < low // 2)]
    if not len(compared):
        return None

    def agreement(one: Tensor) -> float:
        return float(fsc(one, ends[1], ball)[compared].mean())

    before = agreement(ends[0])
    if before > _NEARLY_ALIKE:
        return None
    frame = best_frame(ends[0].numpy(), ends[1].numpy(), ball.numpy(), size)
    after = agreement(torch.from_numpy(in_frame(ends[0].numpy(), frame, size)))
    return (frame, before, after) if after > _ONE_MOLECULE and 1 - after < _LEFT * (1 - before) else None
