"""Options of `abinitio`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params.fit import AUTO_RANK, MIN_PARTICLES, FitParams, check_symmetry
from solvar_engine.contract.params.options import Params, option, options_of

EM, SGD, MOMENTS, SEMI_AMORTIZED = "em", "sgd", "moments", "semi-amortized"

MOST_CLASSES = 6
"""How many structures are sought side by side, at most."""

DEFAULT_ABINITIO_BOX = 64
"""Box, px, to which `abinitio` crops larger images, unless the resolution asked for needs a larger one."""

_FIT = {spec.name: spec for spec in options_of(FitParams)}


@dataclass(frozen=True)
class AbinitioParams(Params):
    """Options of `abinitio`."""

    command: ClassVar[str] = "abinitio"
    summary: ClassVar[str] = "find the structure, and the poses of the particles, from images without poses"

    particles: str = option(
        str, help="STAR file of particles with CTF (RELION 3.0 to 5), or .cs file of cryoSPARC; poses in it are"
        " ignored",
        positional=True, metavar="PARTICLES.star", is_path=True,
    )
    passthrough: str | None = option(str, None, help=_FIT["passthrough"].help, metavar="FILE.cs", is_path=True)
    output: str = option(str, help="run folder: new or empty, or to be resumed", metavar="RUN", is_path=True)
    method: str = option(
        str, EM, help="how the structure is found: em, by online expectation maximisation from random maps; sgd, by"
        " stochastic gradient descent with importance sampling of the poses, some ten times slower; moments, by"
        " online expectation maximisation from a map of the first two moments of all images; or semi-amortized, by a"
        " network that learns to name poses, then a descent of each; all end with the same search of all poses",
        choices=(EM, SGD, MOMENTS, SEMI_AMORTIZED),
    )
    max_resolution: float | None = option(
        float, None, help="finest detail that poses are found with; without it, that of the working box",
        unit="Angstrom", minimum=1, maximum=200, metavar="A",
    )
    shift_std: float | None = option(
        float, None, help="standard deviation, along each axis, of how far particles are from the centres of their"
        " images; without it, it is estimated",
        unit="Angstrom", minimum=0.1, maximum=500, metavar="A",
    )
    symmetry: str = option(
        str, "C1", help="point group of the molecule, such as C1, C3, D2, T, O or I; its axes lie as RELION's",
        metavar="GROUP",
    )
    classes: int = option(
        int, 1, help=f"structures that are sought side by side, for sets of different molecules; needs {MIN_PARTICLES}"
        " particles for each",
        minimum=1, maximum=MOST_CLASSES, metavar="K",
    )
    flip_hand: bool = option(
        bool, False, help="write the mirror image of the structure, and the poses that go with it: images do not tell"
        " one hand from the other",
    )
    then_fit: int | str | None = option(
        int, None, help="afterwards find the motions, with refinement of the poses found, in RUN/fit: number of"
        f" principal components, or {AUTO_RANK}",
        minimum=1, words=(AUTO_RANK,), metavar=f"RANK|{AUTO_RANK}",
    )
    box: int | None = option(
        int, None, help="working box to which images are Fourier-cropped; without it, what --max-resolution needs, or"
        f" {DEFAULT_ABINITIO_BOX}, and never more than the input box",
        unit="px", minimum=16, maximum=4096, metavar="N",
    )
    root: str | None = option(str, None, help=_FIT["root"].help, metavar="DIR", is_path=True)
    skip_bad_images: bool = option(bool, False, help=_FIT["skip_bad_images"].help, may_differ_on_resume=True)
    cache_mb: int = option(
        int, 2000, help=_FIT["cache_mb"].help, unit="MB", minimum=0, metavar="MB", may_differ_on_resume=True,
    )
    scratch: str | None = option(
        str, None, help=_FIT["scratch"].help, metavar="DIR", is_path=True, may_differ_on_resume=True,
    )
    resume: bool = option(bool, False, help=_FIT["resume"].help, may_differ_on_resume=True)

    def validate(self) -> None:
        """Check every value, and that options go together."""
        super().validate()
        check_symmetry(self.symmetry)
        if self.classes > 1 and self.method != EM:
            raise UserError(f"--classes {self.classes} needs --method {EM}: {self.method} finds one structure only.")
        if self.classes > 1 and self.then_fit is not None:
            raise UserError(
                "--then-fit needs one structure: leave out --classes, or start `fit` with class_1.star afterwards."
            )
        if self.classes > 1 and self.symmetry.upper() != "C1":
            raise UserError(f"--classes {self.classes} needs --symmetry C1: different molecules share no axes.")
