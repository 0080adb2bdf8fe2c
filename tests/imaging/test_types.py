"""The nouns: what they promise about indexing and devices."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from solvar_engine.imaging.types import Pose, Volume


def make_pose() -> Pose:
    return Pose(torch.arange(36.0).reshape(4, 3, 3), torch.arange(8.0).reshape(4, 2))


@pytest.mark.parametrize(
    "index", [slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True, False])], ids=str
)
def test_particles_are_chosen_from_all_fields_together(index: slice | torch.Tensor) -> None:
    chosen = make_pose()[index]
    assert isinstance(chosen, Pose)
    assert len(chosen) == 2
    assert chosen.shift.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert chosen.rotation[:, 0, 0].tolist() == [9.0, 18.0]


def test_moving_to_the_same_device_keeps_everything() -> None:
    pose = make_pose()
    moved = pose.to("cpu")
    assert torch.equal(moved.rotation, pose.rotation)
    assert torch.equal(moved.shift, pose.shift)


def test_they_cannot_be_changed_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_pose().shift = torch.zeros(4, 2)  # type: ignore[misc]


def test_volume_knows_its_box() -> None:
    assert Volume(torch.zeros(7, 7, 7), 2.0).box_size == 7
