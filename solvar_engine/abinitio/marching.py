"""From the modes of a search to sharp poses: Gauss-Newton steps of each, and bands of rising frequency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.abinitio.search import Modes
from solvar_engine.estimation.model.bands import Band, change_box, make_band
from solvar_engine.estimation.poses.likelihood import pose_covariance
from solvar_engine.estimation.poses.refinement import refine_poses
from solvar_engine.estimation.poses.uncertainty import PosePrior
from solvar_engine.imaging.masks import BALL, automatic_mask, sphere_mask
from solvar_engine.imaging.types import ParticleSource, Pose
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import MeanEstimate, estimate_mean
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations

_STEPS = 3  # of Gauss and Newton, at each band
_GROWTH = 1.4  # from band to band
_RELIABLE = 0.143
_BEYOND = 1.2  # of the shell that half-maps agree on: they share poses, and it is where poses can still gain
_CONTRAST_VARIANCE = 0.01  # at first
_CONTRAST_RANGE = (0.3, 3.0)


@dataclass(frozen=True)
class Fit:
    """Poses of n images, and what goes with them.

    Attributes
    ----------
    pose : Pose
    map_of : Tensor, shape (n,), int64
    log_likelihood : Tensor, shape (n,), float64
        Over that of an empty image.
    contrast : Tensor, shape (n,)
    contrast_variance : float
        Of their relative errors.
    """

    pose: Pose
    map_of: Tensor
    log_likelihood: Tensor
    contrast: Tensor
    contrast_variance: float

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        return {
            "rotation": self.pose.rotation,
            "shift": self.pose.shift,
            "map_of": self.map_of,
            "log_likelihood": self.log_likelihood,
            "contrast": self.contrast,
            "contrast_variance": torch.tensor(self.contrast_variance, dtype=torch.float64),
        }

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Fit:
        """What :meth:`tensors` gave."""
        return Fit(
            Pose(tensors["rotation"], tensors["shift"]),
            tensors["map_of"],
            tensors["log_likelihood"],
            tensors["contrast"],
            float(tensors["contrast_variance"]),
        )


def best_of_modes(
    source: ParticleSource, modes: Modes, volumes: Tensor, shell: int, shift_std_px: float, options: SliceOptions
) -> Fit:
    """Refine every mode of every image at the band that they were found at, and keep the best.

    Parameters
    ----------
    source : ParticleSource
    modes : Modes
    volumes : Tensor, shape (K, z, y, x)
        At any box.
    shell : int
    shift_std_px : float
    options : SliceOptions
    """
    count = len(source)
    full = change_box(volumes, source.box_size, shell)
    start = Fit(
        Pose(modes.rotation[:, 0].clone(), modes.shift_px[:, 0] * source.pixel_size),
        modes.map_of[:, 0].clone(),
        torch.full((count,), -torch.inf, dtype=torch.float64),
        torch.ones(count),
        _CONTRAST_VARIANCE,
    )
    for number in range(modes.map_of.shape[1]):
        trial = replace(
            start,
            pose=Pose(modes.rotation[:, number], modes.shift_px[:, number] * source.pixel_size),
            map_of=modes.map_of[:, number],
        )
        trial = refined(source, trial, list(full), shell, shift_std_px, options)
        better = (trial.log_likelihood > start.log_likelihood) & (trial.map_of >= 0)
        start.pose.rotation[better], start.pose.shift[better] = trial.pose.rotation[better], trial.pose.shift[better]
        start.map_of[better], start.log_likelihood[better] = trial.map_of[better], trial.log_likelihood[better]
    return start


def refined(
    source: ParticleSource,
    fit: Fit,
    volumes: Sequence[Tensor],
    shell: int,
    shift_std_px: float,
    options: SliceOptions,
) -> Fit:
    """Refine the poses of all images, each under its own map, at a band.

    Parameters
    ----------
    source : ParticleSource
    fit : Fit
    volumes : sequence of K Tensors, shape (z, y, x)
        At the working box.
    shell : int
    shift_std_px : float
        Of the prior of the shifts.
    options : SliceOptions
    """
    placed = source.with_pose(fit.pose).with_contrast(fit.contrast)
    rotation, shift = fit.pose.rotation.clone(), fit.pose.shift.clone()
    value, error = fit.log_likelihood.clone(), torch.zeros(len(source), dtype=torch.float64)
    second_moment, seen = 0.0, 0
    precision = torch.tensor([0.0] * 3 + [shift_std_px**-2] * 2, dtype=torch.float64)
    prior = PosePrior(fit.pose.rotation.double(), -fit.pose.shift.double() / source.pixel_size, precision)
    for number, volume in enumerate(volumes):
        rows = torch.nonzero(fit.map_of == number).flatten()
        band = _band(source, volume, shell, fit.contrast_variance, options)
        for found in refine_poses(placed, rows, band, band.nuisance, steps=_STEPS, prior=prior):
            at = found.index
            rotation[at] = found.rotation.cpu()
            shift[at] = fit.pose.shift[at] + found.shift_px.cpu() * source.pixel_size
            value[at] = -found.objective.cpu()
            error[at] = found.latents[:, -1].cpu()
            second_moment += float((found.latents[:, -1].square() + found.latent_covariance[:, -1, -1]).sum())
            seen += len(at)
    deviation = fit.contrast_variance**0.5
    contrast = (fit.contrast * (1 + deviation * error)).clamp(*_CONTRAST_RANGE).float()
    return replace(
        fit,
        pose=Pose(rotation, shift),
        log_likelihood=value,
        contrast=contrast / contrast.mean(),
        contrast_variance=fit.contrast_variance * second_moment / max(seen, 1),
    )


def _band(
    source: ParticleSource, volume: Tensor, shell: int, contrast_variance: float, options: SliceOptions
) -> Band:
    return replace(make_band(shell, source.disk, volume, options), contrast_variance=contrast_variance)


def reconstructed(
    source: ParticleSource, fit: Fit, halves: Sequence[Tensor], maps: int, operators: Tensor, options: SliceOptions
) -> list[MeanEstimate]:
    """Maps of half-sets, of all images of each class.

    Parameters
    ----------
    source : ParticleSource
    fit : Fit
    halves : sequence of two Tensors, int64
        Images that count.
    maps : int
    operators : Tensor, shape (g, 3, 3)
    options : SliceOptions
    """
    placed = source.with_pose(fit.pose).with_contrast(fit.contrast)
    group = None if len(operators) == 1 else operators
    means = []
    for number in range(maps):
        first, second = (
            accumulate_normal_equations(placed, half[fit.map_of[half] == number], options, operators=group)
            for half in halves
        )
        means.append(estimate_mean(first, second))
    return means


def masked(mean: MeanEstimate, pixel_size: float) -> Tensor:
    """A map inside the mask that its density suggests, or else a ball."""
    try:
        return mean.mean * automatic_mask(mean.mean, pixel_size)
    except ValueError:  # nothing stands out
        return mean.mean * sphere_mask(len(mean.mean), BALL * len(mean.mean), device=mean.mean.device)


def next_shell(shell: int, means: Sequence[MeanEstimate], limit: int) -> int:
    """Band to go on to; the same one when half-maps agree no further, or the limit is reached."""
    agreed = max(_agreed_shell(mean.fsc) for mean in means)
    return max(shell, min(math.ceil(_GROWTH * shell), math.ceil(_BEYOND * agreed), limit))


def _agreed_shell(correlation: Tensor) -> int:
    """Last shell before the correlation of half-maps falls below what counts."""
    below = torch.nonzero(correlation[1:] < _RELIABLE).flatten()
    return int(below[0]) if len(below) else len(correlation) - 1


def rotation_deviation(
    source: ParticleSource, fit: Fit, volumes: Sequence[Tensor], shell: int, options: SliceOptions
) -> Tensor:
    """Standard deviations of the orientations, root mean square of the three axes, degrees; (n,)."""
    placed = source.with_pose(fit.pose).with_contrast(fit.contrast)
    deviation = torch.zeros(len(source))
    for number, volume in enumerate(volumes):
        rows = torch.nonzero(fit.map_of == number).flatten()
        band = _band(source, volume, shell, fit.contrast_variance, options)
        for index, covariance in pose_covariance(placed, rows, band, band.nuisance):
            variance = covariance.diagonal(dim1=1, dim2=2)[:, :3].mean(dim=1)
            deviation[index] = torch.rad2deg(variance.sqrt()).float().cpu()
    return deviation
