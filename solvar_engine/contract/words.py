"""Counts in sentences."""

from __future__ import annotations


def counted(count: int, one: str, several: str | None = None) -> str:
    """Put a count before a noun, or a noun and its verb, in singular or plural.

    Parameters
    ----------
    count : int
    one : str
        What follows 1.
    several : str, optional
        What follows other numbers; without it, ``one`` with an s.

    Examples
    --------
    >>> counted(1, "image"), counted(1200, "image"), counted(2, "image shows", "images show")
    ('1 image', '1200 images', '2 images show')
    """
    return f"{count} {one if count == 1 else several or one + 's'}"
