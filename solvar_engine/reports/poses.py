"""Figure of refined poses: how far they moved from the given ones, and how well they are known."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from solvar_engine.reports import style
from solvar_engine.reports.model import ReportFigure, RunData

_BINS = 60
_SHOWN = 99.5  # percentile: a few strays would flatten the histogram


@style.styled
def poses_figure(data: RunData) -> ReportFigure | None:
    """Draw histograms of the changes of orientations and shifts over those of their uncertainty."""
    if data.rotation_change is None or data.shift_change is None:
        return None
    figure = style.new_figure(3.0)
    left, right = figure.subplots(1, 2)
    _draw(left, data.rotation_change, data.rotation_std, "turn from the given orientation (degrees)")
    _draw(right, data.shift_change, data.shift_std, "move from the given shift (Å)")
    left.legend()
    caption = (
        f"Poses were refined together with the motions. Orientations turned by {data.rotation_change.mean():.2f}°, and"
        f" shifts moved by {data.shift_change.mean():.2f} Å, on average. The uncertainty is the root mean square error"
        " that image and given pose allow under the volumes found: changes much larger than it corrected errors of the"
        " given poses. Each particle's change and uncertainty are in particles.star (solvarRotationChange,"
        " solvarRotationStd in degrees; solvarShiftChange, solvarShiftStd in Å)."
    )
    return ReportFigure("Poses before and after", caption, figure)


def _draw(axes: Axes, change: NDArray[np.floating], std: NDArray[np.floating] | None, label: str) -> None:
    """Draw the histogram of changes, and of standard deviations where they are known."""
    known = [change] if std is None else [change, std]
    edges = np.linspace(0, max(float(np.percentile(values, _SHOWN)) for values in known) or 1.0, _BINS + 1).tolist()
    axes.hist(np.clip(change, 0, edges[-1]), bins=edges, color=style.BLUE, alpha=0.85, label="change")
    if std is not None:
        clipped = np.clip(std, 0, edges[-1])
        axes.hist(clipped, bins=edges, histtype="step", color=style.VERMILLION, label="uncertainty")
    axes.set_xlabel(label)
    axes.set_ylabel("particles")
