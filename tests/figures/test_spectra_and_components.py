"""Curves, bars and marks are at the numbers that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from solvar_engine.contract.results import (
    NOT_REPRODUCIBLE,
    NUISANCE,
    OVERFIT,
    Candidates,
    resolution_at_threshold,
)
from solvar_engine.figures import components as component_figures
from solvar_engine.figures import images, spectra, style
from tests.figures.drawing import components, new_figure


def test_resolution_is_read_off_where_the_curve_crosses():
    frequency = np.array([0.0, 0.1, 0.2, 0.3])
    resolution, has_crossed = resolution_at_threshold(frequency, np.array([1, 1, 0.5, 0.0]), 0.25)
    assert resolution == pytest.approx(1 / 0.25, abs=5e-08)
    assert has_crossed
    resolution, has_crossed = resolution_at_threshold(frequency, np.ones(4))
    assert resolution == pytest.approx(1 / 0.3, abs=5e-08)
    assert not has_crossed
    assert resolution_at_threshold(frequency, np.zeros(4)) is None
    assert resolution_at_threshold(frequency, np.full(4, np.nan)) is None


def test_fsc_names_the_resolution_of_both_curves():
    frequency = np.arange(1, 11) / 40
    mean, covariance = (1 - np.arange(1, 11) / 10, np.ones(10))
    spectra.draw_fsc(figure := new_figure(), frequency, mean, covariance)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == f"mean map: {40 / 8.57:.1f} Å"
    assert labels[1] == "variability (diagonal of the covariance): 4.0 Å (limit of the pixel size)"
    assert [0.143, 0.143] in [list(line.get_ydata()) for line in axes.lines]
    spectra.draw_fsc(figure := new_figure(), frequency, np.zeros(10), np.full(10, np.nan))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["mean map: below 0.143 throughout"]


def test_eigenvalues_are_bars_and_circles_and_labels_are_written():
    table = components(("", NUISANCE, NOT_REPRODUCIBLE))
    component_figures.draw_eigenvalues(figure := new_figure(), table)
    axes = figure.axes[0]
    bars = sorted((bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches)
    np.testing.assert_allclose(bars, [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), table.eigenvalue_in_sample)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["held out", "held out, nuisance", "held out, not reproducible", "in sample"]
    ticks = axes.get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["1", "2\nnuisance", "3\nnot\nreproducible"]
    assert [tick.get_color() for tick in ticks] == [style.INK, style.VERMILLION, style.VERMILLION]
    hatches = {bar.get_hatch() for bar in axes.patches}
    assert len(hatches) == 3
    assert [text.get_text() for text in axes.texts] == ["50%", "33%", "17%"]


def test_the_gravest_remark_decides_how_a_component_is_drawn():
    table = components((OVERFIT, f"{NUISANCE}, {OVERFIT}", NUISANCE, "something new"))
    component_figures.draw_eigenvalues(figure := new_figure(), table)
    hatches = [bar.get_hatch() for bar in sorted(figure.axes[0].patches, key=lambda bar: bar.get_x())]
    assert hatches[0] == hatches[1]
    assert len(set(hatches)) == 3


def test_any_number_of_components_and_missing_numbers_can_be_drawn():
    for labels in (("",), (NOT_REPRODUCIBLE,), ("",) * 40, ("",) * 8 + (NUISANCE,) * 4):
        table = components(labels)
        table.eigenvalue_in_sample[0] = table.half_set_agreement[0] = np.nan
        component_figures.draw_eigenvalues(figure := new_figure(), table)
        figure.canvas.draw()
        assert len(figure.axes[0].patches) == len(labels)


def test_noise_has_one_curve_for_each_group():
    frequency, variance = (np.tile([0.0, 0.1, 0.2], 2), np.array([1.0, 2, 3, 4, 5, 0]))
    spectra.draw_noise(figure := new_figure(), frequency, variance, np.repeat(["opticsGroup1", "7"], 3))
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["opticsGroup1", "optics group 7"]
    assert lines[0].get_ydata().tolist() == [1, 2, 3]
    assert lines[1].get_ydata().tolist() == [4, 5]  # what has no logarithm is left out
    figure.canvas.draw()


def test_progress_has_one_panel_for_each_stage():
    columns = {
        "stage": np.array(["half-sets"] * 4 + ["all particles"] * 2),
        "half": np.array(["1", "2", "1", "2", "", ""]),
        "shell_max": np.array([8.0, 8, 8, 8, np.nan, np.nan]),
        "objective": np.array([9.0, 8, 5, 6, 3, np.nan]),
        "seconds": np.arange(6.0),
    }
    spectra.draw_progress(figure := new_figure(), columns)
    assert [axes.get_title("left") for axes in figure.axes] == ["half-sets, shells to 8", "all particles"]
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[4, 0], [2, 0]]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [0]


def test_gains_are_drawn_beside_those_of_the_decoys():
    gain = np.array([[900.0, 800.0], [20.0, -3.0]])
    unknown = np.full(2, np.nan)
    is_real = np.array([True, False])
    candidates = Candidates(np.array([1, 2]), unknown, unknown, gain, np.full((2, 2), 10.0), is_real)
    component_figures.draw_gains(figure := new_figure(), candidates)
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "1 of 2 components stand out"
    drawn = {
        (round(x), float(y), line.get_marker(), line.get_markerfacecolor())
        for line in axes.lines
        for x, y in zip(*line.get_data(), strict=True)
    }
    # a tenth of what decoys gain stands for no gain
    expected = {(1, 900.0, "o", style.BLUE), (1, 800.0, "s", style.BLUE), (2, 20.0, "o", "white")}
    assert drawn == expected | {(2, 1.0, "v", "white")}
    levels = [segment[0][1] for lines in axes.collections for segment in lines.get_segments()]
    assert levels == [10.0] * 4


def test_every_particle_is_counted_once_and_outliers_apart():
    random = np.random.default_rng(0)
    flags = np.arange(500) < 20
    note = images.draw_images(
        figure := new_figure(), random.normal(size=500) - 90 * flags, flags, random.normal(size=500)
    )
    for axes in figure.axes:
        counts = {
            color: sum(bar.get_height() for bar in axes.patches if to_rgb(bar.get_facecolor()) == to_rgb(color))
            for color in (style.BLUE, style.VERMILLION)
        }
        assert counts == {style.BLUE: 480, style.VERMILLION: 20}
    assert "20 of 500 are flagged" in note


def test_without_log_likelihoods_the_contrast_is_left():
    note = images.draw_images(figure := new_figure(), None, None, np.ones(50))
    figure.canvas.draw()
    assert [axes.get_xlabel() for axes in figure.axes] == ["contrast of the image"]
    assert "does not tell how well" in note
