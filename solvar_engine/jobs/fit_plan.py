"""What a fit will need, said before it starts."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from solvar_engine.contract.errors import UserError
from solvar_engine.data.preprocess import cache_bytes
from solvar_engine.estimation.rank import DECOYS, JUDGING_PARTICLES
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.projectors.numba_cpu import slabs_per_grid

logger = logging.getLogger(__name__)

_LIBRARIES_BYTES = 650e6  # the interpreter with torch and numba, and its working arrays
_METADATA_BYTES = 1500  # per particle: the row of the STAR file, pose, CTF
_SECONDS_PER_SAMPLE = 4.5e-8  # of one pixel of one channel, slice and adjoint, on one core; measured
_NUFFT_SLOWDOWN = 3.0  # of a pass against trilinear interpolation; measured
_NUFFT_BYTES = 400e6  # of its plans and chunks
_FULL_PASSES = 12  # passes over all images at full band that all stages together amount to
_POSE_PASSES = {"newton": 12, "paper": 140}  # that a round of refinement of the poses amounts to; measured


@dataclass(frozen=True)
class FitPlan:
    """Resources of a fit.

    Attributes
    ----------
    memory_bytes, disk_bytes : float
    seconds : float
    cache_in_memory : bool
        Whether the preprocessed images fit in the memory allowed for them.
    """

    memory_bytes: float
    disk_bytes: float
    seconds: float
    cache_in_memory: bool

    def sentence(self) -> str:
        """One line for the user."""
        place = "in memory" if self.cache_in_memory else "in a scratch file"
        return (
            f"Expecting about {self.seconds / 60:.1f} min, {self.memory_bytes / 1e6:.0f} MB of memory and "
            f"{self.disk_bytes / 1e6:.0f} MB of disk (preprocessed images {place})"
        )


@dataclass(frozen=True)
class FitDemand:
    """What the resources of a fit depend on.

    Attributes
    ----------
    particles, box_size, rank, oversampling, threads : int
    cache_mb : int
        Memory allowed for preprocessed images.
    projector : str
        Interpolation; nufft needs no oversampled grids, but more time and buffers.
    pose_rounds : int
        How often all poses are refined.
    pose_schedule : str
        By which steps.
    """

    particles: int
    box_size: int
    rank: int
    oversampling: int
    threads: int
    cache_mb: int
    projector: str = "trilinear"
    pose_rounds: int = 0
    pose_schedule: str = "newton"


def plan_within(demand: FitDemand, available_bytes: float) -> FitPlan:
    """Plan a fit for the memory that there is: with the images in a scratch file, if they take too much of it.

    Raises
    ------
    UserError
        If the memory is too small all the same; the text says how much is needed, and what needs less.
    """
    plan = plan_fit(demand)
    if plan.memory_bytes > available_bytes and plan.cache_in_memory:
        plan = plan_fit(replace(demand, cache_mb=0))
        logger.warning("Memory is short: the preprocessed images are kept in a scratch file, which takes longer")
    if plan.memory_bytes <= available_bytes:
        return plan
    advice = "choose a smaller --rank or --box"
    without_grids = plan_fit(replace(demand, cache_mb=0, projector="nufft"))
    if without_grids.memory_bytes <= available_bytes:
        advice += f", or --projector nufft, which needs {without_grids.memory_bytes / 1e6:.0f} MB but more time"
    raise UserError(
        f"The fit needs about {plan.memory_bytes / 1e6:.0f} MB of memory, but only {available_bytes / 1e6:.0f} MB are "
        f"available: {advice}."
    )


def plan_fit(demand: FitDemand) -> FitPlan:
    """Estimate the resources of a fit."""
    particles, box_size, rank, threads = demand.particles, demand.box_size, demand.rank, demand.threads
    cache = cache_bytes(particles, box_size)
    in_memory = cache <= demand.cache_mb * 1e6
    is_nufft = demand.projector == "nufft"
    oversampling = 1 if is_nufft else demand.oversampling
    cell = 8 * (oversampling * box_size) ** 3 / 2
    accumulators = 1 if is_nufft else threads // slabs_per_grid(threads, rank)
    grids = cell * max((rank + 1) * 2 + rank * (accumulators + 1), rank + 1 + DECOYS)
    volumes = 4 * box_size**3 * max(12 * rank, 3 * (rank + DECOYS))
    metadata = particles * (_METADATA_BYTES + 8 * (rank + 1) ** 2)
    buffers = _NUFFT_BYTES if is_nufft else 0.0
    judging = min(particles, 2 * JUDGING_PARTICLES)
    metadata += judging * 8 * (rank + DECOYS) ** 2
    memory = _LIBRARIES_BYTES + buffers + grids + volumes + metadata + (cache if in_memory else 0)
    results = 4 * box_size**3 * (rank + 4) + particles * (_METADATA_BYTES + 4 * (rank + 1) ** 2)
    checkpoint = 4 * box_size**3 * 3 * rank
    disk = results + checkpoint + (0 if in_memory else cache)
    fitted = particles * (rank + 2) * (_FULL_PASSES + demand.pose_rounds * _POSE_PASSES[demand.pose_schedule])
    passes = len(HalfDisk.create(box_size)) * (fitted + judging * (rank + 2 + DECOYS)) * _SECONDS_PER_SAMPLE / threads
    passes *= _NUFFT_SLOWDOWN if is_nufft else 1.0
    transforms = (40 * rank + 2 * DECOYS) * 8e-8 * (oversampling * box_size) ** 3 / threads
    return FitPlan(memory, disk, 15 + passes + transforms, in_memory)


def require_disk(plan: FitPlan, output: Path, scratch: Path, particles: int, box_size: int) -> None:
    """Refuse a fit whose files do not fit.

    Raises
    ------
    UserError
        If a disk is too small; the text names the folder and both sizes.
    """
    cache = 0.0 if plan.cache_in_memory else float(cache_bytes(particles, box_size))
    needs = {output: plan.disk_bytes - cache, scratch: cache}
    if os.stat(output).st_dev == os.stat(scratch).st_dev:
        needs = {output: plan.disk_bytes}
    for folder, needed in needs.items():
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise UserError(
                f"The run needs {needed / 1e6:.0f} MB in {folder}, but only {free / 1e6:.0f} MB are free: choose "
                "another disk for --output or --scratch, or raise --cache-mb."
            )
