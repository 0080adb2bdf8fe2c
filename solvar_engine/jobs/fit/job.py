"""What all stages of a fit share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from solvar_engine.contract.params import AUTO_RANK, FitParams
from solvar_engine.contract.results import append_metrics
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.status import StatusTracker
from solvar_engine.distributed.world import ALONE, World
from solvar_engine.estimation.alternation.problem import rounds_of
from solvar_engine.estimation.solver.schedule import Schedule, Unit
from solvar_engine.imaging.fourier import nyquist_shell
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.decisions import add_cautions, record_cautions
from solvar_engine.jobs.fit.checkpoint import Checkpoint
from solvar_engine.jobs.fit.inputs import FitInputs
from solvar_engine.jobs.running.devices import compute_device
from solvar_engine.jobs.running.progress import Progress
from solvar_engine.projectors.options import SliceOptions

logger = logging.getLogger(__name__)

READING_STEPS = 10
POSE_STEPS = 4  # of progress, in every round of refinement
_OTHER_STEPS = 5  # first mean, rank, held-out scale, latent coordinates, writing
DEFAULT_SCHEDULE = Schedule()


def _steps_of_halves(rounds: Sequence[int], refines_poses: bool) -> int:
    """Steps of progress of a fit of the half-sets, which ends its rounds at some units."""
    return rounds[-1] + len(rounds) * (1 + (POSE_STEPS if refines_poses else 0))


@dataclass(frozen=True)
class LeftFrame:
    """What is said of images that are left in a frame that may be a motion, and whether they are all over the list."""

    sentence: str
    is_mixed: bool


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
    schedule : Schedule
        Of the factors.
    tried_rank : int
        Number of components that are fitted to the half-sets.
    world : World
        Processes that share the images; the first one writes all files.
    has_opposites : bool
        Nearly as many images show something as show its opposite, so that the mean tells nothing.
    left_frames : tuple of LeftFrame
        Images that may be in another frame, or have moved, and were left there.
    has_scatter : bool
        Origins are so inaccurate that images fall into classes by them.
    pose_before : Pose or None
        That the fit was given, where it goes on from others, in the frame of each state.
    """

    params: FitParams
    run: RunDir
    inputs: FitInputs
    checkpoint: Checkpoint
    progress: Progress
    schedule: Schedule
    tried_rank: int
    world: World = ALONE
    has_opposites: bool = False
    left_frames: tuple[LeftFrame, ...] = ()
    has_scatter: bool = False
    pose_before: Pose | None = None

    @classmethod
    def start(
        cls,
        params: FitParams,
        run: RunDir,
        inputs: FitInputs,
        status: StatusTracker | None,
        schedule: Schedule = DEFAULT_SCHEDULE,
        world: World = ALONE,
    ) -> FitJob:
        """Make the folder of the checkpoints and count the steps."""
        schedule = schedule.with_solver(params.solver)
        rounds = rounds_of(schedule, inputs.box_size, params.refine_poses)
        of_halves = _steps_of_halves(rounds, params.refine_poses)
        steps = READING_STEPS + of_halves + schedule.full_steps + _OTHER_STEPS
        if params.still_frame:
            steps += of_halves + 1
        checkpoint = Checkpoint(run.checkpoint, world, compute_device(params))
        tried_rank = params.components_for(len(inputs.stack))
        return cls(params, run, inputs, checkpoint, Progress(status, steps), schedule, tried_rank, world)

    @property
    def units(self) -> list[Unit]:
        """Epochs of the half-sets."""
        return self.schedule.units(self.inputs.box_size)

    @property
    def pose_rounds(self) -> int:
        """How often poses are refined: in every round, or never."""
        return len(rounds_of(self.schedule, self.inputs.box_size, True)) if self.params.refine_poses else 0

    @property
    def projector_options(self) -> SliceOptions:
        """How volumes are projected."""
        return SliceOptions(self.params.projector, self.params.oversampling, compute_device(self.params))

    @property
    def asked_rank(self) -> int | None:
        """Number of components that was asked for; None where the data decide."""
        return None if self.params.rank == AUTO_RANK else int(self.params.rank)

    def checkpoint_name(self, stage: str) -> str:
        """Name of the state of a stage that is done again: in another frame, or for more components than at first."""
        is_first = self.tried_rank == self.params.components_for(len(self.inputs.stack))
        stage = stage if self.pose_before is None else f"{stage}_still"
        return stage if is_first else f"{stage}_{self.tried_rank}"

    @property
    def given_pose(self) -> Pose:
        """That the fit was given, in one frame."""
        return self.inputs.stack.pose if self.pose_before is None else self.pose_before

    @property
    def first_step(self) -> int:
        """Step of progress that the fit of the half-sets begins after."""
        refines_poses = self.params.refine_poses
        of_halves = _steps_of_halves(rounds_of(self.schedule, self.inputs.box_size, refines_poses), refines_poses)
        return READING_STEPS + 1 + (0 if self.pose_before is None else of_halves + 1)

    @property
    def pixel_size(self) -> float:
        """Of the working box, Angstrom."""
        return self.inputs.stack.pixel_size * self.inputs.stack.box_size / self.inputs.box_size

    @property
    def shell_max(self) -> int:
        """Last shell of the working box."""
        return nyquist_shell(self.inputs.box_size)

    def add_cautions(self, sentences: Sequence[str], come_first: bool = False) -> None:
        """Log and record what seems wrong, once for all processes."""
        if self.world.is_first:
            add_cautions(self.run, sentences, come_first)

    def answer_cautions(self, told: Sequence[str], answers: Sequence[str]) -> None:
        """Log what is found out of cautions that were logged, and record it in their place."""
        if self.world.is_first:
            for answer in answers:
                logger.info(answer)
            record_cautions(self.run, answers, come_first=True, instead_of=told)

    def record_epoch(self, iteration: int, stage: str, half: int | None, shell_max: int, objective: float) -> None:
        """Add a row to the metrics and a line to the log."""
        if not self.world.is_first:
            return
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
