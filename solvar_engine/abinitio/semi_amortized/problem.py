"""Images, and what all steps need to compare them with a map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages, low_box
from solvar_engine.abinitio.online_em import prior_precision
from solvar_engine.imaging.fourier import shift_phases
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.shells import shell_means
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.grid import GridGeometry
from solvar_engine.projectors.options import SliceOptions

_DAMPING, _LESS, _MORE = 0.1, 0.3, 4.0  # of steps, and how it changes after one that helps or does not
_LONGEST_RAD = 0.5
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Problem:
    """Images of one band.

    Attributes
    ----------
    images : LowImages
    projector : Projector
        Of maps of the band.
    geometry : GridGeometry
        Of its grids.
    operators : Tensor, shape (g, 3, 3)
        Point group of the map.
    precision : Tensor, shape (z, y, x // 2 + 1)
        Inverse prior variance of the map's coefficients, from the power of the images.
    shift_std_px : float
        Of the shifts' prior, along each axis.
    """

    images: LowImages
    projector: Projector
    geometry: GridGeometry
    operators: Tensor
    precision: Tensor
    shift_std_px: float

    @staticmethod
    def of(
        images: LowImages, shell: int, shift_std_px: float, operators: Tensor, options: SliceOptions
    ) -> Problem:
        """Of images cut to a band; slices are interpolated linearly, whatever the options say."""
        low = images.cut(shell)
        options = replace(options, interpolation="trilinear")
        box_size = low_box(low.disk)
        power = shell_means(low.images.abs().square().mean(dim=0), low.disk).cpu()
        transfer = shell_means(low.ctf.square().mean(dim=0), low.disk).cpu()
        return Problem(
            low,
            create_projector(box_size, low.disk, options),
            GridGeometry(box_size, low.disk.shell_max, options.oversampling, options.interpolation),
            operators,
            prior_precision(power, transfer, box_size),
            shift_std_px,
        )

    def moved(self, images: Tensor, shift_px: Tensor) -> Tensor:
        """Images (n, pixels) moved by shifts (n, 2)."""
        disk = self.images.disk
        return images * shift_phases(disk, shift_px, disk.box_size)

    def log_likelihood(self, slices: Tensor, centred: Tensor) -> Tensor:
        """Log-likelihood (n,) of centred images (n, pixels) beside slices times transfer functions.

        Over that of an empty image. It is equation 2 as printed, which the paper calls a loss to be minimised.
        """
        gained = 2 * (slices.conj() * centred).real - slices.abs().square()
        return 0.5 * (gained @ self.images.disk.weight)

    def log_joint(
        self, grid: Tensor, images: LowImages, rotation: Tensor, shift_px: Tensor
    ) -> Tensor:
        """Log-likelihood (n,) of images, one pose each, and the log of the shift's prior density."""
        slices = self.projector.project(grid, rotation, images.ctf)[:, :, 0]
        return self.log_likelihood(slices, self.moved(images.images, shift_px)) + self.log_shift_prior(shift_px)

    def log_shift_prior(self, shift_px: Tensor) -> Tensor:
        """Log of the prior density of shifts (n, 2), without its constant."""
        return -0.5 * shift_px.square().sum(dim=-1) / self.shift_std_px**2

    def refined(
        self, grid: Tensor, images: LowImages, rotation: Tensor, shift_px: Tensor, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Poses after damped Gauss-Newton steps on the log joint probability, of which none may lower it.

        Parameters
        ----------
        grid : Tensor
            Of the projector.
        images : LowImages
        rotation : Tensor, shape (n, 3, 3)
        shift_px : Tensor, shape (n, 2)
            One pose of each image.
        steps : int

        Returns
        -------
        rotation, shift_px : Tensor
        log_joint : Tensor, shape (n,)
        """
        value = self.log_joint(grid, images, rotation, shift_px)
        count, device = len(rotation), rotation.device
        one, none = torch.ones(count, 1, device=device), torch.zeros(count, 1, 1, device=device)
        damping = torch.full((count, 1), _DAMPING, dtype=torch.float64, device=device)
        prior = torch.tensor([0.0] * 3 + [self.shift_std_px**-2] * 2, dtype=torch.float64, device=device)
        for _ in range(steps):
            centred = self.moved(images.images, shift_px)
            products, _ = self.projector.pose_products(grid, rotation, images.ctf, centred, one, none)
            slope = products[:, :, -1] - products[:, :, 0]
            slope[:, 3:] -= shift_px * prior[3:]
            curvature = products[:, :, 1:6] + torch.diag(prior)
            diagonal = curvature.diagonal(dim1=1, dim2=2)
            curvature = curvature + torch.diag_embed(damping * diagonal + _ROUNDING)
            step = torch.linalg.solve(curvature, slope)
            length = step[:, :3].norm(dim=1, keepdim=True).clamp_min(_ROUNDING)
            turn = rotvec_to_rotation(step[:, :3] * (_LONGEST_RAD / length).clamp_max(1))
            tried = (rotation.double() @ turn).float(), (shift_px + step[:, 3:]).float()
            found = self.log_joint(grid, images, *tried)
            better = found > value
            rotation = torch.where(better[:, None, None], tried[0], rotation)
            shift_px = torch.where(better[:, None], tried[1], shift_px)
            value = torch.where(better, found, value)
            damping = damping * torch.where(better, _LESS, _MORE)[:, None]
        return rotation, shift_px, value


def repeated(images: LowImages, times: int) -> LowImages:
    """Each image so many times in a row, as poses (n, times, ...) are when their first axes become one."""
    return LowImages(
        images.disk, images.images.repeat_interleave(times, dim=0), images.ctf.repeat_interleave(times, dim=0)
    )
