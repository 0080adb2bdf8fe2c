"""From stacks on disk to half-disk coefficients that can be read again quickly."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.words import counted
from solvar_engine.data.backgrounds import ReplacedBackgrounds, find_replaced_backgrounds, noise_profile, ring_count
from solvar_engine.data.copies import signatures
from solvar_engine.data.faults import MASKED, REFUSE_BAD_IMAGES, BadImages
from solvar_engine.data.image_tables import ImageTables
from solvar_engine.data.noise import (
    BACKGROUND_RADIUS,
    background_mask,
    background_power,
    flattened,
    normalisation,
    repair_low_shells,
)
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.pixel_faults import (
    CUT,
    MANY,
    MOST_CUT,
    find_fixed_pixels,
    repeated_edges,
    replace_single_pixels,
    with_pixels_replaced,
)
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.distributed.world import ALONE, Share, World
from solvar_engine.imaging.ctf import ctf_values, divided_by_ctf
from solvar_engine.imaging.fourier import HalfDisk, shift_phases
from solvar_engine.imaging.sampling import enlarged_groups, sample_of
from solvar_engine.imaging.shells import shell_means, shrunk_spectra
from solvar_engine.imaging.types import Ctf, MicrographNoise

logger = logging.getLogger(__name__)

_CHUNK_PIXELS = 2_000_000  # of images in flight
_NOISE_IMAGES = 2_000  # per optics group, for the first noise spectrum
_FEWEST_OF_MICROGRAPH = 10  # particles on average, of which a spectrum can be told from the others
_BACKGROUND_IMAGES = 2_000  # that tell whether backgrounds were replaced
_DIGEST_ROWS = 16
_WIDE_DEVIATIONS = 10.0  # from the weakest to the strongest background of a group
_LEAST_SEEN = 0.1  # of the coefficients of a shell
_SHOWN_GROUPS = 3
_UNIT_IMAGES = 16  # to find the unit of grey values with
_UNIT_RANGE = (1e-15, 1e15)  # results in units of the input would leave float32 beyond


def cache_bytes(particles: int, box_size: int) -> int:
    """Size of the preprocessed images of a working box, bytes."""
    return particles * len(HalfDisk.create(box_size)) * np.dtype(np.complex64).itemsize


def prepare_particles(
    stack: ParticleStack,
    box_size: int,
    *,
    scratch: Path | None,
    progress: Callable[[int, int], None] | None = None,
    bad_images: BadImages = REFUSE_BAD_IMAGES,
    share: Share | None = None,
    device: torch.device | str = "cpu",
    kept_on_device: bool = True,
    shared: bool = True,
) -> PreparedParticles:
    """Normalise, correct, centre and Fourier-crop all images, once; of several processes each does its share.

    Parameters
    ----------
    stack : ParticleStack
    box_size : int
        Working box, px, at most that of the images.
    scratch : Path or None
        Folder on whose disk the result is mapped; None keeps everything in memory, or on the device.
    progress : callable, optional
        Called with (images done, images in all).
    bad_images : BadImages
        What to do about images that cannot be used.
    share : Share, optional
        Images of this process, if several share them.
    device : torch.device or str
        Where images are transformed, and batches will be made.
    kept_on_device : bool
        Whether the result stays there; else it is in memory that the device reads quickly, or on disk.
    shared : bool
        Whether rows of one image share its coefficients, which then cannot be changed (`PreparedParticles.subtract`).

    Returns
    -------
    PreparedParticles
        With a first noise spectrum from the background of the images.

    Raises
    ------
    ValueError
        If the working box is larger than the images.
    UserError
        If an image cannot be used, such as one that was masked; file and index are named. If grey values are too large
        or too small for float32.
    OSError
        If the scratch file does not fit on its disk.
    """
    if box_size > stack.box_size:
        raise ValueError(f"box is {box_size}, but the images have {stack.box_size} px")
    device = torch.device(device)
    disk = HalfDisk.create(box_size).to(device)
    count = len(stack)
    share = share or Share.of(ALONE, count)
    own, world = share.rows, share.world
    first_of_image = stack.first_of_image() if shared else torch.arange(count)
    read, place_of_own = _distinct_images(first_of_image[own])
    place, read = torch.full((count,), -1), own[read]
    place[own] = place_of_own
    coefficients = _allocate(len(read), len(disk), scratch, device, kept_on_device)
    unit = grey_unit(stack)
    fixed = find_fixed_pixels(stack, share)
    replaced = _replaced_backgrounds(stack, share, unit, fixed, device)
    found = ImageTables.empty(count)
    faults: dict[int, str] = {}
    groups = len(stack.pixel_sizes)
    spectra: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(groups)]
    group = torch.as_tensor(stack.group)
    chunk = max(1, _CHUNK_PIXELS // stack.box_size**2)
    is_first = first_of_image == torch.arange(count)
    measured, extent = _rows_for_noise(group, groups, is_first), stack.box_size * stack.pixel_size
    for start in range(0, len(read), chunk):
        rows = read[start : start + chunk]
        images, fault_of = stack.images_with_faults(rows.numpy())
        found.digest[rows], found.depth[rows] = digests(images), repeated_edges(images)
        images, found.single[rows], found.near_zeros[rows] = _repaired(images.to(device) / unit, stack, rows, fixed)
        images, deviations = flattened(images)
        found.deviation[rows], found.inner[rows] = deviations.cpu(), 1.0
        if replaced is not None:
            inner = torch.where(found.depth[rows] > 0, 1.0, replaced.inner_noise(noise_profile(images)))
            images, found.inner[rows] = replaced.levelled(images, inner), inner.float()
            found.deviation[rows] *= found.inner[rows]
        empty = rows[found.deviation[rows] == 0].tolist()
        faults.update({row: fault_of.get(row, MASKED) for row in empty})
        found.is_bad[empty] = 1
        for g in group[rows].unique().tolist():
            members = group[rows] == g
            ratio = float(stack.pixel_sizes[g]) / stack.pixel_size
            shift_px = stack.pose.shift[rows[members]].to(device) / stack.pixel_size
            centred = stack.aberrations.corrected(images[members], disk, g, ratio, extent)
            if abs(ratio - 1.0) >= 1e-6:  # grey values are densities per area, so sums over coarser pixels count more
                centred = centred * ratio**2
            centred = centred * shift_phases(disk, shift_px, stack.box_size)
            coefficients[place[rows[members]]] = centred.to(coefficients.device)
            found.signature[rows[members]] = signatures(centred, disk)
            members &= measured[rows]
            if bool(members.any()):
                power = background_power(images[members], disk).cpu() * ratio**4
                spectra[g].append((rows[members], power / _seen_share(stack.ctf[rows[members]], disk, extent)))
        if progress is not None:
            progress(min(start + chunk, len(read)), len(read))
    found.complete(own, read[place_of_own], world)
    images_of_rows = zip(own.tolist(), read[place_of_own].tolist(), strict=True)
    faults = {row: faults[image] for row, image in images_of_rows if image in faults}
    is_bad = found.is_bad > 0
    depth = torch.where(is_bad | (found.depth <= CUT * stack.box_size), 0, found.depth)
    if 0 < int((found.single > 0).sum()) <= MANY * count:  # if they are many, that is a caution
        said = counted(int((found.single > 0).sum()), "image has", "images have")
        logger.info("%s single pixels far beyond those around: these are replaced", said)
    faults = world.entries(faults)
    bad_images.settle(stack, faults)
    good = torch.nonzero(~is_bad).flatten()
    found.digest[is_bad] = -1 - torch.nonzero(is_bad).flatten()  # equal only in that they hold nothing
    if int((depth > 0).sum()) <= MOST_CUT * count:
        is_bad |= depth > 0
    inner = torch.where(is_bad, 1.0, found.inner)
    scale = torch.ones(count)
    scale[good] = _normalise_groups(
        found.deviation[good], group[good], stack.box_size, stack.group_names, unit, ~is_bad[good]
    )
    noise = _noise_spectra(spectra, scale, is_bad, disk, world)
    return PreparedParticles(
        coefficients=coefficients,
        disk=disk,
        box_size=box_size,
        pixel_size=stack.pixel_size * stack.box_size / box_size,
        pose=stack.pose,
        ctf=stack.ctf,
        group=group,
        aberrations=stack.aberrations,
        frequency_ratio=torch.tensor([float(size) / stack.pixel_size for size in stack.pixel_sizes]),
        input_box=stack.box_size,
        noise_variance=repair_low_shells(noise).float(),
        image_scale=scale,
        micrographs=micrographs_of(stack),
        sign=1.0,
        grey_unit=unit,
        digest=found.digest,
        signature=found.signature,
        is_bad=is_bad if bool(is_bad.any()) else None,
        fixed_pixels=fixed,
        single_pixels=found.single,
        repeated_edges=depth,
        near_zeros=found.near_zeros,
        inner_noise=inner,
        filled_from=None if replaced is None or bool((inner == 1).all()) else replaced.radius,
        share=share if world.size > 1 else None,
        place=place if len(read) < len(own) else None,
    )


def micrographs_of(stack: ParticleStack) -> MicrographNoise | None:
    """Tell the micrographs of particles apart, by their names; None where there are too few particles of each."""
    table = stack.star.particles
    if "rlnMicrographName" not in table:
        return None
    name = np.unique(np.array(table.text("rlnMicrographName"), dtype=object), return_inverse=True)[1].reshape(-1)
    both = np.stack([name, stack.group.numpy()])
    _, micrograph = np.unique(both, axis=1, return_inverse=True)
    count = int(micrograph.max()) + 1
    if count == 1 or len(stack) < _FEWEST_OF_MICROGRAPH * count:
        return None
    return MicrographNoise(torch.from_numpy(micrograph.reshape(-1)))


def digests(images: Tensor) -> Tensor:
    """Digest of the middle rows of each image, by which equal ones are found.

    Some rows are enough: the noise of two images agrees nowhere to the last digit.

    Parameters
    ----------
    images : Tensor, shape (n, y, x)

    Returns
    -------
    Tensor, shape (n,), int64
    """
    first = max(0, images.shape[-2] // 2 - _DIGEST_ROWS // 2)
    rows = images[:, first : first + _DIGEST_ROWS].numpy()
    parts = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in rows]
    return torch.from_numpy(np.frombuffer(b"".join(parts), dtype="<i8").astype(np.int64))


def grey_unit(stack: ParticleStack) -> float:
    """Find the unit of grey values in which the noise is near 1.

    In the units of some programs squares of grey values, and squares of those, leave the range of float32.

    Parameters
    ----------
    stack : ParticleStack

    Returns
    -------
    float
        A power of two, by which division is exact.

    Raises
    ------
    UserError
        If even the results, which are in the units of the input, would leave that range.
    """
    rows = sample_of(np.arange(len(stack)), _UNIT_IMAGES)
    deviation = torch.cat([flattened(stack.images_with_faults([row])[0].double())[1] for row in rows])
    positive = deviation[deviation > 0]
    if not len(positive):  # masked images, which are refused by name later
        return 1.0
    typical = float(positive.median())
    lowest, highest = _UNIT_RANGE
    if not lowest <= typical <= highest:
        raise UserError(
            f"The grey values of {stack.path} have noise of standard deviation {typical:.1e}, outside {lowest:g} to"
            f" {highest:g}: multiply the images by a constant."
        )
    return float(2.0 ** round(math.log2(typical)))


def _allocate(
    count: int, pixels: int, scratch: Path | None, device: torch.device, kept_on_device: bool
) -> Tensor:
    if scratch is None and kept_on_device:
        return torch.empty(count, pixels, dtype=torch.complex64, device=device)
    if scratch is None:
        # from pages that stay where they are a GPU reads by itself, while it computes
        return torch.empty(count, pixels, dtype=torch.complex64, pin_memory=device.type == "cuda")
    # A file without a name: its space comes free with the process, however that ends, and no two runs share one.
    with tempfile.TemporaryFile(dir=scratch) as handle:
        # Claiming the space now turns a full disk into an error at once instead of a crash hours later.
        os.posix_fallocate(handle.fileno(), 0, count * pixels * np.dtype(np.complex64).itemsize)
        return torch.from_numpy(np.memmap(handle, dtype=np.complex64, mode="r+", shape=(count, pixels)))


def _replaced_backgrounds(
    stack: ParticleStack, share: Share, unit: float, fixed: Tensor | None, device: torch.device
) -> ReplacedBackgrounds | None:
    """Find backgrounds that were replaced, in a sample of images whose boxes lie within the micrograph."""
    sample = sample_of(torch.arange(len(stack)), _BACKGROUND_IMAGES)
    table = torch.zeros(len(sample), ring_count(stack.box_size), dtype=torch.float64)
    place = torch.searchsorted(sample.contiguous(), share.own(sample).contiguous())
    for places in place.split(max(1, _CHUNK_PIXELS // stack.box_size**2)):
        rows = sample[places]
        images = stack.images_with_faults(rows.numpy())[0]
        is_cut = repeated_edges(images) > 0
        profile = noise_profile(flattened(_repaired(images.to(device) / unit, stack, rows, fixed)[0])[0])
        table[places] = torch.where(is_cut[:, None], math.nan, profile)
    (table,) = share.world.total(table)
    return find_replaced_backgrounds(table, stack.box_size)


def _repaired(
    images: Tensor, stack: ParticleStack, rows: Tensor, fixed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Images of some rows without faulty pixels, which are counted (n,), and without multiplication; see there."""
    if fixed is not None:
        images = with_pixels_replaced(images, fixed)
    single = replace_single_pixels(images)
    images, near_zeros = _without_multiplication(images, stack, rows)
    return images, single, near_zeros


