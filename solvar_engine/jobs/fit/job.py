"""What all stages of a fit share."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from solvar_engine.contract.params import FitParams
from solvar_engine.contract.results import append_metrics
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import StatusTracker
from solvar_engine.estimation.solver.half_sets import band_ends, full_set_epochs
from solvar_engine.imaging.fourier import nyquist_shell
from solvar_engine.jobs.fit.checkpoint import Checkpoint
from solvar_engine.jobs.fit.inputs import FitInputs
from solvar_engine.jobs.running.devices import compute_device
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.projectors.options import SliceOptions

logger = logging.getLogger(__name__)

READING_STEPS = 10
POSE_STEPS = 4  # of progress, in every round of refinement
_OTHER_STEPS = 7  # first mean, noise twice, rank, held-out scale, latent coordinates, writing


@dataclass(frozen=True)
class FitJob:
    """One fit: what was asked for, what was read, and where its files and its progress go.

    Attributes
    ----------
    params : FitParams
    run : RunDir
    inputs : FitInputs
    checkpoint : Checkpoint
    progress : Progress
    """

    params: FitParams
    run: RunDir
    inputs: FitInputs
    checkpoint: Checkpoint
    progress: Progress

    @classmethod
    def start(cls, params: FitParams, run: RunDir, inputs: FitInputs, status: StatusTracker) -> FitJob:
        """Make the folder of the checkpoints and count the steps."""
        ends = band_ends(inputs.box_size)
        steps = READING_STEPS + ends[-1] + len(full_set_epochs()) + _OTHER_STEPS
        if params.refine_poses:
            steps += (POSE_STEPS + 1) * len(ends) - 2  # poses and noise in every band, instead of the noise twice
        return cls(params, run, inputs, Checkpoint(run.checkpoint), Progress(status, steps))

    @property
    def stops(self) -> list[int]:
        """Units of the half-set fit after which images are judged and, if asked for, poses refined."""
        ends = band_ends(self.inputs.box_size)
        return ends if self.params.refine_poses else [ends[0], ends[-1]]

    @property
    def pose_rounds(self) -> int:
        """How often poses are refined: after every stop, or never."""
        return len(self.stops) if self.params.refine_poses else 0

    @property
    def projector_options(self) -> SliceOptions:
        """How volumes are projected."""
        return SliceOptions(self.params.projector, self.params.oversampling, compute_device(self.params))

    @property
    def tried_rank(self) -> int:
        """Number of components that are fitted to the half-sets."""
        return self.params.components_for(len(self.inputs.stack))

    @property
    def shell_max(self) -> int:
        """Last shell of the working box."""
        return nyquist_shell(self.inputs.box_size)

    def record_epoch(self, iteration: int, stage: str, half: int | None, shell_max: int, objective: float) -> None:
        """Add a row to the metrics and a line to the log."""
        append_metrics(
            self.run.metrics,
            {
                "iteration": iteration,
                "stage": stage,
                "half": half,
                "shell_max": shell_max,
                "objective": objective,
                "seconds": round(self.progress.seconds(), 3),
            },
        )
        logger.info("%s, epoch %d, half %s: objective %.4f", stage, iteration, half or "both", objective)
