"""What microscopes do to images beyond white noise, as numbers of which each is 0 where it is not asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MicroscopeEffects:
    """Strength of every effect; they can be combined, and none changes what is drawn for another.

    Attributes
    ----------
    background : float
        Standard deviation, over images, of the ramp from edge to edge of the box, in standard deviations of the
        noise; see :mod:`~.background`.
    neighbours : float
        Share (0 to 1) of the images that show a part of another particle; see :mod:`~.neighbours`.
    coloured_noise : float
        By how much the noise's variance at zero frequency exceeds that at high frequency, relative to the latter;
        see :mod:`~.noise`.
    uneven_views : float
        Share (0 to 1) of the particles that are seen from near one of the preferred directions; see :mod:`~.views`.
    junk : float
        Share (0 to 1) of the images that do not show the molecule; see :mod:`~.junk`.
    defocus_error : float
        Standard deviation, Angstrom, of the error of the defocus that a user gets.
    """

    background: float = 0.0
    neighbours: float = 0.0
    coloured_noise: float = 0.0
    uneven_views: float = 0.0
    junk: float = 0.0
    defocus_error: float = 0.0


NO_EFFECTS = MicroscopeEffects()
"""Images with white noise alone."""
