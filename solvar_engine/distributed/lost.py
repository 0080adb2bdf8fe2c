"""The end of all processes when one of them has died."""

from __future__ import annotations


class ProcessLost(Exception):
    """Another process of this computation has ended; the text is a sentence for the user."""
