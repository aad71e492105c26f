"""No schedule is shorter: the longest path, and for each resource the work there is against what does it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from colossi.site.project import Project
from colossi.site.timetable import Timetable

Ints = NDArray[np.int64]
CUTS = 32  # heads and tails that are tried as limits of a set of tasks


def heads(table: Timetable) -> list[int]:
    """Earliest start of each task if resources were no matter [units]."""
    starts = [0] * len(table.durations)
    for task in table.topological:
        starts[task] = max(
            (starts[other] + table.durations[other] + lag for other, lag in table.before[task]), default=0
        )
        starts[task] = max(starts[task], table.earliest[task])
    return starts


def tails(table: Timetable) -> list[int]:
    """From the end of each task to the end of the project at least, if resources were no matter [units]."""
    rests = [0] * len(table.durations)
    for task in reversed(table.topological):
        rests[task] = max(
            [lag + table.durations[other] + rests[other] for other, lag in table.behind[task]] + [0]
        )
    return rests


def lower_bound(project: Project, table: Timetable) -> int:
    """The best of the bounds that need no search [units].

    For the tasks that start no earlier than h and leave at least q behind them: h, the time in which what a
    resource can give at most does their work, and q (Carlier, "The one-machine sequencing problem", EJOR 11
    (1982), with several machines and their dates). Of what is held for ever: when enough is there for all.
    """
    first, rest = np.array(heads(table)), np.array(tails(table))
    last = np.array(table.durations)
    bound = int((first + last + rest).max())
    for resource in project.resources:
        name = resource.name
        supply = _most_there_is(resource.steps, _gifts(project, name, first + last), bound)
        uses = np.array([task.uses.get(name, 0) for task in project.tasks])
        holds = np.array([task.holds.get(name, 0) for task in project.tasks])
        if (uses * last).any():
            bound = max(bound, _by_work(supply, uses * last, first, rest))
        if holds.any():
            bound = max(bound, _by_holding(supply, holds, last + rest))
    return bound


def _gifts(project: Project, name: str, ends: Ints) -> list[tuple[int, int]]:
    return [
        (int(end), task.gives[name])
        for task, end in zip(project.tasks, ends, strict=True)
        if task.gives.get(name)
    ]


def _most_there_is(steps: Sequence[tuple[int, int]], gifts: list[tuple[int, int]], horizon: int) -> Ints:
    """In each unit of time, if all gifts came as early as they can; the last entry goes on for ever."""
    length = 1 + max([time for time, _ in steps] + [time for time, _ in gifts] + [horizon])
    amounts = np.zeros(length, dtype=np.int64)
    for time, amount in steps:
        amounts[time:] = amount
    for time, amount in gifts:
        amounts[time:] += amount
    return amounts


def _by_work(supply: Ints, work: Ints, first: Ints, rest: Ints) -> int:
    done = np.concatenate([[0], np.cumsum(supply)])
    busy = work > 0
    cuts_h = np.unique(np.quantile(first[busy], np.linspace(0, 1, CUTS), method="lower"))
    cuts_q = np.unique(np.quantile(rest[busy], np.linspace(0, 1, CUTS), method="lower"))
    best = 0
    for q in cuts_q:
        late = busy & (rest >= q)
        for h in cuts_h:
            amount = int(work[late & (first >= h)].sum())
            if not amount:
                continue
            goal = done[min(h, len(done) - 1)] + (h - min(h, len(done) - 1)) * supply[-1] + amount
            if goal <= done[-1]:
                end = int(np.searchsorted(done, goal))
            elif supply[-1]:
                end = len(done) - 1 + -(-int(goal - done[-1]) // int(supply[-1]))
            else:
                continue  # never: the search finds that out
            best = max(best, end + int(q))
    return best


def _by_holding(supply: Ints, holds: Ints, rest: Ints) -> int:
    """Of those with the longest rest from their start on, the last starts when all can hold theirs."""
    best = 0
    for q in np.unique(rest[holds > 0]):
        amount = int(holds[rest >= q].sum())
        enough = np.flatnonzero(supply >= amount)
        if len(enough):
            best = max(best, int(enough[0]) + int(q))
    return best
