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

POPULATION = 60  # 30 and 60 were tried on four hard instances of j120: 60 is 0.5% better after 4 s
SWAP = 0.05  # chance of each neighbouring pair to change places: Hartmann 1998, section 4.3
STALE = 60  # generations without a better plan, after which all start anew

Better = Callable[[list[int]], None]
Person = tuple[int, list[int]]  # makespan and the order that leads to it


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
    """Breed plans until `enough()`; `better` hears of each that is shorter than all before.

    A generation pairs all at random, two children a pair; the better half of young and old lives on. Where
    that leads no further, all start anew.
    """
    keys = rules(table)[0]
    shortest = makespan(table, best)

    def grown(order: list[int]) -> list[Person]:
        """Its plan, justified; nobody where it has none."""
        nonlocal shortest
        starts = earliest_starts(table, order)
        if starts is None:
            return []
        starts = justify(table, starts)
        length = makespan(table, starts)
        if length < shortest:
            shortest = length
            better(starts)
        return [(length, by_start(table, starts))]

    first = [(shortest, by_start(table, best))]
    while not enough():
        people, first = first, []
        for _ in range(POPULATION):
            if not enough():
                people += grown(_sample(table, keys, rng))
        stale, record = 0, shortest
        while not enough() and stale < STALE and people:
            rng.shuffle(people)
            young: list[Person] = []
            for one, two in zip(people[::2], people[1::2] or people, strict=False):
                for mother, father in ((one[1], two[1]), (two[1], one[1])):
                    if not enough():
                        young += grown(_mutated(table, _crossed(mother, father, rng), rng))
            people = _fittest(people + young)
            stale = 0 if people[0][0] < record else stale + 1
            record = people[0][0]


def _fittest(people: list[Person]) -> list[Person]:
    """The shortest, each order once."""
    once = {tuple(order): length for length, order in people}
    ranked = sorted(once.items(), key=lambda item: item[1])[:POPULATION]
    return [(length, list(order)) for order, length in ranked]


def _sample(table: Timetable, keys: Sequence[float], rng: random.Random) -> list[int]:
    """An order near that of the keys: each is shifted by up to a third of their range."""
    width = (max(keys) - min(keys)) / 3.0 + 1.0
    return precedence_order(table.before, table.behind, [key + width * rng.random() for key in keys])


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
