"""
Why a schedule is as long as it is: the chain that sets its end, how far each task can slip, who is busy when.

Two floats, said apart: by paths alone (if crews were no matter), and with the crews (nothing moves earlier,
all may move later). The chain is Goldratt's, "Critical Chain" (1997): links are dates, tasks that are
waited for, and resources that another task frees or gives.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colossi.site.bounds import tails
from colossi.site.project import Project, Schedule, Task
from colossi.site.timetable import Timetable, latest_starts, timetable

Ints = NDArray[np.int64]
Steps = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Link:
    """A task of the chain and what it waited for."""

    task: str
    start: int
    end: int
    why: str  # "start", "date", "task", "resource" (freed or given by a task), "supply" (its step), "choice"
    by: str = ""  # the task that was waited for
    resource: str = ""  # what was waited for, where it was one


@dataclass(frozen=True)
class Criticality:
    """The chain from the first link to the last, and how many units each task may slip."""

    chain: tuple[Link, ...]
    path_float: dict[str, int]  # by precedence alone: the project would not be later if crews were no matter
    resource_float: dict[str, int]  # also with the crews, when all that follows moves as late as it can

    @property
    def kinds(self) -> dict[str, int]:
        """Units of the chain by what it waited for: resources by name, or "start", "date", "task"."""
        units: dict[str, int] = {}
        for link in self.chain:
            word = link.resource or link.why
            units[word] = units.get(word, 0) + link.end - link.start
        return units


@dataclass(frozen=True)
class Curve:
    """Steps: from times[i] on, `taken` (used and held) of `there` (with what is given by then)."""

    times: Ints
    taken: Ints
    there: Ints

    @property
    def use(self) -> Steps:
        """(unit, amount that is taken from then on)."""
        return list(zip(self.times.tolist(), self.taken.tolist(), strict=True))

    @property
    def supply(self) -> Steps:
        """(unit, amount that there is from then on)."""
        return list(zip(self.times.tolist(), self.there.tolist(), strict=True))


def critical(project: Project, schedule: Schedule) -> Criticality:
    """Of a schedule that is feasible."""
    table = timetable(project)
    starts = [schedule.starts[task.name] for task in project.tasks]
    rest = tails(table)
    late = latest_starts(table, starts, schedule.makespan) or starts
    late = _release(table, late, schedule.makespan)
    return Criticality(
        tuple(_chain(project, schedule)),
        {
            task.name: schedule.makespan - rest[index] - task.duration - starts[index]
            for index, task in enumerate(project.tasks)
        },
        {task.name: late[index] - starts[index] for index, task in enumerate(project.tasks)},
    )


def curves(project: Project, schedule: Schedule) -> dict[str, Curve]:
    """Of each resource, from unit 0 to the end of the project."""
    return {each.name: curve_of(project, schedule.starts, each.name) for each in project.resources}


def curve_of(project: Project, starts: Mapping[str, int], name: str) -> Curve:
    """Of one resource."""
    steps = next(resource.steps for resource in project.resources if resource.name == name)
    there, taken = {0: 0}, {0: 0}
    amount = 0
    for time, new in steps:
        there[time] = there.get(time, 0) + new - amount
        amount = new
    for task in project.tasks:
        start = starts[task.name]
        end = start + task.duration
        use, hold, give = task.uses.get(name, 0), task.holds.get(name, 0), task.gives.get(name, 0)
        if use or hold:
            taken[start] = taken.get(start, 0) + use + hold
            taken[end] = taken.get(end, 0) - use
        if give:
            there[end] = there.get(end, 0) + give
    times = np.array(sorted(there.keys() | taken.keys()), dtype=np.int64)
    columns = [np.cumsum([column.get(int(time), 0) for time in times]) for column in (taken, there)]
    return Curve(times, columns[0], columns[1])


def _release(table: Timetable, late: list[int], deadline: int) -> list[int]:
    """Those that stayed where they were while the others moved: as far as each can slip now, unit by unit."""
    left = table.left + [table.left[-1]] * (deadline + 1 - len(table.left))
    for task, start in enumerate(late):
        _change(table, left, task, start, -1)
    moved = list(late)
    order = sorted((task for task, pinned in enumerate(table.pinned) if pinned), key=lambda task: -late[task])
    for task in order:
        length, guard = table.durations[task], table.guard
        bound = min((moved[other] - lag for other, lag in table.behind[task]), default=deadline) - length
        start = moved[task]
        _change(table, left, task, start, 1)
        while start < bound:
            # one unit later: what it left must do without its gift, what it enters must have room for it
            leaves, enters = left[start + length], left[start + length] - table.needs[task]
            fits = enters if length else leaves
            if fits & guard != guard:
                break
            start += 1
        moved[task] = start
        _change(table, left, task, start, -1)
    return moved


def _change(table: Timetable, left: list[int], task: int, start: int, sign: int) -> None:
    end = start + table.durations[task]
    for unit in range(start, end):
        left[unit] += sign * table.needs[task]
    change = sign * (table.holds[task] - table.gives[task])
    if change:
        for unit in range(end, len(left)):
            left[unit] += change


def _chain(project: Project, schedule: Schedule) -> list[Link]:
    tasks = {task.name: task for task in project.tasks}
    ends = {task.name: schedule.starts[task.name] + task.duration for task in project.tasks}
    by_end: dict[int, list[Task]] = {}
    for task in project.tasks:
        by_end.setdefault(ends[task.name], []).append(task)
    all_curves = curves(project, schedule)
    seen: set[str] = set()
    links: list[Link] = []
    name = max(ends, key=lambda task: (ends[task], schedule.starts[task]))
    while name and name not in seen:
        seen.add(name)
        link = next(_causes(tasks[name], schedule, ends, by_end, all_curves))
        links.append(link)
        name = link.by
    return links[::-1]


def _causes(
    task: Task,
    schedule: Schedule,
    ends: dict[str, int],
    by_end: dict[int, list[Task]],
    all_curves: dict[str, Curve],
) -> Iterator[Link]:
    """What kept it from an earlier start, the plainest first; always one at least."""
    start, end = schedule.starts[task.name], ends[task.name]
    waited = [name for name, lag in task.after if ends[name] + lag == start]
    if waited:
        yield Link(task.name, start, end, "task", max(waited, key=lambda name: schedule.starts[name]))
    if start == 0:
        yield Link(task.name, start, end, "start")
    if start == task.earliest:
        yield Link(task.name, start, end, "date")
    for name in {**task.uses, **task.holds}:
        need = task.uses.get(name, 0) * bool(task.duration) + task.holds.get(name, 0)
        curve = all_curves[name]
        step = int(np.searchsorted(curve.times, start - 1, side="right")) - 1
        if curve.there[step] - curve.taken[step] >= need:
            continue
        gave = [other for other in by_end.get(start, ()) if other.gives.get(name) and other is not task]
        freed = [
            other
            for other in by_end.get(start, ())
            if other.duration and other.uses.get(name) and other is not task
        ]
        if gave or freed:
            by = max(gave or freed, key=lambda other: other.duration)
            yield Link(task.name, start, end, "resource", by.name, name)
        else:
            yield Link(task.name, start, end, "supply", "", name)
    yield Link(task.name, start, end, "choice")
