"""Figures that are curves: Fourier shell correlation, noise, progress of the optimisation."""

from __future__ import annotations

from typing import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from solvar_engine.contract.files import printable
from solvar_engine.contract.results import FSC_THRESHOLD, curves_by_stage, resolution_at_threshold
from solvar_engine.figures import style

MAX_GROUPS = 10
MAX_STAGES = 8


@style.styled
def draw_fsc(figure: Figure, frequency: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> str:
    """Draw the Fourier shell correlations with the resolution read off.

    Parameters
    ----------
    figure : Figure
    frequency : ndarray, shape (shells,)
        1/Angstrom; at least one above 0.
    mean, covariance : ndarray, shape (shells,)
        Correlation of the two half-set means, and of the diagonals of the two covariances; NaN where unknown.
    """
    axes = figure.add_subplot()
    lowest = 0.0
    for name, values, color, line in (
        ("mean map", mean, style.BLUE, "-"),
        ("variability (diagonal of the covariance)", covariance, style.VERMILLION, "-."),
    ):
        if not np.isfinite(values).any():
            continue
        lowest = min(lowest, float(np.nanmin(values)))
        crossing = resolution_at_threshold(frequency, values)
        axes.plot(frequency, values, line, color=color, label=fsc_label(name, crossing))
        if crossing is not None and crossing[1]:
            place = (1 / crossing[0], FSC_THRESHOLD)
            axes.plot(*place, "o", color=color, markersize=7)
            axes.annotate(
                f"{crossing[0]:.1f} Å", place, (8, 10), textcoords="offset points", color=color, fontweight="bold"
            )
    fsc_axes(axes, frequency, lowest)
    axes.legend(loc="best")
    return (
        "Correlation of two maps, each from one half of the particles, shell by shell in Fourier space. The resolution "
        f"is read off where a curve first falls below {FSC_THRESHOLD} (dots). Motions are defined up to the detail at "
        "which the curve of the variability falls, which is always coarser than the mean."
    )


def fsc_axes(axes: Axes, frequency: np.ndarray, lowest: float) -> None:
    """Finish the axes of Fourier shell correlations, the lowest of which is given, and draw the threshold."""
    axes.axhline(FSC_THRESHOLD, color=style.GREY, linewidth=1, linestyle="--", zorder=1)
    axes.annotate(
        f"{FSC_THRESHOLD}", (1, FSC_THRESHOLD), (4, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", fontsize=9, color=style.GREY, annotation_clip=False,
    )  # fmt: skip
    axes.axhline(0, color=style.PALE, linewidth=0.8, zorder=1)
    axes.set(ylabel="Fourier shell correlation", ylim=(min(lowest, 0.0) - 0.05, 1.03))
    style.resolution_axis(axes, float(frequency.max()))


def fsc_label(name: str, crossing: tuple[float, bool] | None) -> str:
    """Name a curve with its resolution."""
    if crossing is None:
        return f"{name}: below {FSC_THRESHOLD} throughout"
    resolution, has_crossed = crossing
    return f"{name}: {resolution:.1f} Å" + ("" if has_crossed else " (limit of the pixel size)")


@style.styled
def draw_noise(figure: Figure, frequency: np.ndarray, variance: np.ndarray, group: np.ndarray) -> str:
    """Draw the noise variance of every optics group.

    Parameters
    ----------
    figure : Figure
    frequency, variance : ndarray, shape (rows,)
        1/Angstrom, and variance per pixel of the preprocessed images.
    group : ndarray of str, shape (rows,)
        Name of the optics group of each row.
    """
    axes = figure.add_subplot()
    names = list(dict.fromkeys(group.tolist()))
    for index, name in enumerate(names[:MAX_GROUPS]):
        rows = (group == name) & (variance > 0)
        axes.plot(frequency[rows], variance[rows], color=style.category_color(index), label=_group_name(name))
    axes.set_yscale("log")
    style.plain_log_axis(axes.yaxis)
    axes.set(ylabel="noise variance per pixel")
    style.resolution_axis(axes, float(frequency.max()))
    axes.legend(ncols=1 if len(names) < 4 else 2)
    note = (
        "Variance of the noise in the preprocessed images. It should be smooth: a spike points at an artefact in the "
        "images at that resolution, a steep fall at the right edge at images that were low-pass filtered."
    )
    if len(names) > MAX_GROUPS:
        note += f" The first {MAX_GROUPS} of {len(names)} optics groups are drawn."
    return note


def _group_name(name: str) -> str:
    """Name of an optics group, with its kind unless the name says it."""
    name = printable(name)
    return name if name.lower().startswith("optics") else f"optics group {name}"


@style.styled
def draw_progress(figure: Figure, metrics: Mapping[str, np.ndarray], at_least: int = 1) -> str:
    """Draw the objective against time, one panel per stage, one line per half.

    Parameters
    ----------
    figure : Figure
    metrics : mapping of columns
        As for `curves_by_stage`, of which at least one must come out.
    at_least : int
        Stages with fewer values are left out.
    """
    shown = list(curves_by_stage(metrics, at_least).items())[-MAX_STAGES:]
    n_columns = min(4, len(shown))
    panels = figure.subplots(-(-len(shown) // n_columns), n_columns, squeeze=False)
    for axes, ((stage, shell_max), curves) in zip(panels.flat, shown):
        _draw_stage(axes, metrics, curves)
        axes.set_title(f"{stage}, shells to {shell_max:g}" if shell_max else stage, fontsize=9.5)
    style.hide_unused(panels, len(shown))
    for axes in panels[:, 0]:
        axes.set_ylabel("objective above its lowest", fontsize=9)
    return (
        "The quantity that the fit lowers, one panel per stage (values of different stages cannot be compared), one "
        "line per half of the particles. Curves that have become flat have converged."
    )


def _draw_stage(axes: Axes, metrics: Mapping[str, np.ndarray], curves: Mapping[str, np.ndarray]) -> None:
    """Draw the objective of one stage, one line per half."""
    colors = {"1": style.BLUE, "2": style.ORANGE}
    for half, rows in curves.items():
        objective = metrics["objective"][rows]
        axes.plot(
            metrics["seconds"][rows],
            objective - objective.min(),
            "o--" if half == "2" else "o-",
            color=colors.get(half, style.GREEN),
            label=f"half {half}" if half in colors else half or "all particles",
            linewidth=1.4,
            markersize=4,
        )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("seconds since the start", fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.legend(loc="upper right")
