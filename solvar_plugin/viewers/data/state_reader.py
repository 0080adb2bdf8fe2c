"""What the viewer of reconstructed states shows, read from their folder and from the run that they belong to."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import StateFolder, StateTable, read_states
from solvar_engine.contract.run import RunDir
from solvar_plugin.viewers.data.run_reader import RunReader
from solvar_plugin.viewers.data.volume_files import DENSITY, MASK, VolumeEntry, read_volume


class StateReader(RunReader):
    """Reads the reconstructed states of one run on demand.

    Parameters
    ----------
    run : RunDir
        The run.
    states : StateFolder
        Of the reconstruction.
    kind : str
        What a state is called, such as ``cluster``.
    """

    def __init__(self, run: RunDir, states: StateFolder, kind: str) -> None:
        super().__init__(run, states.table, states)
        self.states = states
        self.kind = kind

    def table(self) -> StateTable:
        """Read the table of states."""
        self._there(self.states.table, "The table of states")
        return read_states(self.states)

    def names(self) -> list[str]:
        """Names of the states."""
        table = self.table()
        return [table.title(number, self.kind) for number in range(1, len(table) + 1)]

    def basic_volumes(self) -> list[VolumeEntry]:
        """List the mean and the mask of the run."""
        return [VolumeEntry("mean map", self.run.mean, DENSITY), VolumeEntry("mask", self.run.mask, MASK)]

    def volumes(self) -> list[VolumeEntry]:
        """List the volumes of the states, then their half-maps and local resolution, then those of the run."""
        numbered = list(enumerate(self.names(), start=1))
        entries = [VolumeEntry(name, self.states.volume(number), DENSITY) for number, name in numbered]
        for number, name in numbered:
            more = [
                VolumeEntry(f"{name}, half-map {half}", self.states.half(number, half), DENSITY) for half in (1, 2)
            ]
            more.append(VolumeEntry(f"{name}, local resolution (Å)", self.states.local_resolution(number), DENSITY))
            entries += [entry for entry in more if entry.path.exists()]
        return entries + self.basic_volumes()

    def state(self, number: int) -> np.ndarray:
        """Read the volume of a state, numbered from 1."""
        return self.read(VolumeEntry(f"{self.kind} {number}", self.states.volume(number), DENSITY)).data

    def half_correlations(self) -> tuple[np.ndarray, np.ndarray]:
        """Correlate the half-maps of every state inside the mask, shell by shell.

        Returns
        -------
        frequency : ndarray, shape (shells,)
            1/Angstrom.
        correlation : ndarray, shape (states, shells)

        Raises
        ------
        UserError
            If the method has made no half-maps.
        """
        count = len(self.table())
        if not self.states.half(1, 1).exists():
            raise UserError("These volumes have no half-maps: only those that are made from the images have.")
        curves = []
        for number in range(1, count + 1):
            halves = [read_volume(self.states.half(number, half)) for half in (1, 2)]
            mask = self._mask_of(halves[0].data.shape[0])
            curves.append(shell_correlation(halves[0].data * mask, halves[1].data * mask))
        box, pixel_size = halves[0].data.shape[0], halves[0].pixel_size
        return np.arange(len(curves[0])) / (box * pixel_size), np.stack(curves)

    def mask(self) -> np.ndarray | None:
        """Read the mask at the box of the states; None if there is none."""
        mask = super().mask()
        if mask is None or not self.states.volume(1).exists():
            return mask
        return self._mask_of(read_volume(self.states.volume(1)).data.shape[0])

    def _mask_of(self, box: int) -> np.ndarray:
        """The mask, interpolated to a box of the same extent; 1 without one."""
        mask = super().mask()
        if mask is None:
            return np.ones((box, box, box), dtype=np.float32)
        return mask if len(mask) == box else resampled(mask, box)


def resampled(volume: np.ndarray, box: int) -> np.ndarray:
    """Interpolate a volume to another box of the same extent, the middle voxel staying in the middle."""
    size = len(volume)
    line = np.clip((np.arange(box) - box // 2) * size / box + size // 2, 0, size - 1)
    position = np.stack(np.meshgrid(line, line, line, indexing="ij"))
    return map_coordinates(volume, position, order=1, mode="nearest").astype(np.float32)


def shell_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Fourier shell correlation of two volumes, shape (box // 2 + 1,); NaN where a shell is empty."""
    box = len(first)
    line = np.fft.fftfreq(box) * box
    half_line = np.fft.rfftfreq(box) * box
    radius = np.sqrt(line[:, None, None] ** 2 + line[None, :, None] ** 2 + half_line[None, None, :] ** 2)
    shell = np.round(radius).astype(np.int64).ravel()
    # what the half transform leaves out counts too
    weight = np.broadcast_to(np.where((half_line == 0) | (half_line == box / 2), 1.0, 2.0), radius.shape).ravel()
    one, other = (np.fft.rfftn(volume).ravel() for volume in (first, second))
    terms = ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2)
    cross, power, other_power = (np.bincount(shell, weight * term)[: box // 2 + 1] for term in terms)
    with np.errstate(invalid="ignore", divide="ignore"):
        return cross / np.sqrt(power * other_power)
