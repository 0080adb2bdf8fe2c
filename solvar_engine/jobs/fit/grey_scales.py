"""Parts of a set whose images have another grey scale or sign: found, said, and taken into account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from solvar_engine.contract.words import counted
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.judging.grey_scales import GreyScales, find_grey_scales
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.reconstruction.mean import ONE_SIDED

_LEAST_IMAGES = 100  # of one stack, whose signal may have a scale of its own
_SHOWN_PARTS = 3
_MOST_DARK = 0.4  # of the images: beyond that they may be one of two states whose mean was subtracted
_LEAST_MIXED = 5  # images of the other sign, in a part that is named


def settle_grey_scales(job: FitJob, source: PreparedParticles) -> tuple[FitJob, PreparedParticles]:
    """Find parts whose signal has another scale or sign than most; single images of the other sign are left out.

    An image counts once, in however many orientations it is seen.
    If what they share is no density of one sign, they are states whose mean was subtracted, each the opposite of the
    other, however few show it surely: these are taken as they are. So are nearly equal numbers if the user says so.

    Returns
    -------
    job : FitJob
        With the half-sets that are left.
    source : PreparedParticles
        With the scales, if there are any.
    """
    stack = job.inputs.stack
    part, names = parts_of(stack)
    found = job.checkpoint.load("grey_scales", GreyScales)
    if found is None:
        job.progress.stage("grey scales")
        one, two = (stack.each_image_once(half) for half in job.inputs.halves)
        found = find_grey_scales(source, (one, two), part, job.projector_options)
        found = replace(found, is_dark=found.is_dark[stack.first_of_image()])
        job.checkpoint.save("grey_scales", found)
    part, names = found.part, names_of_pieces(found.part, part, names, stack)
    rows = stack.each_image_once(torch.arange(len(stack)))
    dark_share = float(found.is_dark[torch.cat(job.inputs.halves)].float().mean())
    are_many = dark_share > _MOST_DARK
    is_density = abs(found.one_sidedness) >= ONE_SIDED
    if dark_share > 0 and not is_density or are_many and job.params.invert_contrast != "auto":
        job.add_cautions([sentence_of_opposites(found.is_dark[rows], stack.path)])
        return replace(job, has_opposites=True), source
    if dark_share > 0:
        block = block_of(found.is_dark, stack)
        place = f" of {stack.path}" + ("" if block else f" ({stack.rows_in_words(found.is_dark)})")
        job.add_cautions([sentence_of_dark_images(found.is_dark[rows], part[rows], names, place, block, are_many)])
        one, two = (half[~found.is_dark[half]] for half in job.inputs.halves)
        job = replace(job, inputs=replace(job.inputs, halves=(one, two)))
    if bool((found.scale != 1).any()):
        job.add_cautions(list(sentences_of_scales(found.scale, found.is_weak, part[rows], names)))
        source = source.with_grey_scale(found.scale[part])
    return job, source


def parts_of(stack: ParticleStack) -> tuple[Tensor, list[str]]:
    """Parts of a set that may differ in grey scale: by optics group and stack, or folder of stacks of few images.

    Returns
    -------
    part : Tensor, shape (n,), int64
    names : list of str
    """
    paths = stack.index.paths
    folders = {path: number for number, path in enumerate(dict.fromkeys(path.parent for path in paths))}
    place = torch.from_numpy(stack.index.stack).long()
    pair = torch.stack((stack.group, place)).unique(dim=1, return_inverse=True)[1]
    size = torch.bincount(pair[stack.each_image_once(torch.arange(len(stack)))])
    folder = torch.tensor([len(paths) + folders[path.parent] for path in paths])
    place = torch.where(size[pair] < _LEAST_IMAGES, folder[place], place)
    found, part = torch.stack((stack.group, place)).unique(dim=1, return_inverse=True)
    places, parts_of_group = [*paths, *folders], torch.bincount(found[0])
    names = [
        f"optics group {stack.group_names[group]}" + (f" in {places[where]}" if parts_of_group[group] > 1 else "")
        for group, where in found.T.tolist()
    ]
    return part, names


def names_of_pieces(piece: Tensor, part: Tensor, names: list[str], stack: ParticleStack) -> list[str]:
    """Name pieces (n,) of parts (n,) that have names: by their rows in the list, where a part was cut."""
    if torch.equal(piece, part):
        return names
    row = torch.from_numpy(stack.rows_of_list)
    count = int(piece.max()) + 1
    first, last, whole = (
        torch.zeros(count, dtype=torch.int64).scatter_reduce(0, piece, values, how, include_self=False)
        for values, how in ((row + 1, "amin"), (row + 1, "amax"), (part, "amin"))
    )
    is_cut = torch.bincount(whole)[whole] > 1
    return [
        f"rows {first[number]} to {last[number]} of {names[whole[number]]}" if is_cut[number] else names[whole[number]]
        for number in range(count)
    ]


def block_of(members: Tensor, stack: ParticleStack) -> str:
    """Rows of the list that some images (n,) are, if these follow each other; else nothing."""
    found = torch.from_numpy(stack.rows_of_list)[members].unique()
    if len(found) < _LEAST_MIXED or int(found[-1] - found[0]) >= len(found):
        return ""
    return f"rows {int(found[0]) + 1} to {int(found[-1]) + 1}"


def sentence_of_opposites(is_dark: Tensor, path: Path) -> str:
    """Say that the images of a list show two opposites, and what that may be."""
    surely, count = int(is_dark.sum()), len(is_dark)
    how_many = f"About half of the images of {path} ({surely} of {count} surely)"
    if surely <= _MOST_DARK * count:
        how_many = f"Some images of {path} ({surely} of {count} surely; of faint ones it cannot be told)"
    return (
        f"{how_many} show the opposite of what the others show, as if the mean was subtracted and two states are left:"
        " they are taken as they are; if instead the molecule is dark in some images and bright in others, multiply"
        " those of one kind by -1"
    )


def sentence_of_dark_images(
    is_dark: Tensor, part: Tensor, names: list[str], place: str = "", block: str = "", are_many: bool = False
) -> str:
    """Say how many images have the other sign, in which list, and where: as a block, or in parts of both signs.

    If they are many, also that they may have been made by subtraction.
    """
    size = torch.bincount(part, minlength=len(names))
    dark = torch.bincount(part[is_dark], minlength=len(names))
    mixed = torch.nonzero((dark >= _LEAST_MIXED) & (dark > _MOST_DARK * size)).flatten().tolist()
    mixed.sort(key=lambda number: -int(dark[number]))
    counts = [f"{int(dark[number])} of {int(size[number])} of {names[number]}" for number in mixed]
    shown = ", ".join(counts[:_SHOWN_PARTS])
    others = f" and those of {len(mixed) - _SHOWN_PARTS} other parts" if len(mixed) > _SHOWN_PARTS else ""
    among = f" (among them {shown}{others}, where images of both signs were mixed)" if mixed and len(names) > 1 else ""
    count = int(is_dark.sum())
    return (
        f"{counted(count, 'image')}{place} {'shows' if count == 1 else 'show'} the molecule with the other sign than "
        + (f"the others ({block})" if block else f"those beside them{among}")
        + ": left out, as outliers; if they are good ones, multiply them by -1"
        + (" (or, if the mean was subtracted from all, give --invert-contrast no)" if are_many else "")
    )


def sentences_of_scales(scale: Tensor, is_weak: Tensor, part: Tensor, names: list[str]) -> Iterator[str]:
    """Say which parts differ from the largest one of those that have the usual scale, and what is done about it."""
    size = torch.bincount(part, minlength=len(scale))
    reference = names[int((size * (scale == 1)).argmax())]
    kinds = (
        ((scale != 1) & (scale > 0) & ~is_weak, "is {} times that in {}: images are compared on one scale"),
        ((scale < 0) & ~is_weak, "is {} times that in {}, of the other sign: these images are inverted"),
        (is_weak, "is hardly there ({} times that in {} at most): do they show this molecule?"),
    )
    for chosen, what in kinds:
        some = torch.nonzero(chosen).flatten().tolist()
        if some:
            some.sort(key=lambda number: -int(size[number]))
            shown = ", ".join(names[number] for number in some[:_SHOWN_PARTS])
            others = f" and {counted(len(some) - _SHOWN_PARTS, 'other part')}" if len(some) > _SHOWN_PARTS else ""
            count = int(size[some].sum())
            values = sorted(scale[some].tolist(), key=abs)
            ends = dict.fromkeys(f"{value:.3g}" for value in (values[0], values[-1]))
            yield f"The signal of {counted(count, 'image')} ({shown}{others}) " + what.format(
                " to ".join(ends), reference
            )
