"""
A plan of a site carried out many times, with luck: when its milestones are reached, and its pods accepted.

Durations vary as the catalogue says of each kind of task, deliveries and power as [construction.risks] does.
Power is not shared out anew in each life: a rack waits for the feed or the offer that was planned for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from colossi.site.bridging import POWER
from colossi.site.milestones import FIRST_TRAINING
from colossi.site.odds import Odds, Risks, Spread, odds
from colossi.site.project import Project, Schedule, Task
from colossi.site.scheduling import Plan
from colossi.spec.construction import ConstructionSpec

FEED, WAITING, ENERGISING = "feed", "power", "energising"  # kinds of tasks here
Days = NDArray[np.float64]  # [samples] days after the start of construction


@dataclass(frozen=True)
class Chances:
    """Of a plan. `pods` are the days by which each pod is accepted [samples, pods]."""

    plan: Plan
    milestones: dict[str, Days]
    pods: Days
    odds: Odds

    @property
    def drivers(self) -> list[tuple[str, float, float]]:
        """Kind of task, share of lives in which it is on the chain to the end, rank correlation with it."""
        kinds = [kind for kind, share in self.odds.criticality.items() if share or self._moves(kind)]
        rows = [(kind, self.odds.criticality[kind], self.odds.correlation[kind]) for kind in kinds]
        return sorted(rows, key=lambda row: (-abs(row[2]), row[0]))

    def _moves(self, kind: str) -> bool:
        return abs(self.odds.correlation[kind]) > 0.3


def chances(
    plan: Plan,
    samples: int,
    seed: int = 0,
    processes: int = 1,
    tell: Callable[[int], None] = lambda done: None,
) -> Chances:
    """So many lives; the same seed gives the same ones. `tell` hears how many are done."""
    project = with_power_by_date(plan.project, plan.schedule)
    starts = plan.schedule.starts | {t.name: t.earliest for t in project.tasks if t.kind == FEED}
    length = plan.schedule.makespan
    found = odds(
        project, Schedule(starts, length, length), risks(plan.construction), samples, seed, processes, tell
    )

    def days(name: str) -> Days:
        return np.array([plan.calendar.day(int(hour)) for hour in found.milestones[name].ends])

    tasks = {task.name: task for task in project.tasks}
    reached: dict[str, Days] = {}
    for each in plan.milestones:
        task = tasks[each.task]
        if each.name == FIRST_TRAINING:
            reached[each.name] = days(task.kind)
        elif task.kind == "hand-over":
            reached[each.name] = days(task.group)
        elif not each.begins:
            reached[each.name] = days(task.kind)
    pods = [days(f"pod-{pod:03d}") for pod in range(plan.design.pods)]
    return Chances(plan, reached, np.stack(pods, axis=1), found)


def risks(spec: ConstructionSpec) -> Risks:
    """Of the spec and its kinds of tasks."""
    durations = {
        name: Spread(low / likely, 1.0, high / likely, kind.source)
        for name, kind in spec.kinds.items()
        for low, likely, high in [kind.hours]
        if low > 0 and likely > 0
    }
    said = "[construction.risks]"
    durations |= {WAITING: Spread(*spec.risks.power, said)}
    late = {"delivery": Spread(*spec.risks.deliveries, said), FEED: Spread(*spec.risks.power, said)}
    return Risks(durations, late, spec.risks.fails)


def with_power_by_date(project: Project, schedule: Schedule) -> Project:
    """The same, where each task that holds power waits for what brings it, in the planned order."""
    steps = next(each.steps for each in project.resources if each.name == POWER)
    brought: list[tuple[int, int, str]] = []  # hour, kilowatts more, the task at whose end they are there
    feeds: list[Task] = []
    before = 0
    for hour, there in steps:
        if there > before:
            feeds.append(Task(f"feed at {hour}", 0, earliest=hour, group="feeds", kind=FEED))
            brought.append((hour, there - before, feeds[-1].name))
        before = there
    for task in project.tasks:
        if more := task.gives.get(POWER):
            brought.append((schedule.starts[task.name] + task.duration, more, task.name))
    brought.sort()
    changed: dict[str, Task] = {}
    held, came, at = 0, 0, -1
    holders = (task for task in project.tasks if task.holds.get(POWER))
    for task in sorted(holders, key=lambda task: schedule.starts[task.name]):
        held += task.holds[POWER]
        while came < held:
            at += 1
            came += brought[at][1]
        waits = tuple((name, 0) for _, _, name in brought[: at + 1])
        changed[task.name] = replace(task, holds={}, after=(*task.after, *waits))
    tasks = [changed.get(task.name, task) for task in project.tasks]
    tasks = [replace(task, gives={}) if task.gives else task for task in tasks]
    others = tuple(each for each in project.resources if each.name != POWER)
    used = {name for _, _, name in brought[: at + 1]}
    return replace(project, tasks=(*(f for f in feeds if f.name in used), *tasks), resources=others)
