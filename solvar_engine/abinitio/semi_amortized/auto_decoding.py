"""The second phase: each image has a pose of its own, which goes down the loss in turns with the map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.semi_amortized.auto_encoding import Epoch
from solvar_engine.abinitio.semi_amortized.hartley import read_slices
from solvar_engine.abinitio.semi_amortized.maps import ImprovableMap
from solvar_engine.abinitio.semi_amortized.problem import Problem
from solvar_engine.abinitio.semi_amortized.rotations import increment

NEWTON, ADAM = "newton", "adam"
_MEAN, _SQUARE, _ROUNDING = 0.9, 0.999, 1e-8  # of Adam


@dataclass(frozen=True)
class DecodingOptions:
    """How the second phase goes; what is said of the paper is Shekarforoush et al., 2024.

    Attributes
    ----------
    pose_steps : {'newton', 'adam'}
        Of Gauss and Newton; or of Adam along increments, as in the paper.
    steps : int
        Of the pose for one of the map.
    rate : float
        Of Adam, radian for the rotation; for the shift, shares of its standard deviation.
    batch_size : int
        Images, after which the map is improved.
    """

    pose_steps: str = NEWTON
    steps: int = 5
    rate: float = 0.05
    batch_size: int = 1000


PAPER_DECODING = DecodingOptions(pose_steps=ADAM, batch_size=64)
"""As published."""


def auto_decoded(
    problem: Problem,
    rotation: Tensor,
    shift_px: Tensor,
    model: ImprovableMap,
    generator: torch.Generator,
    options: DecodingOptions,
    epochs: int,
) -> Iterator[Epoch]:
    """Yield each epoch of descent on poses and map.

    Parameters
    ----------
    problem : Problem
    rotation : Tensor, shape (n, 3, 3)
    shift_px : Tensor, shape (n, 2)
        Poses to start from.
    model : ImprovableMap
        Changed.
    generator : torch.Generator
        Of the order of the images.
    options : DecodingOptions
    epochs : int

    Raises
    ------
    ValueError
        For unknown steps.
    """
    if options.pose_steps not in (NEWTON, ADAM):
        raise ValueError(f"pose_steps is {options.pose_steps!r}, expected {NEWTON!r} or {ADAM!r}")
    images, device = problem.images, problem.images.ctf.device
    rotation, shift_px = rotation.clone(), shift_px.clone()
    descent = _PoseAdam(problem, len(images), options.rate)
    for _ in range(epochs):
        log_joint = torch.zeros(len(images), device=device)
        for rows in torch.randperm(len(images), generator=generator).to(device).split(options.batch_size):
            start = problem.images[rows], rotation[rows], shift_px[rows]
            if options.pose_steps == NEWTON:
                found = problem.refined(model.grid(), *start, options.steps)
            else:
                found = descent.descended(model.grid(), rows, *start, options.steps)
            rotation[rows], shift_px[rows], log_joint[rows] = found
            one = torch.ones(len(rows), 1, device=device)
            model.improve(images[rows], found[0][:, None], found[1][:, None], one)
        yield Epoch(
            model.volume(), rotation.clone(), shift_px.clone(), log_joint, None, -float(log_joint.mean())
        )


class _PoseAdam:
    """Adam on poses, each of which has its own moments and its own count of steps: batches hold some of them only.

    Parameters
    ----------
    problem : Problem
    count : int
        Images.
    rate : float
    """

    def __init__(self, problem: Problem, count: int, rate: float) -> None:
        self._problem, self._rate = problem, rate
        device = problem.images.ctf.device
        self._mean, self._square = torch.zeros(count, 5, device=device), torch.zeros(count, 5, device=device)
        self._steps = torch.zeros(count, 1, device=device)

    def descended(
        self, grid: Tensor, rows: Tensor, images: LowImages, rotation: Tensor, shift_px: Tensor, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Poses after steps, and their log joint probabilities (n,).

        An increment starts from nought at each step and is put into the rotation after it, R_delta R (equation 6).
        """
        problem = self._problem
        scale = problem.shift_std_px
        for _ in range(steps):
            omega = torch.zeros(len(rows), 3, device=rotation.device, requires_grad=True)
            move = torch.zeros(len(rows), 2, device=rotation.device, requires_grad=True)
            turned, shifts = increment(omega) @ rotation, shift_px + scale * move
            slices = read_slices(grid, problem.geometry, images.disk, turned) * images.ctf
            value = problem.log_likelihood(slices, problem.moved(images.images, shifts))
            loss = -(value + problem.log_shift_prior(shifts)).sum()
            step = self._step(rows, torch.cat(torch.autograd.grad(loss, (omega, move)), dim=1))
            rotation = increment(-step[:, :3]) @ rotation
            shift_px = shift_px - scale * step[:, 3:]
        return rotation, shift_px, problem.log_joint(grid, images, rotation.contiguous(), shift_px)

    def _step(self, rows: Tensor, slope: Tensor) -> Tensor:
        self._steps[rows] += 1
        self._mean[rows] = _MEAN * self._mean[rows] + (1 - _MEAN) * slope
        self._square[rows] = _SQUARE * self._square[rows] + (1 - _SQUARE) * slope.square()
        mean = self._mean[rows] / (1 - _MEAN ** self._steps[rows])
        square = self._square[rows] / (1 - _SQUARE ** self._steps[rows])
        return self._rate * mean / (square.sqrt() + _ROUNDING)
