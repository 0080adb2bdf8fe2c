"""What is known of poses beside the images: how wide their errors spread, where they are expected, and as a prior.

To first order errors of the poses are factors of every image, of what they make of the mean. Where an image leaves pose
and state open, the pose that it came with helps. With errors of 3 degrees per axis, where images alone know
orientations to 1.5, a fifth of the information is in the given poses.
"""

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

    def in_single_precision(self) -> PoseSpread:
        """Rounded to the precision of the factors that are made of it."""
        return PoseSpread(*torch.tensor([self.turn_rad, self.move_px]).tolist())


LEAST_SPREAD = PoseSpread(0.052, 1.0)
"""Of the prior, about 3 degrees and 1 px: errors that follow a motion look like none, and must not be believed in."""


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


@dataclass(frozen=True)
class PosePrior:
    """What is known of poses beside the images: they are normally distributed about those that were given.

    Attributes
    ----------
    rotation : Tensor, shape (n, 3, 3), float64
    shift_px : Tensor, shape (n, 2), float64
        By how much the given shift exceeds the one that an image is centred by at the start, px of the working box.
    precision : Tensor, shape (5,), float64
        Of the three numbers of the rotation vector (1/radian^2) and the two of the shift (1/px^2).
    """

    rotation: Tensor
    shift_px: Tensor
    precision: Tensor

    @staticmethod
    def none(count: int, device: torch.device | str = "cpu") -> PosePrior:
        """Nothing is known."""
        anywhere = torch.eye(3, dtype=torch.float64, device=device).expand(count, 3, 3)
        return PosePrior(anywhere, anywhere.new_zeros(count, 2), anywhere.new_zeros(5))

    @staticmethod
    def about(given: Pose, present: Pose, pixel_size: float, spread: PoseSpread) -> PosePrior:
        """Prior of a spread about given poses, for images that are centred by the present ones."""
        shift_px = (given.shift.double() - present.shift.double()) / pixel_size
        return PosePrior(given.rotation.double(), shift_px, precision_of(spread))

    def __getitem__(self, rows: Tensor) -> PosePrior:
        return PosePrior(self.rotation[rows], self.shift_px[rows], self.precision)

    def to(self, device: torch.device | str) -> PosePrior:
        """Copy to a device."""
        return PosePrior(self.rotation.to(device), self.shift_px.to(device), self.precision.to(device))

    @property
    def matrix(self) -> Tensor:
        """Second derivatives of the objective, (5, 5)."""
        return torch.diag(self.precision)

    def objective(self, rotation: Tensor, shift_px: Tensor) -> Tensor:
        """Negative logarithm of the prior, up to a constant, (n,)."""
        return 0.5 * self._offset(rotation, shift_px).square() @ self.precision

    def gradient(self, rotation: Tensor, shift_px: Tensor) -> Tensor:
        """Derivatives by rotation vector, in the frame of the image, and shift, (n, 5)."""
        return self._offset(rotation, shift_px) * self.precision

    def _offset(self, rotation: Tensor, shift_px: Tensor) -> Tensor:
        turn = rotation_to_rotvec(self.rotation.mT @ rotation)
        return torch.cat((turn, shift_px - self.shift_px), dim=1)


def precision_of(spread: PoseSpread) -> Tensor:
    """Precision (5,), float64, of the parameters of a pose when errors have a spread that is not zero; on the CPU."""
    return torch.tensor([spread.turn_rad**-2] * 3 + [spread.move_px**-2] * 2, dtype=torch.float64)
