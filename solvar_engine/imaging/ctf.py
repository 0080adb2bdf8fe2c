"""The contrast transfer function.

Sign, stated once: with positive density and white particles (protein brighter than the background, as RELION and
cryoSPARC keep them), image = ctf * projection, and the function is +amplitude_contrast at zero frequency. An image that
was phase-flipped, multiplied with the sign of this function, has the absolute value left: white particles stay white.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.aberrations import even_zernike
from solvar_engine.imaging.fourier import HalfDisk, filter_images
from solvar_engine.imaging.types import Ctf

LEAST_PREMULTIPLIED = 0.05
"""Of the sine, of images that were multiplied with their transfer functions: below that nothing is taken from them.

This is 3 % of the coefficients, with 0.005 % of what all tell of the molecule."""


def electron_wavelength(voltage: Tensor) -> Tensor:
    """Relativistic wavelength of electrons.

    Parameters
    ----------
    voltage : Tensor
        kV.

    Returns
    -------
    Tensor
        Angstrom.

    Examples
    --------
    >>> round(electron_wavelength(torch.tensor(300.0)).item(), 5)
    0.01969
    """
    volt = voltage * 1e3
    return 12.2643247 / torch.sqrt(volt * (1.0 + 0.978466e-6 * volt))


def ctf_values(ctf: Ctf, disk: HalfDisk, pixel_size: float) -> Tensor:
    """Evaluate the contrast transfer function at the pixels of a disk.

    Parameters
    ----------
    ctf : Ctf
        Parameters of n particles.
    disk : HalfDisk
        Pixels (kx, ky); the frequency is k / (disk.box_size * pixel_size).
    pixel_size : float
        Angstrom per pixel of the disk's box.

    Returns
    -------
    Tensor, shape (n, pixels), in the dtype of ``ctf``
        See :func:`ctf_at`.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> ctf = Ctf(1e4 * one, 1e4 * one, 0 * one, 300 * one, 2.7 * one, 0.1 * one, 0 * one, 0 * one, one, one < 0)
    >>> round(ctf_values(ctf, HalfDisk.create(8), 2.0)[0, 0].item(), 3)
    0.1
    """
    return ctf_at(ctf, disk.pixels.double() / (disk.box_size * pixel_size))


def ctf_at(ctf: Ctf, frequency: Tensor) -> Tensor:
    """Evaluate the contrast transfer function at frequencies (pixels, 2), 1/Angstrom; (n, pixels).

    ctf(s) = scale exp(-B s^2/4) sin(pi lambda df(angle) s^2 - pi/2 Cs lambda^3 s^4 - even(s) + phase_shift + asin(w)),
    with the defocus of the direction, df = (du + dv)/2 + (du - dv)/2 cos(2 (angle - defocus_angle))
    (Rohou & Grigorieff, J. Struct. Biol. 2015, eqs. 2-5; sign as RELION), and even aberrations even(s) (Zivanov, Nakane
    & Scheres, IUCrJ 2020, eq. 7). Of phase-flipped images |sin(...)|; of premultiplied ones nought where |sin(...)| is
    below `LEAST_PREMULTIPLIED`.
    """
    dtype, device = ctf.defocus_u.dtype, ctf.defocus_u.device
    frequency = frequency.to(device, torch.float64)
    squared = (frequency**2).sum(dim=1)
    angle2 = 2 * torch.atan2(frequency[:, 1], frequency[:, 0])
    # cos(2 (angle - a)) s^2 by the addition theorem: one small product instead of a cosine per pixel and particle.
    basis = torch.stack((squared, squared * torch.cos(angle2), squared * torch.sin(angle2), squared**2))
    wavelength = electron_wavelength(ctf.voltage)
    axis2 = 2 * torch.deg2rad(ctf.defocus_angle)
    mean = torch.pi * wavelength * (ctf.defocus_u + ctf.defocus_v) / 2
    astigmatism = torch.pi * wavelength * (ctf.defocus_u - ctf.defocus_v) / 2
    aberration = -torch.pi / 2 * ctf.cs * 1e7 * wavelength**3
    coefficients = torch.stack(
        (mean, astigmatism * torch.cos(axis2), astigmatism * torch.sin(axis2), aberration), dim=1
    )
    if ctf.even_zernike is not None:
        basis = torch.cat((basis, even_zernike(frequency, ctf.even_zernike.shape[1])))
        coefficients = torch.cat((coefficients, -ctf.even_zernike), dim=1)
    basis = basis.to(dtype)
    offset = torch.deg2rad(ctf.phase_shift) + torch.asin(ctf.amplitude_contrast)
    values = torch.sin_(torch.addmm(offset[:, None].expand(-1, basis.shape[1]), coefficients, basis))
    if ctf.is_premultiplied is not None:
        values.masked_fill_(ctf.is_premultiplied[:, None] & (values.abs() < LEAST_PREMULTIPLIED), 0.0)
    if bool(ctf.is_phase_flipped.any()):
        values = torch.where(ctf.is_phase_flipped[:, None], values.abs(), values)
    if bool((ctf.b_factor != 0).any()):
        values *= torch.exp(-0.25 * ctf.b_factor[:, None] * basis[0])
    if bool((ctf.scale != 1).any()):
        values *= ctf.scale[:, None]
    return values


def divided_by_ctf(
    images: Tensor, ctf: Ctf, magnification: Tensor, pixel_size: float
) -> tuple[Tensor, Tensor]:
    """Undo the multiplication of images with their transfer functions, where these are not near nought.

    Images y of noise variance v that were multiplied with their transfer functions C are C y, of noise variance C^2 v.
    The likelihood of C y is that of y times what depends on C alone, so it is enough to divide. Near zeros of C only
    rounding is left to be divided, and the signal that is lost is small: a coefficient's information goes with C^2.

    Parameters
    ----------
    images : Tensor, shape (n, y, x), real
        C y.
    ctf : Ctf
        Of these images, all premultiplied.
    magnification : Tensor, shape (2, 2)
        See `solvar_engine.imaging.aberrations`.
    pixel_size : float
        Of the images, Angstrom.

    Returns
    -------
    images : Tensor, shape (n, y, x)
        y without its coefficients near zeros of C, and without the unpaired Nyquist lines of even boxes, where programs
        differ in the sign of the frequency at which they take C.
    power : Tensor, shape (n,)
        Of C y near zeros of C, over that of y elsewhere: a third of `LEAST_PREMULTIPLIED` squared of such images, and a
        hundred times that of others.
    """
    box_size = images.shape[-1]
    ky, kx = torch.meshgrid(
        torch.arange(box_size, device=images.device) - box_size // 2,
        torch.arange(box_size // 2 + 1, device=images.device), indexing="ij",
    )  # fmt: skip
    own = torch.stack((kx, ky), dim=-1).reshape(-1, 2).double() / (box_size * pixel_size)
    values = ctf_at(ctf, own @ magnification.to(own).T).reshape(-1, *ky.shape)
    is_paired = 2 * torch.maximum(kx, ky.abs()) < box_size
    is_near = (values == 0) & is_paired
    is_kept = (values != 0) & is_paired
    divided = filter_images(images, torch.where(is_kept, 1 / values, 0.0))
    near, elsewhere = (
        part.square().sum(dim=(1, 2)) / where.sum(dim=(1, 2)).clamp_min(1)
        for part, where in ((filter_images(images, is_near.to(values.dtype)), is_near), (divided, is_kept))
    )
    return divided, near / elsewhere.clamp_min(torch.finfo(values.dtype).tiny)
