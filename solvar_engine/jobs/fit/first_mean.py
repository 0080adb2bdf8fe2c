"""What the first mean says of poses and masks before the long work begins: cautions, in words."""

from __future__ import annotations

from torch import Tensor

from solvar_engine.contract.errors import UserError
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.means import half_set_equations
from solvar_engine.estimation.judging.given_poses import PoseEvidence, mean_and_error, pose_evidence
from solvar_engine.imaging.masks import (
    BALL,
    distance_of_centres,
    grown,
    largest_turned_share,
    share_of_density,
    sphere_mask,
)
from solvar_engine.imaging.shells import fsc
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import BatchSource
from solvar_engine.jobs.fit.conventions import gain_without_even_aberrations
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.pose_doubts import (
    OF_ORIENTATIONS,
    OTHER_CONVENTION,
    SIGNIFICANT,
    are_foreign,
    comparison,
    explain_little,
    foreign_parts,
    reading_doubts,
)
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import MeanEstimate, estimate_mean, filtered_halves

_WRONG_MASK, _SMALL_MASK, _EMPTY_FOCUS = 0.1, 0.5, 0.01  # of the density
_TURNED, _MOSTLY_HELD = 0.05, 0.8  # of the density, that a mask holds more once it is mirrored back, and holds then
_NEAR_PX, _NEAR_ANGSTROM = 2.0, 8.0  # around a mask: tight ones, at a high level of the density, leave that much out
_BESIDE, _BESIDE_IN_BOTH = 0.05, 0.02  # of the density, and of what the half-maps share
_WHOLE = 0.47  # radius over the box
_RESOLVED_SHELL = 0.3  # correlation of half-maps, of shells that tell of symmetry
_SYMMETRIC = 0.9  # correlation of a mean with that of all equal orientations: 0.99 and more if it is, up to 0.7 if not


def unresolved_mean(job: FitJob) -> str:
    """Say that the mean is nothing but noise, and what stands in for what is usually made from it."""
    instead = ""
    if job.inputs.mask is None:
        radius = BALL * job.inputs.box_size * job.pixel_size
        instead = f"; a ball of {radius:.0f} Angstrom about the centre is the mask"
    found = f"The half-maps of the mean of {job.params.particles} agree no better than noise"
    return (
        f"{found}: the images are too few or too noisy, they hold no particle, their mean was subtracted, half of them"
        f" have the other sign, or the poses do not belong to them{instead}"
    )


def mask_cautions(job: FitJob, mean: MeanEstimate) -> list[str]:
    """Compare the masks of the user with the density of the mean.

    Raises
    ------
    UserError
        If a mask leaves nearly all of it out.
    """
    cautions, mask, pixel_size, density = [], job.inputs.mask, job.pixel_size, mean.mean.cpu()
    if mask is not None:
        share = share_of_density(density, mask, pixel_size)
        found = f"The mask {job.params.mask} holds {100 * share:.0f} % of the density of the mean"
        if share < _WRONG_MASK:
            raise UserError(f"{found}: is it of another molecule, or at another place? Give one around this molecule.")
        beside = _share_beside(mean, mask, pixel_size)
        if share < _SMALL_MASK or beside > _BESIDE:
            apart = distance_of_centres(density, mask, pixel_size)
            far = f", {100 * beside:.0f} % are far outside it" if beside > _BESIDE else ""
            cautions.append(
                f"{found}{far} (the centres are {apart:.0f} Angstrom apart): motions outside of it are not seen; unless"
                " that is meant, give a mask around all of the molecule, or none"
            )
        else:
            turned = largest_turned_share(density, mask, pixel_size)
            if turned > max(share + _TURNED, _MOSTLY_HELD):
                cautions.append(
                    f"{found}, and {100 * turned:.0f} % if it is mirrored or its axes are exchanged: is it of a map of"
                    " the other hand? Give one of this molecule as it is in the images"
                )
    if job.inputs.focus_mask is not None:
        focus = job.inputs.focus_mask if mask is None else mask * job.inputs.focus_mask
        share = share_of_density(density, focus, pixel_size)
        if share < _EMPTY_FOCUS:
            cautions.append(
                f"The focus mask {job.params.focus_mask} holds {100 * share:.1f} % of the density of the mean: is it at"
                " the right place?"
            )
    return cautions


def _share_beside(mean: MeanEstimate, mask: Tensor, pixel_size: float) -> float:
    """Part of the density that lies farther from a mask than a tight one would leave it, if both half-maps have it."""
    near = grown(mask.cpu(), max(_NEAR_PX, _NEAR_ANGSTROM / pixel_size))
    first, second = (half.cpu() for half in filtered_halves(mean))
    ball = sphere_mask(len(near), _WHOLE * len(near), 0.0)
    common = first.double() * second.double() * ball
    if float((common * (1 - near)).sum()) < _BESIDE_IN_BOTH * float(common.sum()):
        return 0.0
    return 1 - share_of_density(mean.mean.cpu(), near, pixel_size)


