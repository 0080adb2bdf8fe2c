"""Errors of poses: how wide they spread, and what they make of the mean, as factors of every image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.imaging.pose_derivatives import pose_derivatives
from solvar_engine.imaging.rotation import rotation_to_rotvec
from solvar_engine.imaging.types import Pose


@dataclass(frozen=True)
class PoseSpread:
    """Standard deviations, per axis, of errors of the poses; to first order they are factors of every image.

    Attributes
    ----------
    turn_rad : float
        Of the rotation vector.
    move_px : float
        Of the shift, px of the working box.
    """

    turn_rad: float = 0.0
    move_px: float = 0.0

    def factors(self, mean: Tensor, full_box_size: int) -> Tensor:
        """What such errors make of the mean.

        Parameters
        ----------
        mean : Tensor, shape (z, y, x)
            At the box of a band.
        full_box_size : int
            Working box, px.

        Returns
        -------
        Tensor, shape (6, z, y, x), or none of them (0, z, y, x) without errors
            Three translations, three rotations, for latent coordinates of unit variance.
        """
        if self.turn_rad == 0 and self.move_px == 0:
            return mean.new_zeros(0, *mean.shape)
        move = self.move_px * mean.shape[-1] / full_box_size
        scale = mean.new_tensor([move] * 3 + [self.turn_rad] * 3)
        return pose_derivatives(mean) * scale[:, None, None, None]

    def at_least(self, other: PoseSpread) -> PoseSpread:
        """The wider of both spreads."""
        return PoseSpread(max(self.turn_rad, other.turn_rad), max(self.move_px, other.move_px))

    def rescaled(self, second_moment: Tensor) -> PoseSpread:
        """Spread that latent coordinates of the factors with this second moment (6, 6) show."""
        variance = second_moment.diagonal().clamp_min(0)
        move, turn = float(variance[:3].mean()) ** 0.5, float(variance[3:].mean()) ** 0.5
        return PoseSpread(self.turn_rad * turn, self.move_px * move)


@dataclass(frozen=True)
class PoseErrors:
    """What is known of the errors of the poses in use: they are normally distributed.

    Attributes
    ----------
    spread : PoseSpread
    expected : Tensor, shape (n, 6), float64, optional
        Mean of the latent coordinates of the spread's factors, for every particle; zero without it.
    """

    spread: PoseSpread = PoseSpread()
    expected: Tensor | None = None

    @staticmethod
    def about(given: Pose, present: Pose, pixel_size: float, spread: PoseSpread) -> PoseErrors:
        """Errors of the present poses when the true ones are scattered about the given ones.

        A refined pose follows its image and what was given. Where the volumes are fitted to the images, only the given
        pose counts as prior knowledge, and the refined one is where the model is linear.

        Parameters
        ----------
        given, present : Pose
            Of n particles each.
        pixel_size : float
            Of the working box, Angstrom.
        spread : PoseSpread
            Not zero.
        """
        turn = rotation_to_rotvec(given.rotation.double() @ present.rotation.double().mT)
        move_px = (given.shift.double() - present.shift.double()) / pixel_size
        move = (present.rotation.double()[:, :, :2] @ move_px[:, :, None])[..., 0]
        return PoseErrors(spread, torch.cat((move / spread.move_px, turn / spread.turn_rad), dim=1))
