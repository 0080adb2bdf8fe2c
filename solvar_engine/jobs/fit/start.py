"""First stages of a fit: the images are read, and a first mean settles their sign and the masks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.data.faults import BadImages
from solvar_engine.data.particles import OF_HEADERS
from solvar_engine.data.pixel_faults import are_mostly_cut, sentences_of
from solvar_engine.data.preprocess import prepare_particles
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.distributed.world import Share
from solvar_engine.estimation.alternation.means import HalfSetEquations, half_set_equations
from solvar_engine.estimation.alternation.problem import Masks
from solvar_engine.estimation.judging.given_poses import mean_and_error
from solvar_engine.imaging.masks import BALL, automatic_mask, is_off_centre, share_of_density, sphere_mask
from solvar_engine.imaging.symmetry import asymmetric_unit, symmetry_operators
from solvar_engine.jobs.decisions import ImageDecisions, write_decisions
from solvar_engine.jobs.fit.conventions import better_convention
from solvar_engine.jobs.fit.families import with_equal_noise, with_equal_pixels
from solvar_engine.jobs.fit.first_mean import (
    aberration_cautions,
    evidence_of_poses,
    mask_cautions,
    pose_cautions,
    symmetry_cautions,
    unresolved_mean,
)
from solvar_engine.jobs.fit.inputs import focus, refuse_small_half, scratch_folder, with_families
from solvar_engine.jobs.fit.job import READING_STEPS, FitJob
from solvar_engine.jobs.fit.plan import FitDemand, plan_gpu, plan_within
from solvar_engine.jobs.pose_doubts import (
    AS_IN_HEADERS,
    are_foreign,
    are_of_accuracy,
    gain_of_other_origins,
    may_be_of_another_convention,
    with_frames,
)
from solvar_engine.jobs.running.allocator import FreedMemory
from solvar_engine.jobs.running.devices import device_name, usable_memory
from solvar_engine.jobs.running.memory import available_bytes
from solvar_engine.jobs.running.plans import require_disk
from solvar_engine.reconstruction.mean import ONE_SIDED, MeanEstimate, density_skewness, estimate_mean, one_sidedness

logger = logging.getLogger(__name__)

_ALL_DENSITY = 0.98  # that a mask holds
_LEAST_EDGE_PX, _EDGE_ANGSTROM = 2.0, 6.0  # half the width of the edges of asymmetric units
_RESOLVED = 5.0  # standard deviations of what half-maps of noise agree by


@dataclass(frozen=True)
class SignAndMask:
    """What the first mean settles.

    Attributes
    ----------
    sign : float
        -1 if the molecule is dark in the images, else +1.
    mask : Tensor, shape (z, y, x)
        That is given, or made around the molecule.
    of_mean : Tensor, shape (z, y, x)
        The same, or more where the one that is given leaves density out.
    unit : Tensor or None, shape (z, y, x)
        Soft mask of an asymmetric unit of a symmetric molecule; None without symmetry, or with a focus mask.
    """

    sign: float
    mask: Tensor
    of_mean: Tensor
    unit: Tensor | None = None


def demand_of(job: FitJob) -> FitDemand:
    """What the resources of the fit depend on."""
    return FitDemand(
        len(job.inputs.stack),
        job.inputs.box_size,
        job.tried_rank,
        job.params.oversampling,
        torch.get_num_threads(),
        job.params.cache_mb,
        job.params.projector,
        job.pose_rounds,
        job.params.pose_schedule,
        job.projector_options.device,
        job.world.size,
        job.world.local_size,
        solver=job.params.solver,
        fits=2 if job.params.still_frame else 1,
        images=len(job.inputs.stack.first_of_image().unique()) if job.world.size == 1 else None,
    )


def read_images(job: FitJob) -> PreparedParticles:
    """Say what the fit will need, and bring all images to the working box.

    Raises
    ------
    UserError
        If memory or a disk is too small, or an image cannot be used.
    """
    params, stack, box_size = job.params, job.inputs.stack, job.inputs.box_size
    count, demand = len(stack), demand_of(job)
    device, on_gpu, largest_batch = job.projector_options.device, False, None
    if torch.device(device).type != "cpu":
        gpu = plan_gpu(demand, usable_memory(device, params.gpu_memory_gb))
        on_gpu, largest_batch = gpu.images_on_gpu, gpu.largest_batch
        demand = replace(demand, images_on_gpu=on_gpu)
        place = "on the GPU" if on_gpu else "off the GPU"
        logger.info("Preprocessed images stay %s, at most %d are visited at a time", place, largest_batch)
    logger.info("Computing on %s", device_name(device))
    plan = plan_within(demand, available_bytes() / job.world.local_size)
    FreedMemory.of_fit(plan.memory_bytes).govern(job.progress)
    logger.info(
        "%s of %d px, %.3f Angstrom/px, working box %d px",
        stack.count_in_words,
        stack.box_size,
        stack.pixel_size,
        box_size,
    )
    logger.info(plan.sentence())
    scratch = job.run.checkpoint if params.scratch is None else scratch_folder(params.scratch)
    if job.world.is_first:
        require_disk(plan.for_processes(job.world.local_size), job.run.path, scratch)
    if job.world.size > 1:
        logger.info("%d processes share the images, with so much memory each", job.world.size)
    job.progress.stage("reading images")
    first = job.progress.step
    images = prepare_particles(
        stack,
        box_size,
        scratch=None if plan.images_in_memory else scratch,
        progress=lambda done, total: job.progress.to(first + done * READING_STEPS // total),
        bad_images=BadImages(params.skip_bad_images, job.run.bad_images if job.world.is_first else None),
        share=Share.of(job.world, count, job.inputs.halves),
        device=device,
        kept_on_device=on_gpu or torch.device(device).type == "cpu",
    )
    if sentences := list(sentences_of(images, stack.path)):
        job.add_cautions(sentences)
    return replace(images, largest_batch=largest_batch)


def with_independent_halves(job: FitJob, source: PreparedParticles) -> tuple[FitJob, PreparedParticles]:
    """Same job and images, with images of equal pixels or noise in one half-set, and those that cannot be used in none.

    Raises
    ------
    UserError
        If hardly any are left in a half-set.
    """
    inputs = job.inputs
    families = inputs.families
    if source.digest is not None:
        families = with_equal_pixels(families, source.digest.numpy())
    if source.signature is not None:
        families, source = with_equal_noise(families, source.signature), replace(source, signature=None)
    inputs = with_families(inputs, families, job.params.seed)
    if source.is_bad is not None:
        first, second = (half[~source.is_bad[half]] for half in inputs.halves)
        refuse_small_half(str(inputs.stack.path), (first, second))
        inputs = replace(inputs, halves=(first, second))
    if source.share is not None and not source.share.suits(inputs.halves):
        world = replace(job.world, team=None)
        job, source = replace(job, world=world), replace(source, share=replace(source.share, world=world))
    return replace(job, inputs=inputs), source


def settle_sign_and_masks(
    job: FitJob, source: PreparedParticles
) -> tuple[PreparedParticles, Masks, HalfSetEquations | None]:
    """Find out from a first mean whether the molecule is dark, and make a mask if none is given.

    What that mean makes doubtful is said.

    Returns
    -------
    source : PreparedParticles
        With the sign.
    masks : Masks
    equations : tuple of two NormalEquations or None
        Of the half-sets, with the sign, unless an earlier run has done this stage.

    Raises
    ------
    UserError
        If the molecule does not stand out, or a mask holds none of it.
    """
    settled = job.checkpoint.load("start", SignAndMask)
    equations = None
    if settled is None:
        job.progress.stage("first mean")
        first, second = half_set_equations(source, job.inputs.halves, job.projector_options)
        mean = estimate_mean(first, second, world=job.world)
        is_resolved = job.world.agreed(mean.significance() > _RESOLVED)
        doubts = aberration_cautions(job, source)
        doubts_ctf = bool(doubts)
        shown = _mean_without_even_aberrations(job, source) if doubts else mean.mean  # wrong ones may turn its sign
        sign = job.world.agreed(_sign(job.params.invert_contrast, shown if is_resolved else None))
        if is_resolved and not job.has_opposites and sign * one_sidedness(shown) < -ONE_SIDED:
            doubts = [*doubts, _other_sign(job.params.invert_contrast)]
        mean, equations = mean.scaled(sign), (first.scaled(sign), second.scaled(sign))
        decisions, cautions = _examined(job, source.with_sign(sign), mean, is_resolved, doubts_ctf)
        cautions = [*doubts, *cautions]
        given, resolved = job.inputs.mask, mean.mean if is_resolved else None
        mask = (_made_mask(resolved, job) if given is None else given).to(mean.mean.device)
        of_mean = mask if given is None or resolved is None else _around_all(resolved, mask, job)
        unit = None if resolved is None else _asymmetric_unit(job, resolved * of_mean)
        settled = job.world.agreed(SignAndMask(sign, mask, of_mean, unit))
        if job.world.is_first:
            write_decisions(job.run, decisions)
        job.add_cautions(cautions, come_first=True)
        job.checkpoint.save("start", settled)
    job.progress.advance()
    return source.with_sign(settled.sign), _masks(job, settled), equations


def _examined(
    job: FitJob, source: PreparedParticles, mean: MeanEstimate, is_resolved: bool, doubts_ctf: bool
) -> tuple[ImageDecisions, list[str]]:
    """What is decided, and what the mean makes doubtful; not what follows from wrong aberrations, if those are doubted.

    Raises
    ------
    UserError
        If the images of one half-set are those of the other turned in sign.
    """
    if job.has_opposites:  # that is said
        return ImageDecisions(source.sign, source.grey_unit), []
    if not is_resolved and replace(mean, fsc=-mean.fsc).significance() > _RESOLVED:
        raise UserError(
            f"The half-maps of the mean of {job.params.particles} are the opposite of each other: the molecule is dark"
            " in the images of one half-set (rlnRandomSubset) and bright in the others; multiply those of one by -1."
        )
    if not is_resolved:
        doubts = [unresolved_mean(job), *(one.sentence for one in job.left_frames)]
        if are_mostly_cut(source):  # which is said, and is the cause
            logger.info("The half-maps of the mean agree no better than noise")
            doubts = []
        return ImageDecisions(source.sign, source.grey_unit), doubts
    evidence = evidence_of_poses(job, source, mean)
    gain, error = mean_and_error(evidence.orientation_gain)
    logger.info("Poses: log-likelihood gain %.2f +- %.2f an image over orientations of other images", gain, error)
    convention = None
    if job.world.agreed(may_be_of_another_convention(evidence)):
        convention = better_convention(source, job.inputs.halves, job.projector_options)
    of_poses = pose_cautions(evidence, job.inputs.stack, convention, asks_readings=not doubts_ctf)
    of_poses = _beside_headers(job, _beside_motions(job, mean.mean, of_poses))
    cautions = [*symmetry_cautions(job, source, mean), *of_poses, *mask_cautions(job, mean)]
    of_origins = 0.0
    if not job.params.refine_poses:
        of_origins = gain_of_other_origins(of_poses, evidence, job.inputs.stack, job.has_scatter)
    return ImageDecisions(source.sign, source.grey_unit, gain, error, are_foreign(evidence), of_origins), cautions


def _beside_headers(job: FitJob, doubts: list[str]) -> list[str]:
    """Doubts about poses but for what answers the caution that headers have another pixel size than the list."""
    told = [one for one in job.inputs.stack.cautions if one.startswith(OF_HEADERS)]
    answers = [one for one in doubts if told and AS_IN_HEADERS in one]
    if answers:
        job.answer_cautions(told, answers)
    return [one for one in doubts if one not in answers]


def _beside_motions(job: FitJob, mean: Tensor, doubts: list[str]) -> list[str]:
    """Doubts about poses, or frames that were left; only logged is what is a motion, or what the fit will refine.

    That is one of images all over the list, of a part of a molecule: a whole one is at the centre, where it was put.
    """
    said = with_frames(doubts, [one.sentence for one in job.left_frames])
    is_part = job.world.agreed(is_off_centre(mean.cpu(), job.pixel_size))
    of_motion = {one.sentence for one in job.left_frames if one.is_mixed and is_part}
    mended = {one for one in said if job.params.refine_poses and are_of_accuracy(one)}
    for one in said:
        if one in of_motion | mended:
            logger.info(one)
    return [one for one in said if one not in of_motion | mended]


def _asymmetric_unit(job: FitJob, mean: Tensor) -> Tensor | None:
    """Where motions are sought in a symmetric molecule, unless a focus mask says that."""
    operators = symmetry_operators(job.params.symmetry)
    if len(operators) == 1 or job.inputs.focus_mask is not None:
        return None
    return asymmetric_unit(mean, operators, max(_LEAST_EDGE_PX, _EDGE_ANGSTROM / job.pixel_size)).to(mean.device)


def _masks(job: FitJob, settled: SignAndMask) -> Masks:
    """Add the mask of the factors to that of the mean, and say so if it is another one."""
    path, focus_mask, mask = job.params.focus_mask, job.inputs.focus_mask, settled.mask
    of_mean = mask if torch.equal(settled.of_mean, mask) else settled.of_mean
    if settled.unit is not None:
        logger.info("Variability is sought in one asymmetric unit of %s, in each position", job.params.symmetry)
        return Masks(of_mean, mask * settled.unit.to(mask.device))
    focus_mask = None if focus_mask is None else focus_mask.to(mask.device)
    factors = focus(mask, focus_mask, path)
    if path is not None:
        share = float(factors.sum() / mask.sum())
        logger.info("Variability is sought inside the focus mask %s only: %.1f %% of the mask", path, 100 * share)
    return Masks(of_mean, factors)


def _mean_without_even_aberrations(job: FitJob, source: PreparedParticles) -> Tensor:
    without = source.with_ctf(replace(source.ctf, even_zernike=None))
    return estimate_mean(*half_set_equations(without, job.inputs.halves, job.projector_options), world=job.world).mean


def _other_sign(choice: str) -> str:
    found = "dark" if choice == "no" else "bright"
    return f"The molecule seems to be {found} in the images, unlike --invert-contrast {choice} says: leave that out"


def _sign(choice: str, mean: Tensor | None) -> float:
    if choice != "auto":
        logger.info("Images are taken as they are" if choice == "no" else "Images are inverted, as asked for")
        return 1.0 if choice == "no" else -1.0
    if mean is None:
        logger.info("Images are taken as they are: the mean does not tell whether the molecule is dark in them")
        return 1.0
    skewness = density_skewness(mean)
    if skewness < 0:
        logger.info("The molecule is dark in the images (skewness of the mean %.3g): they are inverted", skewness)
        return -1.0
    logger.info("The molecule is bright in the images (skewness of the mean %.3g)", skewness)
    return 1.0


def _around_all(mean: Tensor, mask: Tensor, job: FitJob) -> Tensor:
    """The mask that is given, grown to hold all density of the mean if it leaves some out.

    What is left out of the mean is in all images, at other places in each: factors inside the mask take it up.
    """
    share = share_of_density(mean, mask, job.pixel_size)
    if share > _ALL_DENSITY:
        return mask
    logger.info(
        "The mask %s holds %.0f %% of the density: the mean is kept whole, variability is sought inside the mask only",
        job.params.mask,
        100 * share,
    )
    return torch.maximum(mask, _made_mask(mean, job).to(mask))


def _made_mask(mean: Tensor | None, job: FitJob) -> Tensor:
    """Around the density of the mean; without any, a ball that leaves the edges of the box out."""
    box_size = job.inputs.box_size
    if mean is None:
        return sphere_mask(box_size, BALL * box_size, 0.05 * box_size)
    try:
        mask = automatic_mask(mean, job.pixel_size)
    except ValueError as error:
        raise UserError(f"{job.params.particles}: {error}.") from error
    logger.info("Automatic mask: %.1f %% of the box", 100 * float(mask.mean()))
    return mask
