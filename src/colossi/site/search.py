"""
Good plans by trying: priority rules, biased random samples, and a genetic search over the orders of tasks.

The search follows Hartmann, "A competitive genetic algorithm for resource-constrained project scheduling",
Naval Research Logistics 45 (1998), and Valls, Ballestín and Quintanilla, "A hybrid genetic algorithm for the
RCPSP", EJOR 185 (2008): every plan is justified to the right and to the left before its order is kept.
"""

import random
from collections.abc import Callable, Sequence

from colossi.site.bounds import heads, tails
from colossi.site.timetable import Timetable, by_start, earliest_starts, justify, makespan, precedence_order

POPULATION = 40  # Hartmann 1998, section 4.3
SWAP = 0.05  # chance of each neighbouring pair to change places, the same
STALE = 1500  # children without a better plan, after which all but the best start anew

Better = Callable[[list[int]], None]


def rules(table: Timetable) -> list[list[float]]:
    """Keys of priority rules, smaller first: latest finish, latest start, givers, head, successors."""
    rest, first = tails(table), heads(table)
    latest_finish = [-float(amount) for amount in rest]
    latest_start = [-float(amount) - last for amount, last in zip(rest, table.durations, strict=True)]
    behind = [-float(len(links)) for links in table.behind]
    givers_first = list(latest_start)
    far = min(latest_start, default=0.0) - 1.0
    for task in reversed(table.topological):
        if table.gives[task] or any(givers_first[other] <= far for other, _ in table.behind[task]):
            givers_first[task] = far + latest_start[task]
    by_head = [float(time) for time in first]
    return [latest_finish, latest_start, givers_first, by_head, behind]


def first_plan(table: Timetable, better: Better) -> list[int] | None:
    """The best of the priority rules, justified; None where none of them finds a place for every task."""
    best: list[int] | None = None
    for keys in rules(table):
        starts = earliest_starts(table, precedence_order(table.before, table.behind, keys))
        if starts is None:
            continue
        if best is None or makespan(table, starts) < makespan(table, best):
            best = starts
            better(best)
    if best is not None:
        best = justify(table, best)
        better(best)
    return best


def genetic(
    table: Timetable, best: list[int], better: Better, enough: Callable[[], bool], rng: random.Random
) -> None:
    """Breed plans until `enough()`; `better` hears of each that is shorter than all before."""
    shortest = makespan(table, best)
    base = rules(table)[0]
    order = by_start(table, best)
    while not enough():
        people: list[tuple[int, list[int]]] = [(shortest, order)]
        known = {tuple(order)}
        stale = 0
        while not enough() and stale < STALE:
            if len(people) < POPULATION:
                child = _sample(table, base, rng)
            else:
                mother, father = _two(people, rng)
                child = _mutated(table, _crossed(mother, father, rng), rng)
            starts = earliest_starts(table, child)
            if starts is None:
                stale += 1
                continue
            starts = justify(table, starts)
            length, child = makespan(table, starts), by_start(table, starts)
            stale += 1
            if length < shortest:
                shortest, order, stale = length, child, 0
                better(starts)
            if tuple(child) in known:
                continue
            if len(people) < POPULATION:
                people.append((length, child))
            else:
                worst = max(range(len(people)), key=lambda index: people[index][0])
                if length > people[worst][0]:
                    continue
                known.discard(tuple(people[worst][1]))
                people[worst] = (length, child)
            known.add(tuple(child))


def _sample(table: Timetable, keys: Sequence[float], rng: random.Random) -> list[int]:
    """An order near that of the keys: each is shifted by up to a third of their range."""
    width = (max(keys) - min(keys)) / 3.0 + 1.0
    return precedence_order(table.before, table.behind, [key + width * rng.random() for key in keys])


def _two(people: list[tuple[int, list[int]]], rng: random.Random) -> tuple[list[int], list[int]]:
    """Each the better of two."""

    def one() -> list[int]:
        return min(rng.choice(people), rng.choice(people), key=lambda person: person[0])[1]

    return one(), one()


def _crossed(mother: list[int], father: list[int], rng: random.Random) -> list[int]:
    """Two-point crossover of lists (Hartmann 1998): precedence holds in the child as it does in both."""
    low, high = sorted((rng.randrange(len(mother) + 1), rng.randrange(len(mother) + 1)))
    child = mother[:low]
    taken = set(child)
    middle = [task for task in father if task not in taken][: high - low]
    taken.update(middle)
    return [*child, *middle, *(task for task in mother if task not in taken)]


def _mutated(table: Timetable, order: list[int], rng: random.Random) -> list[int]:
    """Neighbours change places where neither waits for the other."""
    for place in range(len(order) - 1):
        if rng.random() < SWAP:
            one, two = order[place], order[place + 1]
            if all(other != one for other, _ in table.before[two]):
                order[place], order[place + 1] = two, one
    return order
