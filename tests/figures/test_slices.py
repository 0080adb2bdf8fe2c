"""Slices are cut where they say, drawn the right way up, and states are the mean plus what changes."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from solvar_engine.figures import maps, slices
from tests.figures.drawing import components, new_figure


def point(box: int, z: int, y: int, x: int) -> np.ndarray:
    volume = np.zeros((box, box, box), dtype=np.float32)
    volume[z, y, x] = 1
    return volume


def test_slices_pick_the_plane_and_the_axes():
    for box in (8, 9):
        centre = box // 2
        for axis, position, expected in (
            ("z", (centre, 1, 2), (1, 2)),
            ("y", (3, centre, 1), (3, 1)),
            ("x", (1, 2, centre), (1, 2)),
        ):
            picture = slices.central_slice(point(box, *position), axis)
            assert np.argwhere(picture).tolist() == [list(expected)]


def test_the_pictures_are_the_slices_and_the_sums():
    volume = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    figure = new_figure()
    slices.draw_slices(figure, volume, 1.5, np.ones((9, 9, 9)), is_difference=True)
    for index in range(3):
        section, total = (figure.axes[index].images[0], figure.axes[index + 3].images[0])
        np.testing.assert_array_equal(section.get_array(), volume.take(4, axis=index))
        np.testing.assert_allclose(total.get_array(), volume.sum(axis=index), atol=1e-05)
        assert section.origin == "lower"
        assert section.norm.vmin == -section.norm.vmax  # white is no change
    assert [axes.get_xlabel() for axes in figure.axes[:3]] == ["x →", "x →", "y →"]
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == ["y →", "z →", "z →"]


def test_a_montage_covers_the_mask():
    volume = np.arange(12.0)[None, :, None] * np.ones((12, 1, 12))
    mask = np.zeros((12, 12, 12))
    mask[4:9, 3:9, 4:9] = 1
    figure = new_figure()
    slices.draw_montage(figure, volume, 1.0, "y", 3, mask)
    panels = [axes for axes in figure.axes if axes.images and axes.get_visible()]
    assert [axes.get_title("center") for axes in panels] == ["y = 4", "y = 6", "y = 8"]
    for axes, value in zip(panels, (4, 6, 8), strict=True):
        assert set(axes.images[0].get_array().ravel()) == {value}
    assert slices.montage_indices((0, 3), 9).tolist() == [0, 1, 2, 3]
    assert slices.mask_extent(np.zeros((4, 4, 4)), 4, "x") == (0, 3)


def test_every_montage_has_room_for_its_slices():
    for count in range(1, 49):
        rows, columns = slices.montage_shape(count)
        assert rows * columns >= count
        assert (rows - 1) * columns < count
        assert columns >= rows


def test_a_constant_volume_can_be_drawn():
    slices.draw_slices(figure := new_figure(), np.zeros((6, 6, 6)), 0.0, np.zeros((6, 6, 6)))
    figure.canvas.draw()
    assert len(figure.axes[0].texts) == 0


def test_states_are_the_mean_plus_standard_deviations_of_the_component():
    random = np.random.default_rng(2)
    mean, eigenvolume = random.normal(size=(2, 12, 12, 12)).astype(np.float32)
    eigenvolume[:, 4] += 1  # what stays in a sum along z or x, not so well along y
    table = components(("", ""))
    maps.draw_states(figure := new_figure(), mean, [eigenvolume], table, 1.0)
    axis = maps.clearest_axis(eigenvolume)
    assert figure.axes[0].get_ylabel() == f"component 1\nseen along {slices.AXES[axis]}"
    change = np.sqrt(table.eigenvalue[0]) * eigenvolume.sum(axis=axis)
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    for step, picture in zip(maps.STEPS, pictures, strict=False):
        np.testing.assert_allclose(picture, mean.sum(axis=axis) + step * change, atol=1e-4)
    np.testing.assert_allclose(pictures[-1], 4 * change, atol=1e-4)


def test_overview_of_maps_has_sections_before_sums():
    mean, eigenvolume = np.random.default_rng(3).normal(size=(2, 8, 8, 8))
    note = maps.draw_maps(figure := new_figure(), mean, [eigenvolume], components(("", "")), 1.0)
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    for start, volume in ((0, mean), (6, eigenvolume)):
        for axis in range(3):
            np.testing.assert_array_equal(pictures[start + axis], volume.take(4, axis=axis))
            np.testing.assert_allclose(pictures[start + 3 + axis], volume.sum(axis=axis))
    assert "The first 1 of 2 components are drawn." in note


def test_smoothing_is_a_gaussian_with_mirrored_edges():
    picture = np.random.default_rng(4).normal(size=(20, 15))
    np.testing.assert_allclose(maps._smoothed(picture, 1.5), gaussian_filter(picture, 1.5), atol=1e-3)
