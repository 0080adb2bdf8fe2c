"""The figures of the report: what is drawn, under which name and heading, in which order and size."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from solvar_engine.contract.results import structure_of
from solvar_engine.figures import components, histograms, images, latent, maps, poses, spectra, style
from solvar_engine.figures import structure as structures
from solvar_engine.figures.coordinates import component_axes
from solvar_engine.reports.model import Picture, ReportData, ReportFigure

WIDTH, DOTS_PER_INCH = 10.0, 150
"""Of every figure; inches and pixels per inch."""
LEAST_VALUES = 2
"""A stage of the optimisation with fewer values is not drawn: one value is no curve."""

Builder = Callable[[ReportData], "ReportFigure | None"]


def draw_figures(data: ReportData) -> Iterator[Picture]:
    """Draw every figure that the run has data for, one at a time.

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
                yield Picture(name, section, drawn.title, drawn.caption, _to_png(drawn.figure))


def _drawn(title: str, height: float, draw: Callable[..., str], *arguments: Any) -> ReportFigure:
    """Draw into a new figure of the common width; height in inches."""
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
    return ReportFigure(title, draw(figure, *arguments), figure)


@style.styled
def _to_png(figure: Figure) -> bytes:
    """Render a figure as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def scree_figure(data: ReportData) -> ReportFigure | None:
    """Held-out against in-sample eigenvalues, and the agreement of the half-sets."""
    if not len(data.components):
        return None
    return _drawn("How much each component varies", 4.6, components.draw_eigenvalues, data.components)


def states_figure(data: ReportData) -> ReportFigure | None:
    """The states from -2 to +2 standard deviations along each component."""
    if data.mean is None or not data.eigenvolumes:
        return None
    height = maps.grid_height(len(data.eigenvolumes), maps.STATE_COLUMNS, WIDTH)
    return _drawn("States along each component", height, maps.draw_states, *_volumes(data))


def maps_figure(data: ReportData) -> ReportFigure | None:
    """Sections and projections of the mean and of each eigenvolume."""
    if data.mean is None:
        return None
    height = maps.grid_height(1 + len(data.eigenvolumes), maps.MAP_COLUMNS, WIDTH)
    return _drawn("The mean and what varies about it", height, maps.draw_maps, *_volumes(data))


def _volumes(data: ReportData) -> tuple[Any, ...]:
    return data.mean, data.eigenvolumes, data.components, data.pixel_size or 0.0, data.mask


def latent_figure(data: ReportData) -> ReportFigure | None:
    """The density of particles, outliers left out, over the leading pairs of components."""
    if len(data.components) < 2 or not data.n_particles:
        return None
    axes = component_axes(data.components, data.z[data.is_used])
    n_rows, n_columns = latent.pairs_shape(axes)
    height = 0.3 + 3.3 * n_rows if n_columns > 1 else 4.6
    return _drawn("Particles along the leading components", height, latent.draw_pairs, axes, data.centres)


def histogram_figure(data: ReportData) -> ReportFigure | None:
    """A histogram of every component's coordinates, outliers left out."""
    if not len(data.components) or not data.n_particles:
        return None
    height = 0.5 + 2.2 * histograms.histograms_shape(len(data.components))[0]
    axes = component_axes(data.components, data.z[data.is_used])
    return _drawn("Particles along each component", height, histograms.draw_histograms, axes)


def umap_figure(data: ReportData) -> ReportFigure | None:
    """The flat map of all particles but outliers."""
    if data.embedding is None or not len(data.embedding):
        return None
    used = data.is_used
    leading, cluster = component_axes(data.components, data.z[used])[0], data.cluster
    cluster = None if cluster is None else cluster[used]
    drawn = _drawn("Map of all particles", 3.7, latent.draw_map, data.embedding[used], leading, cluster)
    if len(data.components) == 1:
        return ReportFigure(
            drawn.title, f"{drawn.caption} With one component the map says no more than its histogram.", drawn.figure
        )
    return drawn


def fsc_figure(data: ReportData) -> ReportFigure | None:
    """Fourier shell correlations of the mean and of the covariance."""
    if data.fsc is None or not len(data.fsc["frequency"]):
        return None
    columns = (data.fsc[name] for name in ("frequency", "fsc_mean", "fsc_covariance"))
    return _drawn("Resolution of the mean and of the variability", 4.2, spectra.draw_fsc, *columns)


def noise_figure(data: ReportData) -> ReportFigure | None:
    """The noise variance of every optics group."""
    if data.noise is None or not len(data.noise["frequency"]):
        return None
    columns = (data.noise[name] for name in ("frequency", "noise_variance", "group"))
    return _drawn("Noise spectrum", 3.4, spectra.draw_noise, *columns)


def images_figure(data: ReportData) -> ReportFigure | None:
    """Contrast and likelihood of the images, outliers apart."""
    values = (data.images.log_likelihood, data.images.is_outlier, data.images.contrast)
    if not data.n_particles or (values[0] is None and values[2] is None):
        return None
    return _drawn("Contrast and likelihood of the images", 3.4, images.draw_images, *values)


def poses_figure(data: ReportData) -> ReportFigure | None:
    """How far refined poses moved from the given ones, and how well they are known."""
    if data.images.pose_changes is None:
        return None
    return _drawn("Poses before and after", 3.2, poses.draw_pose_changes, data.images.pose_changes)


def orientation_figure(data: ReportData) -> ReportFigure | None:
    """How densely the sphere of viewing directions is covered."""
    if data.images.view is None or not len(data.images.view):
        return None
    return _drawn("Viewing directions", 4.0, poses.draw_directions, {"": data.images.view})


def search_figure(data: ReportData) -> ReportFigure | None:
    """The detail that a search for a structure was at, against time."""
    resolved = data.parameters.get("resolved", {})
    structure = structure_of(data.parameters)
    if structure is None or data.metrics is None or not np.isfinite(data.metrics["shell_max"]).any():
        return None
    extent = resolved["box"] * resolved["pixel_size"]
    return _drawn("Resolution of the search", 3.6, structures.draw_search, data.metrics, extent)


def classes_figure(data: ReportData) -> ReportFigure | None:
    """The particles of each of several structures."""
    structure = structure_of(data.parameters)
    if structure is None or len(structure.resolutions) < 2:
        return None
    return _drawn("Structures", 3.6, structures.draw_classes, structure)


def convergence_figure(data: ReportData) -> ReportFigure | None:
    """The objective against time, one panel per stage."""
    if data.metrics is None:
        return None
    stages = min(len(spectra.curves_by_stage(data.metrics, LEAST_VALUES)), spectra.MAX_STAGES)
    if not stages:
        return None
    height = 0.9 + 2.3 * -(-stages // 4)
    return _drawn("Convergence", height, spectra.draw_progress, data.metrics, LEAST_VALUES)


CATALOGUE: tuple[tuple[str, tuple[tuple[str, Builder], ...]], ...] = (
    ("Components", (("scree", scree_figure), ("states", states_figure))),
    ("Particles", (("latent", latent_figure), ("histograms", histogram_figure), ("umap", umap_figure))),
    ("Maps", (("maps", maps_figure),)),
    (
        "Quality",
        (
            ("fsc", fsc_figure),
            ("noise", noise_figure),
            ("images", images_figure),
            ("poses", poses_figure),
            ("orientations", orientation_figure),
            ("search", search_figure),
            ("classes", classes_figure),
            ("convergence", convergence_figure),
        ),
    ),
)
"""Section heading -> figures, as (one of `FIGURE_NAMES`, function that draws it or returns None)."""
