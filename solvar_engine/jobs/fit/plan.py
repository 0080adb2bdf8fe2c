"""What a fit will need, said before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from solvar_engine.data.preprocess import cache_bytes
from solvar_engine.estimation.judging.rank import DECOYS, JUDGING_PARTICLES
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.jobs.running.plans import LIBRARIES_BYTES, METADATA_BYTES, Plan
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OVERSAMPLING, SliceOptions

_SECONDS_PER_SAMPLE = 4.5e-8  # of one pixel of one channel, slice and adjoint, on one core; measured
_NUFFT_SLOWDOWN = 3.0  # of a pass against trilinear interpolation; measured
_FULL_PASSES = 12  # passes over all images at full band that all stages together amount to
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


def plan_fit(demand: FitDemand) -> Plan:
    """Estimate the resources of a fit, memory and disk those of each process."""
    particles, box_size, rank, threads = demand.particles, demand.box_size, demand.rank, demand.threads
    is_nufft = demand.projector == "nufft"
    oversampling = 1 if is_nufft else demand.oversampling
    disk = HalfDisk.create(box_size)
    projector = create_projector(box_size, disk, SliceOptions(demand.projector, demand.oversampling, demand.device))
    passes_bytes = 2 * projector.grid_bytes(rank + 1) + projector.accumulator_bytes(rank, threads)
    grids = max(passes_bytes, projector.grid_bytes(rank + 1 + DECOYS))
    volumes = 4 * box_size**3 * max(12 * rank, 3 * (rank + DECOYS))
    metadata = particles * (METADATA_BYTES + 8 * (rank + 1) ** 2)
    judging = min(particles, 2 * JUDGING_PARTICLES)
    metadata += judging * 8 * (rank + DECOYS) ** 2
    if demand.pose_rounds:
        metadata += particles // 2 * 4 * rank * (rank + 6)  # what a half-set tells of states, and of poses with them
    memory = LIBRARIES_BYTES + projector.buffer_bytes + grids + volumes + metadata
    results = 4 * box_size**3 * (rank + 4) + particles * (METADATA_BYTES + 4 * (rank + 1) ** 2)
    checkpoint = 4 * box_size**3 * 3 * rank
    fitted = particles * (rank + 2) * (_FULL_PASSES + demand.pose_rounds * _POSE_PASSES[demand.pose_schedule])
    passes = len(disk) * (fitted + judging * (rank + 2 + DECOYS)) * _SECONDS_PER_SAMPLE / threads
    passes *= (_NUFFT_SLOWDOWN if is_nufft else 1.0) / demand.processes
    transforms = (40 * rank + 2 * DECOYS) * 8e-8 * (oversampling * box_size) ** 3 / threads
    return Plan(
        working_bytes=memory,
        images_bytes=float(cache_bytes(-(-particles // demand.processes), box_size)),
        cache_mb=demand.cache_mb // demand.local_processes,
        disk_bytes=results + checkpoint,
        seconds=15 + passes + transforms,
    )
