"""Components that are not motions: errors of contrast, orientation and shift are reproducible, too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.estimation.regularization import inner_products, orthonormal_basis
from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft
from solvar_engine.imaging.rotation import rotation_to_rotvec
from solvar_engine.imaging.types import Pose


def nuisance_overlap(eigenvolumes: Tensor, mean: Tensor) -> Tensor:
    """Share of each component that lies in the span of what contrast and pose errors make of the mean.

    The span is that of the mean itself (contrast), its three derivatives by translation and its three by rotation, and
    the second derivatives by rotation: at three degrees the rim of a particle moves by as much as its features are
    wide, and a component of the second order is as reproducible as those of the first. It is that of
    the whole mean also where the components are confined to a region. Inside a tight mask around a domain, a wrong
    contrast or pose of the image looks like the domain that is absent in some particles or moves as a whole, which is
    what such a mask is there to find; a span confined alike would mark just that.

    Parameters
    ----------
    eigenvolumes : Tensor, shape (r, z, y, x)
        Unit norm.
    mean : Tensor, shape (z, y, x)

    Returns
    -------
    Tensor, shape (r,), float64
        Between 0 and 1.
    """
    first = pose_derivatives(mean)
    second = [pose_derivatives(turned)[3:] for turned in first[3:]]
    basis = orthonormal_basis(torch.cat((mean[None], first, *second)))
    return (inner_products(basis, eigenvolumes) ** 2).sum(dim=0).clamp(0, 1)


def pose_derivatives(volume: Tensor) -> Tensor:
    """Derivatives of a volume by translation along, and rotation about, x, y and z of the frame that it is seen in.

    Parameters
    ----------
    volume : Tensor, shape (z, y, x)

    Returns
    -------
    Tensor, shape (6, z, y, x)
        Per voxel of shift and per radian of turn.
    """
    box_size = volume.shape[-1]
    centred = torch.arange(box_size, dtype=torch.float32) - box_size // 2
    half = torch.arange(box_size // 2 + 1, dtype=torch.float32)
    frequency = {"x": half[None, None, :], "y": centred[None, :, None], "z": centred[:, None, None]}
    spectrum = volume_to_ft(volume)
    slope = {
        axis: ft_to_volume(spectrum * (2j * torch.pi / box_size) * k, box_size) for axis, k in frequency.items()
    }
    place = {"x": centred[None, None, :], "y": centred[None, :, None], "z": centred[:, None, None]}
    turn_x = place["y"] * slope["z"] - place["z"] * slope["y"]
    turn_y = place["z"] * slope["x"] - place["x"] * slope["z"]
    turn_z = place["x"] * slope["y"] - place["y"] * slope["x"]
    return torch.stack((slope["x"], slope["y"], slope["z"], turn_x, turn_y, turn_z))


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
