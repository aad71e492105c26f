"""Where windows begin and end, worked out by hand, and that they cover what they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.data.windows import count_text, pack

TEXT = {
    "nothing": (0, 4, 0),
    "one token predicts nothing": (1, 4, 0),
    "two tokens": (2, 4, 1),
    "just one window": (5, 4, 1),  # tokens 0..4: four targets
    "one more": (6, 4, 2),
}


@pytest.mark.parametrize(("tokens", "length", "windows"), TEXT.values(), ids=TEXT.keys())
def test_windows_of_text(tokens: int, length: int, windows: int) -> None:
    assert count_text(tokens, length) == windows


PACKED = {
    "no documents": ([], [], []),
    "two fit": ([3, 2, 5], [(0, 5), (5, 10)], [False, False]),
    "one does not": ([3, 3], [(0, 3), (3, 6)], [False, False]),
    "too long is cut": ([2, 7, 1], [(0, 2), (2, 7), (9, 10)], [False, True, False]),
}


@pytest.mark.parametrize(("lengths", "windows", "cut"), PACKED.values(), ids=PACKED.keys())
def test_packing_into_five_tokens(
    lengths: list[int], windows: list[tuple[int, int]], cut: list[bool]
) -> None:
    packed, was_cut = pack(np.array(lengths, dtype=np.int64), 4)
    assert [tuple(window) for window in packed.tolist()] == windows
    assert was_cut.tolist() == cut


@given(lengths=st.lists(st.integers(1, 30), max_size=60), length=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_document_begins_in_one_window(lengths: list[int], length: int) -> None:
    windows, _ = pack(np.array(lengths, dtype=np.int64), length)
    starts = np.cumsum([0, *lengths])[:-1]
    inside = [((windows[:, 0] <= start) & (start < windows[:, 1])).sum() for start in starts]
    assert inside == [1] * len(lengths)
    assert all(stop - start <= length + 1 for start, stop in windows)
