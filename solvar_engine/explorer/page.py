"""The files of the page, which are part of this package."""

from __future__ import annotations

from functools import cache
from importlib import resources

MODULES = (
    "numbers.js",
    "source.js",
    "picking.js",
    "selection.js",
    "shaders.js",
    "processor.js",
    "molecule.js",
    "particles.js",
    "files.js",
    "movie.js",
    "app.js",
)
"""The ES modules, every one after those that it imports."""

INDEX, STYLE = "index.html", "style.css"

CONTENT_TYPES = {
    INDEX: "text/html; charset=utf-8",
    STYLE: "text/css; charset=utf-8",
    **{name: "text/javascript; charset=utf-8" for name in MODULES},
}


@cache
def page_file(name: str) -> bytes:
    """Return the content of one of the files in `CONTENT_TYPES`."""
    if name not in CONTENT_TYPES:
        raise ValueError(f"the page has no file {name}")
    return resources.files("solvar_engine.explorer").joinpath("web", name).read_bytes()
