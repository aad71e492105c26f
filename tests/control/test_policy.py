"""The policies, with values worked out by hand or taken from their sources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.control import policy


@pytest.mark.parametrize(
    "write, between_failures, interval",
    [
        # 200,000 GPUs at Llama 3's rate fail every 912 s; a write of 1 s. Young: sqrt(2 * 912) = 42.7.
        # Daly: 42.708 (1 + sqrt(1/1824)/3 + (1/1824)/9) - 1 = 42.708 * 1.007866 - 1 = 42.04
        (1.0, 912.0, 42.04),
        # RELIABILITY.md, section 4: 16,384 GPUs, w 60 s, 1,116 s (by the first term 1,157 s)
        (60.0, 11_139.0, 1116.0),
        (200.0, 100.0, 100.0),  # where writing takes longer than running: never mind
    ],
)
def test_checkpoint_interval(write: float, between_failures: float, interval: float) -> None:
    assert policy.checkpoint_interval(write, between_failures) == pytest.approx(interval, rel=2e-3)


def test_how_long_a_worker_may_be_silent() -> None:
    assert policy.hung_after(None) == 600.0
    assert policy.hung_after(0.05) == 10.0
    assert policy.hung_after(6.0) == 30.0


def test_how_long_a_node_may_be_silent() -> None:
    assert policy.lost_after() == 15.0
    assert policy.lost_after(1.0) == 3.0


def test_lemons() -> None:
    day = 86_400.0
    assert not policy.is_lemon([day, day + 1], now=day + 2)
    assert policy.is_lemon([day, day + 1, day + 2], now=day + 2)
    assert not policy.is_lemon([0.0, day + 1, day + 2], now=day + 2)  # the first was longer ago than a day
    assert not policy.is_lemon([1.0] * 10, now=1.0, limit=None)


def test_when_to_give_up() -> None:
    assert not policy.is_hopeless(by_workers=2, by_nodes=57)
    assert policy.is_hopeless(by_workers=3, by_nodes=0)
    assert policy.is_hopeless(by_workers=2, by_nodes=58)
    assert not policy.is_hopeless(by_workers=5, by_nodes=0, limit=6)
    assert policy.is_hopeless(by_workers=3, by_nodes=0, nodes=64)
    assert not policy.is_hopeless(by_workers=11, by_nodes=40, nodes=25_600)  # 400 * 64: nine doublings
    assert policy.is_hopeless(by_workers=12, by_nodes=0, nodes=25_600)


@pytest.mark.parametrize(
    "racks, buddies",
    [
        ("", ()),
        ("a", (None,)),
        ("aa", (1, 0)),
        ("aaa", (1, 2, 0)),
        ("ab", (1, 0)),
        ("aabb", (2, 3, 0, 1)),
        ("abab", (1, 0, 3, 2)),  # sorted by rack 0 2 1 3, and shifted by two
        ("aaab", (3, 0, 1, 2)),  # only one of the three can have the other rack
    ],
)
def test_buddies(racks: str, buddies: tuple[int | None, ...]) -> None:
    assert policy.buddy_places(list(racks)) == buddies


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=40))
def test_buddies_are_others_and_in_other_racks_where_that_can_be(racks: list[str]) -> None:
    buddies = policy.buddy_places(racks)
    count = len(racks)
    assert sorted(buddy for buddy in buddies if buddy is not None) == list(range(count))
    assert all(buddy != place for place, buddy in enumerate(buddies))
    own = sum(buddy is not None and racks[buddy] == racks[place] for place, buddy in enumerate(buddies))
    largest = max(map(racks.count, set(racks)))
    assert own == max(0, 2 * largest - count)  # who is too many for the places in all other racks
