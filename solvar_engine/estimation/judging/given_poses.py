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
from solvar_engine.imaging.types import Ctf, ParticleSource, Pose
from solvar_engine.projectors.base import Projector, images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions

SHIFT_FACTORS = (-1.0, 0.0, 0.5, 2.0, 4.0)
"""By which shifts of another sign or unit, or of images that were moved by them, may be wrong."""

_SHARE, _FEWEST, _MOST = 0.1, 500, 2_000  # of the images are looked at
_OWN_SHARE = 0.5  # of the expected gain over other transfer functions; of right ones 0.8 to 1.1 at any noise
_VOLTAGES_KV = (200.0, 300.0)  # of nearly all microscopes, between which voltages are confused
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
    ctf_gain : Tensor, shape (m, 4), float64
        The same less that under other transfer functions, the slices' scale in each shell being free: that of the other
        image, which right ones have more than a share of the expected gain over; one of images that are phase-flipped
        if these are not, or the other way round; of another voltage; of images that were multiplied by theirs.
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
        transfers = _transfer_gains(source, ctf[other], index, projector, grid)
        moved = [source.with_pose(Pose(pose.rotation, factor * pose.shift)) for factor in SHIFT_FACTORS]
        shifts = torch.stack([given - _log_likelihood(one, index, projector, grid) for one in moved], dim=1)
        return PoseEvidence(index, given, orientation, shifts, transfers)

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


def _transfer_gains(
    source: ParticleSource, others: Ctf, index: Tensor, projector: Projector, grid: Tensor
) -> Tensor:
    """Log-likelihood of images under a mean seen through their transfer functions less that through
    others, (n, 4): see `PoseEvidence`.

    A mean that was made with wrong transfer functions is wrong in its power, which would hide the right ones: so that
    all have their best, the scale of the slices in each shell is the likeliest.
    """
    ctf, (low, high) = source.ctf, _VOLTAGES_KV
    voltage = torch.where(ctf.voltage > (low + high) / 2, low, high).to(ctf.voltage)
    flipped = replace(ctf, is_phase_flipped=~ctf.is_phase_flipped)
    views = [source.with_ctf(one) for one in (ctf, others, flipped, replace(ctf, voltage=voltage))]
    shell, shells = projector.disk.shell, projector.disk.shell_max + 1
    cross, power = torch.zeros(2, len(index), len(views) + 1, shells, dtype=torch.float64)
    expected, weight = torch.zeros(len(index), dtype=torch.float64), projector.disk.weight.double()
    places = torch.zeros(len(source), dtype=torch.int64)
    places[index] = torch.arange(len(index))
    reading = (view.batches(index, projector.disk, images_per_call(projector, 2)) for view in views)
    for own, *batches in zip(*reading, strict=True):
        batches = [own, *batches, replace(own, ctf=own.ctf.square())]
        slices = torch.stack([slices_of_batch(projector, grid, batch)[0][:, :, 0] for batch in batches], dim=1)
        place = places[own.index]
        products = (own.images[:, None].conj() * slices).real, slices.abs().square()
        shell, weight = shell.to(slices.device), weight.to(slices.device)
        for table, values in zip((cross, power), products, strict=True):
            by_shell = torch.zeros(*slices.shape[:2], shells, dtype=torch.float64, device=slices.device)
            table[place] = by_shell.index_add_(2, shell, values * weight).cpu()
        expected[place] = (0.5 * (slices[:, 0] - slices[:, 1]).abs().square().double() @ weight).cpu()
    cross, power, expected = source.world.total(cross, power, expected)
    scale = cross.sum(dim=0) / power.sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    found = (scale * cross - 0.5 * scale.square() * power).sum(dim=2)
    gain = found[:, :1] - found[:, 1:]
    # of an image whose signal is weaker, as those of an optics group may be, as much less is expected
    contrast = cross[:, 0].sum(dim=1) / power[:, 0].sum(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    gain[:, 0] -= _OWN_SHARE * contrast * expected
    return gain


def _log_likelihood(source: ParticleSource, index: Tensor, projector: Projector, grid: Tensor) -> Tensor:
    """Of images under a mean, up to what does not depend on the pose: <Y, P mu> - |P mu|^2 / 2."""
    found = torch.zeros(len(source), dtype=torch.float64)
    for batch in source.batches(index, projector.disk, images_per_call(projector, 2)):
        products = slices_of_batch(projector, grid, batch)[1]
        found[batch.index] = (products[:, 0, 1] - 0.5 * products[:, 0, 0]).double().cpu()
    (found,) = source.world.total(found)
    return found[index]
