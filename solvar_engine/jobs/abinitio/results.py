"""The result files of `abinitio`: those of a fit that kept no component, at the poses that were found."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.abinitio.structure import Structure
from solvar_engine.contract.files import write_json
from solvar_engine.contract.results import (
    CLASS_NUMBER,
    CONTRAST,
    CONTRAST_STD,
    HALF_SET,
    LOG_LIKELIHOOD,
    OUTLIER,
    RANDOM_SUBSET,
    ROTATION_STD,
    SHIFT_STD,
    FoundStructure,
    write_structure,
)
from solvar_engine.contract.run import RunDir, read_record
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.words import counted
from solvar_engine.data.cryosparc.results import write_subset
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.problem import Masks
from solvar_engine.estimation.judging.components import Components
from solvar_engine.imaging.shells import resolution_at
from solvar_engine.jobs.abinitio.inputs import AbinitioInputs
from solvar_engine.jobs.abinitio.maps import ClassMap, ImageScores, reconstruct_classes, score_images
from solvar_engine.jobs.decisions import add_cautions, read_cautions, with_cautions
from solvar_engine.jobs.fit.outputs import (
    OutputScale,
    write_components,
    write_cryosparc,
    write_latent_coordinates,
    write_mean,
    write_spectra,
)
from solvar_engine.projectors.options import SliceOptions

_NOTABLE_HOLE_DEG = 15.0  # of directions without views; a few degrees are between those of few particles

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """A search for a structure that came to its end.

    Attributes
    ----------
    run : RunDir
    inputs : AbinitioInputs
    images : PreparedParticles
        As they were read.
    structure : Structure
    options : SliceOptions
    """

    run: RunDir
    inputs: AbinitioInputs
    images: PreparedParticles
    structure: Structure
    options: SliceOptions

    @property
    def half_set(self) -> Tensor:
        """Half-set of each particle, 1 or 2."""
        number = torch.ones(len(self.images), dtype=torch.int64)
        number[self.inputs.halves[1]] = 2
        return number

    @property
    def is_usable(self) -> Tensor:
        """Images with content, shape (n,), bool."""
        return usable(self.images)


def usable(images: PreparedParticles) -> Tensor:
    """Tell which images (n,) have content; bool."""
    return torch.ones(len(images), dtype=torch.bool) if images.is_bad is None else ~images.is_bad


def write_search(search: Search) -> str:
    """Write what a search came to, volumes only if there is a structure; returns what came out in a sentence."""
    record = read_record(search.run)
    decided = {"sign": float(search.structure.contrast_sign), "grey_unit": search.images.grey_unit}
    write_json(search.run.params, {**record, "decided": decided})
    write_components(
        search.run, Components.none(search.images.box_size), torch.zeros(0), [], OutputScale.of(search.images)
    )
    summary = _write_structure(search) if search.structure.verdict.found else _write_failure(search)
    logger.info(summary)
    return with_cautions(summary, read_cautions(search.run))


def _write_failure(search: Search) -> str:
    """Write what is known of the images: no volume, and none of the poses that a failed search ends with."""
    structure, count = search.structure, len(search.images)
    found = _found(search, [])
    write_structure(search.run, found)
    # where the map says nothing to the images, their poses are chance, and so are the views that are missing
    is_hole = structure.verdict.is_preferred and found.hole_deg > _NOTABLE_HOLE_DEG
    views = found.views() if is_hole else ""
    reason = f"{found.evidence()}: that is too little; the images are too few or too noisy, or do not show one molecule"
    if views:
        reason = f"{found.evidence()}, but {views}: add particles that are seen from there"
    add_cautions(search.run, [f"no structure was found: {reason}"])
    columns: dict[str, Tensor] = {
        CONTRAST: torch.ones(count, dtype=torch.float64),
        LOG_LIKELIHOOD: structure.log_likelihood,
        OUTLIER: (~search.is_usable).long(),
        HALF_SET: torch.where(search.is_usable, search.half_set, 0),
    }
    _write_particles(search, columns, torch.ones(count))
    return f"no structure in {counted(count, 'particle')}, and no volume is written"


def _write_structure(search: Search) -> str:
    run, structure, inputs = search.run, search.structure, search.inputs
    is_used = search.is_usable & ~structure.is_junk
    source = search.images.with_sign(float(structure.contrast_sign)).with_pose(structure.pose)
    maps = reconstruct_classes(source, inputs.halves, structure, is_used, inputs.group, search.options)
    made = {number: found for number, found in enumerate(maps, start=1) if found is not None}
    scale = OutputScale.of(source)
    largest = max(made.values(), key=lambda found: len(found.members))
    write_mean(run, largest.mean, Masks(largest.mask, largest.mask), scale)
    unknown = torch.full_like(largest.mean.fsc, torch.nan)
    write_spectra(run, source, inputs.stack, largest.mean.fsc.cpu(), unknown, scale)
    scores = score_images(source, list(made.values()), search.options)
    columns = _columns(search, is_used, scores)
    _write_particles(search, columns, columns[CONTRAST])
    if len(maps) > 1:
        _write_classes(search, made, scale)
    found = _found(search, maps)
    write_structure(run, found)
    _add_cautions(search, made, found)
    return _summary(search, is_used, found)


def _columns(search: Search, is_used: Tensor, scores: ImageScores) -> dict[str, Tensor]:
    """What is known of each image, as columns of the STAR file."""
    structure = search.structure
    known = 1 / search.images.image_scale.abs()
    known = known / (known * scores.contrast)[is_used].mean()
    columns = {
        CONTRAST: (known * scores.contrast).double(),
        LOG_LIKELIHOOD: structure.log_likelihood,
        OUTLIER: (~is_used).long(),
        CONTRAST_STD: (known * scores.contrast_std).double(),
        HALF_SET: torch.where(search.is_usable, search.half_set, 0),
        RANDOM_SUBSET: search.half_set,
        ROTATION_STD: structure.rotation_std_deg.double(),
        SHIFT_STD: scores.shift_std,
    }
    if len(structure.populations) > 1:
        columns[CLASS_NUMBER] = structure.class_of + 1
    return columns


def _write_particles(search: Search, columns: Mapping[str, Tensor], contrast: Tensor) -> None:
    """Write particles.star, with poses if there is a structure, and latents.npz without any coordinate."""
    count = len(search.images)
    pose = search.structure.pose if search.structure.verdict.found else None
    search.inputs.stack.write_star(search.run.particles, columns, pose)
    nothing = torch.zeros(count, 0)
    write_latent_coordinates(
        search.run, nothing, nothing[:, :, None].expand(count, 0, 0), contrast, OutputScale.of(search.images)
    )
    if pose is not None:
        write_cryosparc(search.run, search.inputs.stack, pose, True, columns[RANDOM_SUBSET])


def _write_classes(search: Search, maps: Mapping[int, ClassMap], scale: OutputScale) -> None:
    """Write the volume of each class, its half-maps and its particles."""
    run, star = search.run, StarFile.read(search.run.particles)
    for number, found in maps.items():
        scale.write(run.class_volume(number), found.mean.mean * found.mask)
        scale.write(run.class_half(number, 1), found.mean.half1)
        scale.write(run.class_half(number, 2), found.mean.half2)
        rows = star.particles.only(found.members.tolist())
        star.replace(star.particles, rows).write(run.class_particles(number))
        write_subset(run.particles_cs, found.members.numpy(), run.class_particles(number).with_suffix(".cs"))


def _found(search: Search, maps: list[ClassMap | None]) -> FoundStructure:
    """What the record says."""
    verdict, images = search.structure.verdict, search.images
    rot, tilt = None, None
    if verdict.missing_views is not None:
        x, y, z = verdict.missing_views.tolist()
        rot, tilt = math.degrees(math.atan2(y, x)), math.degrees(math.acos(max(-1.0, min(1.0, z))))
    return FoundStructure(
        verdict.found,
        verdict.gain,
        verdict.error,
        verdict.hole_deg,
        rot,
        tilt,
        search.structure.shift_std_px * images.pixel_size,
        tuple(search.structure.populations.tolist()),
        tuple(
            None if found is None else resolution_at(found.mean.fsc, 0.143, images.box_size, images.pixel_size)
            for found in maps
        ),
    )


def _add_cautions(search: Search, maps: Mapping[int, ClassMap], found: FoundStructure) -> None:
    views = found.views() if found.hole_deg > _NOTABLE_HOLE_DEG else ""
    cautions = [f"{views}: what the volume looks like along them is not known"] if views else []
    cautions += [
        f"class {number} has hardly any particles, and no volume: give fewer --classes"
        for number in range(1, len(search.structure.populations) + 1)
        if number not in maps
    ]
    add_cautions(search.run, cautions)


def _summary(search: Search, is_used: Tensor, found: FoundStructure) -> str:
    """What came out, in words."""
    outliers = int((~is_used).sum())
    left_out = f", {counted(outliers, 'of them an outlier', 'of them outliers')}" if outliers else ""
    uncertainty = float(search.structure.rotation_std_deg[is_used].median())
    parts = [
        f"class {number} with {100 * share:.0f} % of the particles"
        + ("" if resolution is None else f" at {resolution:.1f} Angstrom")
        for number, (share, resolution) in enumerate(zip(found.populations, found.resolutions, strict=True), start=1)
    ]
    what = f"mean at {found.resolutions[0]:.1f} Angstrom" if len(parts) == 1 else ", ".join(parts)
    return (
        f"{counted(len(is_used), 'particle')}{left_out}, {what}, orientations known to about {uncertainty:.1f} degrees;"
        " half-maps share the poses, which flatters the resolution"
    )
