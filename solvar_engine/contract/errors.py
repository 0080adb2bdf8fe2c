"""The one kind of error that is the user's to solve, and what a command says that was stopped from outside."""

from __future__ import annotations

INTERRUPTED = "interrupted"
"""Message of a command that was stopped by Ctrl-C."""

TERMINATED = "terminated by a signal, or because the program that started it has ended"
"""Message of a command that was asked to stop, or stopped with its parent."""


class UserError(ValueError):
    """A mistake in what the user gave, or a limit of the user's machine.

    The text is one sentence for a microscopist: it names the file, row, column or option and the value found,
    and says what to do. The command line prints it as it is and ends with exit code 2.

    Examples
    --------
    >>> raise UserError("mask.mrc is not a cube (64 x 64 x 32 voxels): give a cubic mask.")
    Traceback (most recent call last):
        ...
    solvar_engine.contract.errors.UserError: mask.mrc is not a cube (64 x 64 x 32 voxels): give a cubic mask.
    """
