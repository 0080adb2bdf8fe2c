"""Options of `reconstruct`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Sequence

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params.options import Params, option


@dataclass(frozen=True)
class ReconstructParams(Params):
    """Options of `reconstruct`."""

    command: ClassVar[str] = "reconstruct"
    summary: ClassVar[str] = "make the volumes of states from a run"

    run: str = option(str, help="folder of a finished fit", positional=True, metavar="RUN", is_path=True)
    output: str = option(
        str, help="folder for the volumes: new or empty, or to be resumed", metavar="DIR", is_path=True
    )
    clusters: int | None = option(
        int, None, help="one volume for each of N k-means centres", minimum=1, metavar="N", one_of="states"
    )
    mixture: int | None = option(
        int, None, help="one volume for each of N Gaussians fitted to the particles", minimum=1, metavar="N",
        one_of="states",
    )
    points: str | None = option(
        str, None, help="one volume for each row of a table with columns z_1, z_2 and so on",
        metavar="POINTS.csv", is_path=True, one_of="states",
    )
    trajectory: str | None = option(
        str, None, help="volumes along the path through the rows of a table with columns z_1, z_2 and so on",
        metavar="PATH.csv", is_path=True, one_of="states",
    )
    between: Sequence[int] | None = option(
        int, None, help="volumes along the path through the centres of these clusters of `analyze`", minimum=1,
        metavar="CLUSTER", is_list=True, one_of="states",
    )
    path: str = option(
        str, "density", help="how a trajectory leads from point to point: density, where particles are dense, or"
        " straight",
        choices=("density", "straight"),
    )
    frames: int = option(
        int, 10, help="number of volumes along a trajectory", minimum=2, maximum=1000, metavar="N"
    )
    method: str = option(
        str, "kernel", help="kernel: from the images near the state, with half-maps, local filter and local resolution;"
        " linear: mean plus eigenvolumes times z, instant",
        choices=("kernel", "linear"),
    )
    allow_extrapolation: bool = option(
        bool, False, help="make volumes of points that are far from all particles, too, and mark them in states.csv",
        may_differ_on_resume=True,
    )
    b_factor: str = option(
        str, "none", help="kernel: sharpening of the volumes, not of their half-maps: none, auto (fitted to the"
        " half-maps between 10 Angstrom and the resolution, one for all states) or a number, negative to sharpen",
        unit="Angstrom^2", metavar="B",
    )
    particles: str | None = option(
        str, None, help="kernel: the same particles with larger images, such as before down-sampling; without it, those"
        " of the run",
        metavar="FULL.star", is_path=True,
    )
    passthrough: str | None = option(
        str, None, help="kernel: .cs file with what the one of --particles lacks", metavar="FILE.cs", is_path=True
    )
    box: int | None = option(
        int, None, help="kernel: box of the volumes; without it, the working box of the run, or that of the larger"
        " images",
        unit="px", minimum=16, maximum=4096, metavar="N",
    )
    root: str | None = option(
        str, None, help="kernel: folder that relative stack paths start from; without it, as in the fit",
        metavar="DIR", is_path=True,
    )
    skip_bad_images: bool = option(
        bool, False, help="kernel: leave out images that are constant, cut off, masked or not finite",
        may_differ_on_resume=True,
    )
    cache_mb: int = option(
        int, 2000, help="kernel: memory for preprocessed images; more than fits goes to a scratch file",
        unit="MB", minimum=0, metavar="MB", may_differ_on_resume=True,
    )
    scratch: str | None = option(
        str, None, help="kernel: folder for the scratch file; without it, that of the volumes",
        metavar="DIR", is_path=True, may_differ_on_resume=True,
    )
    resume: bool = option(
        bool, False, help="kernel: keep the states that an interrupted call has finished; start if there is none",
        may_differ_on_resume=True,
    )

    def validate(self) -> None:
        """Check every value, and that no option is given that would be ignored."""
        super().validate()
        if self.trajectory is None and self.between is None:
            for label in self.changed("frames", "path"):
                raise UserError(f"{label} belongs to --trajectory and --between: leave it out, or give one of them.")
        if self.points is None and self.trajectory is None:
            for label in self.changed("allow_extrapolation"):
                raise UserError(f"{label} belongs to --points and --trajectory: leave it out, or give one of them.")
        if self.between is not None and len(self.between) < 2:
            raise UserError("--between needs at least two clusters.")
        if self.method != "kernel":
            images = ("particles", "passthrough", "box", "root", "skip_bad_images")
            for label in self.changed("b_factor", *images, "cache_mb", "scratch", "resume"):
                raise UserError(f"{label} belongs to --method kernel: leave it out with {self.method}.")
        if self.passthrough is not None and self.particles is None:
            raise UserError("--passthrough belongs to --particles: leave it out, or give other particles.")
        if self.b_factor not in ("none", "auto") and self.fixed_b_factor is None:
            raise UserError(f"--b-factor is {self.b_factor!r} but must be none, auto or a number of Angstrom^2.")

    @property
    def fixed_b_factor(self) -> float | None:
        """The number that --b-factor is; None if it is none or auto."""
        try:
            value = float(self.b_factor)
        except ValueError:
            return None
        return value if math.isfinite(value) else None
