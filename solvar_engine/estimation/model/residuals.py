"""Expected power of what the model leaves unexplained: the noise."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from solvar_engine.distributed.world import World
from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.model.expectation import posterior_pass
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.shells import shell_means, shrunk_spectra
from solvar_engine.imaging.types import BatchSource, MicrographNoise

_LIMITS_OF_RATIO = (0.1, 10.0)  # between the noise of micrographs and that of all


def residual_power(
    source: BatchSource, index: Tensor, band: Band, factors: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield |e - A m|^2 + (A S A^*)_kk of every coefficient: the M-step of the noise variance.

    Plain residuals |e|^2 would contain the heterogeneity. The error of the contrast is one of the columns of A.

    Parameters
    ----------
    source : BatchSource
    index : Tensor, shape (n,), int64
    band : Band
    factors : Tensor, shape (r, z, y, x)
        In the gauge z ~ N(0, I).

    Yields
    ------
    index : Tensor, shape (m,), int64
    power : Tensor, shape (m, pixels), float32
        In units of the noise variance that whitened the images.
    kept : Tensor, shape (m, pixels), float32
        What this is on average if that variance is right: less than 1 where backgrounds were removed.
    """
    deviation = band.contrast_variance**0.5
    for batch, slices, _, posterior in posterior_pass(source, index, band, factors):
        contrast = batch.contrast[:, None, None]
        loadings = contrast * torch.cat((slices[:, :, 1:], deviation * slices[:, :, :1]), dim=2)
        explained = contrast[..., 0] * slices[:, :, 0]
        explained = explained + (loadings @ posterior.mean[..., None].to(loadings.dtype))[..., 0]
        spread = loadings @ torch.linalg.cholesky(posterior.covariance).to(loadings.dtype)
        power = (batch.images - explained).abs() ** 2 + (spread.abs() ** 2).sum(dim=-1)
        yield batch.index, power, batch.kept_variance()


class ResidualNoise:
    """Collects residual powers and turns them into a noise spectrum per optics group, and one per micrograph.

    Parameters
    ----------
    groups : int
    disk : HalfDisk
    micrographs : MicrographNoise, optional
        What whitened the images beside the spectra of the groups.
    """

    def __init__(self, groups: int, disk: HalfDisk, micrographs: MicrographNoise | None = None) -> None:
        self._disk, self._micrographs = disk, micrographs
        count = 0 if micrographs is None else int(micrographs.micrograph.max()) + 1
        self._of_micrographs = torch.zeros(2, count, disk.shell_max + 1, dtype=torch.float64)
        self._power = torch.zeros(groups, len(disk), dtype=torch.float64, device=disk.weight.device)
        self._kept = torch.zeros_like(self._power)

    def add(self, power: Tensor, group: Tensor, kept: Tensor, rows: Tensor | None = None) -> None:
        """Add powers (n, pixels) of whitened images of some groups (n,), and what they are if that of noise is 1.

        ``rows`` (n,) says which ones they are, where micrographs are told apart.
        """
        if self._micrographs is not None and rows is not None:
            own = self._micrographs.micrograph[rows]
            for table, values in zip(self._of_micrographs, (power, torch.where(power > 0, kept, 0.0)), strict=True):
                table.index_add_(0, own, shell_means(values, self._disk).cpu())
        group = group.to(self._power.device)
        self._power.index_add_(0, group, power.double())
        self._kept.index_add_(0, group, kept.double())

    def complete(self, world: World) -> None:
        """Take in what other processes have added."""
        self._power, self._kept, self._of_micrographs = world.total(self._power, self._kept, self._of_micrographs)

    def update(self, noise_variance: Tensor) -> Tensor:
        """Correct the noise variance (groups, shells) that whitened the images.

        Shells that a group does not see, and groups without images, keep theirs; so does the origin, which has no noise
        of its own (`solvar_engine.imaging.background`). What few images say of a shell is brought near the shape of all
        spectra.
        """
        kept = self._kept_of_groups()
        kept[:, 0] = 0
        power, noise_variance = shell_means(self._power, self._disk), noise_variance.to(kept.device)
        power = torch.where(kept > 0, noise_variance * power / kept, noise_variance.double())
        measured = kept * torch.bincount(self._disk.shell, minlength=kept.shape[1])
        return torch.where(kept > 0, shrunk_spectra(power, measured), noise_variance.double()).float()

    def ratio(self, group: Tensor) -> Tensor | None:
        """Noise variance (micrographs, shells) over that of the optics group, once `complete`.

        ``group`` (n,) is that of all particles.

        What few images say of a shell is brought near what all have in common, as between groups. None where
        micrographs are not told apart.
        """
        if self._micrographs is None:
            return None
        power, kept = self._of_micrographs
        own_group = torch.zeros(len(kept), dtype=torch.int64).index_put((self._micrographs.micrograph,), group.cpu())
        of_group = (shell_means(self._power, self._disk) / self._kept_of_groups()).cpu()[own_group]
        there = (kept > 0) & (of_group > 0)
        relative = torch.where(there, power / kept / of_group, 1.0)
        before = 1.0 if self._micrographs.ratio is None else self._micrographs.ratio.double()
        measured = kept * torch.bincount(self._disk.shell.cpu(), minlength=kept.shape[1])
        measured[:, 0] = 0
        found = shrunk_spectra(torch.where(there, relative * before, before), measured)
        found[:, 0] = 1
        return torch.where(there, found, before).clamp(*_LIMITS_OF_RATIO).float()

    def _kept_of_groups(self) -> Tensor:
        """What powers of groups are by shell (groups, shells) if that of noise is 1.

        Beyond a group's own Nyquist its images hold nothing, and its noise is measured on the rest of the shell.
        """
        return shell_means(torch.where(self._power > 0, self._kept, 0.0), self._disk)
