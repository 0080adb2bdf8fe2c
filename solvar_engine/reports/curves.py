"""Figures that are curves: eigenvalues, Fourier shell correlation, noise, convergence."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from solvar_engine.contract.files import printable
from solvar_engine.contract.results import FSC_THRESHOLD, resolution_at_threshold
from solvar_engine.reports import style
from solvar_engine.reports.model import Components, ReportFigure, RunData, Table

MAX_NOISE_GROUPS = 8
MAX_STAGES = 8
MAX_NUMBERED = 12
ROUND_RESOLUTIONS = (
    *(200, 100, 50, 40, 30, 25, 20, 15, 12, 10, 9, 8, 7, 6, 5),
    *(4.5, 4, 3.5, 3, 2.5, 2.2, 2, 1.5, 1.2, 1),
)


@style.styled
def scree_figure(data: RunData) -> ReportFigure | None:
    """Draw held-out against in-sample eigenvalues and the agreement of the half-sets."""
    components = data.components
    if not len(components):
        return None
    figure = style.new_figure(4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_eigenvalues(left, components)
    _draw_agreement(right, components)
    caption = (
        "Left: the variance of the molecule's density along each component. Bars: measured on particles "
        "that the component was not computed from (held out), which is the honest number. Open circles: "
        "measured on the same particles (in sample); a circle far above its bar means that the component "
        "has fitted noise. Right: how far two independent halves of the particles agree on the component "
        "(1: fully), and how much of it looks like mere changes of contrast, rotation or position (above the "
        "dotted line: most of it). Hatched, grey components are not reproducible: do not interpret them."
    )
    return ReportFigure("How much each component varies", caption, figure)


def _draw_eigenvalues(axes: Axes, components: Components) -> None:
    """Draw bars for held-out and circles for in-sample eigenvalues."""
    number = np.arange(1, len(components) + 1)
    for is_good, color, hatch, name in (
        (True, style.BLUE, None, "held out"),
        (False, "white", "////", "held out, not reproducible"),
    ):
        chosen = components.is_reproducible == is_good
        if chosen.any():
            edge = style.BLUE if is_good else style.GREY
            value = components.eigenvalue[chosen]
            axes.bar(number[chosen], value, 0.62, color=color, edgecolor=edge, hatch=hatch, label=name)
    axes.plot(
        number,
        components.eigenvalue_in_sample,
        "o",
        color=style.VERMILLION,
        markerfacecolor="white",
        markersize=6.5,
        markeredgewidth=1.6,
        label="in sample",
    )
    for x, value, fraction in zip(number, components.eigenvalue, components.fraction, strict=True):
        if len(components) <= MAX_NUMBERED and np.isfinite(fraction):
            top = np.nanmax([value, components.eigenvalue_in_sample[x - 1]])
            axes.annotate(
                f"{100 * fraction:.0f}%",
                (x, top),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.set(title="Eigenvalues (% of their sum)", ylabel="variance of the density")
    _number_components(axes, len(components))
    axes.grid(False, axis="x")
    axes.legend()


def _draw_agreement(axes: Axes, components: Components) -> None:
    """Draw the agreement of the halves and the overlap with nuisance directions."""
    number = np.arange(1, len(components) + 1)
    axes.plot(number, components.half_set_agreement, "-", color=style.PALE, zorder=1)
    for is_good, face in ((True, style.BLUE), (False, "white")):
        chosen = components.is_reproducible == is_good
        if not chosen.any():
            continue
        axes.plot(
            number[chosen],
            components.half_set_agreement[chosen],
            "o",
            color=style.BLUE if is_good else style.GREY,
            markerfacecolor=face,
            markersize=8,
            markeredgewidth=1.6,
            label="half-set agreement" if is_good else "not reproducible",
        )
    axes.plot(
        number, components.nuisance_overlap, "x", color=style.ORANGE, label="nuisance overlap", markersize=7
    )
    axes.axhline(0.5, color=style.ORANGE, linewidth=1, linestyle=":")
    axes.set(title="Reproducibility", ylim=(-0.04, 1.06))
    _number_components(axes, len(components))
    axes.legend(loc="best", handletextpad=0.3)


def _number_components(axes: Axes, n_components: int) -> None:
    """Number the components along the horizontal axis, which never holds fewer than three places."""
    axes.set(xlabel="component", xlim=(0.4, max(n_components, 3) + 0.6))
    if n_components <= MAX_NUMBERED:
        axes.set_xticks(range(1, n_components + 1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@style.styled
def fsc_figure(data: RunData) -> ReportFigure | None:
    """Draw the Fourier shell correlations of the mean and of the covariance."""
    if data.fsc is None or not len(data.fsc["frequency"]):
        return None
    frequency = data.fsc["frequency"]
    figure = style.new_figure(4.2)
    axes = figure.add_subplot()
    axes.axhline(FSC_THRESHOLD, color=style.GREY, linewidth=1, linestyle="--")
    axes.annotate(
        "0.143", (1, FSC_THRESHOLD), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=9, color=style.GREY, annotation_clip=False,
    )  # fmt: skip
    axes.axhline(0, color=style.PALE, linewidth=0.8)
    axes.plot(frequency, data.fsc["fsc_mean"], color=style.BLUE, label="mean map")
    axes.plot(
        frequency, data.fsc["fsc_covariance"], color=style.VERMILLION, linestyle="-.", label="covariance"
    )
    crossing = resolution_at_threshold(frequency, data.fsc["fsc_mean"])
    if crossing is not None and crossing[1]:
        axes.plot([1 / crossing[0]], [FSC_THRESHOLD], "o", color=style.BLUE)
        axes.annotate(
            f"{crossing[0]:.1f} Å", (1 / crossing[0], FSC_THRESHOLD), (8, 10), textcoords="offset points",
            color=style.BLUE, fontweight="bold",
        )  # fmt: skip
    axes.set(ylabel="correlation", ylim=(min(-0.05, _lowest(data)), 1.03), xlim=(0, frequency.max()))
    _label_resolution(axes, frequency)
    axes.legend(loc="upper right")
    caption = (
        "Correlation of two maps, each from one half of the particles, shell by shell in Fourier space. "
        "Where the blue curve crosses 0.143 is the resolution of the mean map. The second curve is the same "
        "comparison for the variability itself (the diagonal of the covariance): motions are defined up to "
        "the detail at which it falls, always coarser than the mean."
    )
    return ReportFigure("Resolution of the mean and of the variability", caption, figure)


def _lowest(data: RunData) -> float:
    """Return the lowest finite correlation, for the axis."""
    assert data.fsc is not None
    values = np.concatenate([data.fsc["fsc_mean"], data.fsc["fsc_covariance"]])
    finite = values[np.isfinite(values)]
    return float(finite.min()) - 0.03 if len(finite) else 0.0


def _label_resolution(axes: Axes, frequency: NDArray[np.floating]) -> None:
    """Label a frequency axis with the resolution in Angstrom."""
    highest = float(frequency.max())
    shown: list[float] = []
    for resolution in ROUND_RESOLUTIONS:
        previous = 1 / shown[-1] if shown else 0.0
        if 1 / resolution <= highest and 1 / resolution - previous >= 0.06 * highest:
            shown.append(resolution)
    axes.xaxis.set_major_locator(FixedLocator([1 / resolution for resolution in shown]))
    axes.set_xticklabels([f"{resolution:g}" for resolution in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("resolution (Å)")


@style.styled
def noise_figure(data: RunData) -> ReportFigure | None:
    """Draw the noise variance of every optics group."""
    if data.noise is None or not len(data.noise["frequency"]):
        return None
    noise = data.noise
    group = np.asarray(noise["group"]) if "group" in noise else np.zeros(len(noise["frequency"]))
    names = list(dict.fromkeys(group.tolist()))
    figure = style.new_figure(3.4)
    axes = figure.add_subplot()
    for index, name in enumerate(names[:MAX_NOISE_GROUPS]):
        rows = group == name
        axes.plot(
            noise["frequency"][rows], noise["noise_variance"][rows], color=style.category_color(index),
            label=printable(f"optics group {name}"),
        )  # fmt: skip
    axes.set_yscale("log")
    style.plain_log_axis(axes.yaxis)
    axes.set(ylabel="variance per pixel", xlim=(0, noise["frequency"].max()))
    _label_resolution(axes, noise["frequency"])
    if len(names) > 1:
        axes.legend(ncols=2)
    caption = (
        "Variance of the noise in the preprocessed images. It should be smooth; a spike points at an "
        "artefact in the images at that resolution, a steep fall at the right edge at images that were "
        "low-pass filtered."
    )
    if len(names) > MAX_NOISE_GROUPS:
        caption += f" The first {MAX_NOISE_GROUPS} of {len(names)} optics groups are drawn."
    return ReportFigure("Noise spectrum", caption, figure)


@style.styled
def convergence_figure(data: RunData) -> ReportFigure | None:
    """Draw the objective against time, one panel per stage, one line per half."""
    if data.metrics is None or not len(data.metrics["seconds"]):
        return None
    metrics = data.metrics
    keys = list(zip(metrics["stage"].tolist(), metrics["shell_max"].tolist(), strict=True))
    rows_of = {key: np.array([other == key for other in keys]) for key in dict.fromkeys(keys)}
    # One value is no curve.
    shown = [key for key, rows in rows_of.items() if np.isfinite(metrics["objective"][rows]).sum() > 1]
    if not shown:
        return None
    shown = shown[-MAX_STAGES:]
    n_columns = min(4, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure = style.new_figure(0.9 + 2.1 * n_rows)
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes, (stage, shell_max) in zip(panels.flat, shown, strict=False):
        _draw_stage(axes, metrics, rows_of[stage, shell_max])
        axes.set_title(f"{stage}, shells to {shell_max:g}" if np.isfinite(shell_max) else stage, fontsize=9)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    figure.supxlabel("seconds since the start", fontsize=10)
    figure.supylabel("objective above its lowest", fontsize=10)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    caption = (
        "The quantity that the fit lowers, one panel per stage (values of different stages cannot be "
        "compared), one line per half of the particles. Curves that have become flat have converged."
    )
    return ReportFigure("Convergence", caption, figure)


def _draw_stage(axes: Axes, metrics: Table, rows: NDArray[np.bool_]) -> None:
    """Draw the objective of one stage, one line per half."""
    seconds, objective = metrics["seconds"][rows], metrics["objective"][rows]
    half = metrics["half"][rows]
    for index, name in enumerate(dict.fromkeys(half.tolist())):
        chosen = half == name
        axes.plot(
            seconds[chosen],
            objective[chosen] - np.nanmin(objective[chosen]),
            ".-" if index == 0 else ".--",
            color=style.category_color(index),
            label=f"half {name}" if name in ("1", "2") else name or "all particles",
            linewidth=1.4,
            markersize=5,
        )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8)
