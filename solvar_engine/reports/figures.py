"""The catalogue of figures: what is drawn, under which name, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from solvar_engine.reports import style
from solvar_engine.reports.curves import convergence_figure, fsc_figure, noise_figure, scree_figure
from solvar_engine.reports.maps import maps_figure, states_figure
from solvar_engine.reports.model import Picture, ReportFigure, RunData
from solvar_engine.reports.populations import (
    histogram_figure,
    latent_figure,
    orientation_figure,
    umap_figure,
)
from solvar_engine.reports.poses import poses_figure
from solvar_engine.reports.quality import images_figure

Builder = Callable[[RunData], "ReportFigure | None"]

CATALOGUE: tuple[tuple[str, tuple[tuple[str, Builder], ...]], ...] = (
    ("Components", (("scree", scree_figure), ("states", states_figure))),
    (
        "Particles",
        (("latent", latent_figure), ("histograms", histogram_figure), ("umap", umap_figure)),
    ),
    ("Maps", (("maps", maps_figure),)),
    (
        "Quality",
        (
            ("fsc", fsc_figure),
            ("noise", noise_figure),
            ("images", images_figure),
            ("poses", poses_figure),
            ("orientations", orientation_figure),
            ("convergence", convergence_figure),
        ),
    ),
)
"""Section heading -> figures, as (one of `FIGURE_NAMES`, function that draws it or returns None)."""


def draw_figures(data: RunData) -> Iterator[Picture]:
    """Draw every figure that the run has data for, one at a time.

    Parameters
    ----------
    data : RunData
        The run.

    Yields
    ------
    Picture
        In the order of the report; the same bytes for the same run.

    Examples
    --------
    >>> [picture.name for picture in draw_figures(data)][:2]
    ['scree', 'states']
    """
    for section, figures in CATALOGUE:
        for name, build in figures:
            drawn = build(data)
            if drawn is not None:
                yield Picture(name, section, drawn.title, drawn.caption, style.to_png(drawn.figure))
