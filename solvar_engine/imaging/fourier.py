"""The only Fourier transforms of the engine, with its conventions.

The centre of images and volumes is index ``box_size // 2``, for odd boxes too: always ``ifftshift`` before and
``fftshift`` after a transform. Images use the orthonormal transform, so that a noise variance is the same in both
spaces. Volumes use the plain transform divided by ``box_size``: a central slice then is the orthonormal transform of
the projection (the sum along z), without a factor.

Images of real densities obey Friedel's law, so the estimators keep one coefficient of each conjugate pair, inside the
disk that the resolution allows: a :class:`HalfDisk`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DISTORTED_TOLERANCE = 1e-8  # of non-uniform transforms of images
_ON_THE_EDGE = 1e-9  # px, by which rounding may move a pixel of a disk


def nyquist_shell(box_size: int) -> int:
    """Last shell of which every coefficient has its Friedel mate: Nyquist of an even box is left out."""
    return (box_size - 1) // 2


@dataclass(frozen=True)
class HalfDisk:
    """Half-plane pixels inside a resolution disk, ordered by radius (rounded up), so that a lower band is a prefix.

    Attributes
    ----------
    box_size : int
        Box of the images, px.
    shell_max : int
        Radius of the disk, in Fourier pixels of ``box_size``.
    pixels : Tensor, shape (pixels, 2), int64
        (kx, ky) with kx > 0, or kx = 0 and ky >= 0.
    weight : Tensor, shape (pixels,), float32
        2 for a pixel that stands for its Friedel mate too, 1 for the origin: weighted sums over the list equal sums
        over the full plane.
    shell : Tensor, shape (pixels,), int64
        Nearest integer to the radius.
    """

    box_size: int
    shell_max: int
    pixels: Tensor
    weight: Tensor
    shell: Tensor

    @staticmethod
    def create(box_size: int, shell_max: int | None = None) -> HalfDisk:
        """List the pixels of a box up to a radius (default: the last complete shell).

        Raises
        ------
        ValueError
            If ``shell_max`` is outside 0 .. Nyquist.

        Examples
        --------
        >>> HalfDisk.create(64).pixels.shape
        torch.Size([1501, 2])
        """
        limit = nyquist_shell(box_size)
        shell_max = limit if shell_max is None else shell_max
        if not 0 <= shell_max <= limit:
            raise ValueError(f"shell_max is {shell_max}, expected 0 to {limit} for a box of {box_size} px")
        ky, kx = torch.meshgrid(torch.arange(-limit, limit + 1), torch.arange(limit + 1), indexing="ij")
        radius_squared = kx**2 + ky**2
        half = (kx > 0) | (ky >= 0)
        keep = half & (radius_squared <= shell_max**2)
        pixels = torch.stack((kx[keep], ky[keep]), dim=1)
        # Sorting by the exact radius makes every band a prefix; the angle keeps neighbours together in memory.
        angle_rank = torch.argsort(torch.atan2(pixels[:, 1].double(), pixels[:, 0].double()))
        pixels = pixels[angle_rank]
        pixels = pixels[torch.argsort(_band_of(pixels), stable=True)]
        weight = torch.where((pixels == 0).all(dim=1), 1.0, 2.0)
        shell = pixels.double().norm(dim=1).round().long()
        return HalfDisk(box_size, shell_max, pixels, weight, shell)

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def prefix(self, shell_max: int) -> HalfDisk:
        """Return the same disk cut at a smaller radius: its first pixels."""
        if shell_max > self.shell_max:
            raise ValueError(f"shell_max is {shell_max}, but the disk ends at {self.shell_max}")
        count = int((_band_of(self.pixels) <= shell_max).sum())
        return HalfDisk(
            self.box_size, shell_max, self.pixels[:count], self.weight[:count], self.shell[:count]
        )

    def to(self, device: torch.device | str) -> HalfDisk:
        """Copy to a device."""
        return HalfDisk(
            self.box_size,
            self.shell_max,
            self.pixels.to(device),
            self.weight.to(device),
            self.shell.to(device),
        )


def _band_of(pixels: Tensor) -> Tensor:
    """Smallest integer radius that contains each pixel."""
    return pixels.double().norm(dim=1).ceil().long()


def _centred_rfft2(images: Tensor) -> Tensor:
    return torch.fft.fftshift(
        torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)), norm="ortho"), dim=-2
    )


def images_to_disk(images: Tensor, disk: HalfDisk, box_size: int | None = None) -> Tensor:
    """Transform real images into half-disk coefficients.

    Images larger than the disk's box are Fourier-cropped to it without a factor: coefficients stay orthonormal in the
    *input* box, so volumes fitted to them are larger than real-space averages by (input box / box)^2.

    Parameters
    ----------
    images : Tensor, shape (n, y, x), real
    disk : HalfDisk
        Its pixels must lie inside the images' own band.

    Returns
    -------
    Tensor, shape (n, pixels), complex

    Raises
    ------
    ValueError
        If the images are smaller than the disk.

    Examples
    --------
    >>> images_to_disk(torch.ones(1, 8, 8), HalfDisk.create(8))[0, 0].real.item()
    8.0
    """
    input_box = images.shape[-1]
    if nyquist_shell(input_box) < disk.shell_max:
        raise ValueError(f"images of {input_box} px cannot fill a disk of radius {disk.shell_max}")
    spectrum = _centred_rfft2(images)
    kx, ky = disk.pixels.to(images.device).unbind(1)
    return spectrum[:, ky + input_box // 2, kx]


def images_to_scaled_disk(images: Tensor, disk: HalfDisk, frequency_ratio: float) -> Tensor:
    """Sample the transform of images at the disk's pixels times ``frequency_ratio``, exactly.

    Serves images whose pixel size differs from that of the disk: ``frequency_ratio`` is their pixel size over the
    disk's (for equal boxes), and sampling happens at the same frequencies in 1/Angstrom. The transform is separable
    on the scaled grid: two small matrix products. Beyond the images' own Nyquist the result is zero.

    Parameters
    ----------
    images : Tensor, shape (n, y, x), real
    disk : HalfDisk
    frequency_ratio : float
        Positive, dimensionless.

    Returns
    -------
    Tensor, shape (n, pixels), complex
        In the scale of the orthonormal transform of the images.

    Examples
    --------
    >>> disk = HalfDisk.create(8)
    >>> images = torch.randn(2, 8, 8)
    >>> torch.allclose(images_to_scaled_disk(images, disk, 1.0), images_to_disk(images, disk), atol=1e-5)
    True
    """
    input_box = images.shape[-1]
    limit = disk.shell_max
    position = torch.arange(input_box, dtype=torch.float64, device=images.device) - input_box // 2
    frequency = torch.arange(-limit, limit + 1, dtype=torch.float64, device=images.device) * frequency_ratio
    phase = torch.exp(-2j * torch.pi * frequency[:, None] * position[None, :] / input_box)
    phase = (phase / input_box**0.5).to(torch.promote_types(images.dtype, torch.complex64))
    grid = torch.einsum("ky,nyx,lx->nkl", phase, images.to(phase.dtype), phase[limit:])
    kx, ky = disk.pixels.to(images.device).unbind(1)
    inside = scaled_disk_is_inside(disk, frequency_ratio, input_box).to(images.device)
    return grid[:, ky + limit, kx] * inside


def scaled_disk_is_inside(disk: HalfDisk, frequency_ratio: float, input_box: int) -> Tensor:
    """Tell which pixels of a disk, times a frequency ratio, lie within the last complete shell of a box."""
    return disk.pixels.double().norm(dim=1) * frequency_ratio <= nyquist_shell(input_box)


def distorted_disk_is_inside(disk: HalfDisk, matrix: Tensor, input_box: int) -> Tensor:
    """Tell which pixels of a disk, times a matrix (..., 2, 2), lie within the last complete shell of a box."""
    place = disk.pixels.double() @ matrix.to(disk.pixels.device).mT
    return place.norm(dim=-1) <= nyquist_shell(input_box) + _ON_THE_EDGE


def images_to_distorted_disk(images: Tensor, disk: HalfDisk, matrix: Tensor) -> Tensor:
    """Sample the transform of images at the disk's pixels times a matrix: exact to 1e-6, by non-uniform transforms.

    As :func:`images_to_scaled_disk`, for images that are not only scaled. The CPU does it.

    Parameters
    ----------
    images : Tensor, shape (n, y, x), real
    disk : HalfDisk
    matrix : Tensor, shape (2, 2)

    Returns
    -------
    Tensor, shape (n, pixels), complex

    Examples
    --------
    >>> disk = HalfDisk.create(8)
    >>> images = torch.randn(2, 8, 8)
    >>> torch.allclose(images_to_distorted_disk(images, disk, torch.eye(2)), images_to_disk(images, disk), atol=1e-4)
    True
    """
    import finufft  # here alone are images not on a grid

    input_box = images.shape[-1]
    matrix = matrix.cpu().double()
    place = disk.pixels.cpu().double() @ matrix.T * (2 * torch.pi / input_box)
    values = images.cpu().to(torch.complex128).numpy()
    found = finufft.nufft2d2(
        place[:, 1].numpy().copy(), place[:, 0].numpy().copy(), values, eps=_DISTORTED_TOLERANCE, isign=-1, nthreads=1
    )
    coefficients = torch.from_numpy(found).reshape(len(images), -1) / input_box
    inside = distorted_disk_is_inside(disk, matrix, input_box).to(images.device)
    return coefficients.to(images.device, torch.promote_types(images.dtype, torch.complex64)) * inside


def disk_to_images(coefficients: Tensor, disk: HalfDisk, box_size: int) -> Tensor:
    """Turn half-disk coefficients back into real images; what lies outside the disk is zero.

    Parameters
    ----------
    coefficients : Tensor, shape (n, pixels), complex
    disk : HalfDisk
    box_size : int
        Box of the result, px.

    Returns
    -------
    Tensor, shape (n, y, x), real

    Examples
    --------
    >>> disk = HalfDisk.create(8)
    >>> disk_to_images(images_to_disk(torch.ones(1, 8, 8), disk), disk, 8)[0, 0, 0].round().item()
    1.0
    """
    spectrum = coefficients.new_zeros(coefficients.shape[0], box_size, box_size // 2 + 1)
    kx, ky = disk.pixels.to(coefficients.device).unbind(1)
    spectrum[:, ky + box_size // 2, kx] = coefficients
    # On the line kx = 0 the transform needs both mates.
    line = (kx == 0) & (ky > 0)
    spectrum[:, box_size // 2 - ky[line], 0] = coefficients[:, line].conj()
    shifted = torch.fft.ifftshift(spectrum, dim=-2)
    images = torch.fft.irfft2(shifted, s=(box_size, box_size), norm="ortho")
    return torch.fft.fftshift(images, dim=(-2, -1))


def filter_images(images: Tensor, amplitude: Tensor) -> Tensor:
    """Multiply the transform of real images with a real amplitude, at every frequency of the box.

    Parameters
    ----------
    images : Tensor, shape (n, y, x), real
    amplitude : Tensor, shape (y, x // 2 + 1), real
        ky from -(y // 2), kx from 0; even in ky.

    Returns
    -------
    Tensor, shape (n, y, x), real

    Examples
    --------
    >>> images = torch.randn(2, 5, 5)
    >>> torch.allclose(filter_images(images, 2 * torch.ones(5, 3)), 2 * images, atol=1e-6)
    True
    """
    spectrum = torch.fft.ifftshift(_centred_rfft2(images) * amplitude, dim=-2)
    filtered = torch.fft.irfft2(spectrum, s=images.shape[-2:], norm="ortho")
    return torch.fft.fftshift(filtered, dim=(-2, -1))


def shift_phases(disk: HalfDisk, shift_px: Tensor, box_size: int) -> Tensor:
    """Factors that move images by a shift.

    Parameters
    ----------
    disk : HalfDisk
    shift_px : Tensor, shape (n, 2)
        (x, y), pixels of a box of ``box_size``.
    box_size : int
        The box in which the disk's pixels count as frequencies k / box_size.

    Returns
    -------
    Tensor, shape (n, pixels), complex
        exp(-2 pi i k . shift / box_size).

    Examples
    --------
    >>> shift_phases(HalfDisk.create(8), torch.zeros(1, 2), 8)[0, 0].real.item()
    1.0
    """
    angle_rad = shift_px @ disk.pixels.to(shift_px).T * (-2 * torch.pi / box_size)
    return torch.polar(torch.ones_like(angle_rad), angle_rad)


def volume_to_ft(volumes: Tensor) -> Tensor:
    """Transform real volumes; a central slice is the orthonormal transform of the projection.

    Parameters
    ----------
    volumes : Tensor, shape (..., z, y, x), real

    Returns
    -------
    Tensor, shape (..., z, y, x // 2 + 1), complex
        z and y centred, kx >= 0, divided by the box size.

    Examples
    --------
    >>> volume_to_ft(torch.ones(4, 4, 4))[2, 2, 0].real.item()
    16.0
    """
    if not volumes.numel():  # no volumes at all: MKL would refuse
        return volumes[..., : volumes.shape[-1] // 2 + 1].to(torch.promote_types(volumes.dtype, torch.complex64))
    shifted = torch.fft.ifftshift(volumes, dim=(-3, -2, -1))
    transform = torch.fft.rfftn(shifted, dim=(-3, -2, -1))
    return torch.fft.fftshift(transform, dim=(-3, -2)) / volumes.shape[-1]


def ft_to_volume(volumes_ft: Tensor, box_size: int) -> Tensor:
    """Inverse of :func:`volume_to_ft`: half spectra (..., z, y, x // 2 + 1) to real volumes (..., z, y, x).

    Examples
    --------
    >>> volume = torch.randn(5, 5, 5)
    >>> torch.allclose(ft_to_volume(volume_to_ft(volume), 5), volume, atol=1e-6)
    True
    """
    shifted = torch.fft.ifftshift(volumes_ft, dim=(-3, -2))
    volumes = torch.fft.irfftn(shifted, s=(box_size,) * 3, dim=(-3, -2, -1))
    return torch.fft.fftshift(volumes, dim=(-3, -2, -1)) * box_size


def block_spectra(blocks: Tensor) -> Tensor:
    """Transform real blocks (..., size, size, size) whose centre does not matter: origin at index 0 in both spaces.

    Returns half spectra (..., size, size, size // 2 + 1), complex.
    """
    return torch.fft.rfftn(blocks, dim=(-3, -2, -1))


def spectra_to_blocks(spectra: Tensor) -> Tensor:
    """Inverse of :func:`block_spectra`, for blocks of even size."""
    return torch.fft.irfftn(spectra, s=(spectra.shape[-2],) * 3, dim=(-3, -2, -1))


def block_order(values: Tensor) -> Tensor:
    """Bring a field on half spectra (..., z, y, kx) from the order of :func:`volume_to_ft` to that of blocks."""
    return torch.fft.ifftshift(values, dim=(-3, -2))


def padded_rfft3(volumes: Tensor, size: int) -> Tensor:
    """Plain transform of volumes zero-padded to ``size``, centre at index 0 of the padded grid, not shifted.

    The padding is done one axis at a time, so that no line of zeros is ever transformed.

    Parameters
    ----------
    volumes : Tensor, shape (c, z, y, x), real
    size : int
        Edge of the padded grid, at least that of the volumes.

    Returns
    -------
    Tensor, shape (c, size, size, size // 2 + 1), complex
        FFT order on z and y.

    Examples
    --------
    >>> padded_rfft3(torch.ones(1, 4, 4, 4), 8).shape
    torch.Size([1, 8, 8, 5])
    """
    spectrum = torch.fft.rfft(_pad_wrapped(volumes, size, -1), dim=-1)
    spectrum = torch.fft.fft(_pad_wrapped(spectrum, size, -2), dim=-2)
    return torch.fft.fft(_pad_wrapped(spectrum, size, -3), dim=-3)


def padded_rfft3_adjoint(spectrum: Tensor, box_size: int) -> Tensor:
    """Adjoint of :func:`padded_rfft3` for the real inner product over the stored half spectrum.

    Parameters
    ----------
    spectrum : Tensor, shape (c, size, size, size // 2 + 1), complex
    box_size : int
        Edge of the volumes, px.

    Returns
    -------
    Tensor, shape (c, z, y, x), real

    Examples
    --------
    >>> padded_rfft3_adjoint(torch.ones(1, 8, 8, 5, dtype=torch.complex64), 4).shape
    torch.Size([1, 4, 4, 4])
    """
    halved = spectrum.clone()
    # The inverse counts every interior kx twice (its Friedel mate); the adjoint counts what is stored, once.
    halved[..., 1 : (spectrum.shape[-2] + 1) // 2] *= 0.5
    return _cropped_irfft3(halved, box_size)


def convolve(volumes: Tensor, kernel_ft: Tensor) -> Tensor:
    """Convolve volumes with a kernel of twice their extent, without wrap-around.

    Parameters
    ----------
    volumes : Tensor, shape (c, z, y, x), real
    kernel_ft : Tensor, shape (2 z, 2 y, x + 1), real or complex
        Plain transform of the kernel, its centre at index 0, FFT order (as from :func:`padded_rfft3`).

    Returns
    -------
    Tensor, shape (c, z, y, x), real

    Examples
    --------
    >>> volume = torch.randn(1, 4, 4, 4)
    >>> torch.allclose(convolve(volume, torch.ones(8, 8, 5)), volume, atol=1e-5)
    True
    """
    size = kernel_ft.shape[0]
    return _cropped_irfft3(padded_rfft3(volumes, size) * kernel_ft, volumes.shape[-1]) / size**3


def _cropped_irfft3(spectrum: Tensor, box_size: int) -> Tensor:
    """Inverse transform without factor, cropped to the central box one axis at a time."""
    size = spectrum.shape[-2]
    lines = _crop_wrapped(torch.fft.ifft(spectrum, dim=-3, norm="forward"), box_size, -3)
    lines = _crop_wrapped(torch.fft.ifft(lines, dim=-2, norm="forward"), box_size, -2)
    return _crop_wrapped(torch.fft.irfft(lines, n=size, dim=-1, norm="forward"), box_size, -1)


def _pad_wrapped(values: Tensor, size: int, dim: int) -> Tensor:
    """Zero-pad one centred axis to ``size`` and put its centre at index 0."""
    box_size = values.shape[dim]
    centre = box_size // 2
    shape = list(values.shape)
    shape[dim] = size
    padded = values.new_zeros(shape)
    padded.narrow(dim, 0, box_size - centre).copy_(values.narrow(dim, centre, box_size - centre))
    padded.narrow(dim, size - centre, centre).copy_(values.narrow(dim, 0, centre))
    return padded


def _crop_wrapped(values: Tensor, box_size: int, dim: int) -> Tensor:
    """Adjoint of :func:`_pad_wrapped`."""
    centre = box_size // 2
    size = values.shape[dim]
    return torch.cat(
        (values.narrow(dim, size - centre, centre), values.narrow(dim, 0, box_size - centre)), dim=dim
    )


def volume_radius(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Radius of every coefficient of :func:`volume_to_ft`, Fourier pixels: (z, y, x // 2 + 1), float32."""
    centred = torch.arange(box_size, device=device, dtype=torch.float32) - box_size // 2
    half = torch.arange(box_size // 2 + 1, device=device, dtype=torch.float32)
    return torch.sqrt(centred[:, None, None] ** 2 + centred[None, :, None] ** 2 + half[None, None, :] ** 2)


def hermitian_weight(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Multiplicity of every stored kx of a full half spectrum, (box_size // 2 + 1,), float32.

    It is 1 for kx = 0 and the even Nyquist, else 2.
    """
    weight = torch.full((box_size // 2 + 1,), 2.0, device=device)
    weight[0] = 1.0
    if box_size % 2 == 0:
        weight[-1] = 1.0
    return weight


def low_pass(volumes: Tensor, shell_max: float) -> Tensor:
    """Set all coefficients beyond a radius to zero.

    Parameters
    ----------
    volumes : Tensor, shape (..., z, y, x), real
    shell_max : float
        Radius in Fourier pixels; what lies on it is kept.

    Returns
    -------
    Tensor, same shape

    Examples
    --------
    >>> low_pass(torch.randn(2, 8, 8, 8), 3).shape
    torch.Size([2, 8, 8, 8])
    """
    box_size = volumes.shape[-1]
    keep = volume_radius(box_size, volumes.device) <= shell_max
    return ft_to_volume(volume_to_ft(volumes) * keep, box_size)


def resize_volume_ft(volumes_ft: Tensor, box_size: int, new_size: int) -> Tensor:
    """Cut or zero-pad centred half spectra to another box; unpaired Nyquist planes are dropped.

    Parameters
    ----------
    volumes_ft : Tensor, shape (..., z, y, x // 2 + 1), complex
        Of a box of ``box_size``.
    box_size, new_size : int

    Returns
    -------
    Tensor, shape (..., new, new, new // 2 + 1), complex
    """
    limit = min(nyquist_shell(box_size), nyquist_shell(new_size))
    resized = volumes_ft.new_zeros(*volumes_ft.shape[:-3], new_size, new_size, new_size // 2 + 1)
    source = slice(box_size // 2 - limit, box_size // 2 + limit + 1)
    target = slice(new_size // 2 - limit, new_size // 2 + limit + 1)
    resized[..., target, target, : limit + 1] = volumes_ft[..., source, source, : limit + 1]
    return resized


def fourier_crop_volume(volumes: Tensor, box_size: int) -> Tensor:
    """Resample volumes on a coarser or finer grid of the same extent, keeping density values.

    Parameters
    ----------
    volumes : Tensor, shape (..., z, y, x), real
    box_size : int
        New edge, px; the pixel size changes by old / new.

    Returns
    -------
    Tensor, shape (..., box_size, box_size, box_size), real

    Examples
    --------
    >>> fourier_crop_volume(torch.ones(8, 8, 8), 4)[0, 0, 0].item()
    1.0
    """
    old_size = volumes.shape[-1]
    if old_size == box_size:
        return volumes.clone()
    resized = resize_volume_ft(volume_to_ft(volumes), old_size, box_size)
    return ft_to_volume(resized, box_size) * (box_size / old_size) ** 2
