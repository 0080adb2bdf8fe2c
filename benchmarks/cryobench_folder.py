"""Reading a data set of CryoBench (Jeon et al., NeurIPS 2024) from the folder in which it comes.

What is read, below the folder of the data set such as ``IgG-1D``:

    images/snr0.01/*.mrcs         one stack for each state, numbered (Spike-MD: one stack); Ribosembly: in images/
    images/snr0.01/snr0.01.star   poses, CTF, half-sets (Spike-MD: particles.star)
    vols/128_org/*.mrc            true volumes, one for each state, numbered as the stacks
    init_mask/mask.mrc            mask, if it is there

The pickles (combined_poses.pkl, combined_ctfs.pkl, gt_latents.pkl) are never opened, since a pickle runs code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import prepare_output_folder, write_csv
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.data.mrc import read_header
from solvar_engine.data.volumes import read_volume, write_volume
from solvar_engine.imaging.masks import automatic_mask
from solvar_engine.imaging.types import Volume
from solvar_engine.jobs.simulate.files import DataSetFiles, TruthFiles

_SIZE, _PIXEL = "rlnImageSize", "rlnImagePixelSize"


@dataclass(frozen=True)
class KnownDataSet:
    """What differs between the data sets.

    Attributes
    ----------
    snr : str
        Noise level that all publications show.
    extent : float
        Edge of the box, Angstrom, at whatever pixel size.
    is_circle : bool
        The states follow each other around a circle, at equal steps.
    """

    snr: str
    extent: float
    is_circle: bool = False

    def coordinates(self, state: NDArray[np.int64], states: int) -> dict[str, NDArray[np.float64]]:
        """State coordinates of the particles as columns of states.csv; none where states are classes."""
        if not self.is_circle:
            return {}
        angle_rad = 2 * np.pi * state / states
        return {"coordinate_1": np.cos(angle_rad), "coordinate_2": np.sin(angle_rad)}


DATA_SETS = {
    "IgG-1D": KnownDataSet("0.01", 384.0, is_circle=True),
    "IgG-RL": KnownDataSet("0.01", 384.0),
    "Ribosembly": KnownDataSet("0.01", 384.0),
    "Tomotwin-100": KnownDataSet("0.01", 576.0),
    "Spike-MD": KnownDataSet("0.1", 384.0),
}


@dataclass(frozen=True)
class CryoBenchFolder:
    """Files of one data set at one noise level.

    Attributes
    ----------
    name : str
        One of `DATA_SETS`.
    star : Path
    stacks, volumes : tuple of Path
        In the order of the numbers in their names.
    mask : Path or None
    """

    name: str
    star: Path
    stacks: tuple[Path, ...]
    volumes: tuple[Path, ...]
    mask: Path | None

    @classmethod
    def find(cls, folder: Path, name: str, snr: str, volumes: Path | None = None) -> CryoBenchFolder:
        """Look for the files.

        Parameters
        ----------
        folder : Path
            Of the data set, or the one that contains it.
        name : str
            One of `DATA_SETS`.
        snr : str
            As in the names of the folders.
        volumes : Path, optional
            Folder of true volumes, where they are not in `folder`.

        Raises
        ------
        UserError
            If images, the STAR file or volumes are missing; the text says what to do.
        """
        root = folder / name if (folder / name).is_dir() else folder
        images = next((path for path in (root / "images" / f"snr{snr}", root / "images") if path.is_dir()), None)
        if images is None:
            raise UserError(f"{root} has no folder images/snr{snr}: give the folder that the archive was unpacked to.")
        stacks = naturally_sorted(images.rglob("*.mrcs"))
        if not stacks:
            raise UserError(f"{images} has no stacks (*.mrcs): unpack the archive of {name} again.")
        star = next((path for path in (images / f"snr{snr}.star", images / "particles.star") if path.is_file()), None)
        if star is None:
            raise UserError(
                f"{images} has no snr{snr}.star: make it from the pickles with cryoDRGN's own tool, in that folder: "
                "cryodrgn_utils write_star sorted_particles.128.txt --ctf ../../combined_ctfs.pkl --poses "
                f"../../combined_poses.pkl -o snr{snr}.star."
            )
        box_size = read_header(stacks[0]).shape[-1]
        found = naturally_sorted(_volume_folder(root, box_size, volumes).glob("*.mrc"))
        if not found:
            raise UserError(f"{root} has no vols/{box_size}_org/*.mrc: name the folder of true volumes with --volumes.")
        mask = root / "init_mask" / "mask.mrc"
        return cls(name, star, stacks, found, mask if mask.is_file() else None)

def _volume_folder(root: Path, box_size: int, given: Path | None) -> Path:
    if given is not None:
        return given
    candidates = (root / "vols" / f"{box_size}_org", root / "vols" / "128_org", root / "vols")
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


def naturally_sorted(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Sort files by the numbers in their names.

    Examples
    --------
    >>> [path.name for path in naturally_sorted([Path("10.mrc"), Path("9.mrc")])]
    ['9.mrc', '10.mrc']
    """

    def key(path: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]

    return tuple(sorted(paths, key=key))


