"""
Serial schedule generation: tasks taken from a list, each started as early (or as late) as it then fits.

Kolisch, "Serial and parallel resource-constrained project scheduling methods revisited", EJOR 90 (1996).
All resources of one unit of time are packed into one integer, a field each with a guard bit above it; so a
task fits where `(left - need) & guard == guard`, one subtraction for all resources together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from colossi.site.project import Project

Links = list[list[tuple[int, int]]]  # of each task: the other task, the lag [units]


@dataclass(frozen=True, slots=True)
class Timetable:
    """A project by numbers: lists have an entry for each task; packed integers are described above."""

    durations: list[int]
    earliest: list[int]
    before: Links  # predecessors
    behind: Links  # successors
    needs: list[int]  # packed: while it runs, what it uses and what it holds
    holds: list[int]  # packed
    gives: list[int]  # packed
    left: list[
        int
    ]  # packed: what there is in each unit of time, guard bits set; the last entry goes on for ever
    guard: int
    topological: list[int]
    pinned: list[bool]  # stays where it is when others move to the right
    forward_lags: bool  # none is negative, so a task starts no earlier than those before it
    alike: list[int]  # tasks of one number need the same for as long; -1: not worth remembering

    @property
    def generous(self) -> bool:
        """Some task adds to a resource, so what did not fit may fit later."""
        return any(self.gives)


def timetable(project: Project) -> Timetable:
    """Of a project that `check_project` accepts."""
    tasks = project.tasks
    number = {task.name: index for index, task in enumerate(tasks)}
    before: Links = [[(number[name], lag) for name, lag in task.after] for task in tasks]
    behind: Links = [[] for _ in tasks]
    for index, links in enumerate(before):
        for other, lag in links:
            behind[other].append((index, lag))

    needed = {name for task in tasks for name in (*task.uses, *task.holds)}
    resources = [resource for resource in project.resources if resource.name in needed]
    shift, place, guard = 0, {}, 0
    for resource in resources:
        most = max((amount for _, amount in resource.steps), default=0)
        most += sum(task.gives.get(resource.name, 0) for task in tasks)
        place[resource.name] = shift
        shift += most.bit_length() + 1
        guard |= 1 << (shift - 1)

    def pack(amounts: dict[str, int]) -> int:
        return sum(amount << place[name] for name, amount in amounts.items() if name in place)

    left = [guard] * (1 + max((time for resource in resources for time, _ in resource.steps), default=0))
    for resource in resources:
        ends = [time for time, _ in resource.steps[1:]] + [len(left)]
        for (time, amount), end in zip(resource.steps, ends, strict=False):  # none of none
            for unit in range(time, end):
                left[unit] += amount << place[resource.name]

    uses, holds, gives = (
        [pack(getattr(task, word)) for task in tasks] for word in ("uses", "holds", "gives")
    )
    used = {name for task in tasks for name in task.uses}
    mixed = {name for task in tasks for name in task.holds} & used
    kinds: dict[tuple[int, int], int] = {}
    needs = [use + hold for use, hold in zip(uses, holds, strict=True)]
    alike = [
        -1 if task.holds else kinds.setdefault((need, task.duration), len(kinds))
        for task, need in zip(tasks, needs, strict=True)
    ]
    return Timetable(
        durations=[task.duration for task in tasks],
        earliest=[task.earliest for task in tasks],
        before=before,
        behind=behind,
        needs=needs,
        holds=holds,
        gives=gives,
        left=left,
        guard=guard,
        topological=precedence_order(before, behind, range(len(tasks))),
        pinned=[
            bool(give) or not mixed.isdisjoint(task.holds) for give, task in zip(gives, tasks, strict=True)
        ],
        forward_lags=all(lag >= 0 for task in tasks for _, lag in task.after),
        alike=alike if 2 * len(kinds) < len(tasks) else [-1] * len(tasks),
    )


def precedence_order(before: Links, behind: Links, keys: Sequence[float]) -> list[int]:
    """All tasks, smallest key first among those whose predecessors are listed already."""
    missing = [len(links) for links in before]
    ready = [(keys[task], task) for task, count in enumerate(missing) if not count]
    heapify(ready)
    order = []
    while ready:
        task = heappop(ready)[1]
        order.append(task)
        for other, _ in behind[task]:
            missing[other] -= 1
            if not missing[other]:
                heappush(ready, (keys[other], other))
    return order


def makespan(table: Timetable, starts: Sequence[int]) -> int:
    """End of the last task [units]."""
    return max(start + duration for start, duration in zip(starts, table.durations, strict=True))


def earliest_starts(
    table: Timetable, order: Sequence[int], durations: list[int] | None = None
) -> list[int] | None:
    """Starts when the tasks are placed in this order (predecessors first), each as early as it then fits.

    A task for which nothing is left yet waits in line for the next that gives; None: some task never fits.
    `durations` stand in for the table's own.
    """
    lasts = table.durations if durations is None else durations
    left = table.left.copy()
    starts = [-1] * len(lasts)
    seen: dict[int, tuple[int, int]] = {}
    if not table.generous:
        for task in order:
            if not _put(table, lasts, left, starts, seen, task):
                return None
        return starts
    waiting: list[int] = []
    for task in order:
        if not _put(table, lasts, left, starts, seen, task):
            waiting.append(task)
        elif table.gives[task]:
            seen.clear()
            more = bool(waiting)
            while more:
                more, rest = False, []
                for other in waiting:
                    if not _put(table, lasts, left, starts, seen, other):
                        rest.append(other)
                    elif table.gives[other]:
                        seen.clear()
                        more = True
                waiting = rest
    return None if waiting else starts


def _put(
    table: Timetable,
    lasts: list[int],
    left: list[int],
    starts: list[int],
    seen: dict[int, tuple[int, int]],
    task: int,
) -> bool:
    """Start it as early as it fits and take what it needs from `left`; False: it never fits, or not yet.

    `seen` is of tasks alike: from where on it was tried, and where it fitted; between them nothing fits.
    """
    start = table.earliest[task]
    for other, lag in table.before[task]:
        if starts[other] < 0:
            return False
        end = starts[other] + lasts[other] + lag
        if end > start:
            start = end
    need, hold, guard, length = table.needs[task], table.holds[task], table.guard, lasts[task]
    kind = table.alike[task] if lasts is table.durations else -1
    first = start
    if kind >= 0:
        tried, fitted = seen.get(kind, (0, 0))
        if tried <= start < fitted:
            start, first = fitted, tried
    if hold:
        for unit in range(len(left) - 1, start - 1, -1):
            if (left[unit] - hold) & guard != guard:
                start = unit + 1
                break
        if start >= len(left) and (left[-1] - hold) & guard != guard:
            return False
    # From the end of the window backwards, as Boyer and Moore search a text: a crowded unit moves it beyond
    # that unit, and what lies between that and the old end is known to be free.
    known, end = start, start + length
    unit = end - 1
    while True:
        try:
            while unit >= known:
                if (left[unit] - need) & guard != guard:
                    start, known = unit + 1, end
                    end = start + length
                    unit = end
                unit -= 1
            break
        except IndexError:
            if (left[-1] - need) & guard != guard:
                return False
            left.extend([left[-1]] * (end - len(left) + 64))
    if end >= len(left):  # the last entry stands for all time after it
        left.extend([left[-1]] * (end - len(left) + 64))
    if need:
        left[start:end] = [amount - need for amount in left[start:end]]
    change = table.gives[task] - hold
    if change:
        left[end:] = [amount + change for amount in left[end:]]
    if kind >= 0:
        seen[kind] = (first, start)
    starts[task] = start
    return True


def latest_starts(table: Timetable, starts: Sequence[int], deadline: int) -> list[int] | None:
    """The same plan moved to the right, the last to end first: each task as late as it then fits.

    Valls, Ballestín and Quintanilla, "Justification and RCPSP", EJOR 165 (2005). Tasks that
    give, and those that hold what others only use, stay where they are. None where some task finds no place,
    as negative lags can bring about.
    """
    lasts, guard = table.durations, table.guard
    left = table.left.copy()
    left.extend([left[-1]] * (deadline + 1 - len(left)))
    late = [-1] * len(starts)
    for task, pinned in enumerate(table.pinned):
        if pinned:
            late[task] = starts[task]
            _take(table, left, task, starts[task])
    ends = [-start - last for start, last in zip(starts, lasts, strict=True)]
    if table.forward_lags:
        order = sorted(reversed(table.topological), key=ends.__getitem__)
    else:
        order = precedence_order(table.behind, table.before, ends)
    for task in order:
        if table.pinned[task]:
            continue
        need, hold, length = table.needs[task], table.holds[task], lasts[task]
        end = deadline
        for other, lag in table.behind[task]:
            if late[other] - lag < end:
                end = late[other] - lag
        start = unit = end - length
        known = end
        while unit < known:
            if (left[unit] - need) & guard != guard:
                end, known = unit, start
                start = end - length
                if start < 0:
                    return None
                unit = start - 1
            unit += 1
        if start < table.earliest[task] or start < 0:
            return None
        if hold and any((amount - hold) & guard != guard for amount in left[end:]):
            return None
        late[task] = start
        _take(table, left, task, start)
    return late


def _take(table: Timetable, left: list[int], task: int, start: int) -> None:
    end = start + table.durations[task]
    left[start:end] = [amount - table.needs[task] for amount in left[start:end]]
    change = table.gives[task] - table.holds[task]
    if change:
        left[end:] = [amount + change for amount in left[end:]]


def by_start(table: Timetable, starts: Sequence[int]) -> list[int]:
    """The tasks as a list from which `earliest_starts` makes a plan that is no worse."""
    if table.forward_lags:
        return sorted(table.topological, key=starts.__getitem__)
    return precedence_order(table.before, table.behind, starts)


def justify(table: Timetable, starts: list[int]) -> list[int]:
    """To the right and back to the left: never longer, and often shorter."""
    late = latest_starts(table, starts, makespan(table, starts))
    again = earliest_starts(table, by_start(table, late)) if late is not None else None
    return again if again is not None and makespan(table, again) <= makespan(table, starts) else starts
