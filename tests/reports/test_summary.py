"""The numbers and sentences at the head of a report say what the run holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from solvar_engine.contract.results import DOUBTFUL_POSES, NOT_REPRODUCIBLE, Components, resolution_at_threshold
from solvar_engine.reports import ReportData, paragraph
from solvar_engine.reports.summary import duration, key_numbers


def with_components(data: ReportData, is_reproducible: list[bool], label: str = "") -> ReportData:
    """Replace the components by equal ones of which only some are reproducible."""
    count = len(is_reproducible)
    components = Components(
        *(np.full(count, value) for value in (2.0, 2.2, 1 / max(count, 1), 0.9, 0.1)),
        label=tuple(label if is_good else NOT_REPRODUCIBLE for is_good in is_reproducible),
    )
    return dataclasses.replace(data, components=components)


def test_key_numbers(data):
    numbers = dict((label, value) for value, label in key_numbers(data))
    assert numbers["particles"] == "300"
    assert numbers["box (48 Å)"] == "16 px"
    assert numbers["per pixel"] == "3 Å"
    assert numbers["components reproducible"] == "2 of 4"
    assert numbers["resolution of the mean"] == "7.9 Å"


def test_paragraph_names_what_is_reproducible_and_what_is_not(data):
    text = paragraph(data)
    assert "300 particles (box 16 px, 3 Å per pixel)" in text
    assert "components 1 and 2 are reproducible" in text
    assert "Do not interpret components 3 and 4." in text


@pytest.mark.parametrize(
    ("is_reproducible", "sentence"),
    [
        ([], "every particle is explained by the mean map"),
        ([True], "The one fitted component is reproducible"),
        ([True, True], "All 2 fitted components are reproducible"),
        (
            [True, False],
            "component 1 is reproducible between the two halves of the particles. It carries 50 %",
        ),
        ([False, False], "None of the 2 fitted components"),
    ],
)
def test_paragraph_for_any_number_of_components(data, is_reproducible, sentence):
    assert sentence in paragraph(with_components(data, is_reproducible))


def test_paragraph_warns_of_components_that_resemble_pose_errors(data):
    text = paragraph(with_components(data, [True], label="nuisance"))
    assert "Component 1 mostly resembles changes of contrast or errors of the poses" in text


def with_decisions(data: ReportData, **decided: object) -> ReportData:
    """The run with what its fit decided, and what it doubted."""
    return dataclasses.replace(data, parameters={**data.parameters, "decided": decided, "cautions": ["mind the poses"]})


def test_cautions_come_first_and_nothing_contradicts_them(data):
    foreign = with_decisions(with_components(data, [True], DOUBTFUL_POSES), pose_gain=0.1, poses_are_foreign=True)
    assert paragraph(foreign).startswith("Mind the poses. From 300 particles")
    assert "Component 1 is no motion, but what orientations of other images leave, unless" in paragraph(foreign)
    none = with_components(data, [])
    assert "was found." in paragraph(with_decisions(none, pose_gain=0.1, poses_are_foreign=True))
    unresolved = with_decisions(none, pose_gain=None)
    assert "was found." in paragraph(unresolved) and "reaches" not in paragraph(unresolved)
    assert "resolution of the mean" not in [label for _, label in key_numbers(unresolved)]
    assert "every particle is explained" in paragraph(with_decisions(none, pose_gain=9.0, poses_are_foreign=False))


def test_many_components_are_named_as_ranges(data):
    text = paragraph(with_components(data, [True, True, False, True, False, False, False, False]))
    assert "components 1, 2 and 4 are reproducible" in text
    assert "Do not interpret components 3 and 5 to 8." in text


def test_resolution_is_where_the_curve_first_crosses():
    frequency = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    fsc = np.array([1.0, 0.9, 0.243, 0.043, 0.5])
    resolution, has_crossed = resolution_at_threshold(frequency, fsc)
    assert resolution == pytest.approx(1 / 0.25) and has_crossed


def test_resolution_at_nyquist_and_without_signal():
    frequency = np.array([0.1, 0.2])
    assert resolution_at_threshold(frequency, np.array([1.0, 0.9])) == (5.0, False)
    assert resolution_at_threshold(frequency, np.array([0.1, 0.9])) is None
    assert resolution_at_threshold(frequency, np.full(2, np.nan)) is None


def test_duration():
    assert [duration(value) for value in (4.4, 312, 7300)] == ["4 s", "5 min 12 s", "2 h 1 min"]
