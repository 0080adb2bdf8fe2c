"""Counts and their nouns agree."""

from __future__ import annotations

from solvar_engine.contract.words import counted


def test_counts_in_sentences():
    assert [counted(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(count, "row is", "rows are") for count in (1, 2)] == ["1 row is", "2 rows are"]
