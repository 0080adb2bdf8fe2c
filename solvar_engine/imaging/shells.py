"""Shells of Fourier space: radial averages and the Fourier shell correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import HalfDisk, hermitian_weight, nyquist_shell, volume_radius, volume_to_ft

_SHAPE_ROUNDS = 2  # levels and shape alternate


def shell_count(box_size: int) -> int:
    """Number of complete shells, the origin included."""
    return nyquist_shell(box_size) + 1


def shell_index_volume(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Shell of each coefficient of a half spectrum, (z, y, x // 2 + 1), int64.

    What lies beyond the last complete shell gets ``shell_count``.
    """
    index = volume_radius(box_size, device).round().long()
    return index.clamp_max(shell_count(box_size))


def shell_sum(values: Tensor, box_size: int) -> Tensor:
    """Sum real fields (..., z, y, x // 2 + 1) over full shells, Friedel mates counted: (..., shells), float64.

    Examples
    --------
    >>> shell_sum(torch.ones(8, 8, 5), 8)[:2].tolist()
    [1.0, 18.0]
    """
    shells = shell_count(box_size)
    index = shell_index_volume(box_size, values.device).flatten()
    weighted = (values * hermitian_weight(box_size, values.device)).flatten(-3).double()
    result = weighted.new_zeros(*weighted.shape[:-1], shells + 1)
    result.index_add_(-1, index, weighted)
    return result[..., :shells]


def coefficients_per_shell(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Number of coefficients of each full shell, shape (shells,), float64."""
    return shell_sum(torch.ones(box_size, box_size, box_size // 2 + 1, device=device), box_size)


def radial_average(values: Tensor, box_size: int) -> Tensor:
    """Average real fields (..., z, y, x // 2 + 1) over the shells: (..., shells), float64.

    Examples
    --------
    >>> radial_average(torch.full((8, 8, 5), 3.0), 8).tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    return shell_sum(values, box_size) / coefficients_per_shell(box_size, values.device)


def shell_means(values: Tensor, disk: HalfDisk) -> Tensor:
    """Average fields (..., pixels) over the half-disk by shell, Friedel mates counted: (..., shells), float64.

    Examples
    --------
    >>> disk = HalfDisk.create(8)
    >>> shell_means(torch.ones(len(disk)), disk).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    weight = disk.weight.double().to(values.device)
    shell = disk.shell.to(values.device)
    shells = disk.shell_max + 1
    total = torch.zeros(*values.shape[:-1], shells, dtype=torch.float64, device=values.device)
    total.index_add_(-1, shell, values.double() * weight)
    count = torch.zeros(shells, dtype=torch.float64, device=values.device).index_add_(0, shell, weight)
    return total / count


def shrunk_spectra(power: Tensor, count: Tensor) -> Tensor:
    """Bring spectra that were measured on few coefficients near the shape that all have in common.

    Each keeps its own level, which a single image tells to a few percent; a shell of one image has a dozen
    coefficients. How much the shapes truly differ in a shell is their spread beyond what so many coefficients leave
    uncertain (DerSimonian & Laird, Control. Clin. Trials 1986): a spectrum and the common shape are averaged with the
    inverses of these two variances.

    Parameters
    ----------
    power : Tensor, shape (groups, shells), float64
        Average power.
    count : Tensor, shape (groups, shells)
        Coefficients that each was measured on; where there are none, the power does not count.

    Returns
    -------
    Tensor, shape (groups, shells), float64
        A group that was measured nowhere has the average level.

    Examples
    --------
    >>> shrunk_spectra(torch.tensor([[4.0, 2.0], [3.9, 2.1]]), torch.tensor([[1e9, 1e9], [2.0, 1e9]])).round().tolist()
    [[4.0, 2.0], [4.0, 2.0]]
    """
    count, smallest = count.double(), torch.finfo(torch.float32).tiny
    total, measured = count.sum(dim=0), count.sum(dim=1, keepdim=True)
    level = torch.ones_like(measured)
    for _ in range(_SHAPE_ROUNDS):
        shape = (count * power / level).sum(dim=0) / total.clamp_min(smallest)
        shape = torch.where(total > 0, shape, 1.0).clamp_min(smallest)
        level = (count * power / shape).sum(dim=1, keepdim=True) / measured.clamp_min(smallest)
        level = torch.where(measured > 0, level, 1.0).clamp_min(smallest)
    common = level * shape
    excess = (count * (power / common - 1).square()).sum(dim=0) - ((count > 0).sum(dim=0) - 1)
    freedom = total - count.square().sum(dim=0) / total.clamp_min(smallest)
    variance = torch.where(freedom > 1e-9 * total, excess / freedom.clamp_min(smallest), 0.0).clamp_min(0)
    own = count * variance / (1 + count * variance)
    return own * power + (1 - own) * common


def shells_to_volume(values: Tensor, box_size: int, beyond: float = 0.0) -> Tensor:
    """Spread one number per shell over a half spectrum.

    Parameters
    ----------
    values : Tensor, shape (..., shells)
    box_size : int
    beyond : float
        Value outside the last complete shell.

    Returns
    -------
    Tensor, shape (..., z, y, x // 2 + 1)
    """
    padded = torch.cat((values, values.new_full((*values.shape[:-1], 1), beyond)), dim=-1)
    return padded[..., shell_index_volume(box_size, values.device)]


def fsc(volume1: Tensor, volume2: Tensor, mask: Tensor | None = None) -> Tensor:
    """Fourier shell correlation per integer shell (Harauz & van Heel, Optik 1986).

    Parameters
    ----------
    volume1, volume2 : Tensor, shape (..., z, y, x), real
    mask : Tensor, shape (z, y, x), optional
        Multiplied in real space first.

    Returns
    -------
    Tensor, shape (..., shells), float64
        Zero where a shell is empty.

    Examples
    --------
    >>> volume = torch.randn(8, 8, 8)
    >>> fsc(volume, 2 * volume).round(decimals=4).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    box_size = volume1.shape[-1]
    first, second = (
        volume_to_ft(volume if mask is None else volume * mask) for volume in (volume1, volume2)
    )
    cross = shell_sum((first * second.conj()).real, box_size)
    power = shell_sum(first.abs() ** 2, box_size) * shell_sum(second.abs() ** 2, box_size)
    return torch.where(power > 0, cross / power.clamp_min(torch.finfo(power.dtype).tiny).sqrt(), 0.0)


def resolution_at(fsc_values: Tensor, threshold: float, box_size: int, pixel_size: float) -> float:
    """Resolution in Angstrom at which an FSC first falls below a threshold, linear between shells.

    Parameters
    ----------
    fsc_values : Tensor, shape (shells,)
    threshold : float
    box_size : int
    pixel_size : float
        Angstrom.

    Returns
    -------
    float
        Twice the pixel size at best (never crossed); the box length if shell 1 is below already.

    Examples
    --------
    >>> resolution_at(torch.tensor([1.0, 1.0, 0.0, 0.0]), 0.5, 8, 2.0)
    10.666666666666666
    """
    values = fsc_values.double().tolist()
    extent = box_size * pixel_size
    for shell in range(1, len(values)):
        if values[shell] < threshold:
            before = values[shell - 1]
            fraction = (before - threshold) / (before - values[shell]) if before > threshold else 0.0
            return extent / max(shell - 1 + fraction, 1.0)
    return 2.0 * pixel_size
