"""Whether poses belong to their images: how likely these are at their own, and at those of other images.

Half-maps agree at low resolution whatever the poses are, and components are found in what wrong ones leave: the images
themselves tell. Each is compared with the mean of the other half-set, which has not seen it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.slices import slices_of_batch
from solvar_engine.imaging.fourier import nyquist_shell
from solvar_engine.imaging.sampling import enlarged_groups
from solvar_engine.imaging.types import ParticleSource, Pose
from solvar_engine.projectors.base import Projector, images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions

SHIFT_FACTORS = (-1.0, 0.0, 0.5, 2.0, 4.0)
"""By which shifts of another sign or unit, or of images that were moved by them, may be wrong."""

_SHARE, _FEWEST, _MOST = 0.1, 500, 2_000  # of the images are looked at
_FEWEST_OTHERS = 10  # of a group whose images are compared among themselves: a few may all be seen from one side


@dataclass(frozen=True)
class PoseEvidence:
    """What a sample of m images says of their poses.

    Attributes
    ----------
    index : Tensor, shape (m,), int64
        Rows of the particles.
    signal : Tensor, shape (m,), float64
        Log-likelihood under the mean at the given pose, less that without any molecule.
    orientation_gain : Tensor, shape (m,), float64
        Log-likelihood under the mean at the given pose, less that at the orientation of another image of its optics
        group, or of any small group if its own is small.
    shift_gain : Tensor, shape (m, factors), float64
        The same less that at the given shift times each of `SHIFT_FACTORS`.
    ctf_gain : Tensor, shape (m, 2), float64
        The same less that under the transfer function of the other image, and under one of images that are
        phase-flipped if these are not, or the other way round.
    """

    index: Tensor
    signal: Tensor
    orientation_gain: Tensor
    shift_gain: Tensor
    ctf_gain: Tensor


def mean_and_error(gain: Tensor) -> tuple[float, float]:
    """Mean of some gains (m,), and its standard error."""
    return float(gain.mean()), float(gain.std() / len(gain) ** 0.5) if len(gain) > 1 else float("inf")


def pose_evidence(
    source: ParticleSource,
    halves: tuple[Tensor, Tensor],
    means: tuple[Tensor, Tensor],
    options: SliceOptions,
    seed: int,
) -> PoseEvidence:
    """Compare images with the mean at their own poses, and at others.

    Parameters
    ----------
    source : ParticleSource
    halves : tuple of two Tensors, int64
    means : tuple of two Tensors, shape (z, y, x)
        Of each half-set, filtered; each is held against images of the other one. Their box may be smaller than that of
        the images.
    options : SliceOptions
    seed : int
        Draws the sample, and the other images.

    Returns
    -------
    PoseEvidence
    """
    count = int(min(max(_SHARE * len(source), _FEWEST), _MOST))
    generator = torch.Generator().manual_seed(seed)
    box_size = int(means[0].shape[-1])
    projector = create_projector(box_size, source.disk.prefix(nyquist_shell(box_size)), options)
    pose, ctf = source.pose, source.ctf
    flipped = source.with_ctf(replace(ctf, is_phase_flipped=~ctf.is_phase_flipped))
    samples, other = [], torch.arange(len(source))
    for half in halves:
        # at random: rows at regular steps may all be of one kind
        index = half[torch.randperm(len(half), generator=generator)[: count // 2].sort().values]
        other[index] = index[other_rows(source.group.cpu()[index], generator)]
        samples.append(index)

    def evidence_of(half: int) -> PoseEvidence:
        index, grid = samples[half], projector.to_grid(means[1 - half][None])
        given = _log_likelihood(source, index, projector, grid)
        turned = source.with_pose(Pose(pose.rotation[other], pose.shift))
        orientation = given - _log_likelihood(turned, index, projector, grid)
        unlike = [_log_likelihood(one, index, projector, grid) for one in (source.with_ctf(ctf[other]), flipped)]
        moved = [source.with_pose(Pose(pose.rotation, factor * pose.shift)) for factor in SHIFT_FACTORS]
        shifts = torch.stack([given - _log_likelihood(one, index, projector, grid) for one in moved], dim=1)
        return PoseEvidence(index, given, orientation, shifts, given[:, None] - torch.stack(unlike, dim=1))

    first, second = source.world.of_halves(evidence_of)
    return PoseEvidence(
        *(torch.cat((getattr(first, part.name), getattr(second, part.name))) for part in fields(PoseEvidence))
    )


def other_rows(group: Tensor, generator: torch.Generator) -> Tensor:
    """For each of some images, another one of its optics group (n,); small groups are taken together."""
    others, group = torch.arange(len(group)), enlarged_groups(group, _FEWEST_OTHERS)
    for number in group.unique():
        members = torch.nonzero(group == number).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        others[members] = members.roll(1)
    return others


def _log_likelihood(source: ParticleSource, index: Tensor, projector: Projector, grid: Tensor) -> Tensor:
    """Of images under a mean, up to what does not depend on the pose: <Y, P mu> - |P mu|^2 / 2."""
    found = torch.zeros(len(source), dtype=torch.float64)
    for batch in source.batches(index, projector.disk, images_per_call(projector, 2)):
        products = slices_of_batch(projector, grid, batch)[1]
        found[batch.index] = (products[:, 0, 1] - 0.5 * products[:, 0, 0]).double().cpu()
    (found,) = source.world.total(found)
    return found[index]
