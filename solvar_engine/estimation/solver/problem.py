"""What a fit of the factors is about: images, mean, mask, prior knowledge of contrasts and poses, schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band, make_band
from solvar_engine.estimation.model.objectives import Objective
from solvar_engine.estimation.poses.uncertainty import PoseErrors
from solvar_engine.estimation.solver.preconditioner import Preconditioner, make_preconditioner
from solvar_engine.estimation.solver.schedule import Schedule
from solvar_engine.imaging.types import BatchSource
from solvar_engine.projectors.options import SliceOptions


@dataclass(frozen=True)
class CovarianceProblem:
    """Everything that stays fixed while the factors are fitted.

    Attributes
    ----------
    source : BatchSource
    halves : tuple of two Tensors, int64
        Particles of each half-set.
    mean : Tensor, shape (z, y, x)
        Masked, by a mask of its own if the factors live in a part of it only.
    mask : Tensor, shape (z, y, x)
        Of the factors.
    density : Tensor, shape (z, y, x // 2 + 1)
        D(k) of all images.
    rank : int
    seed : int
    options : SliceOptions
    objective : Objective
    contrast_variance : float
        Of the relative error of the images' contrasts, where no fit has its own.
    pose_errors : PoseErrors
        Of the source's poses, marginalised in passes over images.
    schedule : Schedule
    """

    source: BatchSource
    halves: tuple[Tensor, Tensor]
    mean: Tensor
    mask: Tensor
    density: Tensor
    rank: int
    seed: int
    options: SliceOptions
    objective: Objective
    contrast_variance: float = 0.0
    pose_errors: PoseErrors = PoseErrors()
    schedule: Schedule = Schedule()

    def band(self, shell_max: int) -> Band:
        """Cut the model of images to a band."""
        band = make_band(shell_max, self.source.disk, self.mean, self.options)
        return replace(
            band,
            contrast_variance=self.contrast_variance,
            nuisance=self.pose_errors.spread.factors(band.mean, self.source.box_size),
            nuisance_mean=self.pose_errors.expected,
        )

    def full_band(self) -> Band:
        """The model of images with all shells."""
        return self.band(self.source.disk.shell_max)

    def first_band(self) -> Band:
        """The model of images in the band that marching begins with."""
        return self.band(self.schedule.shells(self.source.box_size)[0])

    def preconditioner(self, shell_max: int, share: float) -> Preconditioner:
        """Bound of steps in a band, for gradients over a share of all images."""
        return make_preconditioner(shell_max, self.mask, self.density * share)

    def generator(self, *purpose: int) -> torch.Generator:
        """Independent random numbers per purpose, the same again after a restart."""
        seed = np.random.SeedSequence([self.seed, *purpose]).generate_state(1)[0]
        return torch.Generator().manual_seed(int(seed))
