"""What small changes of the pose make of a volume."""

from __future__ import annotations

import torch
from torch import Tensor

from solvar_engine.imaging.fourier import ft_to_volume, volume_to_ft


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
    centred = torch.arange(box_size, dtype=torch.float32, device=volume.device) - box_size // 2
    half = torch.arange(box_size // 2 + 1, dtype=torch.float32, device=volume.device)
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
