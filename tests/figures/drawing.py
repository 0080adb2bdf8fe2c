"""What the tests of this folder draw into, and components to draw."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from solvar_engine.contract.results import Components


def new_figure() -> Figure:
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def components(labels: tuple[str, ...]) -> Components:
    rank = len(labels)
    eigenvalue = np.arange(rank, 0, -1.0)
    return Components(
        eigenvalue,
        1.2 * eigenvalue,
        eigenvalue / eigenvalue.sum(),
        np.linspace(0.9, 0.1, rank),
        np.linspace(0.1, 0.9, rank),
        labels,
    )
