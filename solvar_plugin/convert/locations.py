"""Names of images and volumes: Scipion's and RELION's ways to point into a file."""

from __future__ import annotations

from typing import Any

MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".map", ".ccp4")
# Xmipp's hints on how to read a file, which may follow its name
_HINTS = (":mrcs", ":mrc")


def file_name(scipion_name: str) -> str:
    """Return a file name without the hint that may follow it in Scipion."""
    for hint in _HINTS:
        if scipion_name.endswith(hint):
            return scipion_name[: -len(hint)]
    return scipion_name


def path_of(image: Any) -> str | None:
    """Return the file of a volume of Scipion, None if there is no volume."""
    return None if image is None else file_name(image.getFileName())


def is_mrc(name: str) -> bool:
    """Whether a file has the suffix of an MRC file."""
    return file_name(name).lower().endswith(MRC_SUFFIXES)


def image_name(particle: Any) -> str:
    """Return RELION's name of a particle's image: ``000001@stack.mrcs``."""
    index, name = particle.getLocation()
    return f"{max(int(index), 1):06d}@{file_name(name)}"


def split_image_name(name: str) -> tuple[int, str]:
    """Return index (from 1) and stack of RELION's name of an image.

    Examples
    --------
    >>> split_image_name("000012@stack.mrcs")
    (12, 'stack.mrcs')
    """
    index, separator, stack = name.partition("@")
    return (int(index), stack) if separator and index.isdecimal() else (1, name)
