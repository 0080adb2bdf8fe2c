"""Plots of the components: eigenvalues, and how far to trust them.

Each function draws into an empty figure that has constrained layout.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from solvar_engine.contract.results import NOT_REPRODUCIBLE, NUISANCE, OVERFIT
from solvar_plugin.viewers import style
from solvar_plugin.viewers.components import Components

NUISANCE_LINE = 0.5
MAX_WORDED = 8
"""Most components whose labels are written in full below the axis."""
_CLEAR = (style.BLUE, style.BLUE, "")
_KINDS = {
    NOT_REPRODUCIBLE: ("white", style.GREY, "////"),
    OVERFIT: ("white", style.VERMILLION, "...."),
    NUISANCE: ("white", style.ORANGE, "xxxx"),
}


@style.styled
def draw_eigenvalues(figure: Figure, components: Components) -> None:
    """Draw held-out and in-sample eigenvalues, and beside them how far the half-sets agree.

    Parameters
    ----------
    figure : Figure
        Empty.
    components : Components
        With at least one row.
    """
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.5, 1)})
    _draw_eigenvalue_bars(left, components)
    _draw_agreement(right, components)
    style.add_note(
        figure,
        "Left: variance of the density along each component. Bars are measured on particles that the component was "
        "not computed from (held out), circles on the same particles (in sample): a circle far above its bar means "
        "that the component has fitted noise. Right: 1 means that both halves of the particles found the same "
        "component; crosses above the dotted line mean that most of it looks like changes of contrast or errors of "
        "orientation and position. Do not interpret components with a label.",
    )


def _kind_of(label: str) -> tuple[str, str, str]:
    """Face colour, edge colour and hatching of a component by its label, the gravest remark if it has several."""
    if not label:
        return _CLEAR
    return next((kind for word, kind in _KINDS.items() if word in label), _KINDS[NOT_REPRODUCIBLE])


def _draw_eigenvalue_bars(axes: Axes, components: Components) -> None:
    """Draw bars for held-out and circles for in-sample eigenvalues."""
    number = np.arange(1, len(components) + 1)
    handles = []
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
            label="half-set agreement" if position == 0 else None,
        )
    axes.plot(
        number, components.nuisance_overlap, "x", color=style.PURPLE, label="nuisance overlap", markersize=7, mew=1.8
    )
    axes.axhline(NUISANCE_LINE, color=style.PURPLE, linewidth=1, linestyle=":")
    axes.set(ylim=(-0.04, 1.06), ylabel="from 0 to 1")
    axes.set_title("Reproducibility", pad=26)
    _label_components(axes, components)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, handletextpad=0.3, borderaxespad=0.2)
