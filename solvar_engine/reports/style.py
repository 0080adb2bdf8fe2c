"""The look that all figures share: colours that colour-blind readers can tell apart, one font, light
background.

Figures are made with matplotlib's object interface only, so that nothing global changes and no display is
needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

# The palette of Okabe and Ito (2008), then four of Paul Tol's that stay apart from it.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
ORANGE = "#E69F00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"
INK = "#1F2933"
GREY = "#7B8794"
PALE = "#CBD2D9"
CATEGORIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, "#332288", "#999933", "#882255", "#7B8794")

SEQUENTIAL_MAP = "viridis"
DIVERGING_MAP = "RdBu_r"
VOLUME_MAP = "gray"

DOTS_PER_INCH = 150
WIDTH = 10.0
"""Width of every figure, inches."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": "#E4E7EB",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "hatch.linewidth": 0.7,
}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function that draws with the shared settings, and leave matplotlib's own as they were."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(STYLE):  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return wrapper


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of the shared width; sizes in inches."""
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


def picture_grid(n_rows: int, n_columns: int) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of square panels side by side, with room for row labels at the left and titles above.

    Parameters
    ----------
    n_rows, n_columns : int
        Number of panels.

    Returns
    -------
    figure : Figure
        Of the shared width, as high as the panels need.
    panels : ndarray of Axes, shape (n_rows, n_columns)
        Without ticks and frame.
    """
    left, top, gap, border = 0.55, 0.3, 0.06, 0.03  # inches
    edge = (WIDTH - left - border - (n_columns - 1) * gap) / n_columns
    height = top + n_rows * edge + (n_rows - 1) * gap + border
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH)
    panels = figure.subplots(
        n_rows,
        n_columns,
        squeeze=False,
        gridspec_kw={
            "left": left / WIDTH,
            "right": 1 - border / WIDTH,
            "top": 1 - top / height,
            "bottom": border / height,
            "wspace": gap / edge,
            "hspace": gap / edge,
        },
    )
    for axes in panels.flat:
        _hide_ticks(axes)
    return figure, panels


@styled
def to_png(figure: Figure) -> bytes:
    """Render a figure as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def category_color(index: int) -> str:
    """Return the colour of category ``index`` (0-based); ten colours, then again from the start."""
    return CATEGORIES[index % len(CATEGORIES)]


def density_image(axes: Axes, x: NDArray[np.floating], y: NDArray[np.floating]) -> Any:
    """Draw how many particles lie where, as hexagons on a logarithmic scale.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    x, y : ndarray, shape (n,)
        Positions.

    Returns
    -------
    matplotlib.collections.PolyCollection
        What a colour bar needs.
    """
    # Few particles need large hexagons, or each holds one.
    n_hexagons = int(np.clip(np.sqrt(len(x)) * 0.5, 12, 60))
    axes.grid(False)
    return axes.hexbin(
        x,
        y,
        gridsize=n_hexagons,
        bins="log",
        mincnt=1,
        cmap=_density_map(),
        linewidths=0.2,
        edgecolors="face",
    )


def _density_map() -> Colormap:
    """Return a map from pale to dark, so that stray particles do not catch the eye before crowds do."""
    return ListedColormap(mpl.colormaps["YlGnBu"](np.linspace(0.22, 1.0, 256)), name="density")


def plain_log_axis(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers at 1, 2, 5, 10 ..."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _hide_ticks(axes: Axes) -> None:
    """Remove ticks and frame, for pictures."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def outline_text(text: Any) -> Any:
    """Give a text a white halo, so that it can be read on any background."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    return text
