"""Whether poses belong to their images: how likely these are at their own, and at those of other images.

Half-maps agree at low resolution whatever the poses are, and components are found in what wrong ones leave: the images
themselves tell. Each is compared with the mean of the other half-set, which has not seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import radians

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import make_band
from solvar_engine.estimation.model.fixed_factors import collect_statistics
from solvar_engine.estimation.model.slices import slices_of_batch
from solvar_engine.imaging.fourier import nyquist_shell, shift_phases
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.sampling import enlarged_groups
from solvar_engine.imaging.types import Batch, Ctf, ParticleSource, Pose
from solvar_engine.projectors.base import Projector, images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions

SHIFT_FACTORS = (-1.0, 0.0, 0.5, 2.0, 4.0)
"""By which shifts of another sign or unit, or of images that were moved by them, may be wrong."""

PIXEL_FACTORS = (0.5, 0.8, 0.9, 1.1, 1.25, 2.0)
"""By which the pixel size may be wrong: defocus, aberration and shifts count in other pixels then."""

DEFOCUS_CHANGES = (-4000.0, -2000.0, -1000.0, 1000.0, 2000.0, 4000.0)
"""By which the defocus may be wrong, Angstrom: more than that of particles anywhere in the ice is."""

TURN_DEG = 8.0
"""By which orientations are turned where they may be inaccurate: more than those of refined images are wrong."""

_PLACES = 13  # to each side and in between, along each axis, up to an eighth of the box from the given one
_SHARE, _FEWEST, _MOST = 0.1, 1_000, 2_000  # of the images are looked at
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
        The same, the slices' scale in each shell being free, less that at the given shift times each of
        `SHIFT_FACTORS`.
    ctf_gain : Tensor, shape (m, 7), float64
        The same less that under other transfer functions: that of the other
        image, which right ones have more than a share of the expected gain over; one of images that are phase-flipped
        if these are not, or the other way round; of another voltage; without a phase plate, or with one; without even
        aberrations, and without odd ones; of images that were multiplied by theirs.
    pixel_gain : Tensor, shape (m, factors), float64
        The same less that under the pixel size times each of `PIXEL_FACTORS`.
    defocus_gain : Tensor, shape (m, changes), float64
        The same less that under the defocus plus each of `DEFOCUS_CHANGES`.
    place_gain : Tensor, shape (m,), float64
        Log-likelihood at the given shift less that at the best place nearby, which is chosen by the one half of the
        pixels and judged by the other: of right shifts more than 0.
    turn_gain : Tensor, shape (m,), float64
        The same of the best of orientations that are turned by `TURN_DEG`, and the given one.
    move : Tensor, shape (m,), float64
        Product of the moves that the halves of the pixels choose: the mean is the mean square move, Angstrom^2.
    """

    index: Tensor
    signal: Tensor
    orientation_gain: Tensor
    shift_gain: Tensor
    ctf_gain: Tensor
    pixel_gain: Tensor
    defocus_gain: Tensor
    place_gain: Tensor
    turn_gain: Tensor
    move: Tensor


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
        index = drawn_rows(half, count // 2, generator)
        other[index] = index[other_rows(source.group.cpu()[index], generator)]
        samples.append(index)

    def evidence_of(half: int) -> PoseEvidence:
        index, grid = samples[half], projector.to_grid(means[1 - half][None])
        given = _log_likelihood(source, index, projector, grid)
        turned = source.with_pose(Pose(pose.rotation[other], pose.shift))
        orientation = given - _log_likelihood(turned, index, projector, grid)
        shifts, pixels, defocus, transfers = _gains_with_free_scales(source, ctf[other], index, projector, grid)
        places, moves = _gain_of_places(source, index, projector, grid)
        turns = _gain_of_turns(source, index, projector, grid)
        return PoseEvidence(index, given, orientation, shifts, transfers, pixels, defocus, places, turns, moves)

    first, second = source.world.of_halves(evidence_of)
    return PoseEvidence(
        *(torch.cat((getattr(first, part.name), getattr(second, part.name))) for part in fields(PoseEvidence))
    )


def gain_under_model(
    source: ParticleSource,
    halves: tuple[Tensor, Tensor],
    models: Sequence[tuple[Tensor, Tensor]],
    options: SliceOptions,
    seed: int,
) -> Tensor:
    """Log-likelihood of images at their own poses less that at orientations of others, whatever states they show.

    Parameters
    ----------
    source : ParticleSource
    halves : tuple of two Tensors, int64
        Of which samples are asked.
    models : sequence of two pairs of Tensors, shape (z, y, x) and (r, z, y, x)
        Mean and factors of each half-set, of latent coordinates N(0, I): each is held against images of the other one,
        of which they must know nothing.
    options : SliceOptions
    seed : int
        Draws the sample, and the other images.

    Returns
    -------
    Tensor, shape (m,), float64
    """
    generator, gains = torch.Generator().manual_seed(seed), []
    for half, (mean, factors) in zip(halves, reversed(models), strict=True):
        index = drawn_rows(half, _MOST, generator)
        other = torch.arange(len(source))
        other[index] = index[other_rows(source.group.cpu()[index], generator)]
        turned = source.with_pose(Pose(source.pose.rotation[other], source.pose.shift))
        band = make_band(nyquist_shell(source.box_size), source.disk, mean, options)
        of_all = list(range(len(factors)))
        seen, otherwise = (
            collect_statistics(view, index, band, factors).integrate_out(of_all).residual for view in (source, turned)
        )
        gains.append(0.5 * (otherwise.double() - seen.double()).cpu())
    return torch.cat(gains)


def drawn_rows(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """So many rows, in order, at random: those at regular steps may all be of one kind."""
    return rows[torch.randperm(len(rows), generator=generator)[:count].sort().values]


def other_rows(group: Tensor, generator: torch.Generator) -> Tensor:
    """For each of some images, another one of its optics group (n,); small groups are taken together."""
    others, group = torch.arange(len(group)), enlarged_groups(group, _FEWEST_OTHERS)
    for number in group.unique():
        members = torch.nonzero(group == number).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        others[members] = members.roll(1)
    return others


def _gains_with_free_scales(
    source: ParticleSource, others: Ctf, index: Tensor, projector: Projector, grid: Tensor
) -> list[Tensor]:
    """Log-likelihood of images under a mean as it is seen less that seen otherwise: see `PoseEvidence`.

    A mean that was made with wrong transfer functions is wrong in its power, which would hide the right ones: so that
    all have their best, the scale of the slices in each shell is the likeliest.
    """
    ctf, pose, (low, high) = source.ctf, source.pose, _VOLTAGES_KV
    voltage = torch.where(ctf.voltage > (low + high) / 2, low, high).to(ctf.voltage)
    moved = [source.with_pose(Pose(pose.rotation, factor * pose.shift)) for factor in SHIFT_FACTORS]
    sized = [_of_pixel_size(source, factor) for factor in PIXEL_FACTORS]
    focused = [
        source.with_ctf(replace(ctf, defocus_u=ctf.defocus_u + change, defocus_v=ctf.defocus_v + change))
        for change in DEFOCUS_CHANGES
    ]
    flipped = replace(ctf, is_phase_flipped=~ctf.is_phase_flipped)
    plate = replace(ctf, phase_shift=torch.where(ctf.phase_shift > 0, 0.0, 90.0).to(ctf.phase_shift))
    changed = others, flipped, replace(ctf, voltage=voltage), plate
    without_even = None if ctf.even_zernike is None else source.with_ctf(replace(ctf, even_zernike=None))
    possible = [*(source.with_ctf(one) for one in changed), without_even, source.with_odd_aberrations()]
    transferred = [view for view in possible if view is not None]
    views = [source, *moved, *sized, *focused, *transferred]
    shell, shells = projector.disk.shell, projector.disk.shell_max + 1
    cross, power = torch.zeros(2, len(index), len(views) + 1, shells, dtype=torch.float64)
    expected, weight = torch.zeros(len(index), dtype=torch.float64), projector.disk.weight.double()
    places = _places_in(index, len(source))
    count = images_per_call(projector, len(views) + 1)
    reading = (view.batches(index, projector.disk, count) for view in views)
    for own, *batches in zip(*reading, strict=True):
        place = places[own.index]
        shell, weight = shell.to(own.images.device), weight.to(own.images.device)
        deviation = source.noise_variance.sqrt()[source.group[own.index].to(source.noise_variance.device)]
        squared = own.ctf.square() * deviation.to(own.ctf.device)[:, shell]  # whitened once
        batches = [own, *batches, replace(own, ctf=squared)]
        known, of_mean = None, projector.project(grid, own.rotation)  # all are seen from where they are
        for number, batch in enumerate(batches):
            slices = _as_seen(of_mean, batch, projector)
            products = (batch.images.conj() * slices).real, slices.abs().square()
            for table, values in zip((cross, power), products, strict=True):
                by_shell = torch.zeros(len(slices), shells, dtype=torch.float64, device=slices.device)
                table[place, number] = by_shell.index_add_(1, shell, values * weight).cpu()
            known = slices if known is None else known
            if number == len(views) - len(transferred):
                expected[place] = (0.5 * (known - slices).abs().square().double() @ weight).cpu()
    cross, power, expected = source.world.total(cross, power, expected)
    scale = cross.sum(dim=0) / power.sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    found = (scale * cross - 0.5 * scale.square() * power).sum(dim=2)
    gain = found[:, :1] - found[:, 1:]
    shifts, pixels, defocus, found = gain.split([len(moved), len(sized), len(focused), len(transferred) + 1], dim=1)
    transfers = found.new_zeros(len(found), len(possible) + 1)
    transfers[:, [number for number, view in enumerate((*possible, source)) if view is not None]] = found
    # of an image whose signal is weaker, as those of an optics group may be, as much less is expected
    contrast = cross[:, 0].sum(dim=1) / power[:, 0].sum(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    transfers[:, 0] -= _OWN_SHARE * contrast * expected
    return [shifts, pixels, defocus, transfers]


def _of_pixel_size(source: ParticleSource, factor: float) -> ParticleSource:
    """Same particles with larger pixels, whose frequencies and shifts in pixels are as much smaller."""
    ctf, pose, squared = source.ctf, source.pose, factor**-2
    ctf = replace(
        ctf,
        defocus_u=squared * ctf.defocus_u,
        defocus_v=squared * ctf.defocus_v,
        cs=squared**2 * ctf.cs,
        b_factor=squared * ctf.b_factor,
    )
    return source.with_ctf(ctf).with_pose(Pose(pose.rotation, pose.shift / factor))


def _gain_of_places(
    source: ParticleSource, index: Tensor, projector: Projector, grid: Tensor
) -> tuple[Tensor, Tensor]:
    """Gain (n,) at the given shifts over the best ones nearby, and product of the two moves there, Angstrom^2."""
    box_size, disk = projector.box_size, projector.disk
    steps = torch.linspace(-box_size / 8, box_size / 8, _PLACES)
    moves = torch.cartesian_prod(steps, steps)
    moves = moves[moves.square().sum(dim=1).argsort()]  # the given one comes first
    likelihood = torch.zeros(len(index), 2, len(moves), dtype=torch.float64)
    places, weight, is_even = _places_in(index, len(source)), disk.weight, _is_even(projector)
    phases = shift_phases(disk, moves.to(disk.weight.device), box_size).conj().T
    for batch in source.batches(index, disk, images_per_call(projector, 2)):
        slices = batch.contrast[:, None] * projector.project(grid, batch.rotation, batch.ctf)[:, :, 0]
        products, phases = batch.images.conj() * slices * weight.to(slices.device), phases.to(slices.device)
        halves = [(products[:, half] @ phases[half]).real for half in (is_even, ~is_even)]
        likelihood[places[batch.index]] = torch.stack(halves, dim=1).double().cpu()
    (likelihood,) = source.world.total(likelihood)
    gain, (first, second) = _held_out_gain(likelihood)
    angstrom = source.pixel_size * source.box_size / box_size
    return gain, (moves[first] * moves[second]).sum(dim=1).double() * angstrom**2


def _gain_of_turns(source: ParticleSource, index: Tensor, projector: Projector, grid: Tensor) -> Tensor:
    """Gain (n,) at the given orientations over the best of some nearby."""
    axes = radians(TURN_DEG) * torch.cat((torch.eye(3), -torch.eye(3)))
    turns = [torch.eye(3), *rotvec_to_rotation(axes)]
    likelihood = torch.zeros(len(index), 2, len(turns), dtype=torch.float64)
    places, is_even = _places_in(index, len(source)), _is_even(projector)
    for batch in source.batches(index, projector.disk, images_per_call(projector, 2)):
        for number, turn in enumerate(turns):
            slices = projector.project(grid, batch.rotation @ turn.to(batch.rotation))
            slices = _as_seen(slices, batch, projector)
            found = (batch.images.conj() * slices).real - 0.5 * slices.abs().square()
            found = found * projector.disk.weight.to(found.device)
            halves = [found[:, half].sum(dim=1) for half in (is_even, ~is_even)]
            likelihood[places[batch.index], :, number] = torch.stack(halves, dim=1).double().cpu()
    (likelihood,) = source.world.total(likelihood)
    return _held_out_gain(likelihood)[0]


def _held_out_gain(likelihood: Tensor) -> tuple[Tensor, Tensor]:
    """Judge what the one half of the pixels likes best by the other half.

    Parameters
    ----------
    likelihood : Tensor, shape (n, 2, alternatives)
        By each half; the given one is the first alternative.

    Returns
    -------
    gain : Tensor, shape (n,)
        Of the given one over the chosen ones.
    choice : Tensor, shape (2, n), int64
        By each half.
    """
    choice = likelihood.argmax(dim=2)
    chosen = likelihood.gather(2, choice.flip(1)[:, :, None])[:, :, 0]
    return (likelihood[:, :, 0] - chosen).sum(dim=1), choice.T


def _is_even(projector: Projector) -> Tensor:
    """One half of the pixels, as of a chessboard: their noise is independent of the others'."""
    return projector.disk.pixels.sum(dim=1) % 2 == 0


def _places_in(index: Tensor, count: int) -> Tensor:
    """Place in `index` of each of some rows, (count,)."""
    places = torch.zeros(count, dtype=torch.int64)
    places[index] = torch.arange(len(index))
    return places


def _as_seen(of_mean: Tensor, batch: Batch, projector: Projector) -> Tensor:
    """What slices (n, pixels, 1) of a mean make of a batch, (n, pixels), without its background."""
    slices = of_mean * batch.ctf[:, :, None]
    if batch.background is not None:
        batch.background.take_from(slices, projector.disk.weight.to(slices.device))
    return batch.contrast[:, None] * slices[:, :, 0]


def _log_likelihood(source: ParticleSource, index: Tensor, projector: Projector, grid: Tensor) -> Tensor:
    """Of images under a mean, up to what does not depend on the pose: <Y, P mu> - |P mu|^2 / 2."""
    found = torch.zeros(len(source), dtype=torch.float64)
    for batch in source.batches(index, projector.disk, images_per_call(projector, 2)):
        products = slices_of_batch(projector, grid, batch)[1]
        contrast = batch.contrast.double()
        found[batch.index] = (contrast * products[:, 0, 1] - 0.5 * contrast.square() * products[:, 0, 0]).cpu()
    (found,) = source.world.total(found)
    return found[index]
