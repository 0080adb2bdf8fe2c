"""The result files of `fit`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from solvar_engine.contract.results import (
    DOUBTFUL_POSES,
    NOT_REPRODUCIBLE,
    NUISANCE,
    OVERFIT,
    SLOW,
    Density,
    Latents,
    read_latents,
    write_density,
    write_eigenvalues,
    write_fsc,
    write_latents,
    write_noise,
    write_noise_ratio,
    write_rank,
)
from solvar_engine.contract.run import RunDir
from solvar_engine.data.cryosparc.results import Found, write_results
from solvar_engine.data.particles import ParticleStack
from solvar_engine.data.stream import PreparedParticles
from solvar_engine.data.volumes import write_volume
from solvar_engine.estimation.alternation.problem import Masks
from solvar_engine.estimation.judging.components import Components
from solvar_engine.estimation.judging.nuisance import looks_like_error
from solvar_engine.estimation.judging.rank import RankDecision
from solvar_engine.estimation.model.half_models import half_version
from solvar_engine.estimation.model.mixture import GaussianMixture
from solvar_engine.imaging.types import ParticleSource, Pose, Volume
from solvar_engine.reconstruction.mean import MeanEstimate

OVERFIT_SHARE = 0.3
MOTION_GAIN = 0.1  # share of a component's gain that errors of pose leave it if it is a motion


@dataclass(frozen=True)
class OutputScale:
    """From units of the estimators to those of the files.

    Coefficients are kept orthonormal in the input box, so volumes of the working box are larger than averages of the
    input's voxels by (input box / working box)^2. Grey values are kept in a unit in which the noise is near 1.

    Attributes
    ----------
    volume : float
        Of densities and of z; its square is that of eigenvalues.
    image : float
        Of grey values; its square is that of noise variances.
    pixel_size : float
        Of the working box, Angstrom.
    """

    volume: float
    image: float
    pixel_size: float

    @staticmethod
    def of(source: PreparedParticles) -> OutputScale:
        """Scale of a working box."""
        volume = source.grey_unit * (source.box_size / source.input_box) ** 2
        return OutputScale(volume, source.grey_unit, source.pixel_size)

    def write(self, path: object, data: Tensor, scale: float | None = None) -> None:
        """Write a volume with its densities rescaled."""
        factor = self.volume if scale is None else scale
        write_volume(path, Volume((data * factor).float().cpu(), self.pixel_size))  # type: ignore[arg-type]


def write_mean(run: RunDir, mean: MeanEstimate, masks: Masks, scale: OutputScale) -> None:
    """Write the masked mean, both half-maps as reconstructed, and the mask; the eigenvolumes' mask if it is another."""
    scale.write(run.mean, mean.mean * masks.mean)
    scale.write(run.mean_half1, mean.half1)
    scale.write(run.mean_half2, mean.half2)
    scale.write(run.mask, masks.mean, scale=1.0)
    if masks.factors is not masks.mean:
        scale.write(run.focus_mask, masks.factors, scale=1.0)


def write_components(
    run: RunDir, components: Components, overlap: Tensor, labels: list[str], scale: OutputScale
) -> None:
    """Write eigenvolumes and their table."""
    run.eigenvolumes.mkdir(exist_ok=True)
    for number, volume in enumerate(components.eigenvolumes, start=1):
        scale.write(run.eigenvolume(number), volume, scale=1.0)
    eigenvalues = components.eigenvalues.numpy() * scale.volume**2
    write_eigenvalues(
        run.eigenvalues,
        {
            "component": np.arange(1, len(labels) + 1),
            "eigenvalue": eigenvalues,
            "eigenvalue_in_sample": components.eigenvalues_in_sample.numpy() * scale.volume**2,
            "fraction": eigenvalues / eigenvalues.sum(),
            "half_set_agreement": components.agreement.numpy(),
            "nuisance_overlap": overlap.numpy(),
            "label": labels,
        },
    )


def write_half_components(run: RunDir, components: Components, factors: Tensor, half: int, scale: OutputScale) -> None:
    """Write a half-set's own version of each eigenvolume.

    Parameters
    ----------
    run : RunDir
    components : Components
    factors : Tensor, shape (k, z, y, x)
        Of the half-set, inside the mask.
    half : int
        1 or 2.
    scale : OutputScale
    """
    volumes = half_version(components.eigenvolumes, factors) if len(components.eigenvolumes) else ()
    for number, volume in enumerate(volumes, start=1):
        scale.write(run.half_eigenvolume(number, half), volume, scale=1.0)


