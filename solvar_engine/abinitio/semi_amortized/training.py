"""How the encoder learns: from images alone, as in the paper, or from simulated ones whose poses are known."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages
from solvar_engine.abinitio.semi_amortized.encoder import EncoderInput, PoseEncoder
from solvar_engine.abinitio.semi_amortized.hartley import read_slices
from solvar_engine.abinitio.semi_amortized.problem import Problem, repeated
from solvar_engine.abinitio.semi_amortized.rotations import cosine_distance
from solvar_engine.imaging.rotation import random_rotations

_SIMULATED_BATCH = 128
_OF_ALL_HEADS = 0.05  # weight of the mean over the heads beside the winner: without it, one that never wins is lost


class EncoderTraining:
    """An encoder and its optimizer.

    Parameters
    ----------
    encoder : PoseEncoder
        Changed in place.
    entering : EncoderInput
    rate : float
        Of Adam.
    generator : torch.Generator
        Of poses, noise and choices, on the CPU.
    """

    def __init__(
        self, encoder: PoseEncoder, entering: EncoderInput, rate: float, generator: torch.Generator
    ) -> None:
        self.encoder, self._entering, self._generator = encoder, entering, generator
        self._optimizer = torch.optim.Adam(encoder.parameters(), lr=rate)

    def candidates(self, problem: Problem, images: LowImages) -> tuple[Tensor, Tensor]:
        """Rotations (n, M, 3, 3) and shifts (n, M, 2), px, that the encoder names; it learns nothing."""
        self.encoder.eval()
        with torch.no_grad():
            rotation, shift = self.encoder(self._entering(images))
        return rotation, problem.shift_std_px * shift

    def learn_from_images(self, problem: Problem, grid: Tensor, images: LowImages) -> float:
        """One step down the winner-takes-all loss of images under a map, the mean of min_j L_ij of section 2.1.

        L is minus the log-likelihood, and the log of the shift's prior density, which the paper leaves out.

        Parameters
        ----------
        problem : Problem
        grid : Tensor
            Of the map.
        images : LowImages
        """
        self.encoder.train()
        rotation, shift = self.encoder(self._entering(images))
        count, heads = rotation.shape[:2]
        shift_px = problem.shift_std_px * shift.flatten(0, 1)
        each = repeated(images, heads)
        slices = read_slices(grid, problem.geometry, images.disk, rotation.flatten(0, 1)) * each.ctf
        centred = problem.moved(each.images, shift_px)
        value = problem.log_likelihood(slices, centred) + problem.log_shift_prior(shift_px)
        return self._step(-value.view(count, heads).max(dim=1).values.mean())

    def learn_from_simulations(self, problem: Problem, grid: Tensor, count: int) -> float:
        """Steps on so many images that are simulated from a map: the encoder becomes its inverse.

        Poses are uniform, shifts normal, transfer functions those of the images, the noise is white. The loss of a head
        is 1 - cos of the angle to the pose, plus half the squared error of the shift over its variance; the best head
        counts, and a little the mean of all (relaxed winner-takes-all, Rupprecht et al., ICCV 2017).

        Returns
        -------
        float
            Mean loss.
        """
        self.encoder.train()
        losses, batches = 0.0, max(1, round(count / _SIMULATED_BATCH))
        for _ in range(batches):
            images, rotation, shift_px = simulated(problem, grid, _SIMULATED_BATCH, self._generator)
            found, shift = self.encoder(self._entering(images))
            wanted = (problem.operators.to(rotation)[:, None] @ rotation).transpose(0, 1)  # (n, g, 3, 3)
            turn = cosine_distance(found[:, :, None], wanted[:, None]).min(dim=2).values
            moved = (shift - shift_px[:, None] / problem.shift_std_px).square().sum(dim=2) / 2
            distance = turn + moved
            best = distance.min(dim=1).values
            losses += self._step(((1 - _OF_ALL_HEADS) * best + _OF_ALL_HEADS * distance.mean(dim=1)).mean())
        return losses / batches

    def _step(self, loss: Tensor) -> float:
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())


def simulated(
    problem: Problem, grid: Tensor, count: int, generator: torch.Generator
) -> tuple[LowImages, Tensor, Tensor]:
    """Images of a map with noise of variance 1, their rotations (n, 3, 3), and the shifts (n, 2), px, that centre them.

    Parameters
    ----------
    problem : Problem
        Whose images lend their transfer functions.
    grid : Tensor
    count : int
    generator : torch.Generator
    """
    images, device = problem.images, problem.images.ctf.device
    rotation = random_rotations(count, generator).to(device)
    shift_px = problem.shift_std_px * torch.randn(count, 2, generator=generator).to(device)
    ctf = images.ctf[torch.randint(len(images), (count,), generator=generator).to(device)]
    noise = torch.randn(count, len(images.disk), 2, generator=generator).to(device) * 0.5**0.5
    slices = problem.projector.project(grid, rotation, ctf)[:, :, 0]
    made = problem.moved(slices, -shift_px) + torch.view_as_complex(noise)
    return LowImages(images.disk, made, ctf), rotation, shift_px
