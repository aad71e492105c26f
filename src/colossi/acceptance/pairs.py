"""
Pairs of nodes, so that a slow one is found: who meets whom, and what the meetings say. Pure.

A round-robin tournament by the circle method: n - 1 rounds (n for an odd number) in which everybody meets
everybody once, n/2 pairs at a time. A large fleet plays the first rounds only: what counts is the median over
a node's own pairs, and a sound node's is sound as long as most of those that it met were.
"""

from collections.abc import Mapping, Sequence
from statistics import median

ROUNDS = 9  # at most: with one node in ten slow, five of nine partners being so has p = 1e-3
Pair = tuple[str, str]


def tournament(nodes: Sequence[str], rounds: int = ROUNDS) -> list[list[Pair]]:
    """The pairs of each round; in no round is a node in two, and none meets another twice."""
    places: list[str | None] = [*nodes]
    if len(places) % 2:
        places.append(None)  # who meets nobody has a rest
    count = len(places)
    found = []
    for turn in range(min(rounds, count - 1)):
        # One stays, the others move on by one place.
        ring = places[1:]
        order = [places[0], *ring[-turn:], *ring[:-turn]] if turn else places
        halves = zip(order[: count // 2], reversed(order[count // 2 :]), strict=True)
        found.append([(a, b) for a, b in halves if a is not None and b is not None])
    return found


def medians(rates: Mapping[Pair, float]) -> dict[str, float]:
    """For each node the median rate of its pairs; a pair that could not be counts as 0."""
    own: dict[str, list[float]] = {}
    for pair, rate in rates.items():
        for node in pair:
            own.setdefault(node, []).append(rate)
    return {node: median(values) for node, values in own.items()}
