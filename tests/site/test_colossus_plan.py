"""Colossus's construction comes out as it was: the public dates, and the choice of power."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "validation"))
import construction as validation


@pytest.mark.long
def test_no_row_beside_the_published_is_missed() -> None:
    rows = list(validation.rows())
    assert [row.figure for row in rows if row.miss] == []
    assert {row.standing for row in rows} == {"fitted", "derived", "held out"}


def test_a_row_is_a_miss_outside_the_published_days() -> None:
    assert validation.Row("a", 120, 148, 149, "held out", "d").miss
    assert not validation.Row("a", 120, 148, 120, "held out", "d").miss
    assert validation.Row("a", 100, 100, 111, "fitted", "d").miss
    assert not validation.Row("a", 100, 100, 109, "fitted", "d").miss
