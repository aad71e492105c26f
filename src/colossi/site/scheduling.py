"""
From a spec to a plan: design, choice of power, the shortest schedule, and what limits it.

The plan from front to back, pod after pod, has the earliest first training. The solver's is taken only where
it is shorter; its bound says how much shorter any could be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from colossi.errors import BadInput
from colossi.site.bounds import lower_bound
from colossi.site.bridging import Supply, firm_feeds, supply
from colossi.site.cluster import design as design_of
from colossi.site.construction import construction, kilowatts, workdays
from colossi.site.design import Design
from colossi.site.limits import Link, busy, chain, hours_by_reason
from colossi.site.milestones import FIRST_RACK, Milestone, last_milestone, milestones
from colossi.site.options import Choice, choices, chosen, front_to_back_plan
from colossi.site.project import Project, Schedule
from colossi.site.solve import solve
from colossi.site.timetable import timetable
from colossi.site.workdays import Workdays
from colossi.spec.construction import ConstructionSpec, TaskOverride
from colossi.spec.spec import Spec


class Tell(Protocol):
    """Hears how far a labelled piece of work is, and how it stands."""

    def __call__(self, label: str, done: float, total: float | None, note: str = "") -> None: ...


FASTER = 1.1  # times the racks a week, to say what that is worth
SOONER = 7.0  # days
SLOW = 4  # kinds of tasks that are tried in half their time


@dataclass(frozen=True)
class Lever:
    """A change, and by how many days the last pod is earlier for it."""

    change: str
    days: float


@dataclass(frozen=True)
class Plan:
    """How a cluster is built."""

    spec: Spec
    design: Design
    calendar: Workdays
    choices: list[Choice]
    choice: Choice
    why: str  # it was chosen
    schedule: Schedule
    milestones: list[Milestone]
    links: dict[str, list[Link]]  # the critical chain to each milestone
    busy: dict[str, float]  # share of each resource's hours in use from the first rack to the last pod
    kilowatts: int  # that all racks take
    levers: list[Lever] = field(default_factory=list)  # where they were tried

    @property
    def project(self) -> Project:
        return self.choice.project

    @property
    def construction(self) -> ConstructionSpec:
        return construction_of(self.spec)

    @property
    def gpus(self) -> int:
        return self.design.nodes * self.design.node.gpus

    def hour_of(self, name: str) -> int:
        """Of a milestone."""
        return next(each.hour for each in self.milestones if each.name == name)

    @property
    def last(self) -> Milestone:
        """All GPUs are accepted."""
        name = last_milestone(self.construction.existing_gpus, self.gpus)
        return next(each for each in self.milestones if each.name == name)

    def hours_by_reason(self, milestone: Milestone) -> dict[str, int]:
        """What the hours until then went to; most first."""
        first = self.calendar.hour_at(self.construction.deliveries.first_day)
        return hours_by_reason(self.links[milestone.name], first)


def construction_of(spec: Spec) -> ConstructionSpec:
    """The table, which must be there."""
    if spec.construction is None:
        raise BadInput("table [construction] is missing", "add it: see [construction] in docs/spec.md")
    return spec.construction


def overhead(spec: Spec) -> float:
    """Watts of the site for each watt in racks [1]."""
    assert spec.site is not None
    return 1 + spec.site.cooling.overhead


def gpu_hour(spec: Spec, design: Design) -> float:
    """What a GPU earns [dollars an hour]: prices.gpu_hour, or the catalogue's rent."""
    return spec.prices.gpu_hour or design.node.gpu.price * 3600


def plan(
    spec: Spec,
    seconds: float = 60.0,
    tell: Tell = lambda label, done, total, note="": None,
) -> Plan:
    """Plan the construction; `seconds` are for the solver."""
    built = construction_of(spec)
    design = design_of(spec)
    assert spec.site is not None
    design = replace(design, feeds=tuple(firm_feeds(design.feeds, spec.site.redundancy)))
    pue = overhead(spec)
    found = choices(
        design, built, pue, gpu_hour(spec, design), lambda done, total: tell("offers of power", done, total)
    )
    choice, why = chosen(found)
    schedule = solved(choice, seconds, tell)
    calendar, gpus = workdays(built), design.nodes * design.node.gpus
    reached = milestones(choice.project, schedule.starts, built.existing_gpus, gpus)
    name = last_milestone(built.existing_gpus, gpus)
    end = next(each.hour for each in reached if each.name == name)
    begin = next(each.hour for each in reached if each.name == FIRST_RACK)
    links = {each.name: chain(choice.project, schedule.starts, each.task) for each in reached}
    return Plan(
        spec,
        design,
        calendar,
        found,
        choice,
        why,
        schedule,
        reached,
        links,
        busy(choice.project, schedule.starts, begin, end),
        int(kilowatts(design, pue).sum()),
    )