def write_candidates(run: RunDir, decision: RankDecision, scale: OutputScale) -> None:
    """Write the table of the components that were judged on held-out images."""
    first, second = decision.gains.numpy(), decision.decoy_gains.numpy()
    write_rank(
        run.rank,
        {
            "candidate": np.arange(1, decision.kept.shape[0] + 1),
            "eigenvalue": decision.eigenvalues.numpy() * scale.volume**2,
            "half_set_agreement": decision.agreement.numpy(),
            "gain_half1": first[0],
            "gain_half2": first[1],
            "decoy_max_half1": second[0],
            "decoy_max_half2": second[1],
            "kept": decision.kept.int().numpy(),
        },
    )


def label_components(
    components: Components,
    overlap: Tensor,
    least_gain: float,
    poses_are_foreign: bool = False,
    gain_of_origins: float = 0.0,
) -> list[str]:
    """Mark what is not to be taken for a motion.

    A component is not reproducible if it does not make held-out images more likely by at least ``least_gain``, which no
    decoy does.

    One that is reproducible is overfit if its variance on held-out images is less than three tenths of what the fit
    itself claims, and a nuisance if it looks like one (`looks_like_error`) and images are hardly more likely with it
    than with errors of their poses. With poses of other images, what is reproducible is what these leave of the
    molecule; and where other origins make images more likely than a component does, it may be what wrong ones leave.
    """
    share = components.eigenvalues / components.eigenvalues_in_sample.clamp_min(1e-30)
    real = components.likelihood_gain >= least_gain
    nuisance = looks_like_error(overlap, components.agreement)
    if components.gain_beside_errors is not None:
        nuisance = nuisance & (components.gain_beside_errors < MOTION_GAIN)
    marks = (
        (~real, NOT_REPRODUCIBLE),
        (real & (poses_are_foreign | (components.likelihood_gain < gain_of_origins)), DOUBTFUL_POSES),
        (share < OVERFIT_SHARE, OVERFIT),
        (~real if components.is_slow is None else components.is_slow, SLOW),
        (nuisance, NUISANCE),
    )
    return [
        next((label for applies, label in marks if applies[component]), "")
        for component in range(components.eigenvalues.shape[0])
    ]


def write_spectra(
    run: RunDir,
    source: ParticleSource,
    stack: ParticleStack,
    fsc_mean: Tensor,
    fsc_covariance: Tensor,
    scale: OutputScale,
) -> None:
    """Write the noise spectrum of each optics group, and the half-set correlations."""
    shells = np.arange(source.disk.shell_max + 1)
    frequency = shells / (source.box_size * source.pixel_size)
    groups = len(stack.group_names)
    write_noise(
        run.noise,
        {
            "shell": np.tile(shells, groups),
            "frequency": np.tile(frequency, groups),
            "noise_variance": (source.noise_variance * scale.image**2).numpy().ravel(),
            "group": np.repeat(list(stack.group_names), len(shells)),
        },
    )
    micrographs = source.micrographs
    if micrographs is not None and micrographs.ratio is not None:
        write_noise_ratio(run.noise_ratio, micrographs.micrograph.numpy(), micrographs.ratio.numpy())
    write_fsc(
        run.fsc,
        {
            "shell": shells,
            "frequency": frequency,
            "fsc_mean": fsc_mean[: len(shells)].numpy(),
            "fsc_covariance": fsc_covariance[: len(shells)].numpy(),
        },
    )


def write_latent_coordinates(run: RunDir, z: Tensor, precision: Tensor, contrast: Tensor, scale: OutputScale) -> None:
    """Write where each particle lies, how well that is known, and its contrast."""
    write_latents(
        run.latents,
        Latents((z * scale.volume).numpy(), (precision / scale.volume**2).numpy(), contrast.float().numpy()),
    )


def write_cryosparc(run: RunDir, stack: ParticleStack, pose: Pose, has_new_poses: bool, half: Tensor) -> None:
    """Write particles.cs, of particles that came as such; the run's latents.npz must have been written.

    Parameters
    ----------
    run : RunDir
    stack : ParticleStack
    pose : Pose
    has_new_poses : bool
        Whether these are other poses than those of the file.
    half : Tensor, shape (n,), int64
        Half-sets, 1 and 2, or 0 for images of none.
    """
    if stack.cryosparc is not None:
        latents, shift = read_latents(run.latents), pose.shift.cpu().double().numpy()
        rotation = pose.rotation.cpu().numpy()
        found = Found(rotation, shift, has_new_poses, latents.contrast, latents.z, half.cpu().numpy())
        write_results(run.particles_cs, stack.cryosparc, found)


def write_latent_density(run: RunDir, mixture: GaussianMixture | None, scale: OutputScale) -> None:
    """Write the density of the particles in latent space; nothing without components."""
    if mixture is not None:
        means, covariances = mixture.means * scale.volume, mixture.covariances * scale.volume**2
        covariances = covariances.expand(len(mixture), -1, -1)
        write_density(run.density, Density(mixture.weights.numpy(), means.numpy(), covariances.numpy()))
