"""What volumes of states by kernel regression will need, said before they are made."""

from __future__ import annotations

from dataclasses import dataclass

from solvar_engine.data.preprocess import cache_bytes
from solvar_engine.imaging.fourier import HalfDisk
from solvar_engine.latent.distances import BANDWIDTHS, WIDEST
from solvar_engine.projectors.numba_cpu import slabs_per_grid
from solvar_engine.reconstruction.kernel_blending import blending_bytes
from solvar_engine.reconstruction.kernel_regression import CHANNELS, accumulation_bytes
from solvar_engine.reconstruction.windows import LocalWindows

_LIBRARIES_BYTES = 750e6  # the interpreter with torch and numba, and its working arrays
_METADATA_BYTES = 2500  # per particle: rows of two STAR files, pose, CTF, latent coordinates
# on one core, measured
_READING_SECONDS = 4e-8  # of a pixel of an input image
_PLACING_SECONDS = 3e-8  # of a pixel of one channel of the model
_ADDING_SECONDS = 2.2e-7  # of a pixel that is back-projected
_VOLUME_SECONDS = 1e-5  # of a voxel of a state: transforms and windows


@dataclass(frozen=True)
class KernelPlan:
    """Resources of a reconstruction.

    Attributes
    ----------
    memory_bytes : float
    disk_bytes : float
        Of the results.
    seconds : float
    scratch_bytes : float
        Of the preprocessed images, if they do not fit in the memory allowed for them.
    """

    memory_bytes: float
    disk_bytes: float
    seconds: float
    scratch_bytes: float

    def sentence(self) -> str:
        """One line for the user."""
        place = f"in a scratch file of {self.scratch_bytes / 1e6:.0f} MB" if self.scratch_bytes else "in memory"
        return (
            f"Expecting about {self.seconds / 60:.1f} min, {self.memory_bytes / 1e6:.0f} MB of memory and "
            f"{self.disk_bytes / 1e6:.0f} MB of disk (preprocessed images {place})"
        )


def plan_kernel_states(
    particles: int, input_box: int, working_box: int, windows: LocalWindows, components: int, states: int, threads: int,
    cache_mb: int,
) -> KernelPlan:  # fmt: skip
    """Estimate the resources of a reconstruction.

    Parameters
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

    Returns
    -------
    KernelPlan
    """
    box_size = windows.box_size
    cache = float(cache_bytes(particles, box_size))
    in_memory = cache <= cache_mb * 1e6
    groups = threads // slabs_per_grid(threads, CHANNELS)
    voxels = float(box_size**3)
    shared = 2 * CHANNELS * 4.0 * voxels + (components + 1) * 2 * 4.0 * working_box**3
    # not the larger of both: freed memory is kept for other sizes than the next step needs
    steps = accumulation_bytes(box_size, BANDWIDTHS, groups) + blending_bytes(windows)
    steps += 2 * (BANDWIDTHS + 1) * 6.0 * voxels  # sums of both half-sets
    memory = _LIBRARIES_BYTES + shared + steps + particles * _METADATA_BYTES + (cache if in_memory else 0.0)
    pixels, working_pixels = len(HalfDisk.create(box_size)), len(HalfDisk.create(working_box))
    reading = _READING_SECONDS * input_box**2 + _PLACING_SECONDS * working_pixels * (components + 2)
    adding = _ADDING_SECONDS * pixels * (1 + WIDEST * states)
    seconds = (particles * (reading + adding) + states * _VOLUME_SECONDS * voxels) / threads
    return KernelPlan(memory, states * 4 * 4.0 * voxels, 15 + seconds, 0.0 if in_memory else cache)
