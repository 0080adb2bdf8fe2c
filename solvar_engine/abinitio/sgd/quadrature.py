"""Points and weights of the sum over poses, factored into view direction, in-plane angle and shift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.so3_grid import shift_grid, spacing_for_shell

_SHIFT_DEVIATIONS = 3.0
_LARGEST_SHIFT = 0.25  # of the box


@dataclass(frozen=True)
class Quadrature:
    """Poses are all triples of a direction, an angle and a shift.

    Attributes
    ----------
    direction : Tensor, shape (D, 3), float64
        Unit vectors; a view looks along them, in the frame of the map.
    angle_rad : Tensor, shape (A,), float64
        In the plane of the image.
    shift_px : Tensor, shape (T, 2), float64
        That centre an image, px of the images' box.
    log_weight : three Tensors, shapes (D,), (A,), (T,), float64
        Weight of the quadrature times prior density; each factor sums to 1.
    spacing_rad : float
        Between directions, and between angles.
    spacing_px : float
        Between shifts.
    """

    direction: Tensor
    angle_rad: Tensor
    shift_px: Tensor
    log_weight: tuple[Tensor, Tensor, Tensor]
    spacing_rad: float
    spacing_px: float

    @staticmethod
    def for_shell(shell: int, box_size: int, shift_std_px: float) -> Quadrature:
        """Make it as fine as the last shell asks for.

        Parameters
        ----------
        shell : int
            Fourier pixels.
        box_size : int
            Of the images, px.
        shift_std_px : float
            Of the shifts' normal prior, per axis.

        Examples
        --------
        >>> Quadrature.for_shell(8, 64, 2.0).sizes
        (185, 24, 29)
        """
        spacing_rad, spacing_px = math.radians(spacing_for_shell(shell)), box_size / (4 * shell)
        direction = fibonacci_sphere(round(4 * math.pi / spacing_rad**2))
        angles = round(2 * math.pi / spacing_rad)
        angle_rad = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
        radius_px = min(_SHIFT_DEVIATIONS * shift_std_px, _LARGEST_SHIFT * box_size)
        shift_px = shift_grid(spacing_px, radius_px).double()
        log_weight = (
            torch.full((len(direction),), -math.log(len(direction)), dtype=torch.float64),
            torch.full((angles,), -math.log(angles), dtype=torch.float64),
            torch.log_softmax(-0.5 * shift_px.square().sum(dim=1) / shift_std_px**2, dim=0),
        )
        return Quadrature(direction, angle_rad, shift_px, log_weight, spacing_rad, spacing_px)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of directions, angles and shifts."""
        return len(self.direction), len(self.angle_rad), len(self.shift_px)

    def rotation(self, direction: Tensor, angle: Tensor) -> Tensor:
        """Orientations (n, 3, 3), float32, of directions and angles by their numbers (n,).

        The frame at a direction is turned there from z the shortest way: nearby directions have nearby frames, so that
        an image's angle is much the same at all of them (but at -z).
        """
        return (_turn_from_z(self.direction[direction]) @ _about_z(self.angle_rad[angle])).float()


def fibonacci_sphere(count: int) -> Tensor:
    """Points on a Fibonacci spiral over the sphere, each for the same area; (count, 3), float64."""
    step = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * step / count
    radius, angle = (1 - z * z).sqrt(), math.pi * (1 + math.sqrt(5)) * step
    return torch.stack((radius * angle.cos(), radius * angle.sin(), z), dim=1)


def kernels(before: Quadrature, now: Quadrature) -> tuple[Tensor, Tensor, Tensor]:
    """How what is known at the points of one quadrature is spread over those of another (appendix B).

    Von Mises-Fisher for directions and angles, Gaussian for shifts, each as wide as the spacing of the points that the
    values are known at. Each point spreads a total of 1.

    Returns
    -------
    three Tensors, shapes (D before, D now), (A before, A now), (T before, T now), float64
    """
    turn = before.angle_rad[:, None] - now.angle_rad
    exponents = (
        (before.direction @ now.direction.T) / before.spacing_rad**2,
        turn.cos() / before.spacing_rad**2,
        torch.cdist(before.shift_px, now.shift_px).square() / (-2 * before.spacing_px**2),
    )
    first, second, third = (exponent.softmax(dim=1) for exponent in exponents)
    return first, second, third


def _turn_from_z(direction: Tensor) -> Tensor:
    """Shortest turns (n, 3, 3) from z to directions (n, 3)."""
    x, y, z = direction.unbind(1)
    inverse = 1 / (1 + z)
    rows = (
        1 - x * x * inverse, -x * y * inverse, x,
        -x * y * inverse, 1 - y * y * inverse, y,
        -x, -y, z,
    )  # fmt: skip
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def _about_z(angle_rad: Tensor) -> Tensor:
    cosine, sine = angle_rad.cos(), angle_rad.sin()
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    return torch.stack((cosine, -sine, zero, sine, cosine, zero, zero, zero, one), dim=1).reshape(-1, 3, 3)