# ---------------------------------------------------------------- the STAR file


def repaired_star(star: StarFile, stacks: Sequence[Path], extent: float) -> tuple[StarFile, NDArray[np.int64]]:
    """Make the STAR file say what the images are, and where they are.

    The released files name stacks by the paths of the machine that made them, or count images over all stacks; their
    optics describe the images before they were cropped, and in one of them box and pixel size are swapped.

    Parameters
    ----------
    star : StarFile
    stacks : sequence of Path
        In the order of the states.
    extent : float
        Edge of the box, Angstrom.

    Returns
    -------
    star : StarFile
    stack : ndarray, shape (n,), int64
        Stack of each particle.

    Raises
    ------
    UserError
        If a stack is not there, or does not have an image that is named.
    """
    particles = star.particles
    stack, image = _images(particles, stacks)
    names = [f"{number:06d}@{stacks[place].resolve()}" for place, number in zip(stack, image, strict=True)]
    box_size = read_header(stacks[0]).shape[-1]
    sampling = {_SIZE: box_size, _PIXEL: extent / box_size}
    stored = {key: [value] * len(particles) for key, value in sampling.items() if key in particles}
    repaired = star.replace(particles, particles.with_columns({"rlnImageName": names, **stored}))
    optics = repaired.optics
    if optics is None:
        added = {_PIXEL: [sampling[_PIXEL]] * len(particles)}
        return repaired.replace(repaired.particles, repaired.particles.with_columns(added)), stack
    columns = {key: [value] * len(optics) for key, value in sampling.items()}
    return repaired.replace(optics, optics.with_columns(columns)), stack


