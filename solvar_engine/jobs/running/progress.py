"""Progress of a long command: a bar in the terminal and the status file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from solvar_engine.contract.status import FINISHED, StatusTracker


class Progress:
    """Counts steps of the whole command.

    Parameters
    ----------
    status : StatusTracker or None
        None where another process shows the progress.
    steps : int
        In all.
    """

    def __init__(self, status: StatusTracker | None, steps: int) -> None:
        self._status = status
        self._steps = steps
        self._stage = ""
        self._before_each_stage: Callable[[], object] | None = None
        self.step = 0
        is_hidden = True if status is None else None  # None: where there is no terminal
        self._bar = tqdm(total=steps, desc="starting", unit="step", disable=is_hidden, leave=False)
        self._update(step=0, steps=steps)

    def before_each_stage(self, action: Callable[[], object]) -> None:
        """Have something done from now on whenever another stage is entered, between the two."""
        self._before_each_stage = action

    def stage(self, name: str) -> None:
        """Enter a stage, or stay in it."""
        if name != self._stage and self._before_each_stage is not None:
            self._before_each_stage()
        self._stage = name
        self._bar.set_description(name)
        self._update(stage=name)

    def to(self, step: int) -> None:
        """Go to a step; never back, nor beyond the last."""
        step = min(step, self._steps)
        if step > self.step:
            self._bar.update(step - self.step)
            self.step = step
            self._update(step=step)

    def advance(self) -> None:
        """Go one step on."""
        self.to(min(self.step + 1, self._steps))

    def finish(self, message: str) -> None:
        """Go to the last step and say what came out."""
        self.to(self._steps)
        self._update(state=FINISHED, stage="finished", message=message)

    def seconds(self) -> float:
        """Wall time of the whole command, summed over resumes."""
        return 0.0 if self._status is None else self._status.seconds

    def _update(self, **changes: Any) -> None:
        if self._status is not None:
            self._status.update(**changes)

    def close(self) -> None:
        """Remove the bar, for `contextlib.closing`."""
        self._bar.close()
