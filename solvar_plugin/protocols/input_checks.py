"""What is wrong with the input of a protocol: sentences for the form, before the long work begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from solvar_engine.contract.errors import UserError
from solvar_plugin.convert.locations import MRC_SUFFIXES, file_name, is_mrc
from solvar_plugin.convert.optics import are_premultiplied, lost_groups, read_optics

_SAMPLING_TOLERANCE = 0.01
_EXTENT_TOLERANCE = 0.02


def particle_problems(particles: Any, needs_poses: bool = True, original: Path | None = None) -> list[str]:
    """Return what keeps a set of particles from being analysed, for want of poses too if they are needed.

    `original` is the STAR file that knows the optics groups, if it was given and is there.
    """
    if not particles.getSize():
        return ["The set of particles is empty: choose one with particles."]
    problems = []
    if needs_poses and not particles.hasAlignmentProj():
        problems.append(
            "The particles have no orientations (projection alignment): use the output of a 3-D refinement."
        )
    if not particles.hasCTF():
        problems.append("The particles have no CTF: estimate it and assign it to the particles first.")
    if particles.isAmplitudeCorrected() and not _can_be_undone(particles, original):
        problems.append(
            "The particles are corrected for the amplitude of the CTF, and their optics groups do not say that they "
            "are premultiplied (rlnCtfDataAreCtfPremultiplied), which alone can be undone: use particles extracted "
            "without that."
        )
    if not particles.getSamplingRate():
        problems.append("The particles have no sampling rate: import them with one.")
    return problems + _stack_problems(particles)


def _can_be_undone(particles: Any, original: Path | None) -> bool:
    try:
        return are_premultiplied(particles, original)
    except UserError:  # what is wrong with the file is said by `optics_problems`
        return False


def full_size_problems(full: Any, analysed: Any, n_particles: int) -> list[str]:
    """Return why particles cannot stand for those that were analysed, only with larger images.

    Those of the run were `n_particles`; the analysed set has more items if it holds several orientations of each.
    """
    if not full.getSize():
        return ["The set of particles at full size is empty: choose one with particles."]
    problems = []
    needed = min(analysed.getSize(), n_particles)
    if full.getSize() < needed:
        problems.append(
            f"There are {full.getSize():,} particles at full size, but {needed:,} were analysed: give the "
            "same particles, with the same ids."
        )
    if not full.hasCTF():
        problems.append("The particles at full size have no CTF: assign that of the analysed particles to them.")
    if not full.getSamplingRate():
        return [*problems, "The particles at full size have no sampling rate: import them with one."]
    extents = [particles.getXDim() * particles.getSamplingRate() for particles in (full, analysed)]
    if abs(extents[0] / extents[1] - 1) > _EXTENT_TOLERANCE:
        problems.append(
            f"The images at full size are {extents[0]:.1f} Angstrom wide, but the analysed ones {extents[1]:.1f}: give "
            "particles of the same extent, only sampled finer."
        )
    return problems + _stack_problems(full)


def _stack_problems(particles: Any) -> list[str]:
    names = sorted(file_name(name) for name in particles.getFiles())
    other_formats = [name for name in names if not is_mrc(name)]
    if other_formats:
        return [
            f"{other_formats[0]}{_and_more(other_formats)} is not an MRC file ({', '.join(MRC_SUFFIXES)}): convert the "
            "particles to MRC stacks first."
        ]
    missing = [name for name in names if not os.path.exists(name)]
    if missing:
        return [
            f"The stack {missing[0]}{_and_more(missing)} does not exist: bring the images back, or import them again."
        ]
    return []


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def mask_problems(mask: Any, particles: Any, name: str = "mask") -> list[str]:
    """Return why a mask does not fit the particles; ``name`` says which of the masks it is.

    Like the engine, it accepts a mask of the images' pixel size, whose box may differ, and one of the images' extent,
    whose sampling may differ.
    """
    path = file_name(mask.getFileName())
    if not os.path.exists(path):
        return [f"The {name} {path} does not exist: choose another."]
    if not is_mrc(path):
        return [f"The {name} {path} is not an MRC file: convert it to MRC first."]
    x, y, z = mask.getDim()
    if not x == y == z:
        return [f"The {name} {path} has {x} x {y} x {z} voxels: give a cubic mask."]
    box, sampling = particles.getXDim(), particles.getSamplingRate()
    same_sampling = abs(mask.getSamplingRate() / sampling - 1) < _SAMPLING_TOLERANCE
    same_extent = abs(x * mask.getSamplingRate() / (box * sampling) - 1) < _SAMPLING_TOLERANCE
    if same_sampling or same_extent:
        return []
    return [
        f"The {name} {path} has {x} px of {mask.getSamplingRate():.4g} Angstrom, but the particles have {box} px of "
        f"{sampling:.4g} Angstrom: give a mask with the particles' pixel size."
    ]


def optics_problems(particles: Any, original: Path) -> list[str]:
    """Return why a STAR file cannot tell the optics groups of the particles."""
    if not original.is_file():
        return [f"The STAR file for the optics, {original}, does not exist: choose another or leave it out."]
    try:
        read_optics(particles, original).group_of(particles.getFirstItem())
    except UserError as error:
        return [str(error)]
    return []


def optics_warnings(particles: Any) -> list[str]:
    """Return what an import is known to have changed in the optics of the particles."""
    count = lost_groups(particles)
    if not count:
        return []
    acquisition = particles.getAcquisition()
    return [
        f"The particles came from {count} optics groups, but their import has forgotten which particle belongs to "
        f"which group and gave all of them {acquisition.getVoltage():g} kV, a spherical aberration of "
        f"{acquisition.getSphericalAberration():g} mm and an amplitude contrast of "
        f"{acquisition.getAmplitudeContrast():g}. If the groups differ, give the STAR file that was imported as 'STAR "
        "file for the optics' (section Input, advanced)."
    ]
