"""Particles are drawn where they lie, in the colours of their numbers."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import NOT_REPRODUCIBLE, Latents
from solvar_engine.figures import coordinates, histograms, latent, style
from tests.figures.drawing import components, new_figure


@pytest.fixture
def axes_and_z():
    z = np.random.default_rng(0).normal(size=(200, 2))
    table = components(("", NOT_REPRODUCIBLE))
    return (*(coordinates.component_axis(table, z, index) for index in (0, 1)), z)


def test_the_scatter_holds_exactly_the_points_in_their_colours(axes_and_z):
    x, y, z = axes_and_z
    cluster = np.arange(200) % 3 + 1
    coloring = coordinates.Coloring(cluster, "cluster", is_category=True)
    latent.draw_latent(figure := new_figure(), x, y, coloring)
    drawn = figure.axes[0].collections[0]
    order = coordinates.random_subset(200)
    np.testing.assert_allclose(np.asarray(drawn.get_offsets()), z[order])
    expected = [to_rgb(style.category_color(number - 1)) for number in cluster[order]]
    np.testing.assert_allclose(drawn.get_facecolors()[:, :3], expected)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["1  (67)", "2  (67)", "3  (66)"]


def test_a_coordinate_that_must_not_be_interpreted_says_so(axes_and_z):
    x, y, z = axes_and_z
    note = latent.draw_latent(figure := new_figure(), x, y)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "z₁, coordinate along component 1"
    assert axes.get_ylabel() == "z₂, coordinate along component 2 (not reproducible)"
    assert axes.yaxis.label.get_color() == style.VERMILLION
    assert "must not be interpreted" in note


def test_colours_of_numbers_are_the_numbers(axes_and_z):
    x, y, z = axes_and_z
    contrast = np.linspace(0.5, 1.5, 200)
    latent.draw_latent(figure := new_figure(), x, y, coordinates.Coloring(contrast, "contrast"))
    drawn = figure.axes[0].collections[0]
    np.testing.assert_allclose(drawn.get_array(), contrast[coordinates.random_subset(200)])
    assert "contrast" in [axes.get_xlabel() for axes in figure.axes]


def test_equal_values_do_not_blow_up_the_colour_scale(axes_and_z):
    x, y, z = axes_and_z
    contrast = 1 + 1e-08 * np.arange(200)
    latent.draw_latent(figure := new_figure(), x, y, coordinates.Coloring(contrast, "contrast"))
    norm = figure.axes[0].collections[0].norm
    assert norm.vmax - norm.vmin > 0.05


def test_hexagons_count_every_particle_once(axes_and_z):
    x, y, z = axes_and_z
    latent.draw_latent(figure := new_figure(), x, y, drawing=coordinates.HEXAGONS)
    assert figure.axes[0].collections[0].get_array().sum() == 200


def test_hexagons_show_the_commonest_cluster_and_the_median():
    x = coordinates.Axis(np.repeat([0.0, 1.0], 5), "x", "x")
    cluster = np.array([2, 2, 1, 2, 1, 3, 3, 3, 1, 3])
    for values, is_category, expected in ((cluster, True, {2, 3}), (np.arange(10.0), False, {2, 7})):
        coloring = coordinates.Coloring(values, "value", is_category)
        latent.draw_latent(figure := new_figure(), x, x, coloring, coordinates.HEXAGONS)
        assert set(figure.axes[0].collections[0].get_array().tolist()) == expected


def test_many_particles_become_hexagons_or_a_random_part(axes_and_z):
    x, y, z = axes_and_z
    assert coordinates.choose_drawing(coordinates.MAX_AUTOMATIC_POINTS) == coordinates.POINTS
    assert coordinates.choose_drawing(coordinates.MAX_AUTOMATIC_POINTS + 1) == coordinates.HEXAGONS
    with mock.patch.object(coordinates, "MAX_POINTS", 50):
        note = latent.draw_latent(figure := new_figure(), x, y, drawing=coordinates.POINTS)
    assert len(figure.axes[0].collections[0].get_offsets()) == 50
    assert "50 of 200 particles, chosen at random, are drawn." in note


def test_marked_particles_are_on_top(axes_and_z):
    x, y, z = axes_and_z
    chosen = np.zeros(len(x.values), dtype=bool)
    chosen[[3, 5]] = True
    latent.draw_latent(figure := new_figure(), x, y, marks=coordinates.Marks(chosen, "outliers"))
    on_top = figure.axes[0].collections[-1]
    expected = np.stack([x.values, y.values], axis=1)[chosen]
    np.testing.assert_allclose(sorted(on_top.get_offsets().tolist()), sorted(expected.tolist()))
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "outliers (2)"


def test_centres_are_marked_and_numbered(axes_and_z):
    x, y, z = axes_and_z
    centres = np.array([[0.5, -0.5], [np.nan, np.nan], [1.0, 1.0]])
    latent.draw_latent(figure := new_figure(), x, y, places=coordinates.Places(centres))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "3"]
    assert [text.get_position() for text in axes.texts] == [(0.5, -0.5), (1.0, 1.0)]


def test_the_middle_of_a_ring_is_on_the_ring():
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    middles = coordinates.middles_of_clusters(ring, np.full(40, 2))
    assert np.isnan(middles[0]).all()
    assert np.linalg.norm(middles[1]) == pytest.approx(1, abs=5e-08)


def test_uncertainty_is_marginal():
    covariance = np.array([[2.0, 0.6, 0.1], [0.6, 1.0, 0.2], [0.1, 0.2, 3.0]])
    precision = np.linalg.inv(covariance)[None]
    latents = Latents(np.zeros((1, 3)), precision, np.ones(1))
    np.testing.assert_allclose(latents.uncertainty([0]), [np.sqrt(2.0)])
    np.testing.assert_allclose(latents.uncertainty([0, 2]), [np.sqrt(5.0)])
    with pytest.raises(UserError, match="infinite"):
        Latents(np.zeros((1, 2)), np.zeros((1, 2, 2)), np.ones(1)).uncertainty([0])


def test_histograms_count_every_particle(axes_and_z):
    x, y, z = axes_and_z
    histograms.draw_histograms(figure := new_figure(), [x, y])
    for axes, title in zip(figure.axes, ("component 1", "component 2\n(not reproducible)"), strict=True):
        assert sum(bar.get_height() for bar in axes.patches) == 200
        assert axes.get_title("left") == title
    assert figure.axes[1].patches[0].get_facecolor()[:3] == to_rgba(style.PALE)[:3]


def test_only_so_many_histograms_are_drawn(axes_and_z):
    x, y, z = axes_and_z
    count = histograms.MAX_HISTOGRAMS + 3
    note = histograms.draw_histograms(figure := new_figure(), [x] * count)
    assert sum(axes.get_visible() for axes in figure.axes) == histograms.MAX_HISTOGRAMS
    assert f"first {histograms.MAX_HISTOGRAMS} of {count}" in note


def test_pairs_hold_every_particle_and_number_the_centres():
    z = np.random.default_rng(0).normal(size=(200, 3)) * [1, 10, 100]
    axes_of_z = coordinates.component_axes(components(("", "", NOT_REPRODUCIBLE)), z)
    centres = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    note = latent.draw_pairs(figure := new_figure(), axes_of_z, centres)
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    names = [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels]
    third = "component 3 (not reproducible)"
    assert names == [("component 1", "component 2"), ("component 1", third), ("component 2", third)]
    for axes, columns in zip(panels, ((0, 1), (0, 2), (1, 2)), strict=True):
        assert axes.collections[0].get_array().sum() == 200
        spread = [np.ptp(limit) for limit in (axes.get_xlim(), axes.get_ylim())]
        assert np.allclose(spread, np.ptp(z[:, columns], axis=0), rtol=0.3)
    places = [[text.get_position() for text in axes.texts] for axes in panels]
    assert places == [[(0.1, 0.2), (-0.1, -0.2)], [], []]
    assert "Numbers mark the centres" in note and "Numbers" not in latent.draw_pairs(new_figure(), axes_of_z)


def test_the_map_shows_density_clusters_and_the_first_coordinate():
    random = np.random.default_rng(1)
    points, cluster = random.normal(size=(90, 2)), np.repeat([1, 2, 3], 30)
    leading = coordinates.Axis(random.normal(size=90), "component 1", "z₁")
    latent.draw_map(figure := new_figure(), points, leading, cluster)
    density, clusters, first = figure.axes[:3]
    assert density.collections[0].get_array().sum() == 90
    order = coordinates.random_subset(90)
    np.testing.assert_allclose(clusters.collections[0].get_offsets(), points[order])
    expected = [to_rgb(style.category_color(number - 1)) for number in cluster[order]]
    np.testing.assert_allclose(clusters.collections[0].get_facecolors()[:, :3], expected)
    assert [text.get_text() for text in clusters.texts] == ["1", "2", "3"]
    np.testing.assert_allclose(first.collections[0].get_array(), leading.values[order])
