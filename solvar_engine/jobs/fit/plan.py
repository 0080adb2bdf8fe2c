"""What a fit will need, said before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from solvar_engine.contract.errors import UserError
from solvar_engine.data.preprocess import cache_bytes
from solvar_engine.estimation.judging.rank import DECOYS, JUDGING_PARTICLES, JUDGING_SHARE
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.jobs.running.plans import LIBRARIES_BYTES, METADATA_BYTES, Plan
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OVERSAMPLING, SliceOptions

_SECONDS_PER_SAMPLE = 4.5e-8  # of one pixel of one channel, slice and adjoint, on one core; measured
_NUFFT_SLOWDOWN = 3.0  # of a pass against trilinear interpolation; measured
_GPU_LIBRARIES_BYTES = 700e6  # context, kernels and workspaces of the libraries
_COPIES_OF_SLICES = 6  # of a batch: as they are read, weighted, and what is computed of them
_LEAST_BATCH, _LARGEST_BATCH = 16, 8192  # images
_FULL_PASSES = 12  # passes over all images at full band that all stages together amount to
_MORE_PASSES = {"batches": 0, "em": 9, "squarem": 10}  # of the fit of all images, beside those three
_VECTORS = {"batches": 0, "em": 0, "squarem": 14}  # sets of factors that a solver holds, of single precision
_POSE_PASSES = {"newton": 12, "paper": 140}  # that a round of refinement of the poses amounts to; measured


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
    device : str
    processes, local_processes : int
        That share the images, and how many of them on one machine, which share the memory allowed for images.
    images_on_gpu : bool
        Whether the preprocessed images stay on a GPU.
    solver : str
        Of the fit of all images.
    images : int or None
        Images, where rows share them; None for as many as particles.
    fits : int
        How often the half-sets are fitted, at most.
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
    device: str = "cpu"
    processes: int = 1
    local_processes: int = 1
    images_on_gpu: bool = False
    solver: str = "batches"
    images: int | None = None
    fits: int = 1


def plan_within(demand: FitDemand, available_bytes: float) -> Plan:
    """Plan a fit for the memory that there is: with the images in a scratch file, if they take too much of it.

    Raises
    ------
    UserError
        If the memory is too small all the same; the text says how much is needed, and what needs less.
    """
    advice = "choose a smaller --rank or --box"
    without_grids = plan_fit(
        replace(demand, cache_mb=0, projector="nufft", oversampling=DEFAULT_OVERSAMPLING, device="cpu")
    )
    if without_grids.memory_bytes <= available_bytes:
        advice += f", or --projector nufft, which needs {without_grids.memory_bytes / 1e6:.0f} MB but more time"
    return plan_fit(demand).within(available_bytes, "fit", advice)


@dataclass(frozen=True)
class GpuPlan:
    """How a fit uses the memory of a GPU.

    Attributes
    ----------
    images_on_gpu : bool
        Whether the preprocessed images stay there; else batches are brought there.
    largest_batch : int
        Images at a time.
    """

    images_on_gpu: bool
    largest_batch: int


def plan_gpu(demand: FitDemand, available_bytes: float) -> GpuPlan:
    """Plan for the memory of a GPU: first batches shrink, then the images lie elsewhere.

    Raises
    ------
    UserError
        If it is too small all the same.
    """
    channels = demand.rank + DECOYS + 2
    of_one_image = _COPIES_OF_SLICES * 8 * len(HalfDisk.create(demand.box_size)) * channels
    of_images, least_batch = _images_bytes(demand), _LEAST_BATCH * of_one_image
    needed = _gpu_bytes(demand)
    for images_on_gpu in (True, False):
        room = available_bytes - needed - (of_images if images_on_gpu else 0)
        if room >= least_batch:
            return GpuPlan(images_on_gpu, int(min(room / of_one_image, _LARGEST_BATCH)))
    is_solver_too_large = _gpu_bytes(replace(demand, solver="batches")) + least_batch <= available_bytes
    advice = "--solver batches, " if is_solver_too_large else ""
    raise UserError(
        f"The fit needs about {(needed + least_batch) / 1e6:.0f} MB of GPU memory, but only"
        f" {available_bytes / 1e6:.0f} MB may be used: choose {advice}a smaller --rank or --box, or --device cpu."
    )


def _gpu_bytes(demand: FitDemand) -> float:
    """Of a GPU, without images."""
    return _GPU_LIBRARIES_BYTES + _volumes_bytes(demand) + _judging_bytes(demand)


def _images_bytes(demand: FitDemand) -> float:
    """Of the preprocessed images of one process."""
    images = demand.particles if demand.images is None else demand.images
    return float(cache_bytes(-(-images // demand.processes), demand.box_size))


def _judged(demand: FitDemand) -> int:
    """How many images the components are judged on."""
    return min(demand.particles, max(2 * JUDGING_PARTICLES, int(JUDGING_SHARE * demand.particles)))


def _judging_bytes(demand: FitDemand) -> float:
    """Of what these images say of components and decoys."""
    return 8.0 * _judged(demand) * (demand.rank + DECOYS) ** 2


def _volumes_bytes(demand: FitDemand) -> float:
    """Of volumes, their grids and the buffers of their transforms."""
    box_size, rank = demand.box_size, demand.rank
    options = SliceOptions(demand.projector, demand.oversampling, demand.device)
    projector = create_projector(box_size, HalfDisk.create(box_size).to(demand.device), options)
    passes_bytes = 2 * projector.grid_bytes(rank + 1) + projector.accumulator_bytes(rank, demand.threads)
    grids = max(passes_bytes, projector.grid_bytes(rank + 1 + DECOYS))
    sets = (12 + _VECTORS[demand.solver]) * rank
    return projector.buffer_bytes + grids + 4 * box_size**3 * max(sets, 3 * (rank + DECOYS))


def plan_fit(demand: FitDemand) -> Plan:
    """Estimate the resources of a fit, memory and disk those of each process."""
    particles, box_size, rank, threads = demand.particles, demand.box_size, demand.rank, demand.threads
    is_nufft = demand.projector == "nufft"
    oversampling = 1 if is_nufft else demand.oversampling
    disk = HalfDisk.create(box_size)
    metadata = particles * (METADATA_BYTES + 8 * (rank + 1) ** 2)
    if demand.pose_rounds:
        metadata += particles // 2 * 4 * rank * (rank + 6)  # what a half-set tells of states, and of poses with them
    on_cpu = torch.device(demand.device).type == "cpu"
    memory = LIBRARIES_BYTES + metadata + (_volumes_bytes(demand) + _judging_bytes(demand) if on_cpu else 0)
    results = 4 * box_size**3 * (rank + 4) + particles * (METADATA_BYTES + 4 * (rank + 1) ** 2)
    checkpoint = 4 * box_size**3 * 3 * rank
    full_passes = _FULL_PASSES + _MORE_PASSES[demand.solver]
    fitted = particles * (rank + 2) * (full_passes + demand.pose_rounds * _POSE_PASSES[demand.pose_schedule])
    passes = len(disk) * (fitted + _judged(demand) * (rank + 2 + DECOYS)) * _SECONDS_PER_SAMPLE / threads
    passes *= (_NUFFT_SLOWDOWN if is_nufft else 1.0) / demand.processes * demand.fits
    transforms = demand.fits * (40 * rank + 2 * DECOYS) * 8e-8 * (oversampling * box_size) ** 3 / threads
    return Plan(
        working_bytes=memory,
        images_bytes=0.0 if demand.images_on_gpu else _images_bytes(demand),
        cache_mb=demand.cache_mb // demand.local_processes,
        disk_bytes=results + checkpoint,
        seconds=15 + passes + transforms,
    )
