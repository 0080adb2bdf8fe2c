"""Whether angles are of another convention: under which of them a mean explains images that have not made it best.

A sign of one angle may turn wrong poses out consistent enough for a mean, to which alone they cannot be compared: each
convention gets a mean of its own. So do even aberrations, most of which are alike in all directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.angles import relion_to_rotation, rotation_to_relion
from solvar_engine.estimation.judging.given_poses import mean_and_error
from solvar_engine.estimation.judging.low_band import LowBand, scale_evidence
from solvar_engine.imaging.sampling import sample_of
from solvar_engine.imaging.types import ParticleSource, Pose
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import estimate_mean, filtered_halves
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations

Angles = NDArray[np.float64]

# the other sign of the tilt, or half a turn of rot or psi, only turns or mirrors the volume
CONVENTIONS: dict[str, Callable[[Angles, Angles, Angles], tuple[Angles, Angles, Angles]]] = {
    "the other sign of rlnAngleRot": lambda rot, tilt, psi: (-rot, tilt, psi),
    "the other sign of rlnAnglePsi": lambda rot, tilt, psi: (rot, tilt, -psi),
    "the other sign of rlnAngleRot and rlnAnglePsi": lambda rot, tilt, psi: (-rot, tilt, -psi),
    "rlnAngleRot and rlnAnglePsi exchanged": lambda rot, tilt, psi: (psi, tilt, rot),
    "rlnAngleRot and rlnAnglePsi exchanged, and the other sign of the first": lambda rot, tilt, psi: (-psi, tilt, rot),
    "rlnAngleRot and rlnAnglePsi exchanged, and the other sign of the second": lambda rot, tilt, psi: (psi, tilt, -rot),
    "rlnAngleRot and rlnAnglePsi exchanged, and the other sign of both": lambda rot, tilt, psi: (-psi, tilt, -rot),
}
"""What other programs, and their conversions, make of RELION's angles (rot, tilt, psi), in degrees."""

_MOST = 1_000  # images of each half-set
_SURE, _NOTABLE = 5.0, 0.2  # standard errors, and share of what the mean explains


def better_convention(
    source: ParticleSource, halves: tuple[Tensor, Tensor], options: SliceOptions
) -> tuple[str, float, float] | None:
    """Find a convention whose mean explains the images much better.

    Parameters
    ----------
    source : ParticleSource
    halves : tuple of two Tensors, int64
    options : SliceOptions

    Returns
    -------
    tuple of str, float, float, or None
        How the angles are to be changed; log-likelihood of an image over that under its own angles, and its standard
        error. None if there is none.
    """
    rows = sample_of(halves[0], _MOST), sample_of(halves[1], _MOST)
    angles = rotation_to_relion(source.pose.rotation.cpu().numpy())
    own, best = _explained(source, rows, options), None
    for name, convert in CONVENTIONS.items():
        rotation = torch.from_numpy(relion_to_rotation(*convert(*angles))).to(source.pose.rotation)
        other = _explained(source.with_pose(Pose(rotation, source.pose.shift)), rows, options)
        gain, error = mean_and_error(other - own)
        if gain > max(_SURE * error, _NOTABLE * float(other.mean())) and (best is None or gain > best[1]):
            best = name, gain, error
    return best


def gain_without_even_aberrations(
    source: ParticleSource, halves: tuple[Tensor, Tensor], options: SliceOptions
) -> tuple[float, float] | None:
    """Log-likelihood of an image without even aberrations over that with them, and its error; None if surely no more.

    Parameters
    ----------
    source : ParticleSource
    halves : tuple of two Tensors, int64
    options : SliceOptions
    """
    rows = sample_of(halves[0], _MOST), sample_of(halves[1], _MOST)
    without = source.with_ctf(replace(source.ctf, even_zernike=None))
    own, other = (_explained(view, rows, options) for view in (source, without))
    gain, error = mean_and_error(other - own)
    return (gain, error) if gain > _SURE * error else None


def _explained(source: ParticleSource, rows: tuple[Tensor, Tensor], options: SliceOptions) -> Tensor:
    """Log-likelihood of images under a mean of the other half-set at low frequencies, over that without a molecule."""
    low = LowBand.of(source)
    first, second = (accumulate_normal_equations(low, half, options) for half in rows)
    means = filtered_halves(estimate_mean(first, second))
    pairs = zip(rows, means[::-1], strict=True)
    evidence = [scale_evidence(low, half, low.disk, mean, options) for half, mean in pairs]
    power, cross = torch.cat(evidence).unbind(dim=1)
    return cross - 0.5 * power
