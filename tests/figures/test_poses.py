"""Changes of poses are counted with their uncertainty, and directions lie where the molecule was seen from."""

from __future__ import annotations

import numpy as np

from solvar_engine.contract.results import PoseChanges
from solvar_engine.figures import poses
from tests.figures.drawing import new_figure


def test_changes_and_uncertainties_are_counted_apart():
    random = np.random.default_rng(0)
    rotation, shift, rotation_std, shift_std = (scale * random.rayleigh(size=100) for scale in (4, 3, 2, 1))
    poses.draw_pose_changes(figure := new_figure(), PoseChanges(rotation, shift, rotation_std, shift_std))
    for axes, change, std, unit in zip(
        figure.axes, (rotation, shift), (rotation_std, shift_std), ("°", " Å"), strict=True
    ):
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        medians = [f"{np.median(values):.2f}{unit}" for values in (change, std)]
        assert texts == [f"change (median {medians[0]})", f"uncertainty (median {medians[1]})"]
        bars, outline = axes.patches[:-1], axes.patches[-1]
        assert sum(bar.get_height() for bar in bars) == 100
        middle = sum(bar.get_height() * (bar.get_x() + bar.get_width() / 2) for bar in bars) / 100
        assert abs(middle - change.mean()) < 0.1 * change.mean()
        assert outline.get_xy()[:, 1].max() > max(bar.get_height() for bar in bars)  # narrower, and so higher


def test_directions_before_and_after_share_their_colours():
    random = np.random.default_rng(0)
    even = np.stack([random.uniform(-180, 180, 4000), np.rad2deg(np.arccos(random.uniform(-1, 1, 4000)))], axis=1)
    views = {"input": even, "refined": np.full((50, 2), [60.0, 30.0])}
    note = poses.draw_directions(figure := new_figure(), views)
    before, after = figure.axes[:2]
    assert [axes.get_title("center") for axes in (before, after)] == ["input", "refined"]
    assert before.collections[0].norm.vmax == after.collections[0].norm.vmax > 2
    assert "input: Every part of the sphere has at least a fifth" in note
    assert "refined: " in note and "% of the sphere has less than a fifth" in note
