"""Figures of a search for a structure: how it got finer with time, and how many particles each class has."""

from __future__ import annotations

from typing import Mapping

import numpy as np
from matplotlib.figure import Figure

from solvar_engine.contract.results import FoundStructure
from solvar_engine.figures import style


@style.styled
def draw_search(figure: Figure, metrics: Mapping[str, np.ndarray], extent: float) -> str:
    """Draw the finest detail that poses were compared at, against time.

    Parameters
    ----------
    figure : Figure
    metrics : mapping of columns
        As `read_metrics` returns them; rows without a shell are left out.
    extent : float
        Of the working box, Angstrom.
    """
    rows = np.flatnonzero(np.isfinite(metrics["shell_max"]) & (metrics["shell_max"] > 0))
    seconds, resolution = metrics["seconds"][rows], extent / metrics["shell_max"][rows]
    axes = figure.subplots()
    axes.step(seconds, resolution, where="post", color=style.GREY)
    stages = metrics["stage"][rows]
    for stage, color in zip(dict.fromkeys(stages.tolist()), style.CATEGORIES):
        chosen = stages == stage
        axes.plot(seconds[chosen], resolution[chosen], "o", color=color, label=stage)
    axes.set_yscale("log")
    axes.invert_yaxis()
    ticks = [value for value in style.ROUND_RESOLUTIONS if resolution.min() <= value <= resolution.max()]
    axes.set_yticks(ticks, [f"{value:g}" for value in ticks])
    axes.minorticks_off()
    axes.set_xlabel("seconds")
    axes.set_ylabel("detail (Å)")
    axes.legend(loc="upper left", fontsize=9)
    return (
        "The finest detail at which images were compared with the structure, against time. The search begins with "
        "coarse detail, which few orientations suffice for, and goes on as far as the half-maps agree."
    )


@style.styled
def draw_classes(figure: Figure, structure: FoundStructure) -> str:
    """Draw the share of the particles that each class has, with the resolution of its volume."""
    axes = figure.subplots()
    numbers = np.arange(1, len(structure.populations) + 1)
    bars = axes.bar(numbers, 100 * np.array(structure.populations), color=style.BLUE, alpha=0.85)
    labels = ["no volume" if value is None else f"{value:.1f} Å" for value in structure.resolutions]
    axes.bar_label(bars, labels=labels, fontsize=9)
    axes.set_xticks(numbers, [f"class {number}" for number in numbers])
    axes.set_ylabel("share of the particles (%)")
    axes.margins(y=0.15)
    return (
        "The particles of each structure, outliers left out, and the resolution of its volume by half-maps that share "
        "the search for poses, which flatters it. A class with few particles may be a poor copy of another."
    )
