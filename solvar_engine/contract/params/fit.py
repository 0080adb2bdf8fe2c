"""Options of `fit`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params.options import Params, option

MIN_PARTICLES = 100
MIN_PARTICLES_PER_COMPONENT = 20
"""How many particles a fit needs, at least and for each of its components."""

AUTO_RANK = "auto"
"""Rank of a fit that keeps what is reproducible of as many components as there is reason to try."""

FIRST_AUTO_RANK = 10
"""How many components a fit with `AUTO_RANK` tries first; more if all are real."""

ALL_GPUS = "all"
"""Value of --gpus that stands for every GPU that the command can see."""

_SYMMETRY_PATTERN = re.compile(r"[CD][1-9]\d?|T|O|I[1-4]?", re.IGNORECASE)
_GPUS_PATTERN = re.compile(r"\d+(,\d+)*")

DEFAULT_WORKING_BOX = 128
"""Box, px, to which a fit crops larger images."""


def check_symmetry(name: str) -> None:
    """Refuse what is no point group.

    Raises
    ------
    UserError
    """
    if not _SYMMETRY_PATTERN.fullmatch(name):
        raise UserError(f"--symmetry is {name!r} but must be a point group: C1, C2 and so on, D2 and so on, T, O or I.")


@dataclass(frozen=True)
class FitParams(Params):
    """Options of `fit`."""

    command: ClassVar[str] = "fit"
    summary: ClassVar[str] = "find the principal motions and the place of every particle along them"

    particles: str = option(
        str, help="STAR file of refined particles (RELION 3.0 to 5), or .cs file of cryoSPARC",
        positional=True, metavar="PARTICLES.star", is_path=True,
    )
    passthrough: str | None = option(
        str, None, help=".cs file with what PARTICLES.cs lacks; without it, the one that cryoSPARC has written beside"
        " it",
        metavar="FILE.cs", is_path=True,
    )
    output: str = option(str, help="run folder: new or empty, or to be resumed", metavar="RUN", is_path=True)
    rank: int | str = option(
        int, help=f"number of principal components, needs {MIN_PARTICLES_PER_COMPONENT} particles for each; or"
        f" {AUTO_RANK}: those that hold on particles that did not shape them, perhaps none",
        minimum=1, words=(AUTO_RANK,), metavar=f"N|{AUTO_RANK}",
    )
    mask: str | None = option(
        str, None, help="soft mask around all that moves; without it, one is made from the mean",
        metavar="MASK.mrc", is_path=True,
    )
    focus_mask: str | None = option(
        str, None, help="soft mask around the region whose motions are sought: components live inside both masks, the"
        " mean keeps the whole molecule; without it, motions are sought everywhere inside the mask",
        metavar="MASK.mrc", is_path=True,
    )
    symmetry: str = option(
        str, "C1", help="point group of the molecule, such as C1, C3, D2, T, O or I; its axes lie as RELION's. Motions"
        " are those of one asymmetric unit, and each image has a place along them for each of its units",
        metavar="GROUP",
    )
    box: int | None = option(
        int, None, help="working box to which images are Fourier-cropped; without it, the input box or"
        f" {DEFAULT_WORKING_BOX}, whichever is smaller",
        unit="px", minimum=16, maximum=4096, metavar="N",
    )
    objective: str = option(
        str, "ml", help="how the components are found: ml, by maximum likelihood, or ls, by least squares between"
        " the covariance of the images and the model's",
        choices=("ml", "ls"),
    )
    solver: str = option(
        str, "batches", help="how the components of all images are found from those of the half-sets: batches, by three"
        " epochs of fewer and fewer mini-batches; em, by twelve of all images; squarem, by as many that are"
        " extrapolated, which come nearest to the optimum and need more memory",
        choices=("batches", "em", "squarem"),
    )
    projector: str = option(
        str, "trilinear", help="interpolation in Fourier space; nufft does without: exact, some three times slower",
        choices=("trilinear", "nearest", "nufft"),
    )
    oversampling: int = option(
        int, 2, help="zero-padding factor of volumes before trilinear or nearest interpolation",
        minimum=1, maximum=4, metavar="N",
    )
    refine_poses: bool = option(
        bool, False, help="refine the orientation and the shift of every particle between the bands of the fit",
    )
    still_frame: bool = option(
        bool, False, help="with --refine-poses, fit once more in the frame of each state in which the largest part of"
        " the molecule stands still: a consensus refinement turns it with the motion",
    )
    refine_contrast: bool = option(
        bool, False, help="estimate the contrast of every image between the bands of the fit, and use it; without, its"
        " spread is accounted for, and each image's contrast estimated at the end",
    )
    pose_schedule: str = option(
        str, "newton", help="how poses are refined: newton, by damped Gauss-Newton steps, or paper, by gradient descent"
        " for orientations and Newton steps for shifts, slower and for comparison",
        choices=("newton", "paper"),
    )
    invert_contrast: str = option(
        str, "auto", help="whether the molecule is dark in the images: auto finds out and says so",
        choices=("auto", "yes", "no"),
    )
    one_frame: str = option(
        str, "auto", help="whether poses of a part of the list that are in a frame of their own, as after joining"
        " refinements, are brought into that of the others: auto where no motion explains it; no only says so",
        choices=("auto", "yes", "no"),
    )
    root: str | None = option(
        str, None, help="folder that relative stack paths start from; without it, the STAR file's folder,"
        " then the current one, or for a .cs file the project's",
        metavar="DIR", is_path=True,
    )
    skip_bad_images: bool = option(
        bool, False, help="leave out images that are constant, cut off, masked or not finite, as outliers,"
        " instead of naming them all in an error",
        may_differ_on_resume=True,
    )
    cache_mb: int = option(
        int, 2000, help="memory for preprocessed images; more than fits goes to a scratch file",
        unit="MB", minimum=0, metavar="MB", may_differ_on_resume=True,
    )
    scratch: str | None = option(
        str, None, help="folder for the scratch file; without it, the run folder",
        metavar="DIR", is_path=True, may_differ_on_resume=True,
    )
    processes: int | None = option(
        int, None, help="processes on this machine that share the images and the threads; without it, one for each of"
        " --gpus",
        minimum=1, maximum=4096, metavar="N", may_differ_on_resume=True,
    )
    gpus: str | None = option(
        str, None, help="GPUs to use, a process on each, by their numbers, such as 0,1, or all that are visible",
        metavar="LIST", may_differ_on_resume=True,
    )
    gpu_memory_gb: float | None = option(
        float, None, help="memory of each GPU that may be used; without it, all that is free",
        unit="GB", minimum=0.1, maximum=10_000, metavar="X", may_differ_on_resume=True,
    )
    resume: bool = option(
        bool, False, help="go on where an interrupted run stopped; start if there is none",
        may_differ_on_resume=True,
    )

    def validate(self) -> None:
        """Check every value, and that no option is given that would be ignored."""
        super().validate()
        check_symmetry(self.symmetry)
        if self.gpus not in (None, ALL_GPUS) and not _GPUS_PATTERN.fullmatch(self.gpus):
            raise UserError(f"--gpus is {self.gpus!r} but must be all, or numbers with commas, such as 0,1.")
        if self.gpus is not None and (self.processes is not None or self.changed("device")):
            raise UserError("--gpus names the device and the number of processes: leave out --device and --processes.")
        if self.projector == "nufft" and self.changed("oversampling"):
            raise UserError(
                "--oversampling belongs to --projector trilinear and nearest: leave it out with nufft, which does not"
                " interpolate."
            )
        if self.changed("pose_schedule") and not self.refine_poses:
            raise UserError("--pose-schedule belongs to --refine-poses: leave it out, or refine poses.")
        if self.still_frame and not self.refine_poses:
            raise UserError("--still-frame belongs to --refine-poses: leave it out, or refine poses.")
        if self.still_frame and self.symmetry.upper() != "C1":
            raise UserError("--still-frame is for molecules without symmetry, whose axes stand still: leave it out.")
        if self.refine_poses and self.projector == "nearest":
            raise UserError(
                "--refine-poses needs --projector trilinear or nufft: slices by nearest interpolation do not change"
                " with small turns."
            )

    def devices(self) -> list[str]:
        """Device of each process on this machine; `ALL_GPUS` must have been settled.

        Examples
        --------
        >>> FitParams(particles="particles.star", output="run", rank=2, gpus="0,1").devices()
        ['cuda:0', 'cuda:1']
        """
        if self.gpus is not None:
            return [f"cuda:{number}" for number in self.gpus.split(",")]
        return [self.device] * (self.processes or 1)

    def components_for(self, n_particles: int) -> int:
        """Return how many components the fit of so many particles tries first; with a number as rank, that number.

        Examples
        --------
        >>> FitParams(particles="particles.star", output="run", rank="auto").components_for(150)
        7
        """
        if isinstance(self.rank, int):
            return self.rank
        return max(1, min(FIRST_AUTO_RANK, n_particles // MIN_PARTICLES_PER_COMPONENT))
