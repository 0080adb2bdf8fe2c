"""Windows with plots, as Scipion opens them."""

from __future__ import annotations

import textwrap
from typing import Any, Callable

from matplotlib.figure import Figure
from pwem.viewers import EmPlotter

from solvar_engine.figures import style

DOTS_PER_INCH = 100
"""Of windows on the screen; the largest one, 13 x 8.5 inches, fits on 1600 x 1000 pixels with its frame."""


def plot(title: str, size: tuple[float, float], draw: Callable[..., Any], *arguments: Any) -> EmPlotter:
    """Draw into a new window, which is shown when Scipion asks the plotter to.

    Parameters
    ----------
    title : str
        Of the window and above the plot.
    size : (float, float)
        Width and height, inches of 100 pixels.
    draw : callable
        Draws into an empty figure, its first argument, and returns how to read it.
    *arguments
        Passed on to `draw`.
    """
    plotter = EmPlotter(figsize=size, dpi=DOTS_PER_INCH, windowTitle=f"SOLVAR: {title}")
    # its own layout would fight with that of the plots
    plotter.tightLayoutOn = False
    figure = plotter.getFigure()
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
    try:
        _write(figure, title, draw(figure, *arguments))
    except BaseException:
        # an empty window would come up with the next plot
        plotter.close()
        raise
    return plotter


@style.styled
def _write(figure: Figure, title: str, note: str) -> None:
    """Write what a plot shows above it, and how to read it below; constrained layout keeps room for both."""
    title = textwrap.fill(title, int(10 * figure.get_figwidth()))
    figure.suptitle(title, fontsize=11.5, fontweight="bold", color=style.INK, x=0.015, ha="left")
    if note:
        # words as long as paths stay whole, so that they can be copied
        width = int(14.6 * figure.get_figwidth())
        note = textwrap.fill(note, width, break_long_words=False, break_on_hyphens=False)
        figure.supxlabel(note, fontsize=9, color=style.GREY, x=0.015, ha="left", linespacing=1.35)
