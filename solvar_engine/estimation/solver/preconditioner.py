"""The preconditioner: what turns a gradient into a step of the size of an EM update or a Newton step.

The curvature of an objective is nearly separable, D(k) over frequencies times an r-by-r matrix C over latents: for the
likelihood C = mean(S + m m^T), the normal matrix of expectation maximisation (EM). A gradient divided by
D(k) lambda + 1/tau(k) in the eigenbasis of C costs no more than a gradient and moves like EM.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import band_box
from solvar_engine.estimation.model.penalties import WeightedPrior
from solvar_engine.imaging.fourier import fourier_crop_volume, ft_to_volume, volume_radius, volume_to_ft
from solvar_engine.imaging.linear_algebra import mix
from solvar_engine.reconstruction.normal_equations import bounded_spectrum, crop_density, mask_overlap

_SEPARATION = 100.0  # of factors by their prior against mixing them by the curvature


@dataclass(frozen=True)
class Preconditioner:
    """What bounds the steps of factors in a band.

    Attributes
    ----------
    shell_max : int
        Last shell of the band.
    mask_root : Tensor, shape (z, y, x)
        Square root of the soft mask: applied on both sides of the preconditioner it confines steps to the mask and
        keeps the preconditioner symmetric.
    mask_overlap : Tensor, shape (z, y, x)
        Normalised autocorrelation of ``mask_root``; multiplying by it smooths a spectrum as the mask does.
    density : Tensor, shape (z, y, x // 2 + 1)
        D(k) of the images that a gradient stands for, in the units of this box.
    """

    shell_max: int
    mask_root: Tensor
    mask_overlap: Tensor
    density: Tensor

    @property
    def box_size(self) -> int:
        """Edge of the volumes of the band."""
        return int(self.mask_root.shape[-1])

    @property
    def inside(self) -> Tensor:
        """Coefficients (z, y, x // 2 + 1) of the band, bool."""
        return volume_radius(self.box_size, self.mask_root.device) <= self.shell_max

    def bound(self, spectrum: Tensor) -> Tensor:
        """Raise a spectrum (..., z, y, x // 2 + 1) to what the mask makes of it."""
        return bounded_spectrum(spectrum, self.mask_overlap)


def make_preconditioner(shell_max: int, mask: Tensor, density: Tensor) -> Preconditioner:
    """Cut mask and density to a band.

    Parameters
    ----------
    shell_max : int
    mask : Tensor, shape (z, y, x)
        Of the factors, at the working box.
    density : Tensor, shape (z, y, x // 2 + 1)
        At the working box.

    Returns
    -------
    Preconditioner
    """
    full = mask.shape[-1]
    box_size = band_box(shell_max, full)
    mask_root = fourier_crop_volume(mask, box_size).clamp(0, 1).sqrt()
    return Preconditioner(shell_max, mask_root, mask_overlap(mask_root), crop_density(density, full, box_size))


def preconditioned_step(
    preconditioner: Preconditioner, factors: Tensor, gradient: Tensor, curvature: Tensor, penalty: WeightedPrior
) -> Tensor:
    """Turn a gradient into a step of the size of an EM update or a Newton step.

    Parameters
    ----------
    preconditioner : Preconditioner
    factors, gradient : Tensor, shape (r, z, y, x)
        The gradient of the data term, scaled to all images.
    curvature : Tensor, shape (r, r)
        Of the average image, to be multiplied by the density.
    penalty : WeightedPrior

    Returns
    -------
    Tensor, shape (r, z, y, x)
        To be subtracted; band-limited, inside the mask up to that.
    """
    box_size, mask_root = preconditioner.box_size, preconditioner.mask_root
    pulled = ft_to_volume(penalty.gradient(volume_to_ft(factors)), box_size)
    residual_ft = volume_to_ft(mask_root * (gradient + pulled))
    vectors = _basis(preconditioner, curvature, penalty)
    # Row sums bound a matrix whose small remaining off-diagonal parts are left out.
    values = (vectors.T @ curvature @ vectors).abs().sum(dim=1).clamp_min(1e-6).to(gradient)
    spectrum = preconditioner.density * values[:, None, None, None] + penalty.diagonal(vectors)
    step_ft = mix(mix(residual_ft, vectors) / preconditioner.bound(spectrum), vectors.T)
    inside = preconditioner.inside
    step = mask_root * ft_to_volume(step_ft * inside, box_size)
    return ft_to_volume(volume_to_ft(step) * inside, box_size)


def _basis(preconditioner: Preconditioner, curvature: Tensor, penalty: WeightedPrior) -> Tensor:
    """Orthogonal mixtures (r, r) of factors in which the curvature and the penalty are nearly diagonal.

    After a change of gauge the curvature is close to the identity, and its eigenvectors mean nothing: they would mix
    factors that the prior leaves alone with others that it holds down by a hundred times as much, for which the steps
    would be up to r times too long. So factors are first told apart by how much the prior holds them down.
    """
    held, density = penalty.precision(), preconditioner.density
    inside = preconditioner.inside & (density > 0)
    share = (held / (held + density))[:, inside].mean(dim=1).to(curvature)
    scale = _SEPARATION * curvature.diagonal().mean()
    return torch.linalg.eigh(curvature + scale * torch.diag(share)).eigenvectors
