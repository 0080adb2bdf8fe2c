"""Images through an imperfect microscope, from definitions alone, in NumPy and float64: no line is shared with ours.

Formulas of Zivanov, Nakane & Scheres (IUCrJ 2020) and RELION's documentation; Zernike polynomials are written out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# in RELION's order, of frequencies x and y in 1/Angstrom
_ODD = (
    lambda x, y: y,
    lambda x, y: x,
    lambda x, y: 3 * x**2 * y - y**3,
    lambda x, y: (3 * (x**2 + y**2) - 2) * y,
    lambda x, y: (3 * (x**2 + y**2) - 2) * x,
    lambda x, y: x**3 - 3 * x * y**2,
)
_EVEN = (
    lambda x, y: 1 + 0 * x,
    lambda x, y: 2 * x * y,
    lambda x, y: 2 * (x**2 + y**2) - 1,
    lambda x, y: x**2 - y**2,
    lambda x, y: 4 * x**3 * y - 4 * x * y**3,
    lambda x, y: (4 * (x**2 + y**2) - 3) * 2 * x * y,
    lambda x, y: 6 * (x**2 + y**2) ** 2 - 6 * (x**2 + y**2) + 1,
    lambda x, y: (4 * (x**2 + y**2) - 3) * (x**2 - y**2),
    lambda x, y: x**4 - 6 * x**2 * y**2 + y**4,
)
_PADDING = 2


@dataclass(frozen=True)
class Microscope:
    """What the optics table says, in RELION's units."""

    tilt: tuple[float, float] = (0.0, 0.0)
    odd: tuple[float, ...] = ()
    even: tuple[float, ...] = ()
    magnification: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.1

    def columns(self) -> dict[str, list[object]]:
        """Columns of the optics table beside those of a perfect microscope."""
        (m00, m01), (m10, m11) = self.magnification
        columns: dict[str, object] = {
            "rlnBeamTiltX": self.tilt[0], "rlnBeamTiltY": self.tilt[1],
            "rlnMagMat00": m00, "rlnMagMat01": m01, "rlnMagMat10": m10, "rlnMagMat11": m11,
        }  # fmt: skip
        for name, values in (("rlnOddZernike", self.odd), ("rlnEvenZernike", self.even)):
            if values:
                columns[name] = "[" + ",".join(map(str, values)) + "]"
        return {name: [value] for name, value in columns.items()}

    def ctf(self, x: np.ndarray, y: np.ndarray, defocus: np.ndarray) -> np.ndarray:
        """Of the molecule's frequencies, 1/Angstrom; defocus is (u, v, angle in degrees)."""
        squared, volt = x**2 + y**2, 1e3 * self.voltage
        wavelength = 12.2643247 / np.sqrt(volt * (1 + 0.978466e-6 * volt))
        u, v, angle = defocus
        along = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (np.arctan2(y, x) - np.radians(angle)))
        phase = np.pi * wavelength * along * squared - np.pi / 2 * 1e7 * self.cs * wavelength**3 * squared**2
        even = sum((value * term(x, y) for value, term in zip(self.even, _EVEN)), start=0.0)  # noqa: B905
        return np.sin(phase + np.arcsin(self.amplitude_contrast) - even)

    def phase(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Odd aberrations, radian."""
        volt = 1e3 * self.voltage
        squared_wavelength = 12.2643247**2 / (volt * (1 + 0.978466e-6 * volt))
        coma = 2 * np.pi * 1e7 * self.cs * squared_wavelength * 1e-3 * (x**2 + y**2)
        odd = sum((value * term(x, y) for value, term in zip(self.odd, _ODD)), start=0.0)  # noqa: B905
        return odd - coma * (self.tilt[0] * x + self.tilt[1] * y)

    def image(
        self, slice_at: Callable[[np.ndarray], np.ndarray], origin: np.ndarray, defocus: np.ndarray, box_size: int,
        pixel_size: float,
    ) -> np.ndarray:
        """Image (y, x) of what has the transform slice_at(frequencies (..., 2), cycles a px); origin in Angstrom.

        It is made in a larger box and cut out, as from a micrograph.
        """
        size = _PADDING * box_size
        k = np.arange(size) - size // 2
        ky, kx = np.meshgrid(k / size, k / size, indexing="ij")
        seen = np.stack([kx, ky], axis=-1) @ np.array(self.magnification).T
        x, y = np.moveaxis(seen, -1, 0) / pixel_size
        transform = slice_at(seen) * self.ctf(x, y, defocus) * np.exp(1j * self.phase(x, y))
        transform *= np.exp(2j * np.pi * (kx * origin[0] + ky * origin[1]) / pixel_size)
        transform *= np.hypot(kx, ky) < 0.5
        image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(transform))).real
        first = size // 2 - box_size // 2
        return image[first : first + box_size, first : first + box_size]


IMPERFECT = Microscope(
    tilt=(8.0, -6.0), odd=(3.0, -2.0, 300.0, 0.0, 0.0, -240.0),
    even=(0.2, 15.0, -8.0, 10.0, 500.0, -3.0, 4.0, -5.0, 400.0), magnification=((1.07, 0.02), (-0.01, 0.93)),
)  # fmt: skip
"""Many times what microscopes do, so that it shows at the low resolution of tests."""
