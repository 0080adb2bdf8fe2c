"""The look of all figures: colours that colour-blind readers can tell apart, light grid, one font."""

from __future__ import annotations

from functools import wraps
from typing import Any, Callable, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

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

MAX_NUMBERED = 12
"""Most components that are numbered one by one along an axis."""

ROUND_RESOLUTIONS = (
    *(200, 100, 50, 40, 30, 25, 20, 15, 12, 10, 9, 8, 7, 6, 5),
    *(4.5, 4, 3.5, 3, 2.5, 2.2, 2, 1.5, 1.2, 1),
)

_SETTINGS: dict[str, Any] = {
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
    "axes.unicode_minus": True,
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

F = TypeVar("F", bound=Callable[..., Any])


def styled(function: F) -> F:
    """Run a function that draws with the shared settings, and leave matplotlib's own as they were."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with mpl.rc_context(_SETTINGS):  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def category_color(index: int) -> str:
    """Return the colour of category ``index`` (0-based); ten colours, then again from the start; -1 is none."""
    return GREY if index < 0 else CATEGORIES[index % len(CATEGORIES)]


def density_map() -> Colormap:
    """Return a map from pale to dark, so that stray particles do not catch the eye before crowds do."""
    return ListedColormap(mpl.colormaps["YlGnBu"](np.linspace(0.22, 1.0, 256)), name="density")


def plain_log_axis(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers at 1, 2, 5, 10 ..."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def resolution_axis(axes: Axes, highest: float) -> None:
    """Label a horizontal axis of frequencies with resolutions.

    Parameters
    ----------
    axes : Axes
        Its horizontal axis is in 1/Angstrom.
    highest : float
        Largest frequency shown, 1/Angstrom.
    """
    shown: list[float] = []
    for resolution in ROUND_RESOLUTIONS:
        previous = 1 / shown[-1] if shown else 0.0
        if 1 / resolution <= highest and 1 / resolution - previous >= 0.06 * highest:
            shown.append(resolution)
    axes.xaxis.set_major_locator(FixedLocator([1 / resolution for resolution in shown]))
    axes.set_xticklabels([f"{resolution:g}" for resolution in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="resolution (Å)", xlim=(0, highest))


def component_axis(axes: Axes, count: int) -> None:
    """Number the components along the horizontal axis, which never holds fewer than three places."""
    axes.set(xlabel="component", xlim=(0.4, max(count, 3) + 0.6))
    if count <= MAX_NUMBERED:
        axes.set_xticks(range(1, count + 1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(False, axis="x")


def picture_axes(axes: Axes) -> None:
    """Remove ticks, frame and grid, for pictures."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def color_bar(figure: Figure, mappable: Any, panels: Any, label: str, **options: Any) -> Any:
    """Put a thin colour bar beside panels, or below them (``location="bottom"``)."""
    bar = figure.colorbar(mappable, ax=panels, **{"aspect": 35, "pad": 0.02, **options})
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return bar


def hide_unused(panels: np.ndarray, count: int) -> None:
    """Hide all panels of a grid but the first ones."""
    for axes in panels.flat[count:]:
        axes.set_visible(False)


def subscript(number: int) -> str:
    """Write a number in subscript digits."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def scale_bar(axes: Axes, width: float, pixel_size: float, color: str = "white") -> None:
    """Draw a bar of a round number of Angstrom, at most 0.3 of the picture's width, at its lower left.

    Parameters
    ----------
    axes : Axes
        Shows a picture whose data coordinates are pixels, from 0 at its left and lower edge.
    width : float
        Of the picture, pixels.
    pixel_size : float
        Angstrom; nothing is drawn if it is not positive.
    color : str
        Of the bar and its label.
    """
    if not pixel_size > 0:
        return
    aim = 0.3 * width * pixel_size
    magnitude = 10.0 ** np.floor(np.log10(aim))
    length = max(step * magnitude for step in (1, 2, 5) if step * magnitude <= aim)
    start, stop = 0.06 * width, 0.06 * width + length / pixel_size
    axes.plot([start, stop], [start, start], color=color, linewidth=2.5, solid_capstyle="butt")
    axes.text(
        (start + stop) / 2, start + 0.025 * width, f"{length:g} Å", color=color, ha="center", va="bottom", fontsize=8
    )