def _images(particles: StarTable, stacks: Sequence[Path]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stack and image number, from 1, of each particle."""
    counts = np.array([read_header(path).shape[0] for path in stacks])
    place = {path.name: number for number, path in enumerate(stacks)}
    stack = np.empty(len(particles), dtype=np.int64)
    image = np.empty(len(particles), dtype=np.int64)
    for row, cell in enumerate(particles.cells("rlnImageName")):
        number, _, path = cell.rpartition("@")
        name = Path(path).name
        if name not in place:
            raise UserError(f"Stack {name}, named in {particles.source}, is not among the images: unpack them again.")
        stack[row], image[row] = place[name], int(number)
    if (image > counts[stack]).any():  # counted over all stacks
        image -= (np.cumsum(counts) - counts)[stack]
    outside = np.flatnonzero((image < 1) | (image > counts[stack]))
    if len(outside):
        raise UserError(
            f"Row {outside[0] + 1} of {particles.source} names an image that {stacks[stack[outside[0]]]} does not "
            "have: give images and list of one data set."
        )
    return stack, image


# ---------------------------------------------------------------- the truth


def write_data_set(folder: CryoBenchFolder, output: Path, labels: Path | None = None) -> DataSetFiles:
    """Write the data set as `simulate` lays one out, so that `fit` and `evaluate` take it; images are not copied.

    Parameters
    ----------
    folder : CryoBenchFolder
    output : Path
        New or empty.
    labels : Path, optional
        Text file with the state of each row of the STAR file, counted from 0; particles with -1 are left out. Without
        it, each stack is one state.

    Raises
    ------
    UserError
        If particles and volumes cannot be matched.
    """
    known = DATA_SETS[folder.name]
    star, stack = repaired_star(StarFile.read(folder.star), folder.stacks, known.extent)
    state = _states(folder, star, stack, labels)
    kept = np.flatnonzero(state >= 0)
    table = star.particles
    star, state = star.replace(table, replace(table, rows=[table.rows[row] for row in kept])), state[kept]
    files = DataSetFiles(prepare_output_folder(output))
    files.truth.volumes.mkdir(parents=True)
    mean = _place_volumes(folder, files.truth, state)
    mask = _mask(folder, mean)
    write_volume(files.truth.mean, mean)
    for path in (files.truth.mask, files.mask):
        write_volume(path, mask)
    columns = {"particle": np.arange(len(state)), "state": state + 1, "contrast": np.ones(len(state))}
    write_csv(files.truth.states, {**columns, **known.coordinates(state, len(folder.volumes))})
    star.write(files.truth.particles)
    star.write(files.particles)  # last: where it is, all is there
    return files


def _states(
    folder: CryoBenchFolder, star: StarFile, stack: NDArray[np.int64], labels: Path | None
) -> NDArray[np.int64]:
    volumes = len(folder.volumes)
    if labels is None:
        if len(folder.stacks) != volumes:
            raise UserError(
                f"{folder.name} has {len(folder.stacks)} stacks and {volumes} true volumes, so the stacks do not tell "
                "the states: give them with --labels."
            )
        return stack
    try:
        state = np.loadtxt(labels, dtype=np.int64, ndmin=1)
    except (OSError, ValueError) as error:
        raise UserError(f"{labels} cannot be read as one whole number a line: {error}.") from error
    if len(state) != len(stack):
        raise UserError(f"{labels} has {len(state)} lines, but {folder.star} has {len(stack)} rows: give one each.")
    if state.max() >= volumes or state.max() < 0:
        raise UserError(f"{labels} names state {state.max()}, but there are {volumes} volumes, counted from 0.")
    return state


def _place_volumes(folder: CryoBenchFolder, truth: TruthFiles, state: NDArray[np.int64]) -> Volume:
    """Link the volumes, or write them where the header lacks the pixel size; return their weighted mean."""
    share = np.bincount(state, minlength=len(folder.volumes)) / len(state)
    mean = torch.zeros(1)
    for number, path in enumerate(folder.volumes, start=1):
        volume = read_volume(path, DATA_SETS[folder.name].extent / read_header(path).shape[-1])
        mean = mean + share[number - 1] * volume.data
        if min(read_header(path).voxel_size) > 0:
            truth.volume(number).symlink_to(path.resolve())
        else:
            write_volume(truth.volume(number), volume)
    return Volume(mean.float(), volume.pixel_size)


def _mask(folder: CryoBenchFolder, mean: Volume) -> Volume:
    if folder.mask is not None:
        mask = read_volume(folder.mask, mean.pixel_size)
        if mask.box_size == mean.box_size:
            return Volume(mask.data.clamp(0, 1), mean.pixel_size)
    try:
        return Volume(automatic_mask(mean.data, mean.pixel_size), mean.pixel_size)
    except ValueError as error:
        raise UserError(f"The mean of {folder.volumes[0].parent}: {error}.") from error
