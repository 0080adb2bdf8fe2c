"""Refinement of poses as published, for comparison: descent for orientations, Newton steps for shifts.

Yadgar, Lederman & Shkolnisky (2026), section A.3: rotation vectors follow the gradient of the objective (by Adam, as in
the authors' program), and every five epochs shifts are refined by ten Newton steps with a line search. Here the epochs
of a round all happen under the same volumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from solvar_engine.estimation.model.bands import Band
from solvar_engine.estimation.poses.likelihood import PoseModel
from solvar_engine.estimation.poses.refinement import RefinedPoses
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.types import Batch, BatchSource

_EPOCHS, _EPOCHS_BETWEEN_SHIFTS = 20, 5
_RATE_RAD = 3e-3  # three times the rate of the factors, in the authors' program
_FIRST_MEMORY, _SECOND_MEMORY = 0.9, 0.999
_NEWTON_STEPS = 10
_LINE_SEARCH = (1.0, 0.5, 0.25, 0.125)


def descend_poses(source: BatchSource, index: Tensor, band: Band, factors: Tensor) -> Iterator[RefinedPoses]:
    """Refine every image's pose under fixed volumes by the published schedule; arguments as for `refine_poses`.

    Yields
    ------
    RefinedPoses
        Whose objective may be larger than it was: nothing holds the steps of orientations back.
    """
    model = PoseModel(band, factors)
    for batch in source.batches(index, band.disk, model.images_per_call):
        yield _descend(model, batch, band.disk)


def _descend(model: PoseModel, batch: Batch, disk: HalfDisk) -> RefinedPoses:
    start = model.evaluate(batch)
    shift = start.objective.new_zeros(len(batch), 2)
    first, second = start.objective.new_zeros(2, len(batch), 3)
    now, posterior = batch, start
    for epoch in range(1, _EPOCHS + 1):
        gradient = model.derivatives(now, posterior).gradient[:, :3]
        first = _FIRST_MEMORY * first + (1 - _FIRST_MEMORY) * gradient
        second = _SECOND_MEMORY * second + (1 - _SECOND_MEMORY) * gradient**2
        mean, power = first / (1 - _FIRST_MEMORY**epoch), second / (1 - _SECOND_MEMORY**epoch)
        turn = rotvec_to_rotation(-_RATE_RAD * mean / (power.sqrt() + 1e-8))
        now = replace(now, rotation=(now.rotation.double() @ turn).float())
        if epoch % _EPOCHS_BETWEEN_SHIFTS == 0:
            turned = replace(batch, rotation=now.rotation)
            shift = _newton_shifts(model, turned, shift, disk)
            now = turned.moved(shift, disk)
        posterior = model.evaluate(now)
    covariance = model.derivatives(now, posterior).joint_covariance()
    return RefinedPoses(
        batch.index, now.rotation, shift.float(), start.objective, posterior.objective, posterior.mean, *covariance
    )


def _newton_shifts(model: PoseModel, batch: Batch, shift: Tensor, disk: HalfDisk) -> Tensor:
    """Newton steps from some shifts, each the longest of the line search that lowers the objective of its image."""
    for _ in range(_NEWTON_STEPS):
        now = batch.moved(shift, disk)
        posterior = model.evaluate(now)
        slope = model.derivatives(now, posterior)
        step = -torch.linalg.solve(slope.matrix[:, 3:, 3:], slope.gradient[:, 3:, None])[..., 0]
        searching = torch.arange(len(batch), device=step.device)
        for length in _LINE_SEARCH:
            trial = shift[searching] + length * step[searching]
            objective = model.evaluate(batch[searching].moved(trial, disk)).objective
            better = objective < posterior.objective[searching]
            shift = shift.index_copy(0, searching[better], trial[better])
            searching = searching[~better]
            if not len(searching):
                break
    return shift