def _without_multiplication(images: Tensor, stack: ParticleStack, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Images of some rows, divided by their transfer functions where they were multiplied with them.

    Also the power (n,) that is left near zeros of these (`divided_by_ctf`); nought for images that were not multiplied.
    """
    flags, near_zeros = stack.ctf.is_premultiplied, torch.zeros(len(rows))
    if flags is None or not bool(flags[rows].any()):
        return images, near_zeros
    images = images.clone()
    group = torch.as_tensor(stack.group)[rows]
    for g in group[flags[rows]].unique().tolist():
        members = flags[rows] & (group == g)
        ctf = stack.ctf[rows[members]].to(images.device)
        own = members.to(images.device)
        magnification = stack.aberrations.magnification[g]
        images[own], power = divided_by_ctf(images[own], ctf, magnification, stack.pixel_sizes[g])
        near_zeros[members] = power.cpu()
    return images, near_zeros


def _seen_share(ctf: Ctf, disk: HalfDisk, extent: float) -> Tensor:
    """Share of the coefficients in each shell that hold something, (n, shells), float64."""
    if ctf.is_premultiplied is None:
        return torch.ones(len(ctf), disk.shell_max + 1, dtype=torch.float64)
    on_cpu = disk.to("cpu")
    return shell_means((ctf_values(ctf, on_cpu, extent / disk.box_size) != 0).double(), on_cpu).clamp_min(_LEAST_SEEN)


def _distinct_images(first_of_image: Tensor) -> tuple[Tensor, Tensor]:
    """First of the rows of each image, ascending, and the place among these of each row's image, (n,)."""
    _, first, place = np.unique(first_of_image.numpy(), return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(place.reshape(-1))


def _rows_for_noise(group: Tensor, groups: int, is_first: Tensor) -> Tensor:
    """Images, of all groups, that the first noise spectra are measured on, each once; (n,), bool."""
    measured = torch.zeros(len(group), dtype=torch.bool)
    for g in range(groups):
        measured[sample_of(torch.nonzero((group == g) & is_first).flatten(), _NOISE_IMAGES)] = True
    return measured


def _noise_spectra(
    spectra: list[list[tuple[Tensor, Tensor]]], scale: Tensor, is_bad: Tensor, disk: HalfDisk, world: World
) -> Tensor:
    """Average the spectra (images, shells) of good rows of each optics group, with the images as scaled."""
    pixels = torch.bincount(disk.shell.cpu()) * (1 - math.pi * BACKGROUND_RADIUS**2)  # what the background tells apart
    power = torch.zeros(len(spectra), len(pixels), dtype=torch.float64)
    images = torch.zeros(len(spectra), 1, dtype=torch.float64)
    for group, of_group in enumerate(spectra):
        for rows, of_rows in of_group:
            is_good = ~is_bad[rows]
            power[group] += (of_rows * scale[rows, None].double() ** 2)[is_good].sum(dim=0)
            images[group] += int(is_good.sum())
    power, images = world.total(power, images)
    return shrunk_spectra(power / images.clamp_min(1), images * pixels)


def _normalise_groups(
    deviation: Tensor, group: Tensor, input_box: int, names: tuple[str, ...], unit: float, is_used: Tensor
) -> Tensor:
    """Factors (n,) that bring the deviations of backgrounds to the median of the group; said of images that are used.

    Parameters
    ----------
    deviation : Tensor, shape (n,)
    group : Tensor, shape (n,), int64
        Optics group; small ones are taken together.
    input_box : int
    names : tuple of str
        Of the groups.
    unit : float
        Grey values that make 1.
    is_used : Tensor, shape (n,), bool
        Of the others another sentence says why their backgrounds differ.
    """
    scale, together = torch.ones_like(deviation), enlarged_groups(group)
    pixels = int(background_mask(input_box).sum())
    for g in together.unique().tolist():
        members = together == g
        scale[members] = normalisation(deviation[members], pixels)
        used = members & is_used
        changed = used & (scale != 1)
        if bool(changed.any()):
            is_wide = float(deviation[used].max()) > _WIDE_DEVIATIONS * float(deviation[used].min())
            of_groups = [names[number] for number in group[changed].unique().tolist()]
            logger.log(
                logging.WARNING if is_wide else logging.INFO,
                "%s of %s %s in background deviation (%.3g to %.3g) from the median, %.3g: each is scaled to that, and"
                " its factor is kept as part of its contrast",
                counted(int(changed.sum()), "image"),
                _named(of_groups),
                "differs" if int(changed.sum()) == 1 else "differ",
                float(deviation[changed].min()) * unit,
                float(deviation[changed].max()) * unit,
                float(deviation[members].median()) * unit,
            )
    return scale


def _named(groups: list[str]) -> str:
    """Optics groups by their names, or the first of many."""
    others = f" and {counted(len(groups) - _SHOWN_GROUPS, 'other')}" if len(groups) > _SHOWN_GROUPS else ""
    return f"optics {'group' if len(groups) == 1 else 'groups'} {', '.join(groups[:_SHOWN_GROUPS])}{others}"
