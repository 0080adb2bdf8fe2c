"""Volumes of states by kernel regression: half-maps, filtered map, local resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.contract.results import FSC_THRESHOLD
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.shells import resolution_at
from solvar_engine.jobs.running.devices import on_cpu
from solvar_engine.jobs.states.kernel_problem import KernelProblem
from solvar_engine.latent.distances import kernel_bandwidths, squared_distances
from solvar_engine.reconstruction.filtering import corrected_fsc, local_filter, local_fsc, local_resolution
from solvar_engine.reconstruction.kernel_blending import Blend, blend_kernels
from solvar_engine.reconstruction.kernel_regression import Staircase, accumulate_kernels
from solvar_engine.reconstruction.sharpening import fit_b_factor
from solvar_engine.reconstruction.windows import LocalWindows


@dataclass(frozen=True)
class KernelState:
    """The volume of one state, in the units of the estimators.

    Attributes
    ----------
    volume : Tensor, shape (z, y, x)
        Average of the halves, filtered by their local correlation, inside the mask.
    half1, half2 : Tensor, shape (z, y, x)
        Not filtered.
    local_resolution : Tensor, shape (z, y, x)
        Angstrom.
    images_used : int
        Images in the kernels, averaged over the molecule and over kernels by their shares.
    resolution : float
        Angstrom, at FSC 0.143 inside the mask.
    b_factor : float or None
        Angstrom^2, fitted to the half-maps; None if there is too little to fit it to.
    """

    volume: Tensor
    half1: Tensor
    half2: Tensor
    local_resolution: Tensor
    images_used: int
    resolution: float
    b_factor: float | None


@dataclass(frozen=True)
class KernelVolumes:
    """Half-maps of a state, and how its kernels weigh the images.

    Attributes
    ----------
    blend : Blend
    windows : LocalWindows
        That cover the mask.
    stairs : tuple of two Staircase
        Weights of the images of each half-set, in the order of `KernelProblem.rows`.
    """

    blend: Blend
    windows: LocalWindows
    stairs: tuple[Staircase, Staircase]

    @property
    def counts(self) -> Tensor:
        """Images in each kernel, shape (kernels,)."""
        return torch.stack([(stairs.of_images() > 0).sum(dim=1) for stairs in self.stairs]).sum(dim=0)


def kernel_volumes(problem: KernelProblem, point: NDArray[np.float64]) -> KernelVolumes:
    """Make the half-maps at a point (r,) of the latent space."""
    place = point[problem.columns]
    first, second = (
        squared_distances(problem.z[rows], problem.precision[rows], place) for rows in problem.rows
    )
    bandwidths = torch.from_numpy(kernel_bandwidths((first, second), uncertainty=len(place)))
    distances = (torch.from_numpy(first), torch.from_numpy(second))
    halves = [
        accumulate_kernels(problem.source, rows, distance, bandwidths, everything, problem.options)
        for rows, distance, everything in zip(problem.rows, distances, problem.everything, strict=True)
    ]
    windows = LocalWindows.create(problem.source.box_size, problem.mask)
    blend = blend_kernels((halves[0], halves[1]), _offsets(problem, place), windows, problem.mask)
    stairs = [Staircase.create(distance, bandwidths) for distance in distances]
    return KernelVolumes(blend, windows, (stairs[0], stairs[1]))


def reconstruct_state(problem: KernelProblem, point: NDArray[np.float64]) -> KernelState:
    """Make the volume at a point of the latent space.

    Parameters
    ----------
    problem : KernelProblem
    point : ndarray, shape (r,)
        Latent coordinates, all components of the run.
    """
    return on_cpu(finish_state(problem, kernel_volumes(problem, point)))


def finish_state(problem: KernelProblem, volumes: KernelVolumes) -> KernelState:
    """Filter the half-maps of a state, and measure what they agree on."""
    box_size, mask = problem.source.box_size, problem.mask
    windows, half1, half2 = volumes.windows, volumes.blend.half1, volumes.blend.half2
    correlation = local_fsc(half1, half2, windows)
    pixel_size = problem.source.pixel_size
    generator = torch.Generator().manual_seed(problem.seed)
    overall = corrected_fsc(half1, half2, mask, generator)
    average = 0.5 * (half1 + half2)
    resolution = resolution_at(overall, FSC_THRESHOLD, box_size, pixel_size)
    guinier = fit_b_factor(average, overall, pixel_size, resolution)
    return KernelState(
        local_filter(average, correlation, windows) * mask,
        half1,
        half2,
        local_resolution(correlation, windows, pixel_size, FSC_THRESHOLD),
        _images_used(volumes.counts, volumes.blend.shares, correlation, windows.weight_of(mask)),
        resolution,
        None if guinier is None else guinier.b_factor,
    )


def _offsets(problem: KernelProblem, place: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Transforms of what the half-sets' models say at a point, at the box of the volumes."""
    box_size = problem.source.box_size
    if not problem.is_reproducible:
        place = np.zeros_like(place)
    first, second = (
        volume_to_ft(change_box(model.at(torch.from_numpy(place)), box_size)) for model in problem.models
    )
    return first, second


def _images_used(counts: Tensor, shares: Tensor, correlation: Tensor, weight: Tensor) -> int:
    """Images in the kernels, averaged by their shares, over windows on the molecule and over resolved shells."""
    resolved = (correlation > FSC_THRESHOLD).double() * weight.double()[:, None]
    used = torch.tensordot(counts.double().to(shares.device), shares, dims=1)
    return round(float((used * resolved).sum() / resolved.sum().clamp_min(1e-30)))
