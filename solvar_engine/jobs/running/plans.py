"""What a command that goes through all images will need: said before it starts, and held against what there is."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from solvar_engine.contract.errors import UserError

logger = logging.getLogger(__name__)

LIBRARIES_BYTES = 650e6
"""The interpreter with torch and numba, and its working arrays."""

METADATA_BYTES = 1500
"""Of each particle: the row of the STAR file, pose, CTF."""


@dataclass(frozen=True)
class Plan:
    """Resources of a command.

    Attributes
    ----------
    working_bytes : float
        Memory beside the preprocessed images.
    images_bytes : float
        Of the preprocessed images.
    cache_mb : int
        Memory allowed for these; if they do not fit, they lie in a scratch file.
    disk_bytes : float
        Of all other files.
    seconds : float
    """

    working_bytes: float
    images_bytes: float
    cache_mb: int
    disk_bytes: float
    seconds: float

    @property
    def images_in_memory(self) -> bool:
        """Whether the preprocessed images fit in the memory allowed for them."""
        return self.images_bytes <= self.cache_mb * 1e6

    @property
    def memory_bytes(self) -> float:
        """In all."""
        return self.working_bytes + (self.images_bytes if self.images_in_memory else 0.0)

    @property
    def scratch_bytes(self) -> float:
        """Of the scratch file; zero without one."""
        return 0.0 if self.images_in_memory else self.images_bytes

    def for_processes(self, count: int) -> Plan:
        """What so many processes need of a disk that they share; the results are written once."""
        return replace(self, images_bytes=count * self.images_bytes, cache_mb=count * self.cache_mb)

    def sentence(self) -> str:
        """One line for the user."""
        place = "in memory" if self.images_in_memory else f"in a scratch file of {self.scratch_bytes / 1e6:.0f} MB"
        return (
            f"Expecting about {self.seconds / 60:.1f} min, {self.memory_bytes / 1e6:.0f} MB of memory and "
            f"{self.disk_bytes / 1e6:.0f} MB of disk (preprocessed images {place})"
        )

    def within(self, available_bytes: float, work: str, advice: str) -> Plan:
        """Settle for the memory that there is: with the images in a scratch file, if they take too much of it.

        Parameters
        ----------
        available_bytes : float
        work : str
            What is planned, for the message.
        advice : str
            What needs less memory, for the message.

        Raises
        ------
        UserError
            If the memory is too small all the same.
        """
        plan = self
        if plan.memory_bytes > available_bytes and plan.images_in_memory:
            plan = replace(plan, cache_mb=0)
        if plan.memory_bytes > available_bytes:
            raise UserError(
                f"The {work} needs about {plan.memory_bytes / 1e6:.0f} MB of memory, but only "
                f"{available_bytes / 1e6:.0f} MB are available: {advice}."
            )
        if plan is not self:
            logger.warning("Memory is short: the preprocessed images are kept in a scratch file, which takes longer")
        return plan


def require_disk(plan: Plan, output: Path, scratch: Path, work: str = "run") -> None:
    """Refuse work whose files do not fit.

    Parameters
    ----------
    plan : Plan
    output, scratch : Path
        Folders, which exist, of the results and of the scratch file.
    work : str
        What is planned, for the message.

    Raises
    ------
    UserError
        If a disk is too small; the text names the folder and both sizes.
    """
    needs = {output: plan.disk_bytes, scratch: plan.scratch_bytes}
    if os.stat(output).st_dev == os.stat(scratch).st_dev:
        needs = {output: plan.disk_bytes + plan.scratch_bytes}
    advice = "another disk for --output"
    if plan.scratch_bytes:
        advice += " or --scratch, or raise --cache-mb"
    for folder, needed in needs.items():
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise UserError(
                f"The {work} needs {needed / 1e6:.0f} MB in {folder}, but only {free / 1e6:.0f} MB are free: choose"
                f" {advice}."
            )
