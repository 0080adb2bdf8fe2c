"""`evaluate`: compare a run with the truth of a simulated data set."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv, write_json
from solvar_engine.contract.params import EvaluateParams
from solvar_engine.contract.results import (
    CLASS_NUMBER,
    Latents,
    read_components,
    read_latents,
    read_noise,
    read_structure,
    refuse_without_structure,
)
from solvar_engine.contract.run import RunDir, read_record, require_finished
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import read_status
from solvar_engine.contract.words import counted
from solvar_engine.data.cryosparc.lists import read_list
from solvar_engine.data.image_names import keys_by_stacks
from solvar_engine.data.metadata import ParticleMetadata, read_metadata
from solvar_engine.data.volumes import read_volume
from solvar_engine.evaluation.covariance_scores import mean_scale, state_factor
from solvar_engine.evaluation.frames import INLIER_DEG, aligned_estimate, aligned_pose, comoving_truth, find_frame
from solvar_engine.evaluation.information_limit import information_limit, seen_power
from solvar_engine.evaluation.metrics import (
    Component,
    Estimate,
    Evaluation,
    Truth,
    covariance_and_pose_scores,
    evaluate_estimate,
)
from solvar_engine.imaging.fourier import HalfDisk, fourier_crop_volume
from solvar_engine.imaging.frames import polished
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.shells import fsc, resolution_at
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.simulate.files import TruthFiles

Scores = dict[str, float | list[float] | None]

logger = logging.getLogger(__name__)

_MEANINGS = {
    "captured_variance": "true variance inside all components, over the total",
    "captured_variance_limit": "the most that so many images, at this noise, can show of it",
    "captured_variance_2": "the same for the first two, over the best two",
    "covariance_error": "relative Frobenius error of the covariance",
    "covariance_error_scaled": "the same after the best rescaling",
    "eigenvalues_true": "leading eigenvalues of the true covariance",
    "eigenvalues_estimated": "held out, in the units of the truth",
    "latent_r2": "state coordinates from 30 nearest neighbours in z",
    "latent_r2_poly": "state coordinates from a cubic polynomial in z",
    "state_accuracy": "states named right by 30 nearest neighbours in z",
    "latent_calibration": "errors of z over the stated ones, root mean square",
    "fsc_auc_mean": "FSC of 100 particles' volumes with the truth, in the mask",
    "fsc_auc_std": "its spread over the particles",
    "fsc_auc_median": "its median",
    "fsc_auc_mean_only": "with the mean volume for every particle",
    "rotation_error_deg": "mean, after removing a global rotation",
    "rotation_error_start_deg": "the same of the poses that the fit was given",
    "shift_error_px": "mean, after removing a global shift; px of the input box",
    "shift_error_start_px": "the same of the poses that the fit was given",
    "contrast_r2": "squared correlation of contrasts",
    "seconds": "wall time of the fit",
    "peak_memory_mb": "peak memory of the fit",
}
"""Every key of the JSON file, in its order, with what the table says about it."""

_ALIGNED_MEANINGS = {
    "hand_is_mirrored": "1 if the run has the other hand, which images do not tell",
    "poses_beyond_20_deg": "share of the particles",
    "rotation_error_median_deg": "of all",
    "resolution_mean": "FSC 0.5 of the mean with the truth, Angstrom",
    "resolution_mean_comoving": "the same, each true state turned and moved to where the poses see it",
    "captured_variance_comoving": "as captured_variance, so turned",
    "captured_variance_2_comoving": "as captured_variance_2, so turned",
    "rotation_error_comoving_deg": "as rotation_error_deg, so turned",
    "shift_error_comoving_px": "as shift_error_px, so turned",
    "class_accuracy": "particles in the right class, classes named as fits best",
}
"""Further keys for a run that was brought into the frame of the truth."""

_WEAK_COMPONENT = 0.3
"""Below this share of true variance in its eigenvalue a component is pointed out in the table."""


def run(params: EvaluateParams) -> None:
    """Score a finished run, print a table and write the numbers as JSON if asked to.

    Raises
    ------
    UserError
        If the run is not finished, the truth is incomplete, or they are not of the same particles.
    """
    run_dir = RunDir(params.run)
    require_finished(run_dir)
    refuse_without_structure(run_dir)
    truth_files = TruthFiles.find(params.truth)
    star = StarFile.read(run_dir.particles)
    names = star.particles.text("rlnImageName")
    truth = read_truth(truth_files, names, read_volume(run_dir.mean).box_size)
    if truth.is_junk.any():
        junk = counted(int(truth.is_junk.sum()), "image that does", "images that do")
        logger.info("Leaving out %s not show the molecule", junk)
    estimate = _read_estimate(run_dir, truth_files, star, names)
    metadata, meanings = read_metadata(star), _MEANINGS
    if len(symmetry_operators(read_record(run_dir)["options"].get("symmetry", "C1"))) > 1:
        rows = np.sort(np.unique(names, return_index=True)[1])  # at their own orientations
        star = star.replace(star.particles, star.particles.only(rows.tolist()))
        estimate, truth, metadata = estimate.of(rows), truth.of(rows), _metadata_of(metadata, rows)
    of_frame: Scores = {}
    if params.align or read_structure(run_dir) is not None:
        meanings = _MEANINGS | _ALIGNED_MEANINGS
        of_frame["class_accuracy"] = class_accuracy(star, truth)
        rows = _rows_of_one_map(star, truth)
        estimate, truth, metadata = estimate.of(rows), truth.of(rows), _metadata_of(metadata, rows)
        estimate, scores = _aligned(run_dir, estimate, truth)
        of_frame |= scores
    evaluation = evaluate_estimate(estimate, truth)
    limit = _information_limit(run_dir, metadata, estimate, truth)
    scores = {**evaluation.scores, "captured_variance_limit": limit, **_cost(run_dir), **of_frame}
    ordered = {key: scores[key] for key in meanings}
    sys.stdout.write(_table(ordered, evaluation, meanings))
    if params.json is not None:
        write_json(params.json, ordered)


def _read_estimate(run_dir: RunDir, truth_files: TruthFiles, star: StarFile, names: list[str]) -> Estimate:
    """Read the results of a run."""
    eigenvalues = read_components(run_dir.eigenvalues).eigenvalue
    mean = read_volume(run_dir.mean).data.numpy()
    eigenvolumes = np.zeros((len(eigenvalues), *mean.shape), dtype=np.float32)
    for component in range(len(eigenvalues)):
        eigenvolumes[component] = read_volume(run_dir.eigenvolume(component + 1)).data.numpy()
    latents = read_latents(run_dir.latents)
    if latents.z.shape != (len(names), len(eigenvalues)):
        raise UserError(
            f"{run_dir.latents} has {latents.z.shape[0]} rows and {latents.z.shape[1]} components,"
            f" but there are {len(names)} particles and {len(eigenvalues)} eigenvalues:"
            " the run is damaged, fit again."
        )
    return Estimate(
        mean=mean,
        eigenvolumes=eigenvolumes,
        eigenvalues=np.nan_to_num(eigenvalues),
        z=latents.z,
        contrast=latents.contrast,
        pose=read_metadata(star).pose,
        start_pose=_read_start_pose(run_dir, truth_files, names),
        deviation=_stated_deviation(latents),
    )


def _stated_deviation(latents: Latents) -> NDArray[np.float64]:
    """Standard deviations (n, r) of z; NaN for images of which nothing is known."""
    deviation = np.full(latents.z.shape, np.nan)
    known = np.linalg.matrix_rank(latents.precision) == latents.z.shape[1]
    deviation[known] = Latents(latents.z[known], latents.precision[known], latents.contrast[known]).deviations()
    return deviation


def _rows_of_one_map(star: StarFile, truth: Truth) -> NDArray[np.int64]:
    """Rows that show the molecule; of several classes, whose frames differ, those of the largest."""
    is_used = ~truth.is_junk
    if CLASS_NUMBER in star.particles:
        number = star.particles.integers(CLASS_NUMBER)
        is_used &= number == np.bincount(number[is_used]).argmax()
    return np.flatnonzero(is_used)


def _metadata_of(metadata: ParticleMetadata, rows: NDArray[np.int64]) -> ParticleMetadata:
    index = torch.from_numpy(rows)
    return replace(metadata, ctf=metadata.ctf[index], group=metadata.group[index])


def _aligned(run_dir: RunDir, estimate: Estimate, truth: Truth) -> tuple[Estimate, Scores]:
    """The estimate in the frame of the truth, and what is scored beside the usual."""
    pixel_size = read_volume(run_dir.mean).pixel_size
    group = symmetry_operators(read_record(run_dir)["options"].get("symmetry", "C1"))
    frame = find_frame(estimate.pose, truth.pose, group)
    share = float(frame.is_inlier.double().mean())
    logger.info(
        "Frame of the truth: %s hand, %.1f %% of the poses within %g degrees",
        "other" if frame.is_mirrored else "same", 100 * share, INLIER_DEG,
    )  # fmt: skip
    by_poses = aligned_pose(estimate.pose, truth.pose, frame, group)
    angle = angular_distance_deg(by_poses.rotation, truth.pose.rotation)
    frame = polished(frame, estimate.mean, _mean_of(truth), truth.mask, pixel_size)
    aligned = aligned_estimate(estimate, truth, frame, group, pixel_size)
    comoving = comoving_truth(truth, aligned.pose, frame.is_inlier, pixel_size)
    turned = covariance_and_pose_scores(aligned, comoving)

    def resolution(known: Truth) -> float:
        mean, mask = torch.from_numpy(_mean_of(known)), torch.from_numpy(known.mask)
        return resolution_at(fsc(torch.from_numpy(aligned.mean), mean, mask), 0.5, len(mask), pixel_size)

    return aligned, {
        "hand_is_mirrored": float(frame.is_mirrored),
        "poses_beyond_20_deg": float((angle > INLIER_DEG).double().mean()),
        "rotation_error_median_deg": float(angle.median()),
        "resolution_mean": resolution(truth),
        "resolution_mean_comoving": resolution(comoving),
        "captured_variance_comoving": turned["captured_variance"],
        "captured_variance_2_comoving": turned["captured_variance_2"],
        "rotation_error_comoving_deg": turned["rotation_error_deg"],
        "shift_error_comoving_px": turned["shift_error_px"],
    }


def _mean_of(truth: Truth) -> NDArray[np.float32]:
    weight = np.bincount(truth.state, minlength=len(truth.volumes)) / len(truth.state)
    return np.tensordot(weight, truth.volumes, axes=1).astype(np.float32)


def class_accuracy(star: StarFile, truth: Truth) -> float | None:
    """Share of the particles whose class is that of their state, classes matched to states as fits best."""
    if CLASS_NUMBER not in star.particles:
        return None
    number, shown = star.particles.integers(CLASS_NUMBER), ~truth.is_junk
    count = np.zeros((number.max() + 1, truth.state.max() + 1))
    np.add.at(count, (number[shown], truth.state[shown]), 1)
    rows, columns = linear_sum_assignment(count, maximize=True)
    return float(count[rows, columns].sum() / shown.sum())


def _information_limit(
    run_dir: RunDir, metadata: ParticleMetadata, estimate: Estimate, truth: Truth
) -> float | None:
    """The most that the images can show of the true variance; None if it is zero, or the run states no noise."""
    shown = np.flatnonzero(~truth.is_junk)
    weight = np.bincount(truth.state[shown], minlength=len(truth.volumes)).astype(np.float64)
    if not run_dir.noise.is_file() or np.count_nonzero(weight) < 2:
        return None
    pixel_size = read_volume(run_dir.mean).pixel_size
    disk = HalfDisk.create(truth.mask.shape[-1])
    noise = read_noise(run_dir.noise)
    of_group = torch.stack(
        [torch.from_numpy(noise["noise_variance"][noise["group"] == name]) for name in metadata.group_names]
    )
    rows = torch.from_numpy(shown)
    contrast = torch.from_numpy(truth.contrast[shown])
    seen = seen_power(metadata.ctf[rows], of_group[metadata.group[rows]], disk, pixel_size, contrast)
    mean, factor = state_factor(truth.volumes, weight)
    # volumes in the units of the run's images, whose coefficients are orthonormal in the input box
    scale = (pixel_size / metadata.pixel_sizes[0]) ** 2 / mean_scale(estimate.mean, mean, truth.mask)
    return information_limit(scale * factor, truth.mask, seen, disk, len(estimate.eigenvalues))


def _read_start_pose(run_dir: RunDir, truth_files: TruthFiles, names: list[str]) -> Pose | None:
    """Poses that the fit was given: of its input, or of the data set if that is gone; None without either."""
    if read_structure(run_dir) is not None:
        return None
    record = read_record(run_dir)
    folder, options = Path(record["folder"]), record["options"]
    passthrough = folder / options["passthrough"] if options.get("passthrough") else None
    of_data_set = truth_files.path.parent / "particles.star"
    for path, more in ((folder / options["particles"], passthrough), (of_data_set, None)):
        if path.is_file():
            star = read_list(path, more).star
            rows = match_particles(names, star.particles.text("rlnImageName"), path)
            return read_metadata(star).pose[torch.from_numpy(rows)]
    return None


def read_truth(files: TruthFiles, names: list[str], box_size: int) -> Truth:
    """Read the truth about the named particles, with volumes Fourier-cropped to a box.

    Parameters
    ----------
    files : TruthFiles
    names : list of str
        Column rlnImageName of the particles, in the order that the truth shall have.
    box_size : int
        Such as the working box of a run, px.

    Raises
    ------
    UserError
        If the truth is incomplete, or is not of these particles.
    """
    star = StarFile.read(files.particles)
    rows = match_particles(names, star.particles.text("rlnImageName"), files.particles)
    metadata = read_metadata(star)
    table = read_csv(files.states)
    if len(table["state"]) != len(metadata.group):
        raise UserError(
            f"{files.states} has {len(table['state'])} rows, but {files.particles} has {len(metadata.group)} "
            "particles: simulate the data set again."
        )
    states = table["state"].astype(np.int64) - 1
    axes = [column for name, column in table.items() if name.startswith("coordinate_")]
    n_states = int(states.max()) + 1
    logger.info(
        "Evaluating %d particles in %d states: expecting about %.0f MB of memory",
        len(rows),
        n_states,
        400 + 8e-6 * (n_states + 4) * box_size**3,
    )
    return Truth(
        volumes=_read_volumes((files.volume(state + 1) for state in range(n_states)), n_states, box_size),
        mask=_read_volumes([files.mask], 1, box_size)[0].clip(0.0, 1.0),
        state=states[rows],
        coordinates=np.stack(axes, axis=1)[rows] if axes else np.zeros((len(rows), 0)),
        contrast=table["contrast"][rows],
        pose=metadata.pose[torch.from_numpy(rows)],
        pixel_size=metadata.pixel_sizes[0],
        is_junk=table["junk"][rows] == 1 if "junk" in table else np.zeros(len(rows), dtype=bool),
    )


def _read_volumes(paths: Iterable[Path], count: int, box_size: int) -> NDArray[np.float32]:
    """Read volumes and Fourier-crop them, values kept, to the box of the run: (count, z, y, x)."""
    volumes = np.empty((count, box_size, box_size, box_size), dtype=np.float32)
    for row, path in enumerate(paths):
        volume = read_volume(path)
        if volume.box_size < box_size:
            raise UserError(
                f"{path} has {volume.box_size} voxels per edge, but the run has {box_size}:"
                " give the truth of the data set that was fitted."
            )
        volumes[row] = fourier_crop_volume(volume.data, box_size).numpy()
    return volumes


def match_particles(wanted: list[str], known: list[str], source: Path) -> NDArray[np.int64]:
    """Find particles by their image names.

    Names are compared as they are; if one is not found that way, all are compared by image number and as many last
    folders of the stack as tell it apart, since other programs rewrite folders.

    Parameters
    ----------
    wanted, known : list of str
        Columns rlnImageName.
    source : Path
        File of the known names, for messages.

    Returns
    -------
    ndarray, shape (len(wanted),), int64
        Row of each wanted particle among the known ones.

    Raises
    ------
    UserError
        If a particle is not found or its name stands for several.

    Examples
    --------
    >>> match_particles(["2@job/a.mrcs"], ["000001@a.mrcs", "000002@a.mrcs"], Path("a.star")).tolist()
    [1]
    """
    exact = {name: row for row, name in enumerate(known)}
    if len(exact) == len(known) and all(name in exact for name in wanted):
        return np.array([exact[name] for name in wanted], dtype=np.int64)
    keys = keys_by_stacks(wanted, known)
    row_of_key = {key: row for row, key in enumerate(keys.given)}
    if len(row_of_key) < len(known):
        raise UserError(
            f"Several particles of {source} share an image name: give the truth as `simulate` wrote it."
        )
    if keys.unclear is not None:
        stack, (one, other, *_) = keys.unclear
        raise UserError(
            f"Stack {stack} of the run may be {one} or {other} of {source}: give the truth of the data set that was"
            " fitted, with the same folders."
        )
    rows = [row_of_key.get(key, -1) for key in keys.wanted]
    if -1 in rows:
        raise UserError(
            f"Image {wanted[rows.index(-1)]} of the run is not in {source}:"
            " give the truth of the data set that was fitted."
        )
    return np.array(rows, dtype=np.int64)


def _cost(run_dir: RunDir) -> dict[str, float | list[float] | None]:
    status = read_status(run_dir.status)
    if status is None:
        return {"seconds": None, "peak_memory_mb": None}
    return {"seconds": status.seconds, "peak_memory_mb": status.peak_memory_mb}


def _table(scores: Scores, evaluation: Evaluation, meanings: Mapping[str, str]) -> str:
    """Lay out the scores, and the components below them, as text."""
    lines = [f"{key:26s}{_shown(value):>24s}  {meanings[key]}" for key, value in scores.items()]
    if evaluation.components:
        lines += ["", f"{'component':>10s}{'eigenvalue':>14s}{'true variance':>16s}"]
    for number, component in enumerate(evaluation.components, start=1):
        lines.append(_component_line(number, component))
    return "\n".join(lines) + "\n"


def _component_line(number: int, component: Component) -> str:
    line = f"{number:10d}{component.eigenvalue:14.4g}{component.variance_along:16.4g}"
    is_weak = component.variance_along < _WEAK_COMPONENT * component.eigenvalue
    return line + ("  mostly not in the truth" if is_weak else "")


def _shown(value: float | list[float] | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(f"{item:.3g}" for item in value[:4]) + (" ..." if len(value) > 4 else "")
    return f"{value:.4g}"
