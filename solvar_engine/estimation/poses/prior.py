"""What is known of the poses of images beside the images.

Where an image leaves pose and state open, the pose that it came with helps. With errors of 3 degrees per axis, where
images alone know orientations to 1.5, a fifth of the information is in the given poses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.poses.errors import PoseSpread
from solvar_engine.imaging.rotation import rotation_to_rotvec
from solvar_engine.imaging.types import Pose


@dataclass(frozen=True)
class PosePrior:
    """What is known of poses beside the images: they are normally distributed about those that were given.

    Attributes
    ----------
    rotation : Tensor, shape (n, 3, 3), float64
    shift_px : Tensor, shape (n, 2), float64
        By how much the given shift exceeds the one that an image is centred by at the start, px of the working box.
    precision : Tensor, shape (5,), float64
        Of the three components of the rotation vector (1/radian^2) and the two of the shift (1/px^2).
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
