"""Figure of what the fit says about single images: their contrast and likelihood, and which are outliers."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from solvar_engine.reports import style
from solvar_engine.reports.model import ReportFigure, RunData

_BINS = 60
_SHOWN = (0.1, 99.9)  # percentiles: one strange image would flatten the histogram


@style.styled
def images_figure(data: RunData) -> ReportFigure | None:
    """Draw histograms of contrast and log-likelihood, outliers apart."""
    panels = [
        (values, label)
        for values, label in ((data.contrast, "contrast"), (data.log_likelihood, "log-likelihood"))
        if values is not None and len(values)
    ]
    if not panels:
        return None
    outlier = data.outlier if data.outlier is not None else np.zeros(data.n_particles, dtype=bool)
    figure = style.new_figure(3.0)
    for axes, (values, label) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        _draw_histograms(axes, values, outlier)
        axes.set_xlabel(label)
        axes.set_ylabel("images")
    if outlier.any():
        figure.axes[0].legend()
    caption = (
        "Scale of the signal in each image, 1 on average, and how likely the model makes each image. Outliers look like"
        " noise without a particle, like another particle, or differ from all others in their strength; they are"
        " flagged (solvarOutlier in particles.star) and were left out of the estimates."
    )
    return ReportFigure("Contrast and likelihood of the images", caption, figure)


def _draw_histograms(axes: Axes, values: NDArray[np.floating], outlier: NDArray[np.bool_]) -> None:
    """Draw the good images and, on top of them, the outliers."""
    low, high = np.percentile(values[np.isfinite(values)], _SHOWN)
    margin = 0.05 * (high - low) or 0.05
    edges = np.linspace(low - margin, high + margin, _BINS + 1).tolist()
    good = np.clip(values[~outlier], edges[0], edges[-1])
    axes.hist(good, bins=edges, color=style.BLUE, alpha=0.85, label="images")
    if outlier.any():
        junk = np.clip(values[outlier], edges[0], edges[-1])
        axes.hist(junk, bins=edges, color=style.VERMILLION, alpha=0.85, label=f"outliers ({outlier.sum():,})")
