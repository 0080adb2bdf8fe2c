"""All images at all poses of a grid as matrix products, and what the posterior of the poses makes of them.

An image Y with transfer function C, moved by a shift t, is compared with slices S_j by the log-likelihood over that of
an empty image, Re <C Y_t, S_j> - <C^2, |S_j|^2> / 2: for all images, shifts and slices one matrix product, and one of
all images and slices. The posterior weights of a batch come as one tensor, and the sums of the maximisation step are
matrix products with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk, shift_phases

_NEGLIGIBLE = 18.0  # below the most likely pose of an image, in log-likelihood: 160,000 such poses weigh 0.2 %


@dataclass(frozen=True)
class PoseGrid:
    """Slices and shifts that every image is compared with.

    Attributes
    ----------
    disk : HalfDisk
    slices : Tensor, shape (J, pixels), complex64
    log_prior : Tensor, shape (J,)
        Of the slices.
    shift_px : Tensor, shape (T, 2)
        That centre an image, px of the disk's box.
    shift_std_px : float
        Of their normal prior, per axis.
    noise : Tensor, shape (shells,)
        Variance of the noise of the whitened images.
    """

    disk: HalfDisk
    slices: Tensor
    log_prior: Tensor
    shift_px: Tensor
    shift_std_px: float
    noise: Tensor

    @property
    def weight(self) -> Tensor:
        """Of each pixel (pixels,) in inner products: Friedel mates counted, over the noise."""
        return self.disk.weight / self.noise.to(self.disk.weight)[self.disk.shell]

    @property
    def shift_log_prior(self) -> Tensor:
        """Of the shifts (T,), normalised."""
        return torch.log_softmax(-0.5 * self.shift_px.square().sum(dim=1) / self.shift_std_px**2, dim=0)

    def shifted(self, images: Tensor, ctf: Tensor) -> Tensor:
        """Images (n, pixels) times their transfer functions, moved by every shift: (n, T, pixels)."""
        phases = shift_phases(self.disk, self.shift_px.to(ctf), self.disk.box_size)
        return (images * ctf)[:, None] * phases

    def log_joint(self, shifted: Tensor, ctf: Tensor) -> Tensor:
        """Log-likelihood over that of an empty image, and log prior.

        Parameters
        ----------
        shifted : Tensor, shape (n, T, pixels), complex
        ctf : Tensor, shape (n, pixels)

        Returns
        -------
        Tensor, shape (n, T, J)
        """
        weight = self.weight
        power = (ctf.square() @ (weight * self.slices.abs().square()).T - 2 * self.log_prior)[:, None]
        products = (_as_real(shifted) @ _as_real(self.slices * weight).T).unflatten(0, shifted.shape[:2])
        return products.sub_(power, alpha=0.5).add_(self.shift_log_prior.to(products)[:, None])


@dataclass(frozen=True)
class PosteriorSums:
    """What the maximisation step needs of a batch; sums over its images weighted by the posterior of their poses.

    Attributes
    ----------
    images : Tensor, shape (U, pixels), complex64
        Of C Y moved to the centre; of the slices that some image may be.
    power : Tensor, shape (U, pixels)
        Of C^2.
    mass : Tensor, shape (U,), float64
        Of the weights themselves.
    residual : Tensor, shape (pixels,), float64
        Of |Y - C S|^2.
    squared_shift : float
        Of |t|^2, px^2.
    """

    images: Tensor
    power: Tensor
    mass: Tensor
    residual: Tensor
    squared_shift: float


@dataclass(frozen=True)
class Posterior:
    """Posterior weights of the poses of a batch.

    Attributes
    ----------
    used : Tensor, shape (U,), int64
        Slices that some image may be.
    weights : Tensor, shape (n, T, U)
        Sum to 1 for each image.
    evidence : Tensor, shape (n,), float64
        Log-likelihood over that of an empty image, poses integrated out.
    """

    used: Tensor
    weights: Tensor
    evidence: Tensor

    @staticmethod
    def of(log_joint: Tensor) -> Posterior:
        """Normalise log joint probabilities (n, T, J)."""
        best = log_joint.amax(dim=1)
        top = best.amax(dim=1, keepdim=True)
        used = torch.nonzero((best > top - _NEGLIGIBLE).any(dim=0)).flatten()
        weights = (log_joint[:, :, used] - top[:, :, None]).exp_()
        total = weights.sum(dim=(1, 2))
        weights /= total[:, None, None]
        return Posterior(used, weights, top[:, 0].double() + total.double().log())


def posterior_sums(
    grid: PoseGrid, posterior: Posterior, shifted: Tensor, images: Tensor, ctf: Tensor
) -> PosteriorSums:
    """Sum a batch over its poses.

    Parameters
    ----------
    grid : PoseGrid
    posterior : Posterior
    shifted : Tensor, shape (n, T, pixels), complex
        From `PoseGrid.shifted`.
    images : Tensor, shape (n, pixels), complex
    ctf : Tensor, shape (n, pixels)
    """
    weights, used = posterior.weights, posterior.used
    of_slices = weights.sum(dim=1)
    summed = torch.view_as_complex((weights.flatten(0, 1).T @ _as_real(shifted)).unflatten(1, (-1, 2)))
    power = of_slices.T @ ctf.square()
    slices = grid.slices[used]
    explained = (power * slices.abs().square() - 2 * (slices.conj() * summed).real).sum(dim=0, dtype=torch.float64)
    residual = images.abs().square().sum(dim=0, dtype=torch.float64) + explained
    of_shifts = weights.sum(dim=(0, 2), dtype=torch.float64)
    squared_shift = float(of_shifts @ grid.shift_px.to(of_shifts).square().sum(dim=1))
    return PosteriorSums(summed, power, of_slices.sum(dim=0, dtype=torch.float64), residual, squared_shift)


def separated_modes(
    log_joint: Tensor, rotation: Tensor, operators: Tensor, count: int, separation_deg: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Most likely poses of each image, of which no two that show the same map are near each other.

    Parameters
    ----------
    log_joint : Tensor, shape (n, T, K J)
        Of the slices of K maps.
    rotation : Tensor, shape (J, 3, 3)
        Of the slices of each map.
    operators : Tensor, shape (g, 3, 3)
        Under which maps stay the same.
    count : int
    separation_deg : float

    Returns
    -------
    column : Tensor, shape (n, count), int64
        Slices, the most likely first; -1 where there are not as many.
    shift : Tensor, shape (n, count), int64
        The best shift of each.
    log_joint : Tensor, shape (n, count)
    """
    best, at = log_joint.max(dim=1)  # over shifts
    rotations, rows = len(rotation), torch.arange(len(best), device=best.device)
    # trace of R_i^T g R_j, the largest over g, is that of the smallest angle between them
    least_trace = 1 + 2 * math.cos(math.radians(separation_deg))
    flat = rotation.flatten(1)
    turned = torch.einsum("gab,jbc->gjac", operators.to(rotation), rotation).flatten(2)
    columns, shifts, values = [], [], []
    for _ in range(count):
        value, column = best.max(dim=1)
        columns.append(torch.where(value > -torch.inf, column, -1))
        shifts.append(at[rows, column])
        values.append(value)
        near = torch.zeros(len(best), rotations, dtype=torch.bool, device=best.device)
        for operator in turned:
            near |= operator[column % rotations] @ flat.T > least_trace
        place = column // rotations * rotations
        near_columns = place[:, None] + torch.arange(rotations, device=best.device)
        best.scatter_(1, near_columns, best.gather(1, near_columns).masked_fill(near, -torch.inf))
    return torch.stack(columns, dim=1), torch.stack(shifts, dim=1), torch.stack(values, dim=1)


def _as_real(values: Tensor) -> Tensor:
    """Complex values (..., pixels) as rows of twice as many real ones."""
    return torch.view_as_real(values).reshape(-1, 2 * values.shape[-1])