def agreement_with_symmetry(
    source: BatchSource, own: tuple[Tensor, Tensor], options: SliceOptions, mean: MeanEstimate
) -> float | None:
    """Correlation of the mean without symmetry, of images at one orientation each, with the symmetric one.

    Each is compared with the other across half-sets, and so are their own half-maps, which divides their noise out:
    sqrt(FSC(A1, S2) FSC(A2, S1) / (FSC(A1, A2) FSC(S1, S2))), averaged over the shells that A resolves.

    Parameters
    ----------
    source : BatchSource
    own : tuple of two Tensors, int64
        One row of each image, of each half-set.
    options : SliceOptions
    mean : MeanEstimate
        Of all rows.

    Returns
    -------
    float or None
        1 of a symmetric molecule; None if the mean without symmetry is not resolved.
    """
    alone = estimate_mean(*half_set_equations(source, own, options), world=source.world)
    ball = sphere_mask(source.box_size, BALL * source.box_size).to(mean.half1.device)
    pairs = (alone.half1, mean.half2), (mean.half1, alone.half2), (alone.half1, alone.half2), (mean.half1, mean.half2)
    crossed, back, of_alone, of_mean = (fsc(first, second, ball)[2:].clamp_min(0) for first, second in pairs)
    is_resolved = (of_alone > _RESOLVED_SHELL) & (of_mean > _RESOLVED_SHELL)
    if not bool(is_resolved.any()):
        return None
    squared = crossed * back / (of_alone * of_mean)
    return float(squared[is_resolved].sqrt().mean())


def symmetry_cautions(job: FitJob, source: PreparedParticles, mean: MeanEstimate) -> list[str]:
    """Say if the mean does not have the symmetry that the rows of each image were made by."""
    if len(symmetry_operators(job.params.symmetry)) == 1:
        return []
    first, second = (job.inputs.stack.each_image_once(half) for half in job.inputs.halves)
    agreement = agreement_with_symmetry(source, (first, second), job.projector_options, mean)
    if agreement is None or agreement > _SYMMETRIC:
        return []
    return [
        f"The molecule in {job.inputs.stack.path} does not have the symmetry {job.params.symmetry}: its mean without it"
        f" agrees with the symmetric one by {agreement:.2f} only (correlation); leave --symmetry out, or give the one"
        " that the refinement imposed, with axes as in RELION"
    ]


def evidence_of_poses(job: FitJob, source: PreparedParticles, mean: MeanEstimate) -> PoseEvidence:
    """Ask the images whether the poses are theirs; the mean is that of all that they show, whatever a mask holds."""
    mask = sphere_mask(source.box_size, BALL * source.box_size)
    first, second = (half * mask.to(half.device) for half in filtered_halves(mean))
    one, two = (job.inputs.stack.each_image_once(half) for half in job.inputs.halves)
    return pose_evidence(source, (one, two), (first, second), job.projector_options, job.params.seed)


def aberration_cautions(job: FitJob, source: PreparedParticles) -> list[str]:
    """Say if the images rather are without the even aberrations of their list, which may turn the sign of the mean."""
    if source.ctf.even_zernike is None:
        return []
    found = gain_without_even_aberrations(source, job.inputs.halves, job.projector_options)
    if found is None:
        return []
    gain, error = found
    return [
        f"The images of {job.inputs.stack.path} agree better without even aberrations (log-likelihood gain {gain:.2f}"
        f" +- {error:.2f} an image): check rlnEvenZernike, that it is of these images"
    ]


def pose_cautions(
    evidence: PoseEvidence,
    stack: ParticleStack,
    convention: tuple[str, float, float] | None = None,
    asks_readings: bool = True,
) -> list[str]:
    """Say which poses, if any, do not belong to their images, or how the list is to be read instead, if that is asked.

    The `convention` is as of `better_convention`.
    """
    gain, error = mean_and_error(evidence.orientation_gain)
    check = "check that the list is of these stacks, in their order, and that its angles are of RELION's convention"
    if convention is not None:
        change, over_own, error_of_it = convention
        return [
            f"{OF_ORIENTATIONS}{stack.path} {OTHER_CONVENTION}: its images agree much better with"
            f" {change} (log-likelihood gain {over_own:.2f} +- {error_of_it:.2f} an image): {check}"
        ]
    if not gain > SIGNIFICANT * error:
        found = f"{OF_ORIENTATIONS}{stack.path} do not seem to belong to its images ({comparison(gain, error)})"
        check = f"{check}; the mean of very many different states can look like this, too"
        if not are_foreign(evidence):
            found = (
                f"The images of {stack.path} are too few or too noisy to tell whether the orientations are theirs"
                f" ({comparison(gain, error)})"
            )
        return [f"{found}: {check}"]
    foreign = foreign_parts(evidence, stack)
    if foreign:
        return [
            f"The orientations of {foreign} in {stack.path} do not seem to belong to their images, unlike those of"
            f" the others ({comparison(gain, error)} in all): check that their rows are of these stacks, in their"
            " order, and that their images are not mirrored"
        ]
    if explain_little(evidence):  # origins seem wrong, too, where orientations are
        found = f"{comparison(gain, error)}, where the molecule in any has {float(evidence.signal.mean()):.2f}"
        return [
            f"{OF_ORIENTATIONS}{stack.path} explain much less of its images than right ones do, unless these show"
            f" very many different states ({found}): {check}"
        ]
    return reading_doubts(evidence, stack) if asks_readings else []
