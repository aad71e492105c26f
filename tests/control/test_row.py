"""The row of names: whatever is done to it, it is as the tuple that the same was done to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.control.row import BLOCK, Row

sizes = st.sampled_from([0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7])
deeds = st.lists(
    st.tuples(st.booleans(), st.sets(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5)), max_size=6
)


@given(sizes, deeds)
def test_it_is_a_tuple_that_shares(size: int, done: list[tuple[bool, set[float]]]) -> None:
    plain = tuple(f"n{place}" for place in range(size))
    row, rows = Row(plain), [(Row(plain), plain)]
    for number, (change, shares) in enumerate(done):
        places = {int(share * len(plain)) for share in shares} if plain else set()
        if change:
            row = row.changed({place: f"m{number}-{place}" for place in places})
            plain = tuple(f"m{number}-{at}" if at in places else name for at, name in enumerate(plain))
        else:
            row = row.without(places)
            plain = tuple(name for at, name in enumerate(plain) if at not in places)
        rows.append((row, plain))
    for one, same in rows:  # the earlier ones too, which never change
        assert one == same
        assert same == one
        assert one == Row(same)
        assert (len(one), tuple(one), hash(one)) == (len(same), same, hash(same))
        assert [one[place] for place in range(-len(same), len(same))] == [*same, *same]
        assert one[1:-1] == same[1:-1]
        for outside in (len(same), len(same) + BLOCK, -len(same) - 1):
            with pytest.raises(IndexError):
                one[outside]
        if same:
            assert one != (*same[:-1], "other")
            assert one.index(same[-1]) == len(same) - 1


def test_nothing_changed_is_the_same() -> None:
    row = Row(("a", "b"))
    assert row.changed({}) is row
    assert row.without(()) is row
    with pytest.raises(IndexError):
        row.changed({2: "c"})
    with pytest.raises(IndexError):
        row.without([-1])
