"""Which images see the molecule in which frame, beside brute force over all sequences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from solvar_engine.estimation.judging import other_frames
from solvar_engine.estimation.judging.other_frames import (
    OtherFrames,
    followed_frames,
    frame_between_ends,
    neighbours_tell,
)
from solvar_engine.imaging.frames import Frame
from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.options import SliceOptions
from tests.imaging.test_frames import BOX, MOVE, PIXEL_SIZE, PLACES, TURN, blobs, places_in
from tests.reconstruction.simulated import LinearPhantom, simulate


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


@pytest.mark.parametrize("seed", range(5))
def test_images_that_gain_by_chance_tell_nothing_of_their_neighbours(seed):
    """A path among them finds runs of such that gain, but not those between, as in a list that was joined."""
    rng = np.random.default_rng(seed)
    at_random = rng.normal(-0.5, 6.0, 2000)
    assert followed_frames(np.stack((np.zeros(2000), at_random), axis=1)).sum() > 100
    assert not neighbours_tell(at_random)
    assert neighbours_tell(at_random + 6.0 * (np.arange(2000) >= 1500))


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


@pytest.mark.parametrize("second_hand", [False, True])
def test_frames_that_are_found_one_after_the_other_are_those_of_both_steps(second_hand):
    generator = torch.Generator().manual_seed(1)
    pose = Pose(random_rotations(6, generator).double(), torch.randn(6, 2, generator=generator).double())
    turns, moves = random_rotations(2, generator).double(), torch.randn(2, 3, generator=generator).double()
    first, second = Frame(turns[0], moves[0], True), Frame(turns[1], moves[1], second_hand)
    number = torch.arange(6)
    by_group = OtherFrames.none(6).and_one_more(first, (0.2, 0.98), number % 2 == 1)
    by_row = OtherFrames.none(6).and_one_more(second, (0.1, 0.99), number >= 3)
    together = by_group.then(by_row)
    assert len(together) == 3 and not together.of_image[[0, 2]].any()
    assert together.of_image[1] and together.of_image[4] != together.of_image[3]
    expected, found = by_row.in_one(by_group.in_one(pose)), together.in_one(pose)
    torch.testing.assert_close(found.rotation, expected.rotation)
    torch.testing.assert_close(found.shift, expected.shift)
    of_both = together.of_image[5] - 1
    assert together.is_mirrored[of_both] == (not second_hand)
    agreements = float(together.agreement[of_both]), float(together.agreement_in_frame[of_both])
    assert agreements == pytest.approx((0.1, 0.98))


def test_frames_that_no_motion_leads_to_are_told_and_chosen():
    near = rotvec_to_rotation(torch.tensor([[0.0, 0.0, 0.7]], dtype=torch.float64))[0]
    far, move = near @ near, torch.zeros(3, dtype=torch.float64)
    found = OtherFrames.none(6)
    for number, frame in enumerate((Frame(far, move, False), Frame(near, move, False), Frame(near, move, True))):
        found = found.and_one_more(frame, (0.1, 0.9), torch.arange(6) // 2 == number)
    assert found.is_far.tolist() == [True, False, True]
    chosen = found.only(found.is_far)
    assert chosen.of_image.tolist() == [1, 1, 0, 0, 2, 2]
    torch.testing.assert_close(chosen.rotation, torch.stack((far, near)))
    assert chosen.is_mirrored.tolist() == [False, True]


def between(first, second):
    """What is said of two volumes that three and seven of ten images show."""
    difference = torch.from_numpy(first - second)
    length = difference.norm()
    z = torch.where(torch.arange(1000) % 10 < 3, 0.7 * length, -0.3 * length)
    mean = 0.3 * torch.from_numpy(first) + 0.7 * torch.from_numpy(second)
    return frame_between_ends(mean, difference / length, z, torch.ones(BOX // 2), PIXEL_SIZE)


def test_states_that_are_one_molecule_in_two_frames_are_recognised():
    frame = Frame(TURN, MOVE, True)
    found, before, after = between(blobs(places_in(frame)), blobs(PLACES))
    assert before < 0.3 and after > 0.9 and found.is_mirrored
    assert float(angular_distance_deg(found.rotation[None], TURN[None])) < 1.5
    assert float((found.move - MOVE).norm()) < 0.3


def test_states_of_which_a_part_has_moved_are_not():
    moved = PLACES.copy()
    moved[0] = -PLACES[0]
    assert between(blobs(moved), blobs(PLACES)) is None


def test_a_list_whose_halves_are_as_large_ends(monkeypatch):
    """Each half in the frame of the other, whichever is the reference: the search must not go back and forth."""
    source = simulate(LinearPhantom.create(1), 120, 16).source
    asked = []

    def all_in_the_other(gain):
        asked.append(len(gain))
        return np.ones(len(gain), dtype=np.int64)

    monkeypatch.setattr(other_frames, "followed_frames", all_in_the_other)
    monkeypatch.setattr(other_frames, "_frames_of", lambda means, reference, also_near: [Frame.same()])
    monkeypatch.setattr(other_frames._Parts, "evidence", lambda parts, rows, mean, frame: torch.zeros(len(rows)))
    rows = source.everyone
    halves = rows[::2], rows[1::2]
    found = other_frames.find_other_frames(source, halves, rows, (rows >= 60).long(), SliceOptions())
    assert asked == [120, 120] and len(found) == 0


NEAR = rotvec_to_rotation(torch.tensor([[0.0, 0.3, 0.2]], dtype=torch.float64))[0]


@pytest.mark.parametrize(("of_near", "is_far"), [(9.0, False), (3.0, True)])
def test_a_frame_that_no_motion_leads_to_counts_only_where_it_is_much_likelier(of_near, is_far, monkeypatch):
    """Classes of a part that has turned a little, which fits itself from the other side as well."""
    reference = part_mean(blobs(PLACES))
    means = [part_mean(blobs(places_in(Frame(NEAR, MOVE, False))))] * 2
    parts = parts_of(monkeypatch, means)
    far = Frame(NEAR @ torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)), MOVE, True)

    def evidence(self, rows, mean, frame):
        gain = (10.0 if frame.is_mirrored else of_near) * (rows % 2 == 1).double()
        return torch.zeros(len(rows)).double() if frame.move.norm() == 0 else gain

    monkeypatch.setattr(other_frames._Parts, "evidence", evidence)
    frames = parts.distinct_frames(torch.arange(60), torch.arange(60) % 2, [far], reference)
    assert [frame.is_mirrored for frame in frames] == [is_far]
    if not is_far:
        assert float(angular_distance_deg(frames[0].rotation[None], NEAR[None])) < 1.0


def test_frames_that_suit_one_mean_are_one(monkeypatch):
    """Classes of one state begin in frames that differ by chance, and end in the same one."""
    parts = parts_of(monkeypatch, [part_mean(blobs(places_in(Frame(NEAR, MOVE, False))))] * 3)
    begun = [Frame(NEAR @ turn, MOVE, False) for turn in rotvec_to_rotation(0.05 * torch.eye(3).double())[:2]]
    frames = parts.distinct_frames(torch.arange(60), torch.arange(60) % 3, begun, part_mean(blobs(PLACES)))
    assert len(frames) == 1


def part_mean(volume):
    half = torch.from_numpy(volume)
    return other_frames._PartMean(half, half, torch.ones(BOX // 2), PIXEL_SIZE)


def parts_of(monkeypatch, means):
    """Parts whose means are known, in their order."""
    source, left = simulate(LinearPhantom.create(1), 60, 16).source, list(means)
    monkeypatch.setattr(other_frames._Parts, "mean", lambda self, members, share=1: left.pop())
    halves = source.everyone[::2], source.everyone[1::2]
    return other_frames._Parts(source, other_frames.LowBand.of(source), halves, SliceOptions(), is_in_order=False)
