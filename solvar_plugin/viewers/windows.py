"""Windows with plots, as Scipion opens them."""

from __future__ import annotations

from typing import Any, Callable

from pwem.viewers import EmPlotter

from solvar_plugin.viewers import style


def plot(title: str, size: tuple[float, float], draw: Callable[..., Any], *arguments: Any) -> EmPlotter:
    """Draw into a new window, which is shown when Scipion asks the plotter to.

    Parameters
    ----------
    title : str
        Of the window and above the plot.
    size : (float, float)
        Width and height, inches of 100 pixels.
    draw : callable
        Draws into an empty figure, its first argument. What it returns lives as long as the window.
    *arguments
        Passed on to `draw`.

    Returns
    -------
    EmPlotter
        One plot, not shown yet.
    """
    plotter = EmPlotter(figsize=size, dpi=style.DOTS_PER_INCH, windowTitle=f"SOLVAR: {title}")
    # its own layout would fight with that of the plots
    plotter.tightLayoutOn = False
    figure = plotter.getFigure()
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
    try:
        figure.solvar_kept = draw(figure, *arguments)
        style.styled(style.add_title)(figure, title)
    except BaseException:
        # an empty window would come up with the next plot
        plotter.close()
        raise
    return plotter
