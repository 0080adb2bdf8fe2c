"""A run directory made by arithmetic: a body with a swinging arm, every file of a finished fit, no fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from solvar_engine.contract.params import FitParams
from solvar_engine.contract.results import (
    Latents,
    append_metrics,
    write_eigenvalues,
    write_fsc,
    write_latents,
    write_noise,
    write_rank,
)
from solvar_engine.contract.run import RunDir, write_params
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.contract.status import StatusTracker

PIXEL_SIZE = 3.0
BODY = np.array([[-6, -2, -4], [0, 3, -5], [5, -3, -3], [-3, 4, 2], [3, -5, 4], [-5, -5, 1], [1, 1, 0]]) / 32
ARM = np.array([[2, 4, 6], [3, 6, 9], [5, 7, 12]]) / 32
NOT_REPRODUCIBLE = "not reproducible"


@dataclass(frozen=True)
class Synthetic:
    """Arrays of the run; eigenvalues and eigenvolumes sorted, the last ones pure noise."""

    mean: np.ndarray
    mask: np.ndarray
    eigenvolumes: np.ndarray
    eigenvalue: np.ndarray
    eigenvalue_in_sample: np.ndarray
    agreement: np.ndarray
    label: list[str]
    z: np.ndarray
    precision: np.ndarray


def _gaussians(centres: np.ndarray, box_size: int, sigma: float = 0.055) -> np.ndarray:
    """Sum Gaussian blobs; centres (k, 3) as x, y, z in units of the box."""
    axis = (np.arange(box_size) - box_size // 2) / box_size
    blobs = [np.exp(-0.5 * ((axis[:, None] - centre) / sigma) ** 2) for centre in centres]
    return sum(np.einsum("z,y,x->zyx", blob[:, 2], blob[:, 1], blob[:, 0]) for blob in blobs)


def _state(angle: float, box_size: int) -> np.ndarray:
    """Body and arm, the arm turned about y by an angle in radians."""
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return _gaussians(np.vstack([BODY, ARM @ turn.T]), box_size)


def synthetic_arrays(box_size: int = 16, n_particles: int = 300, rank: int = 4, seed: int = 0) -> Synthetic:
    """Simulate what a fit would have found: two true components, then noise."""
    rng = np.random.default_rng(seed)
    steps = np.linspace(-0.5, 0.5, 21)
    states = np.stack([_state(angle, box_size) for angle in steps])
    place = np.clip(np.where(rng.random(n_particles) < 0.4, rng.normal(0.2, 0.07, n_particles),
                             rng.normal(0.7, 0.12, n_particles)), 0, 1)  # fmt: skip
    frame = np.rint(place * 20).astype(int)
    weight = np.bincount(frame, minlength=21) / n_particles
    mean = np.tensordot(weight, states, 1)
    grid = np.stack(np.meshgrid(*[np.arange(box_size) - box_size // 2] * 3, indexing="ij"))
    mask = np.clip((0.46 * box_size - np.linalg.norm(grid, axis=0)) / 2 + 0.5, 0, 1)
    spread = ((states - mean) * np.sqrt(weight)[:, None, None, None]).reshape(21, -1)
    true_axes = np.linalg.svd(spread, full_matrices=False)[2][:2]
    noise = np.stack(
        [_gaussians(rng.normal(0, 0.2, (9, 3)), box_size) for _ in range(max(rank - 2, 0))] or [mean]
    )
    noise -= _gaussians(rng.normal(0, 0.2, (9, 3)), box_size)
    rows = np.vstack([true_axes, (noise * mask).reshape(len(noise), -1)])
    axes = np.linalg.qr(rows.T)[0].T[:rank]
    axes *= np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] < 0, -1, 1)[:, None]
    z = ((states - mean).reshape(21, -1) @ axes.T)[frame]
    eigenvalue = z.var(axis=0)
    eigenvalue[2:] = 0.03 * eigenvalue[:1] * 0.6 ** np.arange(max(rank - 2, 0))
    z = z + rng.normal(size=z.shape) * np.sqrt(
        0.04 * eigenvalue[:1] + 0.5 * eigenvalue * (np.arange(rank) > 1)
    )
    return Synthetic(
        mean=mean.astype(np.float32),
        mask=mask.astype(np.float32),
        eigenvolumes=axes.reshape(rank, *mean.shape).astype(np.float32),
        eigenvalue=eigenvalue,
        eigenvalue_in_sample=eigenvalue * (1.08 + 0.9 * (np.arange(rank) > 1)),
        agreement=np.where(np.arange(rank) < 2, 0.97 - 0.1 * np.arange(rank), 0.2),
        label=["" if j < 2 else NOT_REPRODUCIBLE for j in range(rank)],
        z=z.astype(np.float32),
        precision=np.broadcast_to(np.eye(rank, dtype=np.float32), (n_particles, rank, rank)).copy(),
    )


def write_synthetic_run(
    path: Path,
    box_size: int = 16,
    n_particles: int = 300,
    rank: int = 4,
    seed: int = 0,
    state: str = "finished",
) -> tuple[RunDir, Synthetic]:
    """Write every file of a finished fit."""
    run, arrays = RunDir(path), synthetic_arrays(box_size, n_particles, rank, seed)
    run.eigenvolumes.mkdir(parents=True)
    run.checkpoint.mkdir()
    _write_particles(run.particles, n_particles, seed)
    fit = FitParams(particles="particles.star", output=str(path), rank=max(rank, 1), seed=seed)
    write_params(run, fit, inputs=[run.particles], resolved={"box_size": box_size})
    for target, volume in ((run.mean, arrays.mean), (run.mask, arrays.mask)):
        write_mrc(target, volume)
    write_mrc(run.mean_half1, arrays.mean)
    write_mrc(run.mean_half2, arrays.mean)
    for component, eigenvolume in enumerate(arrays.eigenvolumes, start=1):
        write_mrc(run.eigenvolume(component), eigenvolume)
    _write_tables(run, arrays, box_size)
    contrast = np.ones(n_particles, dtype=np.float32)
    write_latents(run.latents, Latents(arrays.z, arrays.precision, contrast))
    run.log.write_text("Fitted.\n", encoding="utf-8")
    StatusTracker(run.status, "fit").update(state=state, stage="latents", step=9, steps=9)
    return run, arrays


def write_mrc(path: Path, volume: np.ndarray, pixel_size: float = PIXEL_SIZE) -> None:
    """Write a volume with mrcfile."""
    with mrcfile.new(path) as mrc:
        mrc.set_data(volume.astype(np.float32))
        mrc.voxel_size = pixel_size
        mrc.set_volume()


def _write_particles(path: Path, n_particles: int, seed: int) -> None:
    """Write RELION 3.1 particles with uniform directions, a tenth of them seen from one side."""
    rng = np.random.default_rng(seed)
    cosine = rng.uniform(-1, 1, n_particles)
    cosine[: n_particles // 10] = rng.uniform(0.8, 1.0, n_particles // 10)
    optics = StarTable.create("optics", {"rlnOpticsGroup": [1], "rlnImagePixelSize": [PIXEL_SIZE]})
    particles = StarTable.create(
        "particles",
        {
            "rlnImageName": [f"{row + 1:06d}@particles.mrcs" for row in range(n_particles)],
            "rlnAngleRot": rng.uniform(-180, 180, n_particles),
            "rlnAngleTilt": np.rad2deg(np.arccos(cosine)),
            "rlnAnglePsi": rng.uniform(-180, 180, n_particles),
            "rlnOpticsGroup": np.ones(n_particles, dtype=int),
            "solvarContrast": 1 + 0.1 * rng.standard_normal(n_particles),
            "solvarLogLikelihood": -500 + 20 * rng.standard_normal(n_particles),
            "solvarOutlier": (np.arange(n_particles) % 50 == 7).astype(int),
            "solvarRotationChange": 4 * rng.rayleigh(size=n_particles),
            "solvarShiftChange": 3 * rng.rayleigh(size=n_particles),
            "solvarRotationStd": 1.5 + 0.2 * rng.standard_normal(n_particles),
            "solvarShiftStd": 0.6 + 0.1 * rng.standard_normal(n_particles),
        },
    )
    StarFile((optics, particles)).write(path)


def _write_tables(run: RunDir, arrays: Synthetic, box_size: int) -> None:
    """Write eigenvalues, FSC, noise of two groups, and metrics of four stages."""
    rank = len(arrays.label)
    write_eigenvalues(
        run.eigenvalues,
        {
            "component": np.arange(1, rank + 1),
            "eigenvalue": arrays.eigenvalue,
            "eigenvalue_in_sample": arrays.eigenvalue_in_sample,
            "fraction": arrays.eigenvalue / arrays.eigenvalue.sum(),
            "half_set_agreement": arrays.agreement,
            "nuisance_overlap": np.linspace(0.05, 0.3, rank),
            "label": arrays.label,
        },
    )
    shell = np.arange(box_size // 2)
    frequency = shell / (box_size * PIXEL_SIZE)
    nyquist = 1 / (2 * PIXEL_SIZE)
    write_fsc(
        run.fsc,
        {
            "shell": shell,
            "frequency": frequency,
            "fsc_mean": 1 / (1 + (frequency / (0.65 * nyquist)) ** 12),
            "fsc_covariance": 0.98 / (1 + (frequency / (0.3 * nyquist)) ** 5),
        },
    )
    spectrum = [level + 3 * np.exp(-frequency / 0.02) for level in (1.0, 1.3)]
    write_noise(
        run.noise,
        {
            "shell": np.tile(shell, 2),
            "frequency": np.tile(frequency, 2),
            "noise_variance": np.concatenate(spectrum),
            "group": np.repeat([1, 2], len(shell)),
        },
    )
    _write_metrics(run, box_size)


def write_rank_table(run: RunDir, kept: list[int]) -> None:
    """Write a table of candidates, of which some are kept."""
    count = len(kept)
    write_rank(
        run.rank,
        {
            "candidate": np.arange(1, count + 1),
            "eigenvalue": 9.0 / 4.0 ** np.arange(count),
            "half_set_agreement": np.linspace(0.9, 0.1, count),
            "gain_half1": np.where(kept, 1234.5, 0.2),
            "gain_half2": np.where(kept, 1100.5, 0.3),
            "decoy_max_half1": np.full(count, 2.5),
            "decoy_max_half2": np.full(count, 3.5),
            "kept": kept,
        },
    )


def _write_metrics(run: RunDir, box_size: int) -> None:
    """Write an objective that falls at every stage, in each half."""
    seconds = 0.0
    append_metrics(run.metrics, {"iteration": 0, "stage": "mean", "seconds": 1.0})
    bands = [(box_size // 8, "marching"), (box_size // 4, "marching"), (box_size // 2 - 1, "marching")]
    for shell_max, stage in [*bands, (box_size // 2 - 1, "final")]:
        for iteration in range(6):
            seconds += shell_max / 4
            for half in (1, 2):
                objective = 1e5 / shell_max * (1 + 0.02 * half + np.exp(-iteration))
                values = (iteration, stage, half, shell_max, objective, seconds)
                names = ("iteration", "stage", "half", "shell_max", "objective", "seconds")
                append_metrics(run.metrics, dict(zip(names, values, strict=True)))
