"""Marginal likelihood of images over sampled poses, its gradient by the map, and what the map leaves unexplained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.sgd.importance import PoseSamples
from solvar_engine.abinitio.sgd.quadrature import Quadrature
from solvar_engine.imaging.fourier import shift_phases
from solvar_engine.projectors.base import Projector
from solvar_engine.reconstruction.normal_equations import rotations_of_group

_NUMBERS = 1e6  # of joint probabilities at a time
_ROTATIONS_PER_CALL = 4096


@dataclass(frozen=True)
class Evaluation:
    """What n images say of a map.

    Attributes
    ----------
    log_likelihood : Tensor, shape (n,), float64
        Logarithm of eq. 12, without the constant factor of the normal density.
    squared_error : Tensor, shape (n,), float64
        Expected |Y - C S|^2, both halves of Fourier space counted (eq. 18).
    log_marginals : list of n times three Tensors
        Logarithms of the marginal probabilities of the samples (eqs. 9, 13, with the weight of the point itself).
    best : Tensor, shape (n, 3), int64
        Most likely direction, angle and shift, by their numbers in the quadrature.
    evaluated : float
        Share of the points of the quadrature that were looked at.
    gradient : Tensor or None, shape (z, y, x)
        Of minus the sum of the log-likelihoods.
    """

    log_likelihood: Tensor
    squared_error: Tensor
    log_marginals: list[tuple[Tensor, Tensor, Tensor]]
    best: Tensor
    evaluated: float
    gradient: Tensor | None

    @property
    def value(self) -> float:
        """Minus the sum of the log-likelihoods."""
        return -float(self.log_likelihood.sum())


def evaluate(
    projector: Projector,
    volume: Tensor,
    images: LowImages,
    quadrature: Quadrature,
    samples: Sequence[PoseSamples],
    operators: Tensor | None = None,
) -> Evaluation:
    """Look at images at sampled poses.

    Parameters
    ----------
    projector : Projector
        Of the disk of the images.
    volume : Tensor, shape (z, y, x)
    images : LowImages
        Whitened: the variance of the noise is 1.
    quadrature : Quadrature
    samples : sequence of PoseSamples
        Of each image.
    operators : Tensor, shape (g, 3, 3), optional
        Of a symmetry that the map has; the gradient has it too. Without it there is no gradient.
    """
    disk = images.disk
    used = _orientations(quadrature, samples)
    direction, angle = used.nonzero(as_tuple=True)
    place = torch.zeros(used.shape, dtype=torch.int64)
    place[direction, angle] = torch.arange(len(direction))
    rotation = quadrature.rotation(direction, angle)
    grid = projector.to_grid(volume[None])
    slices = torch.cat([projector.project(grid, part)[:, :, 0] for part in rotation.split(_ROTATIONS_PER_CALL)])
    weight = disk.weight.to(slices.real)
    weighted, power = _as_real(slices * weight), slices.abs().square() * weight
    phases = shift_phases(disk, quadrature.shift_px.to(weight), disk.box_size)
    half_norm = 0.5 * (images.images.abs().square() @ weight).double()
    sums, mass = torch.zeros_like(weighted), torch.zeros_like(power)
    value, error = torch.zeros_like(half_norm), torch.zeros_like(half_norm)
    best = torch.zeros(len(images), 3, dtype=torch.int64)
    log_marginals: list[tuple[Tensor, Tensor, Tensor]] = [(value, value, value)] * len(images)
    points = 0
    for numbers, of_images in _alike(samples):
        part = images[numbers]
        sizes = [len(factor.index) for factor in of_images]
        rows: Tensor | slice = slice(None)  # all, in order
        if sizes[0] * sizes[1] < len(slices):
            rows = place[of_images[0].index[:, None], of_images[1].index].flatten()
        shifted = _as_real((part.images * part.ctf)[:, None] * phases[of_images[2].index])
        squared_ctf = part.ctf.square()
        likelihood = (shifted @ weighted[rows].T).sub_((squared_ctf @ power[rows].T)[:, None], alpha=0.5)
        likelihood = likelihood.unflatten(2, sizes[:2])  # of images, shifts, directions and angles
        prior = _outer_sum([w[s.index] for w, s in zip(quadrature.log_weight, of_images, strict=True)]).to(weight)
        posterior = likelihood + prior
        best[numbers] = _points_of(posterior.flatten(1).argmax(dim=1), of_images)
        posterior += _outer_sum([s.log_factor for s in of_images]).to(weight)
        top = posterior.amax(dim=(1, 2, 3), keepdim=True)
        total = posterior.sub_(top).exp_().sum(dim=(1, 2, 3), keepdim=True)
        posterior /= total
        value[numbers] = (top.double() + total.double().log()).flatten() - half_norm[numbers]
        error[numbers] = 2 * (half_norm[numbers] - (posterior * likelihood).sum(dim=(1, 2, 3)))
        for number, of_image in zip(numbers.tolist(), posterior, strict=True):
            log_marginals[number] = _log_marginals(of_image, of_images)
        points += posterior.numel()
        if operators is not None:
            weights = posterior.flatten(2)
            sums[rows] += weights.flatten(0, 1).T @ shifted.flatten(0, 1)
            mass[rows] += weights.sum(dim=1).T @ squared_ctf
    gradient = None
    if operators is not None:
        residual = mass * slices - torch.view_as_complex(sums.unflatten(1, (-1, 2)))
        gradient = _backprojected(projector, residual * weight, rotation, operators)
    everything = len(images) * math.prod(quadrature.sizes)
    return Evaluation(value, error, log_marginals, best, points / everything, gradient)


def relative_error(evaluation: Evaluation, images: LowImages) -> float:
    """RREMSE of images: root of the expected squared error over that of the noise (eq. 20, by the pixel)."""
    pixels = float(images.disk.weight.sum())
    return float(evaluation.squared_error.mean() / pixels) ** 0.5


def _orientations(quadrature: Quadrature, samples: Sequence[PoseSamples]) -> Tensor:
    """Tell which orientations any image needs, (D, A), bool."""
    used = torch.zeros(quadrature.sizes[:2], dtype=torch.bool)
    for direction, angle, _ in {id(of_image): of_image for of_image in samples}.values():
        used[direction.index[:, None], angle.index] = True
    return used


def _alike(samples: Sequence[PoseSamples]) -> Iterator[tuple[Tensor, PoseSamples]]:
    """Yield images that share their samples, a few at a time."""
    sharing: dict[int, list[int]] = {}
    for number, of_image in enumerate(samples):
        sharing.setdefault(id(of_image), []).append(number)
    for numbers in sharing.values():
        of_images = samples[numbers[0]]
        at_once = max(1, int(_NUMBERS / math.prod(len(factor.index) for factor in of_images)))
        for part in torch.tensor(numbers).split(at_once):
            yield part, of_images


def _as_real(values: Tensor) -> Tensor:
    return torch.view_as_real(values).flatten(-2)


def _outer_sum(parts: Sequence[Tensor]) -> Tensor:
    """Of values of directions, angles and shifts: (shifts, directions, angles)."""
    return parts[2][:, None, None] + parts[0][:, None] + parts[1]


def _points_of(place: Tensor, samples: PoseSamples) -> Tensor:
    """Direction, angle and shift (n, 3) of places in the table of an outer sum."""
    first, second, third = samples
    angles = len(second.index)
    direction, shift = place // angles % len(first.index), place // (angles * len(first.index))
    return torch.stack((first.index[direction], second.index[place % angles], third.index[shift]), dim=1)


def _log_marginals(posterior: Tensor, samples: PoseSamples) -> tuple[Tensor, Tensor, Tensor]:
    """Of each factor's points: sums over the other two, each point counted once, not as often as it was drawn."""
    sums = posterior.sum(dim=(0, 2)), posterior.sum(dim=(0, 1)), posterior.sum(dim=(1, 2))
    first, second, third = (
        (of_factor.double().log() - factor.log_factor).log_softmax(dim=0)
        for of_factor, factor in zip(sums, samples, strict=True)
    )
    return first, second, third


def _backprojected(projector: Projector, slices: Tensor, rotation: Tensor, operators: Tensor) -> Tensor:
    out = projector.new_accumulator(1)
    share = slices[:, :, None] / len(operators)
    for turned in rotations_of_group(rotation, operators):
        projector.backproject(share, turned.contiguous(), out)
    return projector.to_volumes(out)[0]
