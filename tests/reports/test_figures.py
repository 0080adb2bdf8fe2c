"""Every figure is drawn, shows something, repeats, and copes with runs that lack things."""

from __future__ import annotations

import dataclasses
import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from solvar_engine.contract.results import ImageResults
from solvar_engine.contract.run import FIGURE_NAMES, SEARCH_FIGURES
from solvar_engine.figures.latent import leading_pairs
from solvar_engine.figures.maps import clearest_axis
from solvar_engine.figures.poses import direction_density
from solvar_engine.figures.slices import central_window
from solvar_engine.reports import draw_figures, load_run
from solvar_engine.reports.figures import DOTS_PER_INCH, WIDTH, convergence_figure, fsc_figure, scree_figure
from tests.reports.synthetic_run import write_synthetic_run

FIGURES = tuple(name for name in FIGURE_NAMES if name not in SEARCH_FIGURES)


def decode(png: bytes) -> np.ndarray:
    """Read a PNG as (y, x, rgba) between 0 and 1."""
    return imread(io.BytesIO(png), format="png")


def test_all_figures_are_drawn_in_the_order_of_the_catalogue(pictures):
    assert tuple(picture.name for picture in pictures) == FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_with_content_and_a_caption(pictures, name):
    picture = next(picture for picture in pictures if picture.name == name)
    pixels = decode(picture.png)
    assert pixels.shape[1] == WIDTH * DOTS_PER_INCH
    is_drawn = (np.abs(pixels[..., :3] - 1) > 0.1).any(axis=2)
    assert 0.01 < is_drawn.mean() < 0.9  # neither empty nor all ink
    assert is_drawn[:, : pixels.shape[1] // 2].any() and is_drawn[:, pixels.shape[1] // 2 :].any()
    assert len(picture.caption) > 60 and picture.caption.endswith(".")


def test_drawing_again_gives_the_same_bytes_and_leaves_no_settings_behind(data, pictures):
    before = dict(mpl.rcParams)
    again = {
        picture.name: picture.png for picture in draw_figures(dataclasses.replace(data, eigenvolumes=[]))
    }
    assert dict(mpl.rcParams) == before
    for name in ("scree", "latent", "umap", "fsc"):
        assert again[name] == next(picture.png for picture in pictures if picture.name == name)


@pytest.mark.parametrize(
    ("rank", "n_particles", "absent"),
    [
        (0, 300, {"scree", "states", "latent", "histograms", "umap"}),
        (1, 300, {"latent"}),
        (2, 3, set()),
    ],
)
def test_runs_with_few_components_or_particles(tmp_path, rank, n_particles, absent):
    run, arrays = write_synthetic_run(tmp_path / "run", rank=rank, n_particles=n_particles)
    data = load_run(run)
    if rank:
        data = dataclasses.replace(data, embedding=np.resize(arrays.z, (n_particles, 2)))
    assert {picture.name for picture in draw_figures(data)} == set(FIGURES) - absent


def test_missing_data_leave_out_their_figures_only(data):
    bare = dataclasses.replace(
        data,
        mean=None,
        eigenvolumes=[],
        noise=None,
        fsc=None,
        metrics=None,
        images=ImageResults(),
        embedding=None,
        cluster=None,
    )
    assert {picture.name for picture in draw_figures(bare)} == {"scree", "latent", "histograms"}


def test_components_that_are_not_reproducible_are_marked(data):
    left, right = scree_figure(data).figure.axes
    assert [bool(bar.get_hatch()) for bar in left.patches] == [False, False, True, True]
    filled = {line.get_label(): len(line.get_xdata()) for line in right.lines}
    assert filled["half-set agreement"] == 2 and filled["not reproducible"] == 2


def test_eigenvalues_are_drawn_at_their_values(data):
    left = scree_figure(data).figure.axes[0]
    heights = [bar.get_height() for bar in left.patches]
    np.testing.assert_allclose(heights, data.components.eigenvalue)


def test_the_fsc_figure_marks_the_resolution(data):
    axes = fsc_figure(data).figure.axes[0]
    assert any(text.get_text() == "7.9 Å" for text in axes.texts)
    ticks = [float(label.get_text()) for label in axes.get_xticklabels()]
    np.testing.assert_allclose(1 / np.array(ticks), axes.get_xticks())


def test_convergence_has_one_panel_per_stage_and_one_line_per_half(data):
    panels = [axes for axes in convergence_figure(data).figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "marching, shells to 2", "marching, shells to 4", "marching, shells to 7", "final, shells to 7",
    ]  # fmt: skip
    assert all(len(axes.lines) == 2 for axes in panels)


def test_uniform_directions_have_uniform_density():
    rng = np.random.default_rng(0)
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, 100_000)))
    _, _, density = direction_density(np.stack([rng.uniform(-180, 180, 100_000), tilt], axis=1))
    assert np.abs(density - 1).max() < 0.4
    assert abs(density.mean() - 1) < 0.02


def test_a_single_direction_is_found_where_it_is():
    longitude, latitude, density = direction_density(np.full((50, 2), [60.0, 30.0]))
    row, column = np.unravel_index(density.argmax(), density.shape)
    assert np.rad2deg(latitude[row]) == pytest.approx(60, abs=4)
    assert np.rad2deg(longitude[column]) == pytest.approx(60, abs=4)


def test_leading_pairs_prefer_reproducible_components():
    assert leading_pairs(np.array([True, True])) == [(0, 1)]
    assert leading_pairs(np.array([True, False, True, False])) == [(0, 1), (0, 2), (1, 2)]
    assert (2, 5) in leading_pairs(np.array([True, True, True, False, False, True]))
    assert len(leading_pairs(np.ones(10, dtype=bool))) == 6


def test_central_window_holds_the_mask_and_stays_centred():
    mask = np.zeros((32, 32, 32))
    mask[16, 16, 21] = 1
    assert central_window(mask, 32) == slice(8, 25)
    assert central_window(np.zeros((32, 32, 32)), 32) == slice(0, 32)
    assert central_window(None, 32) == slice(0, 32)


def test_clearest_axis_is_the_one_that_hides_least():
    volume = np.zeros((8, 8, 8))
    volume[2, 4, 4], volume[6, 4, 4] = 1, -1
    assert clearest_axis(volume) == 1  # along z, axis 0, the two would cancel
    assert clearest_axis(volume.transpose(1, 0, 2)) == 0
