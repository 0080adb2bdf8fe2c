"""Options of `simulate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Sequence

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params.options import Params, option

PHANTOMS = ("hinge", "linker", "assembly", "mixture", "flexible", "static")
"""Molecules that `simulate` knows by name."""

SIMULATED_BOX = 64
SIMULATED_PIXEL_SIZE = 3.0
"""Box, px, and pixel size, Angstrom, of a simulated data set whose molecule does not come from maps."""

_MAP_SUFFIXES = (".mrc", ".map")


@dataclass(frozen=True)
class SimulateParams(Params):
    """Options of `simulate`."""

    command: ClassVar[str] = "simulate"
    summary: ClassVar[str] = "make a data set with a known answer"

    output: str = option(str, help="folder for the data set: new or empty", metavar="DIR", is_path=True)
    phantom: Sequence[str] = option(
        str, help="molecule: hinge (one domain turns), linker (two bodies on two hinges), assembly (pieces come and"
        " go), mixture (100 different molecules), flexible (bends in six ways), static; or maps of your own, MRC files"
        " of equal size, one for each state, of which all are equally frequent",
        metavar="NAME|MAP.mrc", is_list=True,
    )
    particles: int = option(int, 10000, help="number of images", minimum=1, maximum=10_000_000, metavar="N")
    box: int | None = option(
        int, None, help=f"box size; without it, {SIMULATED_BOX}, or that of the maps",
        unit="px", minimum=16, maximum=1024, metavar="N",
    )
    pixel_size: float | None = option(
        float, None, help=f"pixel size; without it, {SIMULATED_PIXEL_SIZE}, or that of the maps",
        unit="Angstrom/px", minimum=0.1, maximum=100, metavar="X",
    )
    snr: float = option(
        float, 0.05, help="signal variance over noise variance in the whole box",
        minimum=0.0001, maximum=1_000_000, metavar="X",
    )
    contrast_std: float = option(
        float, 0.0, help="standard deviation of the contrast, whose mean is 1",
        minimum=0, maximum=1, metavar="X",
    )
    rotation_error: float = option(
        float, 0.0, help="standard deviation, per axis, of the error of the orientations",
        unit="degrees", minimum=0, maximum=180, metavar="X",
    )
    shift_error: float = option(
        float, 0.0, help="standard deviation, per axis, of the error of the shifts",
        unit="px", minimum=0, maximum=100, metavar="X",
    )
    defocus_error: float = option(
        float, 0.0, help="standard deviation of the error of the defocus", unit="Angstrom",
        minimum=0, maximum=5000, metavar="X",
    )
    background: float = option(
        float, 0.0, help="slow random background in every image: standard deviation of its offset and of its ramps from"
        " edge to edge; 1 or 2 are usual",
        unit="standard deviations of the noise", minimum=0, maximum=100, metavar="X",
    )
    coloured_noise: float = option(
        float, 0.0, help="noise that is stronger at low frequencies: its variance goes as 1 + X / (1 + (50 Angstrom x"
        " frequency)^2)",
        minimum=0, maximum=1000, metavar="X",
    )
    neighbours: float = option(
        float, 0.0, help="share of the images that show a part of another particle at the edge",
        minimum=0, maximum=1, metavar="X",
    )
    uneven_views: float = option(
        float, 0.0, help="share of the particles that are seen from near one of three preferred directions",
        minimum=0, maximum=1, metavar="X",
    )
    junk: float = option(
        float, 0.0, help="share of the images that do not show the molecule: half of them are empty, a quarter show"
        " ice, a quarter another molecule",
        minimum=0, maximum=0.9, metavar="X",
    )

    @property
    def uses_maps(self) -> bool:
        """Whether the molecule comes from files; only after `validate`."""
        return self.phantom[0] not in PHANTOMS

    def validate(self) -> None:
        """Check every value, and that the molecule is one name, or maps."""
        super().validate()
        if len(self.phantom) == 1 and self.phantom[0] in PHANTOMS:
            return
        for name in self.phantom:
            if name in PHANTOMS:
                raise UserError(f"--phantom takes one name, or maps: {name} cannot be combined with anything else.")
            if not name.lower().endswith(_MAP_SUFFIXES):
                raise UserError(
                    f"--phantom is {name!r} but must be one of {', '.join(PHANTOMS)}, or maps with names that end in"
                    f" {' or '.join(_MAP_SUFFIXES)}."
                )
