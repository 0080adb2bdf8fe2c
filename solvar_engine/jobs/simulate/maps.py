"""Maps of the user as the states of a simulated molecule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import SimulateParams, options_of
from solvar_engine.data.volumes import read_volume
from solvar_engine.simulation.maps import MapMolecule

_SAME_PIXEL_SIZE = 1e-3
"""Relative difference that rounding in a header may cause."""


def read_map_molecule(
    paths: Sequence[str], box_size: int | None = None, pixel_size: float | None = None, device: str = "cpu"
) -> MapMolecule:
    """Read maps of equal box and pixel size.

    Parameters
    ----------
    paths : sequence of str
        One map for each state.
    box_size, pixel_size : optional
        What the user expects, px and Angstrom; the pixel size stands in for one that the headers lack.
    device : str
        Where the maps are projected.

    Raises
    ------
    UserError
        If a map cannot be read, or differs from the others or from what is expected.
    """
    maps = []
    for path in paths:
        volume = read_volume(path, pixel_size)
        if box_size is not None and volume.box_size != box_size:
            raise UserError(f"--box is {box_size}, but {path} has {volume.box_size} voxels per edge: leave --box out.")
        if pixel_size is not None and not _agree(volume.pixel_size, pixel_size):
            raise UserError(
                f"--pixel-size is {pixel_size:g}, but that of {path} is {volume.pixel_size:g} Angstrom:"
                " leave --pixel-size out."
            )
        maps.append(volume)
    first = maps[0]
    for path, volume in zip(paths, maps, strict=True):
        if volume.box_size != first.box_size or not _agree(volume.pixel_size, first.pixel_size):
            raise UserError(
                f"{path} has {volume.box_size} voxels of {volume.pixel_size:g} Angstrom per edge, but {paths[0]} has"
                f" {first.box_size} of {first.pixel_size:g}: give maps of equal size."
            )
    _check_box(first.box_size, paths[0])
    name = ", ".join(Path(path).name for path in paths)
    return MapMolecule.from_maps(name, [volume.data.to(device) for volume in maps], first.pixel_size)


def _agree(first: float, second: float) -> bool:
    return abs(first - second) <= _SAME_PIXEL_SIZE * second


def _check_box(box_size: int, path: str) -> None:
    """Raise UserError unless a box can be simulated."""
    allowed = next(option for option in options_of(SimulateParams) if option.name == "box")
    try:
        allowed.check(box_size)
    except UserError as error:
        raise UserError(f"{path} has {box_size} voxels per edge: {allowed.range_text} px can be simulated.") from error
