"""What volumes of states will need, said before they are made."""

from __future__ import annotations

from dataclasses import dataclass

from solvar_engine.data.preprocess import cache_bytes
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.jobs.running.plans import LIBRARIES_BYTES, METADATA_BYTES, Plan
from solvar_engine.latent.distances import BANDWIDTHS, WIDEST
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions
from solvar_engine.reconstruction.kernel_blending import blending_bytes
from solvar_engine.reconstruction.kernel_regression import CHANNELS, accumulation_bytes
from solvar_engine.reconstruction.windows import LocalWindows

_ARRAYS_BYTES = 100e6  # working arrays that a fit has not; measured
_COORDINATES_BYTES = 1000  # of each particle, beside its metadata: latent coordinates, row of a second STAR file
_OWNER_BYTES = 16  # of each particle in the table that says which state it belongs to
# on one core, measured
_READING_SECONDS = 4e-8  # of a pixel of an input image
_PLACING_SECONDS = 3e-8  # of a pixel of one channel of the model
_ADDING_SECONDS = 2.2e-7  # of a pixel that is back-projected
_VOLUME_SECONDS = 1e-5  # of a voxel of a state: transforms and windows


@dataclass(frozen=True)
class KernelDemand:
    """What the resources of a reconstruction depend on.

    Attributes
    ----------
    particles : int
    input_box, working_box : int
        Of the images and the fit, px.
    windows : LocalWindows
        Of the volumes.
    components : int
        That are compared.
    states, threads : int
    cache_mb : int
        Memory allowed for preprocessed images.
    options : SliceOptions
    """

    particles: int
    input_box: int
    working_box: int
    windows: LocalWindows
    components: int
    states: int
    threads: int
    cache_mb: int
    options: SliceOptions = DEFAULT_OPTIONS

    @property
    def projector(self) -> Projector:
        """The projector of the volumes' box, which knows what memory it takes."""
        return create_projector(self.windows.box_size, HalfDisk.create(self.windows.box_size), self.options)

    @property
    def gains_by_fewer_threads(self) -> bool:
        """Whether threads have sums of their own."""
        projector = self.projector
        return projector.accumulator_bytes(CHANNELS, self.threads) > projector.accumulator_bytes(CHANNELS, 1)


def plan_within(demand: KernelDemand, available_bytes: float) -> Plan:
    """Plan a reconstruction for the memory that there is: with the images in a scratch file, if they take too much.

    Raises
    ------
    UserError
        If the memory is too small all the same; the text says how much is needed, and what needs less.
    """
    larger_than_needed = demand.windows.box_size > demand.working_box
    advice = ["a smaller --box"] if larger_than_needed else []
    advice += ["fewer --threads"] if demand.gains_by_fewer_threads else []
    advice += ["--method linear, which takes no images"]
    return plan_kernel_states(demand).within(available_bytes, "reconstruction", f"choose {' or '.join(advice)}")


def plan_kernel_states(demand: KernelDemand) -> Plan:
    """Estimate the resources of a reconstruction."""
    particles, windows, components, states = demand.particles, demand.windows, demand.components, demand.states
    box_size = windows.box_size
    voxels = float(box_size**3)
    shared = 2 * CHANNELS * 4.0 * voxels + (components + 1) * 2 * 4.0 * demand.working_box**3
    # not the larger of both: freed memory is kept for other sizes than the next step needs
    steps = accumulation_bytes(demand.projector, BANDWIDTHS, demand.threads) + blending_bytes(windows)
    steps += 2 * (BANDWIDTHS + 1) * 6.0 * voxels  # sums of both half-sets
    metadata = particles * (METADATA_BYTES + _COORDINATES_BYTES)
    pixels, working_pixels = len(HalfDisk.create(box_size)), len(HalfDisk.create(demand.working_box))
    reading = _READING_SECONDS * demand.input_box**2 + _PLACING_SECONDS * working_pixels * (components + 2)
    adding = _ADDING_SECONDS * pixels * (1 + WIDEST * states)
    seconds = (particles * (reading + adding) + states * _VOLUME_SECONDS * voxels) / demand.threads
    return Plan(
        working_bytes=LIBRARIES_BYTES + _ARRAYS_BYTES + shared + steps + metadata,
        images_bytes=float(cache_bytes(particles, box_size)),
        cache_mb=demand.cache_mb,
        # volume, two half-maps and local resolution; every particle's row in the STAR file of its state
        disk_bytes=states * 4 * 4.0 * voxels + particles * (METADATA_BYTES + _OWNER_BYTES),
        seconds=15 + seconds,
    )


def plan_linear_states(box_size: int, components: int, states: int, particles: int) -> Plan:
    """Estimate the resources of states that are sums of the mean and eigenvolumes.

    Parameters
    ----------
    box_size : int
        Of the volumes, px.
    components, states : int
    particles : int
        Of the run, whose states are listed.
    """
    volume = 4.0 * box_size**3
    return Plan(
        working_bytes=(components + 3) * volume,
        images_bytes=0.0,
        cache_mb=0,
        disk_bytes=states * volume + particles * _OWNER_BYTES,
        seconds=5.0,
    )
