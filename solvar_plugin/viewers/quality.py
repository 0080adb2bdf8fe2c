"""Plots that say what to trust: components that stand out from decoys, and particles that do not fit in.

Each function draws into an empty figure that has constrained layout.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from solvar_plugin.convert.rank_table import RankTable
from solvar_plugin.viewers import style

_HALVES = ((-0.14, "o"), (0.14, "s"))
"""Place beside the number of the component, and mark, of each half of the particles."""

_BULK = (0.5, 99.5)
"""Percentiles between which a histogram is spread; what lies beyond is counted at its edges."""


# ------------------------------------------------------------------------------- components


@style.styled
def draw_rank(figure: Figure, table: RankTable) -> None:
    """Draw what each component gains on held-out particles, against what meaningless ones gain.

    Parameters
    ----------
    figure : Figure
        Empty.
    table : RankTable
        With at least one row.
    """
    axes = figure.add_subplot()
    lowest = _lowest_drawn(table)
    for half, (offset, marker) in enumerate(_HALVES):
        place = table.candidate + offset
        axes.hlines(
            np.maximum(table.decoy_gain[:, half], lowest), place - 0.13, place + 0.13, color=style.VERMILLION, lw=2
        )
        for is_real, color in ((True, style.BLUE), (False, style.GREY)):
            chosen = table.is_real == is_real
            _draw_gains(axes, place[chosen], table.gain[chosen, half], lowest, color, marker, filled=is_real)
    axes.set_yscale("log")
    axes.set_ylim(bottom=lowest / 1.4)
    axes.set(ylabel="gain in log-likelihood of held-out particles")
    style.component_axis(axes, len(table))
    axes.set_title(f"{int(table.is_real.sum())} of {len(table)} components stand out")
    style.plain_log_axis(axes.yaxis)
    figure.legend(handles=_rank_legend(), loc="outside right upper")
    style.add_note(
        figure,
        "Each component was found in one half of the particles and tried on the other, once each way. It stands out if "
        "it explains the particles of both halves clearly better than every decoy does, a component of the same "
        "smoothness without any meaning (red lines), and if both halves agree on it. An automatic number of components "
        "counts those that do. Triangles at the lower edge: as good as no gain.",
    )


def _lowest_drawn(table: RankTable) -> float:
    """Lower edge of the logarithmic axis: what gains far less than decoys need not be told apart."""
    decoys = table.decoy_gain[np.isfinite(table.decoy_gain) & (table.decoy_gain > 0)]
    return float(decoys.min()) / 10 if len(decoys) else 1.0


def _draw_gains(
    axes: Axes, place: np.ndarray, gain: np.ndarray, lowest: float, color: str, marker: str, filled: bool
) -> None:
    """Draw the gains of one half; those that the axis does not show go to its lower edge."""
    face = color if filled else "white"
    for chosen, mark in ((gain > lowest, marker), (~(gain > lowest), "v")):
        axes.plot(
            place[chosen], np.maximum(gain[chosen], lowest), mark, color=color, markerfacecolor=face, markersize=8,
            markeredgewidth=1.6, linestyle="",
        )  # fmt: skip


def _rank_legend() -> list[Line2D]:
    options = {"linestyle": "", "markersize": 8, "markeredgewidth": 1.6}
    return [
        Line2D([], [], color=style.BLUE, marker="o", label="stands out, first half", **options),
        Line2D([], [], color=style.BLUE, marker="s", label="stands out, second half", **options),
        Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", label="does not", **options),
        Line2D([], [], color=style.VERMILLION, lw=2, label="best decoy"),
    ]


# ------------------------------------------------------------------------------------ particles


@style.styled
def draw_particles(
    figure: Figure, log_likelihood: np.ndarray | None, is_outlier: np.ndarray | None, contrast: np.ndarray
) -> None:
    """Draw how well the model explains the particles, and their contrast, with the outliers apart.

    Parameters
    ----------
    figure : Figure
        Empty.
    log_likelihood : ndarray, shape (n,), or None
        Of each image; None if the run does not tell.
    is_outlier : ndarray of bool, shape (n,), or None
    contrast : ndarray, shape (n,)
    """
    panels = [("log-likelihood of the image", log_likelihood), ("contrast of the image", contrast)]
    shown = [(label, values) for label, values in panels if values is not None]
    flags = np.zeros(len(contrast), dtype=bool) if is_outlier is None else is_outlier
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
        note = (
            "This run does not tell how well the model explains each particle; run the protocol again to see it. "
            + note
        )
    else:
        note = (
            "The log-likelihood says how well the model, at the particle's own place along the components, explains "
            "the image. A tail to the left, or a hill of its own, holds particles that no state of the molecule "
            f"explains: ice, overlaps, other molecules, bad orientations. {int(flags.sum()):,} of {len(flags):,} are "
            "flagged as outliers. " + note
        )
    style.add_note(figure, note)


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
            axes.hist(inside[chosen], bins=edges, color=color, alpha=0.85, label=f"{name} ({int(chosen.sum()):,})")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    style.plain_log_axis(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(6))
