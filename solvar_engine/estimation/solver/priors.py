"""The prior of the factors, which does not shrink eigenvalues.

At a stationary point mean(S_i + m_i m_i^T) = I + V^T T^-1 V / n: an eigenvalue above one of that matrix measures how
much a prior has shrunk V. A prior variance that is estimated from the shrunken V feeds back and collapses. The Fourier
shell correlation of two independent half-sets ignores the scale of a shell, so a prior made from it cannot. What it can
do is to lose what the half-sets have hardly found yet: see `trusted_agreement`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.imaging.fourier import volume_to_ft
from solvar_engine.imaging.shells import radial_average
from solvar_engine.reconstruction.mean import precision_from_fsc

_START_SHARE = 0.05  # variance of random starting factors, as a share of the mean's spectrum


def starting_precision(band: Band) -> Tensor:
    """Prior of factors that nothing is known of: a share of the mean's spectrum, shape (shells,)."""
    power = radial_average(volume_to_ft(band.mean).abs() ** 2, band.box_size) / band.box_size
    power = power[: band.shell_max + 1]
    return 1.0 / (_START_SHARE * power).clamp_min(1e-6 * float(power.max()))


def trusted_agreement(correlation: Tensor, coefficients: Tensor) -> Tensor:
    """Raise the correlation of components that half-sets hardly agree on towards that of the best one in each shell.

    That versions of a weak component agree little says that they were not found, not that images know nothing of it: at
    the threshold of detection both are mostly noise. What they agree on then is what both half-sets have in common
    besides motions, in the innermost shells; by a prior made of that, a component is drawn there, away from the shells
    that show it, and lost. So a component that agrees by a share a as well as the best one does in each shell, on
    average over coefficients, is held to agree by no less than 1 - a of the best: one that was found keeps its own.

    Parameters
    ----------
    correlation : Tensor, shape (r, shells)
    coefficients : Tensor, shape (shells,)
        Number of them in each shell.

    Returns
    -------
    Tensor, shape (r, shells)
        Nowhere smaller than the positive part of ``correlation``.

    Examples
    --------
    >>> trusted_agreement(torch.tensor([[0.8, 0.4], [0.6, 0.0]]), torch.tensor([1.0, 2.0]))
    tensor([[0.8000, 0.4000],
            [0.6000, 0.2000]])
    """
    own = correlation.clamp_min(0)
    if not own.numel():
        return own
    best = own.amax(dim=0)
    weight = coefficients.to(own) * best
    share = (own @ weight) / (best @ weight).clamp_min(1e-300)
    return torch.maximum(own, (1 - share)[:, None] * best)


def factor_precision(correlation: Tensor, half_density: Tensor) -> Tensor:
    """Inverse prior variance 1/tau_js = D_s (1 - F_js) / F_js, D that of one half-set.

    Parameters
    ----------
    correlation : Tensor, shape (r, shells)
    half_density : Tensor, shape (shells,)

    Returns
    -------
    Tensor, shape (r, shells), float64
    """
    return precision_from_fsc(correlation.clamp_min(0.02), half_density)


def extend_shells(values: Tensor, shells: int) -> Tensor:
    """Continue values per shell to higher shells from the average of the last three.

    Parameters
    ----------
    values : Tensor, shape (..., known shells)
    shells : int

    Returns
    -------
    Tensor, shape (..., shells)
    """
    known = values.shape[-1]
    if shells <= known:
        return values[..., :shells]
    last = values[..., -3:].mean(dim=-1, keepdim=True)
    return torch.cat((values, last.expand(*values.shape[:-1], shells - known)), dim=-1)
