"""All figures by which an estimate is judged against a known truth, under their names in the JSON file."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from solvar_engine.evaluation.covariance_scores import covariance_scores, mean_scale, state_factor
from solvar_engine.evaluation.fsc_auc import fsc_auc
from solvar_engine.evaluation.latent_scores import (
    latent_r2,
    latent_r2_poly,
    state_accuracy,
    states_are_discrete,
)
from solvar_engine.evaluation.pose_scores import contrast_r2, pose_errors
from solvar_engine.imaging.sampling import sample_of_at_least
from solvar_engine.imaging.types import Pose

PARTICLES_COMPARED = 100
"""Evenly spaced particles whose volumes are compared with the truth, at least (when there are that many)."""

EIGENVALUES_LISTED = 10
"""True eigenvalues that are listed at least (when there are that many): the leading ones."""

DEAD_SHARE = 1e-3
"""Of the leading eigenvalue: components with less hold nothing that an image could tell."""


@dataclass(frozen=True)
class Truth:
    """What is known about n particles.

    Attributes
    ----------
    volumes : ndarray, shape (states, z, y, x), float32
        At the box of the estimate.
    mask : ndarray, shape (z, y, x), float32
    state : ndarray, shape (n,), int64
        0-based row of `volumes`.
    coordinates : ndarray, shape (n, d)
        Of each particle's state; d may be 0.
    contrast : ndarray, shape (n,)
    pose : Pose
    pixel_size : float
        Angstrom per pixel of the input box, in which shift errors are counted.
    is_junk : ndarray, shape (n,), bool
        Images that do not show the molecule: they have no state, contrast and pose that could be found.
    """

    volumes: NDArray[np.float32]
    mask: NDArray[np.float32]
    state: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    contrast: NDArray[np.float64]
    pose: Pose
    pixel_size: float
    is_junk: NDArray[np.bool_]

    def of(self, rows: NDArray[np.int64]) -> Truth:
        """Truth about some of the particles."""
        return replace(
            self,
            state=self.state[rows],
            coordinates=self.coordinates[rows],
            contrast=self.contrast[rows],
            pose=self.pose[torch.from_numpy(rows)],
            is_junk=self.is_junk[rows],
        )


@dataclass(frozen=True)
class Estimate:
    """What was found out about the same particles, in the same order.

    Attributes
    ----------
    mean : ndarray, shape (z, y, x), float32
    eigenvolumes : ndarray, shape (r, z, y, x), float32
        Of unit norm, by descending eigenvalue.
    eigenvalues : ndarray, shape (r,)
        In the units of `mean` squared.
    z : ndarray, shape (n, r)
    contrast : ndarray, shape (n,)
    pose : Pose
    start_pose : Pose or None
        The poses that the estimate started from, where they are known.
    deviation : ndarray or None, shape (n, r)
        Standard deviation of z that the estimate states; NaN where it states none.
    """

    mean: NDArray[np.float32]
    eigenvolumes: NDArray[np.float32]
    eigenvalues: NDArray[np.float64]
    z: NDArray[np.float32]
    contrast: NDArray[np.float32]
    pose: Pose
    start_pose: Pose | None
    deviation: NDArray[np.float64] | None = None

    def of(self, rows: NDArray[np.int64]) -> Estimate:
        """Estimate for some of the particles."""
        index = torch.from_numpy(rows)
        return replace(
            self,
            z=self.z[rows],
            contrast=self.contrast[rows],
            pose=self.pose[index],
            start_pose=None if self.start_pose is None else self.start_pose[index],
            deviation=None if self.deviation is None else self.deviation[rows],
        )


@dataclass(frozen=True)
class Component:
    """One estimated component against the truth.

    Attributes
    ----------
    eigenvalue : float
        Estimated, in the units of the truth.
    variance_along : float
        True variance along the component.
    """

    eigenvalue: float
    variance_along: float


@dataclass(frozen=True)
class Evaluation:
    """Every score of one estimate.

    Attributes
    ----------
    scores : dict
        Key of the JSON file -> number, list of numbers, or None where a score does not apply.
    components : tuple of Component
        Empty if the truth does not vary.
    """

    scores: dict[str, float | list[float] | None]
    components: tuple[Component, ...]


def evaluate_estimate(estimate: Estimate, truth: Truth) -> Evaluation:
    """Compute every score; the definitions are those of the functions that it calls.

    Estimated eigenvalues are first brought to the truth's units: times the square of the least-squares scale
    of the estimated mean onto the true mean inside the mask. The true mean and covariance weigh every state
    by the number of its particles. Images that do not show the molecule are left out of everything.

    Raises
    ------
    ValueError
        If shapes disagree, or no image shows the molecule.
    """
    if truth.is_junk.all():
        raise ValueError("no image shows the molecule: there is nothing to compare with")
    if truth.volumes.shape[1:] != estimate.mean.shape:
        raise ValueError(
            f"true volumes of {truth.volumes.shape[1:]} and a mean of {estimate.mean.shape} voxels"
        )
    if truth.is_junk.any():
        shown = np.flatnonzero(~truth.is_junk)
        estimate, truth = estimate.of(shown), truth.of(shown)
    covariance, components = _covariance(estimate, truth)
    scores = {
        **covariance,
        **_latents(estimate, truth),
        **_volumes(estimate, truth),
        **_particles(estimate, truth),
    }
    return Evaluation(scores, components)


def covariance_and_pose_scores(estimate: Estimate, truth: Truth) -> dict[str, float | list[float] | None]:
    """Those of the scores that depend on the frame in which the states of the truth are looked at."""
    return {**_covariance(estimate, truth)[0], **_particles(estimate, truth)}


def _covariance(
    estimate: Estimate, truth: Truth
) -> tuple[dict[str, float | list[float] | None], tuple[Component, ...]]:
    weight = np.bincount(truth.state, minlength=len(truth.volumes)).astype(np.float64)
    mean, factor = state_factor(truth.volumes, weight)
    eigenvalues = estimate.eigenvalues * mean_scale(estimate.mean, mean, truth.mask) ** 2
    result: dict[str, float | list[float] | None] = {
        "captured_variance": None,
        "captured_variance_2": None,
        "covariance_error": None,
        "covariance_error_scaled": None,
        "eigenvalues_true": [],
        "eigenvalues_estimated": eigenvalues.tolist(),
    }
    if np.count_nonzero(weight) < 2:
        return result, ()
    flat_factor = factor.reshape(len(factor), -1)
    found = covariance_scores(
        flat_factor, estimate.eigenvolumes.reshape(len(eigenvalues), mean.size), eigenvalues
    )
    result["captured_variance"] = found.captured_variance
    result["captured_variance_2"] = found.captured_variance_2
    result["covariance_error"] = found.covariance_error
    result["covariance_error_scaled"] = found.covariance_error_scaled
    result["eigenvalues_true"] = found.eigenvalues_true[: max(EIGENVALUES_LISTED, len(eigenvalues))].tolist()
    pairs = zip(eigenvalues.tolist(), found.variance_along.tolist(), strict=True)
    return result, tuple(Component(*pair) for pair in pairs)


def _latents(estimate: Estimate, truth: Truth) -> dict[str, float | list[float] | None]:
    """Scores of z without dead components, which say nothing and would count like all others once standardised."""
    is_discrete = states_are_discrete(truth.coordinates, truth.state)
    live = estimate.eigenvalues > DEAD_SHARE * estimate.eigenvalues.max(initial=0.0)
    z = estimate.z[:, live]
    return {
        "latent_r2": latent_r2(z, truth.coordinates),
        "latent_r2_poly": latent_r2_poly(z, truth.coordinates),
        "state_accuracy": state_accuracy(z, truth.state) if is_discrete else None,
        "latent_calibration": _calibration(estimate, truth, live),
    }


def _calibration(estimate: Estimate, truth: Truth, live: NDArray[np.bool_]) -> float | None:
    """Root mean square of the errors of z over the stated ones, of all particles and live components.

    The true z is what the eigenvolumes see of the particle's state, in the units of the estimate.
    """
    if estimate.deviation is None or not live.any():
        return None
    weight = np.bincount(truth.state, minlength=len(truth.volumes)).astype(np.float64)
    scale = mean_scale(estimate.mean, state_factor(truth.volumes, weight)[0], truth.mask)
    beside = (truth.volumes / scale - estimate.mean).reshape(len(truth.volumes), -1)
    true_z = beside @ estimate.eigenvolumes[live].reshape(live.sum(), -1).T
    error = (estimate.z[:, live] - true_z[truth.state]) / estimate.deviation[:, live]
    is_known = np.isfinite(error).all(axis=1)
    return float(np.sqrt(np.mean(error[is_known] ** 2))) if is_known.any() else None


def _volumes(estimate: Estimate, truth: Truth) -> dict[str, float | list[float] | None]:
    areas = fsc_auc(
        torch.from_numpy(estimate.mean),
        torch.from_numpy(estimate.eigenvolumes),
        estimate.z,
        lambda row: torch.from_numpy(truth.volumes[truth.state[row]]),
        sample_of_at_least(np.arange(len(truth.state)), PARTICLES_COMPARED),
        torch.from_numpy(truth.mask),
    )
    return {f"fsc_auc_{name}": area for name, area in areas.items()}


def _particles(estimate: Estimate, truth: Truth) -> dict[str, float | list[float] | None]:
    rotation_deg, shift_px = pose_errors(estimate.pose, truth.pose, truth.pixel_size)
    start_deg: float | None = None
    start_px: float | None = None
    if estimate.start_pose is not None:
        start_deg, start_px = pose_errors(estimate.start_pose, truth.pose, truth.pixel_size)
    return {
        "rotation_error_deg": rotation_deg,
        "rotation_error_start_deg": start_deg,
        "shift_error_px": shift_px,
        "shift_error_start_px": start_px,
        "contrast_r2": contrast_r2(estimate.contrast, truth.contrast),
    }
