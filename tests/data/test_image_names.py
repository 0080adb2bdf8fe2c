"""Images of two lists by their numbers and stacks, whose paths differ."""

from __future__ import annotations

import pytest

from solvar_engine.data.image_names import keys_by_stacks


def found(wanted, given):
    """Which of the given images each wanted one is, None where it is none."""
    keys = keys_by_stacks(wanted, given)
    return [keys.given.index(key) if key else None for key in keys.wanted], keys.unclear


@pytest.mark.parametrize(
    ("wanted", "given", "expected"),
    [
        (["000001@x.mrcs", "10@x.mrcs"], ["10@/far/x.mrcs", "1@/far/x.mrcs"], [1, 0]),
        # folders tell where files have one name, even if those before them differ
        (["1@a/x.mrcs", "1@b/x.mrcs"], ["1@/far/b/x.mrcs", "1@/far/a/x.mrcs"], [1, 0]),
        (["1@a/m/x.mrcs", "1@b/m/x.mrcs"], ["1@b/m/x.mrcs", "1@c/a/m/x.mrcs"], [1, 0]),
        (["1@a/x.mrcs", "1@y.mrcs"], ["1@b/y.mrcs", "1@b/x.mrcs"], [1, 0]),
        (["1@a/x.mrcs"], ["1@old/a/x.mrcs", "1@a/x.mrcs"], [1]),
        (["1@>J1/x.mrcs", "1@>J2/x.mrcs"], ["1@p/J2/x.mrcs", "1@p/J1/x.mrcs"], [1, 0]),
        # one stack by two paths, as no number is there twice
        (["1@a/x.mrcs", "2@x.mrcs"], ["2@x.mrcs", "1@x.mrcs"], [1, 0]),
        # the images of several stacks are not those of one
        (["1@a/x.mrcs", "1@b/x.mrcs"], ["1@a/x.mrcs"], [0, None]),
        (["1@a/x.mrcs", "1@b/x.mrcs"], ["1@c/x.mrcs"], [None, None]),
        (["2@a/x.mrcs"], ["1@a/x.mrcs", "2@b/x.mrcs"], [None]),
    ],
)
def test_stacks_are_those_that_are_most_alike(wanted, given, expected):
    assert found(wanted, given) == (expected, None)


def test_stacks_that_nothing_tells_apart_are_named():
    rows, unclear = found(["1@z.mrcs", "1@a/x.mrcs"], ["1@b/x.mrcs", "1@c/x.mrcs", "1@z.mrcs"])
    assert rows == [2, None] and unclear == ("a/x.mrcs", ["b/x.mrcs", "c/x.mrcs"])
