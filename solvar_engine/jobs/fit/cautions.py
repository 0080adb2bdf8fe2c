"""Estimates of a fit that ended at a limit, or that cannot be: each is said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from math import degrees

import torch
from torch import Tensor

from solvar_engine.contract.words import counted
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.images import LEAST_CONTRAST
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.judging.components import Components
from solvar_engine.estimation.judging.other_frames import frame_between_ends
from solvar_engine.estimation.model.contrast import LARGEST_VARIANCE
from solvar_engine.imaging.shells import resolution_at
from solvar_engine.jobs.fit.frames import in_words
from solvar_engine.jobs.fit.job import FitJob

_MANY_OUTLIERS = 0.15  # of all images: more than picks without particles usually are
_LARGEST_CONTRAST = 3.0
_WEAK_NOISE = 1e-3  # of the median over shells
_OTHER_NOISE = 1.4  # standard deviation of what the model leaves over that of the background, or the other way round
_WIDE_TURN_DEG, _WIDE_MOVE_PX = 10.0, 5.0  # beyond which poses are not in the neighbourhood of the true ones


def cautions_of(
    job: FitJob,
    images: PreparedParticles,
    halves: HalfSetFit,
    components: Components,
    z: Tensor,
    contrast: Tensor,
    has_mean: bool = True,
    has_origins: bool = True,
) -> list[str]:
    """Say what is at its limit or impossible.

    Parameters
    ----------
    job : FitJob
    images : PreparedParticles
        As they were read.
    halves : HalfSetFit
    components : Components
    z : Tensor, shape (n, r)
        Latent coordinates.
    contrast : Tensor, shape (n,)
        Of all images, as it is written.
    has_mean : bool
        Whether the first mean was resolved: if not, that is said, and some of this follows from it.
    has_origins : bool
        Whether no other origins are better: the same.

    Returns
    -------
    list of str
        Sentences, without full stop.
    """
    return [
        *_of_outliers(job, halves),
        *(_of_spread(halves) if has_mean else ()),
        *_of_contrasts(halves, contrast * images.image_scale.abs()),  # other grey values and noise alike are said
        *(_of_resolution(images, halves) if has_mean else ()),
        *(_of_power(halves, components) if has_mean else ()),
        *(_of_frames(job, halves, components, z) if has_origins else ()),
        *_of_rank(job, components),
        *_of_noise(job, images, halves),
        *_of_poses(halves),
    ]


def _of_outliers(job: FitJob, halves: HalfSetFit) -> Iterator[str]:
    used = torch.cat(job.inputs.halves)  # why the others were left out is said
    count, of_all = int(halves.outlier.cpu()[used].sum()), len(halves.outlier)
    if count > _MANY_OUTLIERS * of_all:
        yield (
            f"{count} of {of_all} images are outliers (solvarOutlier): look at some, whether they hold the particle and"
            " are as they were extracted"
        )


def _of_spread(halves: HalfSetFit) -> Iterator[str]:
    if halves.problem.contrast_variance >= 0.5 * LARGEST_VARIANCE:
        at = "at its limit" if halves.problem.contrast_variance >= 0.999 * LARGEST_VARIANCE else "impossibly large"
        yield (
            f"the spread of the contrasts is {at} ({halves.problem.contrast_variance**0.5:.2f}): the images differ in"
            " a way that the model does not describe; look at their grey values, and at solvarContrast"
        )


def _of_contrasts(halves: HalfSetFit, contrast: Tensor) -> Iterator[str]:
    used = contrast[~halves.outlier]
    negative, large = int((used <= 0).sum()), int((used > _LARGEST_CONTRAST).sum())
    if negative:
        yield f"{_no_outliers(negative)} a negative contrast, which cannot be (solvarContrast)"
    if large:
        yield f"{_no_outliers(large)} a contrast above {_LARGEST_CONTRAST:g} (solvarContrast)"
    known = halves.source.contrast
    at_limit = 0 if known is None else int((known[~halves.outlier] <= LEAST_CONTRAST).sum())
    if at_limit:
        yield f"the contrast of {counted(at_limit, 'image')} was refined down to its limit, {LEAST_CONTRAST:g}"


def _no_outliers(count: int) -> str:
    return counted(count, "image that is no outlier has", "images that are no outliers have")


def _of_resolution(images: PreparedParticles, halves: HalfSetFit) -> Iterator[str]:
    correlation, box_size, pixel_size = halves.mean.fsc, images.box_size, images.pixel_size
    if box_size < images.input_box and resolution_at(correlation, 0.143, box_size, pixel_size) <= 2 * pixel_size:
        yield (
            f"the half-sets agree on the mean up to the last shell of the working box ({2 * pixel_size:.1f} Angstrom):"
            " give a larger --box"
        )
    elif float(correlation[1:3].max()) < 0.143:
        yield "the half-sets agree on the mean in no shell: do poses and CTF belong to the images?"


def _of_power(halves: HalfSetFit, components: Components) -> Iterator[str]:
    power, of_mean = float(components.eigenvalues.sum()), float(halves.problem.mean.double().square().sum())
    if power > of_mean:
        yield (
            f"the components have {power / of_mean:.2g} times the power of the mean: that can only be if most of the"
            " molecule was subtracted from the images, or some show it dark and some bright"
        )


def _of_frames(job: FitJob, halves: HalfSetFit, components: Components, z: Tensor) -> Iterator[str]:
    if not len(components.eigenvalues) or job.left_frames or job.has_scatter:  # what such ends are was said
        return
    good = ~halves.outlier.cpu()
    mean, first = halves.mean.mean, components.eigenvolumes[0]
    found = frame_between_ends(mean, first, z.cpu()[good, 0], halves.mean.fsc, job.pixel_size)
    if found is not None:
        frame, before, after = found
        cause = "poses of two refinements are mixed in the list: refine all of its images together"
        if len(job.inputs.stack.each_image_once(torch.arange(len(z)))) < len(z):
            cause = "images are listed in several poses, by a symmetry that the molecule does not have: list each once"
        yield (
            f"the ends of component 1 show one molecule in two frames, {in_words(frame, job.pixel_size)} (they agree"
            f" by {before:.2f}, laid on each other by {after:.2f}): unless all that is left in the images moves as a"
            f" whole, {cause}"
        )


def _of_rank(job: FitJob, components: Components) -> Iterator[str]:
    kept = len(components.eigenvalues)
    if job.asked_rank is None and kept == job.tried_rank:
        tried = counted(kept, "component that was tried is", "components that were tried are")
        yield f"{'the' if kept == 1 else 'all'} {tried} real: there may be more; give a larger --rank"


def _of_noise(job: FitJob, images: PreparedParticles, halves: HalfSetFit) -> Iterator[str]:
    upper = slice(images.noise_variance.shape[1] // 2, None)  # of the shells: less of a background, and of the molecule
    ratio = (halves.source.noise_variance / images.noise_variance)[:, upper].double().median(dim=1).values.sqrt()
    other = torch.nonzero((ratio > _OTHER_NOISE) | (ratio < 1 / _OTHER_NOISE)).flatten().tolist()
    is_said = images.inner_noise is not None and bool((images.inner_noise != 1).any())
    if other and not is_said:
        yield (
            f"the noise of the images of optics group {job.inputs.stack.group_names[other[0]]}"
            + (f" and {len(other) - 1} others" if len(other) > 1 else "")
            + f" is {float(ratio[other[0]]):.2g} times as strong in the whole image as in its background, as if that"
            " was replaced: give images as they were extracted"
        )
    noise = halves.source.noise_variance[:, 1:].double()
    is_filtered = (noise < _WEAK_NOISE * noise.median(dim=1, keepdim=True).values).any(dim=1)
    names = [job.inputs.stack.group_names[group] for group in torch.nonzero(is_filtered).flatten().tolist()]
    if names:
        yield (
            f"some frequencies of the images of optics group {names[0]}"
            + (f" and {counted(len(names) - 1, 'other')}" if len(names) > 1 else "")
            + " hold hardly any noise, as if they were filtered: give images as they were extracted"
        )


def _of_poses(halves: HalfSetFit) -> Iterator[str]:
    spread = halves.pose_spread
    if spread is not None and (degrees(spread.turn_rad) > _WIDE_TURN_DEG or spread.move_px > _WIDE_MOVE_PX):
        yield (
            f"the given poses are wrong by about {degrees(spread.turn_rad):.1f} degrees and {spread.move_px:.1f} px per"
            " axis, too much for a refinement nearby: refine them globally first"
        )
