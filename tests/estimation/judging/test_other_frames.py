"""Which images see the molecule in which frame, beside brute force over all sequences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from solvar_engine.estimation.judging.other_frames import OtherFrames, followed_frames
from solvar_engine.imaging.frames import Frame
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Pose


@pytest.mark.parametrize("seed", range(4))
def test_the_likeliest_sequence_is_found(seed):
    generator = np.random.default_rng(seed)
    gain = generator.normal(size=(7, 3))
    gain[generator.choice(7, 3, replace=False)] += generator.normal(scale=40.0, size=(3, 3))
    change = max(20.0, 5 * np.median(gain.max(axis=1) - gain.min(axis=1)))

    def value(path):
        changes = sum(one != other for one, other in itertools.pairwise(path))
        return sum(gain[row, frame] for row, frame in enumerate(path)) - change * changes

    best = max(itertools.product(range(3), repeat=7), key=value)
    assert value(followed_frames(gain).tolist()) == pytest.approx(value(best))


def test_images_that_tell_nothing_stay_with_their_neighbours():
    gain = np.zeros((60, 2))
    gain[:20, 0], gain[40:, 1] = 5.0, 5.0
    found = followed_frames(gain)
    assert not found[:20].any() and found[40:].all()
    assert np.count_nonzero(np.diff(found)) == 1


def test_single_clear_images_do_not_change_frames():
    gain = np.zeros((40, 2))
    gain[:, 0] = 100.0
    gain[[7, 15, 16], 1] = 300.0
    assert not followed_frames(gain).any()
    gain[25:, 1] = 300.0
    assert np.flatnonzero(followed_frames(gain)).tolist() == list(range(25, 40))


def test_poses_of_each_frame_are_brought_into_one():
    generator = torch.Generator().manual_seed(0)
    pose = Pose(random_rotations(4, generator), torch.randn(4, 2, generator=generator))
    turn, move = random_rotations(1, generator)[0].double(), torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    frames = Frame(turn, move, True), Frame(turn.T, -move, False)
    found = OtherFrames.none(4)
    for frame, row in zip(frames, (1, 3), strict=True):
        found = found.and_one_more(frame, (0.1, 0.9), torch.arange(4) == row)
    together = found.in_one(pose)
    assert found.of_image.tolist() == [0, 1, 0, 2]
    for row, frame in ((1, frames[0]), (3, frames[1])):
        expected = frame.posed(pose[row : row + 1])
        torch.testing.assert_close(together.rotation[row], expected.rotation[0])
        torch.testing.assert_close(together.shift[row], expected.shift[0])
    torch.testing.assert_close(together.rotation[::2], pose.rotation[::2])
    torch.testing.assert_close(together.shift[::2], pose.shift[::2])