def with_levers(plan: Plan, tell: Tell = lambda label, done, total, note="": None) -> Plan:
    """The same, with what one change would gain."""
    slow = [kind for kind in plan.hours_by_reason(plan.last) if kind in plan.construction.kinds][:SLOW]
    found = levers(plan.design, plan.construction, overhead(plan.spec), plan.choice, slow, tell)
    return replace(plan, levers=found)


def solved(choice: Choice, seconds: float, tell: Tell) -> Schedule:
    """The choice's own plan with the solver's bound, or the solver's plan where it is shorter."""
    project = choice.project
    length = max(choice.starts[task.name] + task.duration for task in project.tasks)

    def hear(incumbent: int | None, bound: int, spent: float) -> None:
        best = min(length, incumbent) if incumbent is not None else length
        note = f"plan of {best:,} h, none is shorter than {bound:,} h"
        tell("solving (s)", min(spent, seconds), seconds, note)

    bound = lower_bound(project, timetable(project))
    if bound == length or seconds <= 0:
        return Schedule(choice.starts, length, bound)
    better = solve(project, seconds, hear)
    if better.makespan < length:
        return better
    return Schedule(choice.starts, length, better.bound)


def levers(
    design: Design,
    spec: ConstructionSpec,
    pue: float,
    choice: Choice,
    slow: Sequence[str],
    tell: Tell,
) -> list[Lever]:
    """What one change would gain, each tried alone on plans from front to back; the most first.

    `slow` are kinds of tasks that are tried in half their time.
    """
    tried = dict(changes(spec, slow))
    need = int(kilowatts(design, pue).sum())
    found = []
    for done, (change, changed) in enumerate(tried.items()):
        tell("what would help", done, len(tried) + 1)
        given = supply(design.feeds, changed, choice.offers, workdays(changed))
        found.append(Lever(change, choice.days - _days(design, changed, pue, given)))
    if choice.supply.steps[0][1] < need:
        at_once = Supply((), ((0, need),), ())
        found.append(Lever("all power from the first day", choice.days - _days(design, spec, pue, at_once)))
    tell("what would help", len(tried) + 1, len(tried) + 1)
    return sorted(found, key=lambda lever: -lever.days)


def changes(spec: ConstructionSpec, kinds: Sequence[str]) -> Iterator[tuple[str, ConstructionSpec]]:
    """Other ways to build: what is changed, and the table with it; `kinds` of tasks in half their time."""
    come = spec.deliveries
    faster = come.model_copy(update={"racks_a_week": come.racks_a_week * FASTER})
    sooner = come.model_copy(update={"first_day": max(come.first_day - SOONER, 0.0)})
    yield f"{FASTER - 1:.0%} more racks a week", spec.model_copy(update={"deliveries": faster})
    if come.first_day:
        days = min(SOONER, come.first_day)
        yield f"the first lot {days:g} days sooner", spec.model_copy(update={"deliveries": sooner})
    for trade, number in spec.crews.model_dump().items():
        crews = spec.crews.model_copy(update={trade: number + 1})
        what = "dock" if trade == "docks" else f"crew of {trade}"
        yield f"one more {what}", spec.model_copy(update={"crews": crews})
    for kind in kinds:
        low, likely, high = (hours / 2 for hours in spec.kinds[kind].hours)
        override = TaskOverride(hours=(low, likely, high), after=spec.kinds[kind].after, source="tried")
        yield f"{kind} in half the time", spec.model_copy(update={"tasks": {**spec.tasks, kind: override}})


def _days(design: Design, spec: ConstructionSpec, pue: float, given: Supply) -> float:
    """To the last pod, built from front to back."""
    project = construction(design, spec, pue, given)
    reached = milestones(project, front_to_back_plan(project), 0, design.nodes * design.node.gpus)
    return workdays(spec).day(reached[-1].hour)
