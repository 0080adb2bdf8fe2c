"""Plots that are curves: Fourier shell correlation, noise, progress of the optimisation.

Each function draws into an empty figure that has constrained layout.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from solvar_engine.contract.results import FSC_THRESHOLD, resolution_at_threshold
from solvar_plugin.viewers import style

MAX_GROUPS = 10
MAX_STAGES = 8


@style.styled
def draw_fsc(figure: Figure, frequency: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Draw the Fourier shell correlations with the resolution read off.

    Parameters
    ----------
    figure : Figure
        Empty.
    frequency : ndarray, shape (shells,)
        1/Angstrom; at least one above 0.
    mean, covariance : ndarray, shape (shells,)
        Correlation of the two half-set means, and of the diagonals of the two covariances; NaN where unknown.
    """
    axes = figure.add_subplot()
    axes.axhline(FSC_THRESHOLD, color=style.GREY, linewidth=1, linestyle="--")
    axes.annotate(
        f"{FSC_THRESHOLD}",
        (1, FSC_THRESHOLD),
        (4, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=style.GREY,
        annotation_clip=False,
    )
    axes.axhline(0, color=style.PALE, linewidth=0.8)
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
            axes.plot([1 / crossing[0]], [FSC_THRESHOLD], "o", color=color, markersize=7)
    axes.set(ylabel="Fourier shell correlation", ylim=(lowest - 0.05, 1.03))
    style.resolution_axis(axes, float(frequency.max()))
    axes.legend(loc="best")
    style.add_note(
        figure,
        "Correlation of two maps, each from one half of the particles, shell by shell in Fourier space. The resolution "
        f"is read off where a curve first falls below {FSC_THRESHOLD} (dots). Motions are defined up to the detail at "
        "which the curve of the variability falls, which is coarser than the mean.",
    )


def fsc_label(name: str, crossing: tuple[float, bool] | None) -> str:
    """Name a curve with its resolution."""
    if crossing is None:
        return f"{name}: below {FSC_THRESHOLD} throughout"
    resolution, has_crossed = crossing
    return f"{name}: {resolution:.1f} Å" + ("" if has_crossed else " (limit of the pixel size)")


@style.styled
def draw_noise(figure: Figure, frequency: np.ndarray, variance: np.ndarray, group: np.ndarray) -> None:
    """Draw the noise variance of every optics group.

    Parameters
    ----------
    figure : Figure
        Empty.
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
    style.add_note(figure, note)


def _group_name(name: str) -> str:
    """Name of an optics group, with its kind unless the name says it."""
    return name if name.lower().startswith("optics") else f"optics group {name}"


def curves_by_stage(metrics: dict[str, np.ndarray]) -> dict[tuple[str, float], dict[str, np.ndarray]]:
    """Part the table of the optimisation into curves whose values can be compared.

    Parameters
    ----------
    metrics : mapping of columns
        ``stage`` and ``half`` as text, ``shell_max``, ``objective`` and ``seconds`` as numbers.

    Returns
    -------
    dict
        (stage, shell_max) -> half -> its rows, as indices; rows without an objective are left out.

    Examples
    --------
    >>> columns = {"stage": ["a", "a"], "half": ["1", "2"], "shell_max": [8, 8], "objective": [3, 4], "seconds": [0, 1]}
    >>> {key: sorted(curves) for key, curves in curves_by_stage({k: np.array(v) for k, v in columns.items()}).items()}
    {('a', 8.0): ['1', '2']}
    """
    curves: dict[tuple[str, float], dict[str, list[int]]] = {}
    for row in np.flatnonzero(np.isfinite(metrics["objective"])):
        shell_max = float(metrics["shell_max"][row])
        key = (str(metrics["stage"][row]), shell_max if np.isfinite(shell_max) else 0.0)
        curves.setdefault(key, {}).setdefault(str(metrics["half"][row]), []).append(int(row))
    return {key: {half: np.array(rows) for half, rows in halves.items()} for key, halves in curves.items()}


@style.styled
def draw_progress(figure: Figure, metrics: dict[str, np.ndarray]) -> None:
    """Draw the objective against time, one panel per stage, one line per half.

    Parameters
    ----------
    figure : Figure
        Empty.
    metrics : mapping of columns
        As for `curves_by_stage`; at least one row must have an objective.
    """
    shown = list(curves_by_stage(metrics).items())[-MAX_STAGES:]
    n_columns = min(4, len(shown))
    panels = figure.subplots(-(-len(shown) // n_columns), n_columns, squeeze=False)
    for axes, ((stage, shell_max), curves) in zip(panels.flat, shown):
        _draw_stage(axes, metrics, curves)
        axes.set_title(f"{stage}, shells to {shell_max:g}" if shell_max else stage, fontsize=9.5)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("objective above its lowest", fontsize=9)
    style.add_note(
        figure,
        "The quantity that the fit lowers, one panel per stage (values of different stages cannot be compared), one "
        "line per half of the particles. Curves that have become flat have converged.",
    )


def _draw_stage(axes: Axes, metrics: dict[str, np.ndarray], curves: dict[str, np.ndarray]) -> None:
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
