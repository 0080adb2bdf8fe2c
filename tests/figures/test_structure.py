"""Figures of a search for a structure, by what stands in their axes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from solvar_engine.contract.results import FoundStructure
from solvar_engine.figures.structure import draw_classes, draw_search


def test_resolution_over_time_is_that_of_the_shells() -> None:
    metrics = {
        "stage": np.array(["search", "search", "refinement", "other"]),
        "shell_max": np.array([4.0, 8.0, 16.0, np.nan]),
        "seconds": np.array([1.0, 2.0, 5.0, 9.0]),
    }
    figure = Figure()
    assert "finest detail" in draw_search(figure, metrics, extent=160.0)
    (axes,) = figure.axes
    steps, search, refinement = axes.lines
    np.testing.assert_allclose(steps.get_ydata(), [40, 20, 10])
    np.testing.assert_allclose(search.get_xydata(), [[1, 40], [2, 20]])
    np.testing.assert_allclose(refinement.get_xydata(), [[5, 10]])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["40", "30", "25", "20", "15", "12", "10"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["search", "refinement"]


def test_classes_have_their_share_and_resolution() -> None:
    figure = Figure()
    found = FoundStructure(True, 5.0, 0.5, 0.0, None, None, 2.0, (0.75, 0.25), (9.5, None))
    draw_classes(figure, found)
    (axes,) = figure.axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [75, 25])
    assert [text.get_text() for text in axes.texts] == ["9.5 Å", "no volume"]
