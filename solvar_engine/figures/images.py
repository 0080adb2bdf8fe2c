"""Figure of what the fit says about single images: their contrast and likelihood, and which are outliers."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from solvar_engine.figures import style

_BULK = (0.5, 99.5)
"""Percentiles between which a histogram is spread; what lies beyond is counted at its edges."""


@style.styled
def draw_images(
    figure: Figure, log_likelihood: np.ndarray | None, is_outlier: np.ndarray | None, contrast: np.ndarray | None
) -> str:
    """Draw how well the model explains the particles, and their contrast, with the outliers apart.

    Parameters
    ----------
    figure : Figure
    log_likelihood : ndarray, shape (n,), or None
        Of each image; None if the run does not tell.
    is_outlier : ndarray of bool, shape (n,), or None
    contrast : ndarray, shape (n,), or None
        One of the two must be there.
    """
    panels = [("log-likelihood of the image", log_likelihood), ("contrast of the image", contrast)]
    shown = [(label, values) for label, values in panels if values is not None]
    flags = np.zeros(len(shown[0][1]), dtype=bool) if is_outlier is None else is_outlier
    for axes, (label, values) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        _draw_parted_histogram(axes, values, flags)
        axes.set_xlabel(label)
    figure.axes[0].set_ylabel("particles")
    if flags.any():
        figure.axes[0].legend(loc="upper left")
    note = (
        "The contrast says how strong the molecule is in an image, 1 on average: images without a molecule fall below. "
        "The first and the last bar hold all that lies beyond."
    )
    if log_likelihood is None:
        note = f"This run does not tell how well the model explains each particle; fit again to see it. {note}"
    else:
        note = (
            "The log-likelihood says how well the model, at the particle's own place along the components, explains "
            "the image. A tail to the left, or a hill of its own, holds particles that no state of the molecule "
            f"explains: ice, overlaps, other molecules, bad orientations. {int(flags.sum()):,} of {len(flags):,} are "
            "flagged as outliers (solvarOutlier in particles.star), which were left out of the estimates. " + note
        )
    return note


def _draw_parted_histogram(axes: Axes, values: np.ndarray, flags: np.ndarray) -> None:
    """Draw the histogram of the flagged particles before that of the others, on a logarithmic axis: they are few."""
    low, high = np.percentile(values, _BULK)
    if flags.any():
        # where the outliers lie is what the plot is for
        low, high = min(low, np.percentile(values[flags], 10)), max(high, np.percentile(values[flags], 90))
    room = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-12)
    edges = np.linspace(low - 0.02 * room, high + 0.02 * room, int(np.clip(np.sqrt(len(values)), 12, 70)) + 1)
    inside = np.clip(values, edges[0], edges[-1])
    for chosen, name, color in ((~flags, "explained", style.BLUE), (flags, "outliers", style.VERMILLION)):
        if chosen.any():
            label = f"{name} ({int(chosen.sum()):,})"
            axes.hist(inside[chosen], bins=edges.tolist(), color=color, alpha=0.85, label=label)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    style.plain_log_axis(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(6))
