"""The first phase: an encoder names poses of all images, and the map is made from these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.abinitio.semi_amortized.maps import ImprovableMap
from solvar_engine.abinitio.semi_amortized.problem import Problem, repeated
from solvar_engine.abinitio.semi_amortized.training import EncoderTraining

SIMULATIONS, IMAGES = "simulations", "images"


@dataclass(frozen=True)
class EncodingOptions:
    """How the first phase goes; what is said of the paper is Shekarforoush et al., 2024.

    Attributes
    ----------
    learns_from : {'simulations', 'images'}
        What the encoder learns from: 'images', by the winner-takes-all loss of the paper, or 'simulations' of the map
        as it is, whose poses are known; ours.
    batch_size : int
        Images, after which the map is improved.
    simulations_per_image : int
        How many simulated ones the encoder sees for each image that the map is improved with.
    first_simulations : int
        Of the map at the start, before any image is looked at.
    local_steps : int
        Of Gauss and Newton from each pose that the encoder names, before they are compared; ours. The paper has none.
    weighs_poses : bool
        Whether the map is made from the poses of all heads, by their posterior probability; ours. Otherwise the winner
        takes all.
    """

    learns_from: str = SIMULATIONS
    batch_size: int = 400
    simulations_per_image: int = 4
    first_simulations: int = 20_000
    local_steps: int = 3
    weighs_poses: bool = True


PAPER_ENCODING = EncodingOptions(learns_from=IMAGES, batch_size=64, local_steps=0, weighs_poses=False)
"""As published, but for the size of the encoder."""


@dataclass(frozen=True)
class Epoch:
    """Once through all images.

    Attributes
    ----------
    volume : Tensor, shape (z, y, x)
        At the end.
    rotation : Tensor, shape (n, 3, 3)
    shift_px : Tensor, shape (n, 2)
        Best poses as each image was looked at.
    log_joint : Tensor, shape (n,)
        Of these.
    head : Tensor or None, shape (n,), int64
        Which of the encoder's heads named them; None without an encoder.
    loss : float
        Mean one of what was learnt.
    """

    volume: Tensor
    rotation: Tensor
    shift_px: Tensor
    log_joint: Tensor
    head: Tensor | None
    loss: float


def auto_encoded(
    problem: Problem,
    training: EncoderTraining,
    model: ImprovableMap,
    generator: torch.Generator,
    options: EncodingOptions,
    epochs: int,
) -> Iterator[Epoch]:
    """Yield each epoch of encoding.

    Parameters
    ----------
    problem : Problem
    training : EncoderTraining
        Changed, as is the map.
    model : ImprovableMap
    generator : torch.Generator
        Of the order of the images.
    options : EncodingOptions
    epochs : int

    Raises
    ------
    ValueError
        If it is not known what the encoder learns from.
    """
    if options.learns_from not in (SIMULATIONS, IMAGES):
        raise ValueError(f"learns_from is {options.learns_from!r}, expected {SIMULATIONS!r} or {IMAGES!r}")
    images, device = problem.images, problem.images.ctf.device
    count = len(images)
    for _ in range(epochs):
        rotation, shift_px = torch.zeros(count, 3, 3, device=device), torch.zeros(count, 2, device=device)
        log_joint, head = torch.zeros(count, device=device), torch.zeros(count, dtype=torch.int64, device=device)
        losses, batches = 0.0, torch.randperm(count, generator=generator).to(device).split(options.batch_size)
        for rows in batches:
            if options.learns_from == IMAGES:
                losses += training.learn_from_images(problem, model.grid(), images[rows])
            turns, shifts, value = named_poses(problem, training, model.grid(), rows, options.local_steps)
            best = value.argmax(dim=1)
            place = torch.arange(len(rows), device=device), best
            rotation[rows], shift_px[rows] = turns[place], shifts[place]
            log_joint[rows], head[rows] = value[place], best
            if options.weighs_poses:
                weight = torch.softmax(value, dim=1)
            else:
                weight = torch.nn.functional.one_hot(best, value.shape[1]).to(value)
            model.improve(images[rows], turns, shifts, weight)
            if options.learns_from == SIMULATIONS:
                wanted = options.simulations_per_image * len(rows)
                losses += training.learn_from_simulations(problem, model.grid(), wanted)
        yield Epoch(model.volume(), rotation, shift_px, log_joint, head, losses / len(batches))


def named_poses(
    problem: Problem, training: EncoderTraining, grid: Tensor, rows: Tensor, local_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Poses that the encoder names for images, after local steps, and how likely they are under a map.

    Returns
    -------
    rotation : Tensor, shape (n, M, 3, 3)
    shift_px : Tensor, shape (n, M, 2)
    log_joint : Tensor, shape (n, M)
    """
    images = problem.images[rows]
    rotation, shift_px = training.candidates(problem, images)
    shape = rotation.shape[:2]
    found = problem.refined(
        grid, repeated(images, shape[1]), rotation.flatten(0, 1).contiguous(), shift_px.flatten(0, 1), local_steps
    )
    turns, shifts, value = (part.unflatten(0, shape) for part in found)
    return turns, shifts, value
