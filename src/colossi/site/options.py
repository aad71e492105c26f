"""
Which offers of power to take: all their subsets are planned and priced, and one is chosen.

A choice costs the rent of its offers from the day when they come until the feeds alone suffice (a year after
the last pod, if they never do), what is paid once, and the fuel of what the feeds do not give. It is worth
the rent of the GPUs that run earlier than if one waited. With a target date, the cheapest that meets it is
chosen; without, or where none does, the one that is worth most after its cost.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

from colossi.errors import BadInput
from colossi.site.bridging import POWER, Supply, supply
from colossi.site.construction import construction, kilowatts, workdays
from colossi.site.critical import curve_of
from colossi.site.design import Design
from colossi.site.milestones import FIRST_TRAINING, Milestone, accepted, front_to_back, milestones
from colossi.site.project import Project
from colossi.site.timetable import earliest_starts, precedence_order, timetable
from colossi.site.workdays import Workdays
from colossi.spec.construction import ConstructionSpec

YEAR = 365.0  # of rent after the last pod, where the feeds never suffice


@dataclass(frozen=True)
class Choice:
    """Offers that are taken, the plan from front to back, and the money."""

    supply: Supply
    project: Project
    starts: dict[str, int]  # empty: power never reaches what all racks take
    missing: int  # kW that are lacking in the end
    reached: tuple[Milestone, ...]
    days: float  # to the last pod; infinite where power is lacking
    training_days: float
    dollars: float
    rented_until: float  # day
    gain: float  # dollars: what earlier GPUs are worth, against waiting
    meets: bool  # the target

    @property
    def offers(self) -> tuple[str, ...]:
        return self.supply.offers


def choices(
    design: Design,
    spec: ConstructionSpec,
    pue: float,
    gpu_hour: float,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Choice]:
    """All subsets of the offers, waiting first. BadInput says how much power lacks where none suffices."""
    calendar = workdays(spec)
    names = tuple(spec.offers)
    subsets = [taken for number in range(len(names) + 1) for taken in combinations(names, number)]
    need = int(kilowatts(design, pue).sum())
    planned: dict[object, Choice] = {}
    found: list[Choice] = []
    for done, taken in enumerate(subsets):
        tell(done, len(subsets))
        given = supply(design.feeds, spec, taken, calendar)
        if given.profile not in planned:
            planned[given.profile] = _planned(design, spec, pue, given, calendar)
        like = planned[given.profile]
        found.append(_priced(like, given, spec, calendar, need))
    tell(len(subsets), len(subsets))
    if not any(choice.starts for choice in found):
        least = min(found, key=lambda choice: choice.missing)
        offers = " with all offers" if names else ""
        raise BadInput(
            f"{design.name}: power never reaches what all racks take: {need / 1e3:,.1f} MW, and the feeds"
            f"{offers} give {least.supply.kilowatts / 1e3:,.1f} MW: {least.missing / 1e3:,.1f} MW too few",
            "add to site.feeds or to construction.offers",
        )
    return _valued(found, design, calendar, gpu_hour)


def chosen(found: list[Choice]) -> tuple[Choice, str]:
    """The one to build, and why."""
    good = [choice for choice in found if choice.meets]
    if good:
        best = min(good, key=lambda choice: (choice.dollars, choice.days))
        return best, "the cheapest that meets the target"
    able = [choice for choice in found if choice.starts]
    best = max(able, key=lambda choice: (choice.gain - choice.dollars, -choice.days))
    return best, "worth most after its cost"


def sensible(found: list[Choice]) -> list[Choice]:
    """Without those that another one beats or equals in days to both milestones and in dollars."""

    def beaten(one: Choice, other: Choice) -> bool:
        mine, its = ((each.days, each.training_days, each.dollars, len(each.offers)) for each in (one, other))
        return its != mine and all(b <= a for a, b in zip(mine, its, strict=True))

    return [one for one in found if not one.offers or not any(beaten(one, other) for other in found)]


def front_to_back_plan(project: Project) -> dict[str, int]:
    """Starts when pods are built as they come, and have power in that order.

    Power is then no choice of the plan's: a rack may take it once there is enough for it and all before it.
    As dates, that is many times quicker to plan than as a pool that is held. The power must suffice.
    """
    brings = [task for task in project.tasks if task.kind == "power"]
    given = _starts(replace(project, tasks=tuple(brings)), [float(at) for at in range(len(brings))])
    supplied = curve_of(replace(project, tasks=tuple(brings)), given, POWER).supply
    keys = front_to_back(project)
    order = sorted(range(len(keys)), key=lambda index: keys[index])
    tasks, held = list(project.tasks), 0
    for index in order:
        if kilowatts := tasks[index].holds.get(POWER):
            held += kilowatts
            hour = next(hour for hour, there in supplied if there >= held)
            tasks[index] = replace(tasks[index], holds={}, earliest=max(tasks[index].earliest, hour))
    crews = tuple(resource for resource in project.resources if resource.name != POWER)
    tasks = [replace(task, gives={}) if task.gives else task for task in tasks]
    return _starts(replace(project, tasks=tuple(tasks), resources=crews), keys)


def _starts(project: Project, keys: list[float]) -> dict[str, int]:
    """Each as early as it fits, smallest key first."""
    if not project.tasks:
        return {}
    table = timetable(project)
    starts = earliest_starts(table, precedence_order(table.before, table.behind, keys))
    assert starts is not None  # crews suffice for each task alone, and power for all: both are checked before
    return dict(zip((task.name for task in project.tasks), starts, strict=True))


def _planned(design: Design, spec: ConstructionSpec, pue: float, given: Supply, calendar: Workdays) -> Choice:
    project = construction(design, spec, pue, given)
    need = sum(task.holds.get(POWER, 0) for task in project.tasks)
    missing = max(need - given.kilowatts, 0)
    starts = front_to_back_plan(project) if not missing else {}
    reached = (
        milestones(project, starts, spec.existing_gpus, design.nodes * design.node.gpus) if starts else []
    )
    last = calendar.day(reached[-1].hour) if reached else float("inf")
    training = next((calendar.day(m.hour) for m in reached if m.name == FIRST_TRAINING), float("inf"))
    target = (spec.target - spec.start).days + 1 if spec.target else None  # its evening
    meets = target is not None and last <= target
    return Choice(given, project, starts, missing, tuple(reached), last, training, 0.0, 0.0, 0.0, meets)


def _priced(like: Choice, given: Supply, spec: ConstructionSpec, calendar: Workdays, need: int) -> Choice:
    """The same plan with these offers, and what they cost."""
    enough = next((calendar.day(hour) for hour, kw in given.steps if kw >= need), like.days + YEAR)
    dollars = sum(spec.offers[name].dollars * spec.offers[name].count for name in given.offers)
    if like.starts:
        comes = {task.group: task.duration for task in given.tasks if task.name.startswith("waiting for ")}
        for name in given.offers:
            offer = spec.offers[name]
            rented = max(enough - calendar.day(comes[name]), 0.0)
            dollars += offer.dollars_a_day * offer.count * rented
        dollars += _fuel(like, given, spec, calendar, enough)
    return replace(like, supply=given, dollars=dollars if like.starts else float("inf"), rented_until=enough)


def _fuel(like: Choice, given: Supply, spec: ConstructionSpec, calendar: Workdays, until: float) -> float:
    """Dollars for the MWh that racks take and feeds do not give, at the mean price of the makers' watts."""
    makers = [spec.offers[name] for name in given.offers if spec.offers[name].kind != "batteries"]
    watts = sum(offer.watts for offer in makers)
    if not watts:
        return 0.0
    price = sum(offer.fuel * offer.watts for offer in makers) / watts
    load, feeds = curve_of(like.project, like.starts, POWER).use, list(given.steps)
    times = sorted({hour for hour, _ in (*load, *feeds)})
    mwh = 0.0
    for at, hour in enumerate(times):
        begin = calendar.day(hour)
        end = min(calendar.day(times[at + 1]) if at + 1 < len(times) else until, until)
        short = max(_at(load, hour) - _at(feeds, hour), 0)
        mwh += max(end - begin, 0.0) * 24 * short / 1e3
    return mwh * price


def _at(steps: list[tuple[int, int]], hour: int) -> int:
    """The value of a row of steps at an hour."""
    value = 0
    for begin, amount in steps:
        if begin > hour:
            break
        value = amount
    return value


def _valued(found: list[Choice], design: Design, calendar: Workdays, gpu_hour: float) -> list[Choice]:
    """With the gain of each: GPU-days more than the choice that has fewest, at the price of a GPU-hour."""
    horizon = max(choice.days for choice in found if choice.starts)
    had: dict[int, float] = {}
    for choice in found:
        if choice.starts and id(choice.starts) not in had:
            pods = accepted(choice.project, choice.starts, design)
            had[id(choice.starts)] = sum(gpus * (horizon - calendar.day(hour)) for hour, gpus in pods)
    waiting = had.get(id(found[0].starts), min(had.values())) if found[0].starts else min(had.values())
    return [
        replace(choice, gain=24 * gpu_hour * (had[id(choice.starts)] - waiting)) if choice.starts else choice
        for choice in found
    ]
