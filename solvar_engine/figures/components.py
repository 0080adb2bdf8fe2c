"""Figures of the components: eigenvalues, how far to trust them, and which stand out from decoys."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from solvar_engine.contract.results import (
    DOUBTFUL_POSES,
    NOT_REPRODUCIBLE,
    NUISANCE,
    OVERFIT,
    SLOW,
    Candidates,
    Components,
)
from solvar_engine.figures import style

NUISANCE_LINE = 0.5
MAX_WORDED = 8
"""Most components whose labels are written in full below the axis."""
_CLEAR = (style.BLUE, style.BLUE, "")
_KINDS = {
    NOT_REPRODUCIBLE: ("white", style.GREY, "////"),
    DOUBTFUL_POSES: ("white", style.VERMILLION, "oooo"),
    OVERFIT: ("white", style.VERMILLION, "...."),
    NUISANCE: ("white", style.ORANGE, "xxxx"),
    SLOW: ("white", style.PURPLE, "\\\\\\\\"),
}
_HALVES = ((-0.14, "o"), (0.14, "s"))
"""Place beside the number of the component, and mark, of each half of the particles."""


@style.styled
def draw_eigenvalues(figure: Figure, components: Components) -> str:
    """Draw held-out and in-sample eigenvalues, and beside them how far the half-sets agree.

    Parameters
    ----------
    figure : Figure
    components : Components
        With at least one row.
    """
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.5, 1)})
    _draw_eigenvalue_bars(left, components)
    _draw_agreement(right, components)
    return (
        "Left: variance of the molecule's density along each component. Bars are measured on particles that the "
        "component was not computed from (held out), which is the honest number; circles on the same particles (in "
        "sample): a circle far above its bar means that the component has fitted noise. Right: 1 means that both "
        "halves of the particles found the same component; crosses above the dotted line mean that most of it looks "
        "like changes of contrast or errors of orientation and position. Do not interpret components with a label."
    )


def _kind_of(label: str) -> tuple[str, str, str]:
    """Face colour, edge colour and hatching of a component by its label, the gravest remark if it has several."""
    if not label:
        return _CLEAR
    return next((kind for word, kind in _KINDS.items() if word in label), _KINDS[NOT_REPRODUCIBLE])


def _draw_eigenvalue_bars(axes: Axes, components: Components) -> None:
    """Draw bars for held-out and circles for in-sample eigenvalues."""
    number = np.arange(1, len(components) + 1)
    handles: list[Any] = []
    for label in dict.fromkeys(components.label):
        chosen = np.array([other == label for other in components.label])
        face, edge, hatch = _kind_of(label)
        name = "held out" + (f", {label}" if label else "")
        axes.bar(number[chosen], components.eigenvalue[chosen], 0.62, color=face, edgecolor=edge, hatch=hatch or None)
        handles.append(Patch(facecolor=face, edgecolor=edge, hatch=hatch or None, label=name))
    handles += axes.plot(
        number,
        components.eigenvalue_in_sample,
        "o",
        color=style.VERMILLION,
        markerfacecolor="white",
        markersize=6.5,
        markeredgewidth=1.6,
        label="in sample",
    )
    if len(components) <= style.MAX_NUMBERED:
        _write_fractions(axes, components)
    axes.margins(y=0.14)
    axes.set_ylim(bottom=min(0.0, float(np.nanmin(np.append(components.eigenvalue, 0.0)))))
    axes.set(ylabel="variance of the density")
    axes.set_title("Eigenvalues (% of their sum)", pad=26)
    _label_components(axes, components)
    axes.legend(handles=handles, loc="upper right")


def _write_fractions(axes: Axes, components: Components) -> None:
    """Write the share of each component above its bar."""
    tops = np.fmax(components.eigenvalue, components.eigenvalue_in_sample)
    for number, (top, fraction) in enumerate(zip(tops, components.fraction), start=1):
        if np.isfinite(top) and np.isfinite(fraction):
            text = f"{100 * fraction:.0f}%" if fraction >= 0.005 or fraction <= 0 else "<1%"
            axes.annotate(text, (number, top), (0, 7), textcoords="offset points", ha="center", fontsize=9)


def _label_components(axes: Axes, components: Components) -> None:
    """Number the components; write the label below the number, or colour the number if there are many."""
    style.component_axis(axes, len(components))
    if len(components) > style.MAX_NUMBERED:
        return
    is_worded = len(components) <= MAX_WORDED
    texts = [
        f"{number}" + ("\n" + label.replace(" ", "\n") if label and is_worded else "")
        for number, label in enumerate(components.label, start=1)
    ]
    axes.set_xticks(range(1, len(components) + 1), texts)
    for tick, label in zip(axes.get_xticklabels(), components.label):
        tick.set_color(style.VERMILLION if label else style.INK)


def _draw_agreement(axes: Axes, components: Components) -> None:
    """Draw the agreement of the halves and the overlap with nuisance directions."""
    number = np.arange(1, len(components) + 1)
    axes.plot(number, components.half_set_agreement, "-", color=style.PALE, zorder=1)
    for position, label in enumerate(dict.fromkeys(components.label)):
        chosen = np.array([other == label for other in components.label])
        face, edge, _ = _kind_of(label)
        axes.plot(
            number[chosen],
            components.half_set_agreement[chosen],
            "o",
            color=edge,
            markerfacecolor=face,
            markersize=8,
            markeredgewidth=1.6,
            label="half-set agreement" if position == 0 else label,
        )
    agreement = axes.lines[1]  # the first of its kinds; what the others are is told on the left
    overlap = axes.plot(
        number, components.nuisance_overlap, "x", color=style.PURPLE, label="nuisance overlap", markersize=7, mew=1.8
    )
    axes.axhline(NUISANCE_LINE, color=style.PURPLE, linewidth=1, linestyle=":")
    axes.set(ylim=(-0.04, 1.06), ylabel="from 0 to 1")
    axes.set_title("Reproducibility", pad=26)
    _label_components(axes, components)
    handles = [agreement, *overlap]
    spacing = {"handletextpad": 0.3, "borderaxespad": 0.2}
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, **spacing)


@style.styled
def draw_gains(figure: Figure, candidates: Candidates) -> str:
    """Draw what each component gains on held-out particles, against what meaningless ones gain.

    Parameters
    ----------
    figure : Figure
    candidates : Candidates
        With at least one row.
    """
    axes = figure.add_subplot()
    lowest = _lowest_drawn(candidates)
    for half, (offset, marker) in enumerate(_HALVES):
        place = candidates.number + offset
        axes.hlines(
            np.maximum(candidates.decoy_gain[:, half], lowest), place - 0.13, place + 0.13, color=style.VERMILLION, lw=2
        )
        for is_real, color in ((True, style.BLUE), (False, style.GREY)):
            chosen = candidates.is_real == is_real
            _draw_half(axes, place[chosen], candidates.gain[chosen, half], lowest, color, marker, filled=is_real)
    axes.set_yscale("log")
    axes.set_ylim(bottom=lowest / 1.4)
    axes.set(ylabel="gain in log-likelihood of held-out particles")
    style.component_axis(axes, len(candidates))
    axes.set_title(f"{int(candidates.is_real.sum())} of {len(candidates)} components stand out")
    style.plain_log_axis(axes.yaxis)
    figure.legend(handles=_rank_legend(), loc="outside right upper")
    return (
        "Each component was found in one half of the particles and tried on the other, once each way. It stands out if "
        "it explains the particles of both halves clearly better than every decoy does, a component of the same "
        "smoothness without any meaning (red lines), and if both halves agree on it. An automatic number of components "
        "counts those that do. Triangles at the lower edge: as good as no gain."
    )


def _lowest_drawn(candidates: Candidates) -> float:
    """Lower edge of the logarithmic axis: what gains far less than decoys need not be told apart."""
    decoys = candidates.decoy_gain[np.isfinite(candidates.decoy_gain) & (candidates.decoy_gain > 0)]
    return float(decoys.min()) / 10 if len(decoys) else 1.0


def _draw_half(
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
    options: dict[str, Any] = {"linestyle": "", "markersize": 8, "markeredgewidth": 1.6}
    return [
        Line2D([], [], color=style.BLUE, marker="o", label="stands out, first half", **options),
        Line2D([], [], color=style.BLUE, marker="s", label="stands out, second half", **options),
        Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", label="does not", **options),
        Line2D([], [], color=style.VERMILLION, lw=2, label="best decoy"),
    ]
