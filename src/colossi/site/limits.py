"""
What limits a plan: the chain of tasks, back from the last, each of which began when the one before allowed.

A task begins at its hour because another ended, a crew came free, power came, or a delivery did. The chain
that is found so accounts for every hour from the first day to the last pod.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from colossi.site.bridging import POWER
from colossi.site.critical import Steps, curve_of
from colossi.site.project import Project, Task


@dataclass(frozen=True, slots=True)
class Link:
    """A task of the chain, and why it did not begin before: "after", "crews: NAME", "power" or "delivery"."""

    task: Task
    start: int
    why: str
    waited: int  # hours from the first day on that are nobody's, as until a delivery


def chain(project: Project, starts: Mapping[str, int], last: str) -> list[Link]:
    """The critical chain to the end of a task, first link first; in a plan whose tasks begin early."""
    tasks = {task.name: task for task in project.tasks}
    ending: dict[int, list[Task]] = defaultdict(list)
    for task in project.tasks:
        ending[starts[task.name] + task.duration].append(task)
    feeds = dict(next(each.steps for each in project.resources if each.name == POWER))
    found: list[Link] = []
    name = last
    while True:
        task, start = tasks[name], starts[name]
        why, before = _reason(task, start, tasks, starts, ending, feeds)
        if before is None or starts[before] > start or (before == name):
            found.append(Link(task, start, why if start else "", start))
            return found[::-1]
        found.append(Link(task, start, why, 0))
        name = before


def _reason(
    task: Task,
    start: int,
    tasks: Mapping[str, Task],
    starts: Mapping[str, int],
    ending: Mapping[int, list[Task]],
    feeds: Mapping[int, int],
) -> tuple[str, str | None]:
    """Why it began just then, and the task that this was."""
    before = [name for name, lag in task.after if starts[name] + tasks[name].duration + lag == start]
    if before:
        return "after", max(before, key=lambda name: tasks[name].duration)
    if task.earliest == start:
        return "delivery", None
    now = ending.get(start, [])
    if task.holds and start in feeds:
        return "power", None
    if task.holds and (giving := [other.name for other in now if other.gives.get(POWER)]):
        return "power", giving[0]
    for trade in task.uses:
        if sharing := [other for other in now if trade in other.uses and other.duration]:
            return f"crews: {trade}", max(sharing, key=lambda other: other.duration).name
    ended = [name for name, _ in task.after]
    return "no haste", max(ended, key=lambda name: starts[name] + tasks[name].duration) if ended else None


def hours_by_reason(links: list[Link], first_lot: int) -> dict[str, int]:
    """Hours of the chain by what they went to: kinds of tasks, and waiting for deliveries, power and crews.

    `first_lot` is the hour of the first delivery; waiting for later ones, after it, is the makers' rate.
    """
    spent: dict[str, int] = defaultdict(int)
    for at, link in enumerate(links):
        if link.why == "delivery":
            spent["until the first lot"] += min(link.waited, first_lot)
            spent["racks as they are made"] += max(link.waited - first_lot, 0)
        elif link.waited:
            spent[f"waiting for {link.why}"] += link.waited
        following = links[at + 1] if at + 1 < len(links) else None
        end = following.start if following else link.start + link.task.duration
        if following is not None and following.why.startswith("crews"):
            spent[following.why] += end - link.start
        else:
            spent[link.task.kind] += end - link.start
    return {name: hours for name, hours in sorted(spent.items(), key=lambda item: -item[1]) if hours}


def busy(project: Project, starts: Mapping[str, int], begin: int, end: int) -> dict[str, float]:
    """Share of each crew's hours, and of the power that there is, in use between two hours [1]."""
    found = {}
    for resource in project.resources:
        curve = curve_of(project, starts, resource.name)
        if total := _area(curve.supply, begin, end):
            found[resource.name] = _area(curve.use, begin, end) / total
    return found


def _area(steps: Steps, begin: int, end: int) -> float:
    """Of a row of steps between two hours."""
    total = 0.0
    for at, (hour, amount) in enumerate(steps):
        until = steps[at + 1][0] if at + 1 < len(steps) else end
        total += max(min(until, end) - max(hour, begin), 0) * amount
    return total
