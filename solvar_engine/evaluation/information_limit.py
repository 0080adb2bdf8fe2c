"""How much of the true variance images could show at best: the information limit of captured variance."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, volume_to_ft
from solvar_engine.imaging.shells import coefficients_per_shell, radial_average, shell_means
from solvar_engine.imaging.types import Ctf

_CHUNK = 1024  # images at a time


def seen_power(ctf: Ctf, noise_variance: Tensor, disk: HalfDisk, pixel_size: float, contrast: Tensor) -> Tensor:
    """Average of a^2 ctf^2 / sigma^2 over the shells of each image.

    Parameters
    ----------
    ctf : Ctf
        Of n particles.
    noise_variance : Tensor, shape (n, shells)
        Of each particle's optics group.
    disk : HalfDisk
        All shells.
    pixel_size : float
        Angstrom per pixel of the disk's box.
    contrast : Tensor, shape (n,)
        a.

    Returns
    -------
    Tensor, shape (n, shells), float64
    """
    power = torch.cat(
        [
            shell_means(ctf_values(ctf[start : start + _CHUNK], disk, pixel_size).square(), disk)
            for start in range(0, len(contrast), _CHUNK)
        ]
    )
    return contrast.double()[:, None] ** 2 * power / noise_variance.double().clamp_min(1e-30)


def information_limit(
    factor: NDArray[np.floating], mask: NDArray[np.floating], seen: Tensor, disk: HalfDisk, rank: int
) -> float:
    """Captured variance of the best linear estimate of the leading true components from as many images.

    If the latents were known, images would determine the coefficients of component j in shell s by D_s; as they are
    not, to first order by rho_j D_s, with rho_j the average of g / (1 + g), g what an image knows of the latent
    coordinate. With tau the power of a coefficient, a Wiener filter then keeps F = rho D tau / (1 + rho D tau), where
    the power of a volume inside a mask lies in fewer independent coefficients, by the volume of the mask.

    Parameters
    ----------
    factor : ndarray, shape (states, z, y, x)
        Of the true covariance, in the units of the images, at the disk's box.
    mask : ndarray, shape (z, y, x)
    seen : Tensor, shape (n, shells)
        From :func:`seen_power`.
    disk : HalfDisk
    rank : int
        Components that an estimate has.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the true states do not differ.
    """
    total = float(np.square(factor, dtype=np.float64).sum())
    if not total:
        raise ValueError("the true states do not differ: there is nothing to capture")
    box_size = disk.box_size
    masked = torch.from_numpy(np.asarray(factor * mask, dtype=np.float32))
    flat = masked.flatten(1).double()
    values, vectors = torch.linalg.eigh(flat @ flat.T)
    values, vectors = values.flip(0)[:rank].clamp_min(0), vectors.flip(1)[:, :rank]
    components = torch.tensordot(vectors.T.float(), masked, dims=1)  # of norm sqrt(values)
    power = radial_average(volume_to_ft(components).abs() ** 2, box_size)
    of_volume, of_image = coefficients_per_shell(box_size), _pixels_per_shell(disk)
    known = seen.double() @ (of_image * power).T
    rho = (known / (1 + known)).mean(dim=0)
    density = seen.double().sum(dim=0) * of_image / of_volume
    confined = float((mask > 0.5).mean())
    ratio = rho[:, None] * density * power / confined
    kept = (of_volume * power * ratio / (1 + ratio)).sum(dim=1) / (of_volume * power).sum(dim=1).clamp_min(1e-300)
    return float((values * kept).sum()) / total


def _pixels_per_shell(disk: HalfDisk) -> Tensor:
    """Number of pixels of a full image in each shell."""
    count = torch.zeros(disk.shell_max + 1, dtype=torch.float64)
    return count.index_add_(0, disk.shell, disk.weight.double())
