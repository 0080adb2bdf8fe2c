"""What volumes of states are made from: images less what their half-set's model explains, and where particles lie."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import ReconstructParams
from solvar_engine.contract.results import StateFolder, read_fsc
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.words import counted
from solvar_engine.data.faults import BadImages
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import read_volume
from solvar_engine.estimation.judging.grey_scales import scales_of_parts
from solvar_engine.estimation.judging.low_band import scale_evidence
from solvar_engine.estimation.judging.scale_steps import cut_at_steps
from solvar_engine.estimation.model.half_models import HalfModel, explain, scale_to_images
from solvar_engine.imaging.fourier import HalfDisk, fourier_crop_volume, ft_to_volume, nyquist_shell, volume_to_ft
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.shells import shells_to_volume
from solvar_engine.jobs.decisions import read_decisions
from solvar_engine.jobs.fit.grey_scales import names_of_pieces, parts_of, sentences_of_scales
from solvar_engine.jobs.fit.inputs import scratch_folder
from solvar_engine.jobs.fit.outputs import OutputScale
from solvar_engine.jobs.running.allocator import FreedMemory
from solvar_engine.jobs.running.devices import compute_device
from solvar_engine.jobs.running.memory import available_bytes
from solvar_engine.jobs.running.plans import require_disk
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.jobs.states.images_of_fit import refuse_images_of_others
from solvar_engine.jobs.states.latent_space import LatentSpace
from solvar_engine.jobs.states.particles import (
    check_extent,
    grey_scales_of,
    open_stack,
    prepare,
    read_run_particles,
)
from solvar_engine.jobs.states.plan import KernelDemand, plan_within
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.kernel_regression import back_project
from solvar_engine.reconstruction.windows import LocalWindows

logger = logging.getLogger(__name__)

SETUP_STEPS = 3
"""Of the progress of a reconstruction, before the first state."""

_SCALE_IMAGES = 1000  # on which the scale of the mean is measured


@dataclass(frozen=True)
class KernelProblem:
    """All that volumes of states are made from.

    Attributes
    ----------
    source : PreparedParticles
        Less what the models explain.
    stack : ParticleStack
        With the poses of the run.
    row : ndarray of int64, shape (particles of the run,)
        Row of the source for each particle of the run.
    is_outlier : ndarray of bool, shape (particles of the run,)
    rows : tuple of two Tensors, int64
        Rows of the source that belong to each half-set.
    z : ndarray, shape (rows of the source, k)
        Coordinates in the compared components.
    precision : ndarray, shape (rows of the source, k, k)
    models : tuple of two HalfModel
        At the working box of the fit.
    columns : ndarray of int
        The compared components.
    is_reproducible : bool
        Whether these are; if not, they only tell particles apart, and the model says the same at all points.
    mask : Tensor, shape (z, y, x)
    everything : tuple of two Tensors, shape (2, z, y, x)
        Back-projection of all images of each half-set, see `back_project`.
    options : SliceOptions
        How volumes are projected and images back-projected.
    seed : int
    cautions : tuple of str
        What is doubtful of the images, in sentences without full stop.
    """

    source: PreparedParticles
    stack: ParticleStack
    row: NDArray[np.int64]
    is_outlier: NDArray[np.bool_]
    rows: tuple[Tensor, Tensor]
    z: NDArray[np.float64]
    precision: NDArray[np.float64]
    models: tuple[HalfModel, HalfModel]
    columns: NDArray[np.intp]
    is_reproducible: bool
    mask: Tensor
    everything: tuple[Tensor, Tensor]
    options: SliceOptions
    seed: int
    cautions: tuple[str, ...]

    @property
    def scale(self) -> OutputScale:
        """From the units of the estimators to those of the files."""
        return OutputScale.of(self.source)


def set_up(
    params: ReconstructParams, run: RunDir, space: LatentSpace, states: int, output: Path, progress: Progress
) -> KernelProblem:
    """Read the particles, place them in latent space half by half, and take the models away from their images.

    Parameters
    ----------
    params : ReconstructParams
    run : RunDir
    space : LatentSpace
    states : int
        How many will be made, to say how long that takes.
    output : Path
        Folder of the volumes, and of the scratch file, unless the options name one.
    progress : Progress
        Goes `SETUP_STEPS` on.

    Raises
    ------
    UserError
        If the images do not fit the run, or memory or a disk is too small.
    """
    refuse_without_halves(run, space)
    known = read_run_particles(run)
    stack, row, cautions = open_stack(params, known)
    mean = read_volume(run.mean)
    check_extent(stack, mean.box_size, mean.pixel_size, run.mean)
    box_size = _box_size(params, stack, mean.box_size)
    options = SliceOptions(device=compute_device(params))
    mask = fourier_crop_volume(read_volume(run.mask).data, box_size).clamp(0, 1).to(options.device)
    windows = LocalWindows.create(box_size, mask)
    demand = KernelDemand(
        len(stack), stack.box_size, mean.box_size, windows, len(space.columns), states, torch.get_num_threads(),
        params.cache_mb, options,
    )  # fmt: skip
    plan = plan_within(demand, available_bytes())
    FreedMemory.of_reconstruction().govern(progress)
    volumes = counted(states, "volume")
    logger.info("%s of %d px from %d particles. %s", volumes, box_size, len(stack), plan.sentence())
    scratch = output if params.scratch is None else scratch_folder(params.scratch)
    require_disk(plan, output, scratch, "reconstruction")
    progress.stage("reading images")
    unused = np.ones(len(stack), dtype=bool)
    unused[row[~known.is_outlier]] = False
    source = prepare(
        params, run, stack, row, known.latents.contrast, box_size, None if plan.images_in_memory else scratch,
        BadImages(params.skip_bad_images, StateFolder(output).bad_images, unused), options.device,
    )  # fmt: skip
    first, second = (torch.from_numpy(row)[half] for half in known.halves)
    rows, is_outlier = (first, second), known.is_outlier
    if source.is_bad is not None:
        rows = (first[~source.is_bad[first]], second[~source.is_bad[second]])
        is_outlier = is_outlier | source.is_bad.numpy()[row]
    if params.particles is None:
        scale = grey_scales_of(known.star.particles, row, len(stack))
        source = source if scale is None else source.with_grey_scale(scale)
    source, models, doubts = _signed_with_half_models(params, run, space, source, stack, rows, options)
    for caution in doubts:
        logger.warning(caution)
    cautions += doubts
    progress.advance()
    progress.stage("placing particles")
    z, precision = _place_and_remove(source, rows, models, options)
    progress.advance()
    progress.stage("all particles")
    everything = (back_project(source, rows[0], options), back_project(source, rows[1], options))
    progress.advance()
    is_reproducible = bool(space.components.is_reproducible[space.columns].all())
    return KernelProblem(
        source, stack, row, is_outlier, rows, z, precision, models, space.columns, is_reproducible, mask,
        everything, options, params.seed, tuple(cautions),
    )  # fmt: skip


def _box_size(params: ReconstructParams, stack: ParticleStack, working: int) -> int:
    default = working if params.particles is None else stack.box_size
    box_size = default if params.box is None else params.box
    if not working <= box_size <= stack.box_size:
        raise UserError(
            f"--box is {box_size}, but must be from {working}, the working box of the fit, to {stack.box_size}, the box"
            " of the images."
        )
    return box_size


def _signed_with_half_models(
    params: ReconstructParams, run: RunDir, space: LatentSpace, source: PreparedParticles, stack: ParticleStack,
    rows: tuple[Tensor, Tensor], options: SliceOptions,
) -> tuple[PreparedParticles, tuple[HalfModel, HalfModel], list[str]]:
    """Give the images the sign that makes them those of the run, and each half-set its own mean and components.

    The fit has decided on sign and scale of its images; those of others show in the factors on the mean that fit them.
    Densities are positive factors times those of the run. What is doubtful of the images is said.
    """
    path, used = stack.path, torch.cat(rows)
    cautions: list[str] = []
    mask = read_volume(run.mask).data
    gain = _mean_gain(run, mask.shape[-1])
    first, second = (
        (ft_to_volume(volume_to_ft(read_volume(path).data) * gain, mask.shape[-1]) * mask).to(options.device)
        for path in (run.mean_half1, run.mean_half2)
    )
    mean, disk = 0.5 * (first + second), source.disk.prefix(nyquist_shell(mask.shape[-1]))
    known = read_decisions(run)
    source = source.with_sign(1.0 if known.sign is None else known.sign)
    if params.particles is not None:
        source, cautions = _on_one_scale(source, stack, used, disk, mean, options)
    scale = scale_to_images(source, sample_of(used, _SCALE_IMAGES), disk, mean, options)
    is_inverted = scale < 0
    if is_inverted:
        source, scale = source.with_sign(-source.sign), -scale
    first, second = scale * first, scale * second
    cautions += refuse_images_of_others(source, stack, rows, (first, second), run, known, options, params.seed)
    if is_inverted and params.particles is not None:
        logger.info("The images of %s have the other sign than those of the fit: they are inverted", path)
    elif is_inverted and known.sign is not None:
        raise UserError(
            f"The images of {path} have the other sign than when {run.path} was fitted: they have changed since; give"
            " those of the fit, or the new ones with --particles."
        )
    variances = torch.from_numpy(space.components.eigenvalue[space.columns]).to(options.device)
    models = (
        HalfModel(half_mean, scale * _half_components(run, space, half).to(options.device), variances)
        for half, half_mean in enumerate((first, second), start=1)
    )
    return source, (next(models), next(models)), cautions


def _on_one_scale(
    source: PreparedParticles, stack: ParticleStack, rows: Tensor, disk: HalfDisk, mean: Tensor, options: SliceOptions
) -> tuple[PreparedParticles, list[str]]:
    """Find the scales of parts of the set by the mean of the run, and say them; single images stay as they are."""
    part, names = parts_of(stack)
    rows = stack.each_image_once(rows)
    used = torch.cat([sample_of(rows[part[rows] == number], _SCALE_IMAGES) for number in range(len(names))])
    evidence = torch.zeros(len(source), 2, dtype=torch.float64)
    evidence[used] = scale_evidence(source, used, disk, mean, options)
    if float(evidence[used, 1].sum()) < 0:
        evidence[:, 1] *= -1  # the sign of all is found later
    piece = cut_at_steps(evidence, part, used)
    part, names = piece, names_of_pieces(piece, part, names, stack)
    found = scales_of_parts(evidence, part, used, len(names))
    if bool((found.scale == 1).all()):
        return source, []
    of_images = part[stack.each_image_once(torch.arange(len(stack)))]
    sentences = sentences_of_scales(found.scale, found.is_weak, of_images, names)
    return source.with_grey_scale(found.scale[part]), list(sentences)


def _half_components(run: RunDir, space: LatentSpace, half: int) -> Tensor:
    """What a half-set alone makes of the compared components."""
    return torch.stack([read_volume(run.half_eigenvolume(int(column) + 1, half)).data for column in space.columns])


def refuse_without_halves(run: RunDir, space: LatentSpace) -> None:
    """Refuse a run of a version that kept no half-set components: half-maps that share them agree too well.

    Raises
    ------
    UserError
    """
    paths = [run.half_eigenvolume(int(column) + 1, half) for column in space.columns for half in (1, 2)]
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path} does not exist, as in runs of earlier versions, and half-maps cannot be made without it: fit"
                " again, or take --method linear."
            )


def _mean_gain(run: RunDir, box_size: int) -> Tensor:
    """Wiener's gain of one half-map of the mean, from the correlation of both."""
    correlation = torch.from_numpy(read_fsc(run.fsc)["fsc_mean"]).clamp(0, 1).float()
    return shells_to_volume(correlation, box_size)


def _place_and_remove(
    source: PreparedParticles,
    rows: tuple[Tensor, Tensor],
    models: tuple[HalfModel, HalfModel],
    options: SliceOptions,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latent coordinates of each half-set under its own model, whose projections are taken away from the images."""
    rank = models[0].components.shape[0]
    z, precision = np.zeros((len(source), rank)), np.zeros((len(source), rank, rank))
    disk = source.disk.prefix(nyquist_shell(models[0].mean.shape[-1]))
    for half, model in zip(rows, models, strict=True):
        for explained in explain(source, half, disk, model, options):
            z[explained.index] = explained.z.cpu().numpy()
            precision[explained.index] = explained.precision.cpu().numpy()
            source.subtract(explained.index, explained.images)
    return z, precision
