"""The order of bands, epochs and comparisons."""

from __future__ import annotations

import pytest

from solvar_engine.estimation.solver.schedule import Epoch, Schedule, epochs_of

SCHEDULE = Schedule()


@pytest.mark.parametrize("box_size", [12, 16, 23, 24, 33, 64, 100, 128, 256])
def test_marching_ends_with_the_last_complete_shell(box_size: int) -> None:
    shells = SCHEDULE.shells(box_size)
    assert shells[-1] == (box_size - 1) // 2
    assert shells == sorted(set(shells))
    assert all(later <= 2.7 * earlier for earlier, later in zip(shells, shells[1:], strict=False))


@pytest.mark.parametrize("box_size", [16, 24, 64, 100])
def test_units_visit_the_bands_in_order_and_end_each_with_a_comparison(box_size: int) -> None:
    units = SCHEDULE.units(box_size)
    shells = [unit.shell_max for unit in units]
    assert list(dict.fromkeys(shells)) == SCHEDULE.shells(box_size)
    assert shells == sorted(shells)
    ends = [unit for unit, after in zip(units, units[1:], strict=False) if unit.shell_max != after.shell_max]
    assert all(unit.ends_round for unit in ends)
    assert units[-1].ends_round and units[-1].epoch.batches == 1
    bands, band_ends = SCHEDULE.shells(box_size), SCHEDULE.band_ends(box_size)
    assert band_ends[0] == shells.count(bands[0])
    assert len(band_ends) == len(bands) and band_ends[-1] == len(units)


def test_most_work_happens_in_low_bands() -> None:
    """Passes at full resolution cost the most: at most a third of all."""
    units = SCHEDULE.units(128)
    assert sum(unit.shell_max == 63 for unit in units) <= len(units) / 3


def test_schedules_are_read() -> None:
    assert list(epochs_of("8x0.7 1x1")) == [Epoch(8, 0.7), Epoch(1, 1.0)]


def test_another_schedule_is_followed() -> None:
    schedule = Schedule(first=("2x0.5", "1x1"), middle=("3x0.4",), last=("1x0.9",), full="1x1 1x1", memory=0.0)
    units = schedule.units(64)
    assert [(unit.shell_max, unit.epoch.batches, unit.ends_round) for unit in units] == [
        (8, 2, True), (8, 1, True), (16, 3, True), (31, 1, True)
    ]  # fmt: skip
    assert schedule.full_epochs() == [Epoch(1, 1.0, 0.0)] * 2 and units[2].epoch == Epoch(3, 0.4, 0.0)
    assert schedule.first_round_units(64) == 1 and schedule.band_ends(64) == [2, 3, 4]


def test_without_marching_the_only_band_has_the_rounds_of_the_first_and_the_last() -> None:
    units = Schedule(first_shell=10_000).units(64)
    assert {unit.shell_max for unit in units} == {31}
    assert len(units) == 6 + 3
