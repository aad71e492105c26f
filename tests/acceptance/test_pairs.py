"""Everybody meets everybody once, and a slow node is seen in its own pairs."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.acceptance.pairs import medians, tournament


@given(count=st.integers(0, 40))
def test_a_full_tournament_is_each_pair_once_and_nobody_twice_in_a_round(count: int) -> None:
    nodes = [f"n{number}" for number in range(count)]
    rounds = tournament(nodes, rounds=100)
    met = [frozenset(pair) for meeting in rounds for pair in meeting]
    assert Counter(met) == Counter(map(frozenset, combinations(nodes, 2)))
    for meeting in rounds:
        players = [node for pair in meeting for node in pair]
        assert len(players) == len(set(players)) == count - count % 2


@pytest.mark.parametrize("count", [11, 1000])
def test_a_short_one_gives_everybody_nearly_as_many_pairs(count: int) -> None:
    rounds = tournament([f"n{number}" for number in range(count)], rounds=9)
    games = Counter(node for meeting in rounds for pair in meeting for node in pair)
    assert len(rounds) == 9 and set(games.values()) <= {8, 9} and len(games) == count
    assert len({frozenset(pair) for meeting in rounds for pair in meeting}) == sum(map(len, rounds))


@given(count=st.integers(4, 60), slow=st.integers(0, 59), factor=st.floats(0.01, 0.5))
def test_the_slow_node_has_the_lowest_median(count: int, slow: int, factor: float) -> None:
    nodes = [f"n{number}" for number in range(count)]
    victim = nodes[slow % count]
    rates = {pair: factor if victim in pair else 1.0 for meeting in tournament(nodes) for pair in meeting}
    found = medians(rates)
    assert found[victim] == factor
    assert all(found[node] == 1.0 for node in nodes if node != victim)
