"""What components are marked as."""

from __future__ import annotations

import torch

from solvar_engine.contract.results import DOUBTFUL_POSES, NOT_REPRODUCIBLE, NUISANCE, OVERFIT, SLOW
from solvar_engine.estimation.judging.components import Components
from solvar_engine.jobs.fit.outputs import label_components
from solvar_engine.jobs.fit.results import motions_in_words


def labels_of(
    agreement: float = 0.9,
    held_out: float = 1.0,
    in_sample: float = 1.1,
    gain: float = 500.0,
    overlap: float = 0.1,
    is_slow: bool = False,
    poses_are_foreign: bool = False,
    left: float | None = None,
    gain_of_origins: float = 0.0,
) -> list[str]:
    numbers = [torch.tensor([value], dtype=torch.float64) for value in (held_out, in_sample, agreement, gain)]
    beside_errors = None if left is None else torch.tensor([left], dtype=torch.float64)
    components = Components(torch.zeros(1, 2, 2, 2), *numbers, torch.tensor([is_slow]), beside_errors)
    overlap_of = torch.tensor([overlap], dtype=torch.float64)
    return label_components(components, overlap_of, 12.0, poses_are_foreign, gain_of_origins)


def test_a_component_that_holds_is_taken_at_face_value() -> None:
    assert labels_of() == [""]


def test_components_of_noise_are_marked() -> None:
    assert labels_of(gain=11.0) == labels_of(gain=11.0, overlap=0.9, in_sample=100.0) == [NOT_REPRODUCIBLE]


def test_the_images_decide_and_not_how_well_the_halves_agree() -> None:
    assert labels_of(agreement=0.95, gain=11.0) == [NOT_REPRODUCIBLE]
    assert labels_of(agreement=0.3) == [""]


def test_a_size_that_other_images_do_not_confirm_is_overfit() -> None:
    assert labels_of(in_sample=4.0) == [OVERFIT]
    assert labels_of(in_sample=3.0) == [""]


def test_nuisance_is_measured_by_what_is_reproducible() -> None:
    assert labels_of(overlap=0.55) == [NUISANCE]
    assert labels_of(overlap=0.45) == [""]
    assert labels_of(overlap=0.45, agreement=0.6) == [NUISANCE]  # three quarters of it are reproducible
    assert labels_of(overlap=0.2, agreement=0.1) == [""]  # nearly nothing is, and that cannot be told from the rest


def test_what_images_gain_beside_errors_is_a_motion() -> None:
    assert labels_of(overlap=0.65, left=0.2) == [""]
    assert labels_of(overlap=0.65, left=0.05) == [NUISANCE]


def test_no_components_no_labels() -> None:
    components, nothing = Components.none(2), torch.zeros(0, dtype=torch.float64)
    assert label_components(components, nothing, least_gain=12.0) == []


def test_slow_backgrounds_are_named_before_other_errors() -> None:
    assert labels_of(is_slow=True) == labels_of(is_slow=True, overlap=0.9) == [SLOW]
    assert labels_of(is_slow=True, gain=11.0) == [NOT_REPRODUCIBLE]


def test_nothing_is_a_motion_where_poses_are_those_of_other_images() -> None:
    assert labels_of(poses_are_foreign=True) == labels_of(poses_are_foreign=True, overlap=0.9) == [DOUBTFUL_POSES]
    assert labels_of(poses_are_foreign=True, gain=11.0) == [NOT_REPRODUCIBLE]


def test_what_wrong_origins_may_leave_is_no_motion_yet():
    assert labels_of(gain_of_origins=501.0) == labels_of(gain_of_origins=501.0, is_slow=True) == [DOUBTFUL_POSES]
    assert labels_of(gain_of_origins=499.0) == [""]
    assert labels_of(gain_of_origins=501.0, gain=11.0) == [NOT_REPRODUCIBLE]


def test_motions_beside_what_wrong_origins_leave_are_counted():
    doubtful = [DOUBTFUL_POSES, NOT_REPRODUCIBLE]
    assert motions_in_words(doubtful) == "no motions that can be told from what wrong origins leave"
    assert motions_in_words(doubtful, poses_are_foreign=True).startswith("no motions, unless images show very many")
    assert motions_in_words(["", *doubtful]) == "2 of 3 components reproducible"
    assert motions_in_words([NOT_REPRODUCIBLE]) == "0 of 1 component reproducible"
    assert motions_in_words([]) == "no reproducible variability"
