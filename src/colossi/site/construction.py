"""
How a designed cluster is built: the places of the site, what is done in each, by whom, and after what.

Kinds of tasks come as a table (spec/construction.py); here they meet the design's halls, pods and racks. What
power there is when is in bridging.py. Solves nothing.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from colossi.site.bridging import POWER, Supply
from colossi.site.design import Design, Ints
from colossi.site.project import Project, Resource, Task
from colossi.site.workdays import Workdays
from colossi.spec.construction import ConstructionSpec, TaskKind

MOST_TASKS = 10_000  # what is solved well in two minutes
SHIFT = 8  # hours
COMMON = 8  # racks of a lot that serves all pods
LEVELS = ("site", "hall", "zone", "first pods", "pod", "rack")
ENDS = ("launch", "hand-over")  # for what else is done


@dataclass(frozen=True)
class Place:
    """Where a task is done; `within` are the names of the places around it, and itself, by level."""

    level: str
    name: str
    within: dict[str, str]
    racks: Ints  # rows of the design


def workdays(spec: ConstructionSpec) -> Workdays:
    """The working calendar."""
    return Workdays(spec.start, spec.hours_a_day, spec.days_a_week)


def needed_kinds(spec: ConstructionSpec) -> dict[str, TaskKind]:
    """Those that a launch or a hand-over waits for, however far back; for the others nobody would wait."""
    kinds, wanted, todo = spec.kinds, set(ENDS), list(ENDS)
    while todo:
        more = set(kinds[todo.pop()].after) - wanted
        wanted |= more
        todo += more
    return {name: kind for name, kind in kinds.items() if name in wanted}


def kilowatts(design: Design, pue: float) -> Ints:
    """What each rack takes, with its share of cooling and losses, rounded up."""
    return np.ceil(design.racks.watts * pue / 1e3 - 1e-6).astype(np.int32)


def places(design: Design, spec: ConstructionSpec) -> list[Place]:
    """The site, its halls, zones, pods (and lots of racks that serve all pods), and racks, in order."""
    lots = _lots(design)
    size = spec.racks_per_task or racks_per_task(design, spec)
    first, gpus = set(), 0
    for name, _, rows, is_pod in lots:
        if is_pod and gpus < spec.first_gpus:
            first.add(name)
            gpus += _gpus(design, rows)
    found: list[Place] = []
    in_hall: dict[str, int] = defaultdict(int)
    rows_of: dict[tuple[str, str], list[Ints]] = defaultdict(list)
    around_of: dict[tuple[str, str], dict[str, str]] = {}
    for name, hall, rows, _ in lots:
        zone = f"{hall} zone {in_hall[hall] // spec.zone_pods + 1}"
        in_hall[hall] += 1
        around = {"site": "site", "hall": hall, "zone": zone, "pod": name}
        if name in first:
            around["first pods"] = "first pods"
        for level in around:
            rows_of[level, around[level]].append(rows)
            above = LEVELS[: LEVELS.index(level) + 1]
            around_of.setdefault(
                (level, around[level]),
                {each: around[each] for each in above if each in around} if level != "first pods" else {},
            )
        for part in range(0, len(rows), size):
            rack = design.rack_name(int(rows[part]))
            found.append(Place("rack", rack, around | {"rack": rack}, rows[part : part + size]))
    around_of["first pods", "first pods"] = {"site": "site", "first pods": "first pods"}
    outer = [Place(*key, around_of[key], np.concatenate(rows)) for key, rows in rows_of.items()]
    return sorted(outer + found, key=lambda place: LEVELS.index(place.level))


def racks_per_task(design: Design, spec: ConstructionSpec) -> int:
    """So many racks are one task that there are not too many tasks."""
    kinds = needed_kinds(spec).values()
    by_rack = sum(kind.per == "rack" for kind in kinds)
    by_pod = sum(kind.per == "pod" for kind in kinds)
    room = MOST_TASKS - by_pod * len(_lots(design))
    return max(math.ceil(by_rack * len(design.racks) / max(room, 1)), 1)


def construction(
    design: Design, spec: ConstructionSpec, pue: float, supply: Supply, name: str = ""
) -> Project:
    """The project: every task of every place, with the power that the supply gives.

    Durations are the likely ones, in hours of work. A pod's acceptance waits for its share of the racks that
    serve all pods; a lot is unloaded when the makers have shipped so many racks.
    """
    calendar, kinds = workdays(spec), needed_kinds(spec)
    here = places(design, spec)
    inside: dict[tuple[str, str, str], list[str]] = defaultdict(list)  # level, and the place around
    for place in here:
        for level, around in place.within.items():
            inside[place.level, level, around].append(place.name)
    kw, cables = kilowatts(design, pue), _cables(design)
    arrivals, common = _arrivals(design, spec), _common_of_pods(design)
    tasks: list[Task] = []
    for kind in kinds.values():
        for place in (each for each in here if each.level == kind.per):
            times = {"": 1.0, "rack": len(place.racks), "cable": float(cables[place.racks].sum())}[kind.times]
            times *= len(place.racks) if kind.per == "rack" and not kind.times else 1
            after = [(task, 0) for task in _after(kind, place, kinds, inside)]
            if kind.kind == "acceptance" and place.name in common:
                after.append((f"firmware {common[place.name]}", 0))
            crews = crews_of(kind, times, spec)
            task = Task(
                f"{kind.kind} {place.name}",
                hours_of(kind, times, calendar, crews),
                tuple(after),
                uses={kind.trade: crews} if kind.trade else {},
                group=place.within.get("pod", place.name),
                kind=kind.kind,
            )
            if kind.kind == "delivery":
                task = replace(task, earliest=calendar.hour_at(arrivals[place.name]))
            if kind.kind == "power-on":
                task = replace(task, holds={POWER: int(kw[place.racks].sum())})
            tasks.append(task)
    trades = [Resource(trade, ((0, number),)) for trade, number in spec.crews.model_dump().items()]
    return Project(
        name or design.name, 1.0, (*supply.tasks, *tasks), (*trades, Resource(POWER, supply.steps))
    )


def crews_of(kind: TaskKind, times: float, spec: ConstructionSpec) -> int:
    """One for each shift of work that there is to do, as far as they do not stand in each other's way."""
    if not kind.trade:
        return 0
    there = getattr(spec.crews, kind.trade)
    return min(kind.crews, there, max(math.ceil(kind.hours[1] * times / SHIFT), 1))


def hours_of(kind: TaskKind, times: float, calendar: Workdays, crews: int) -> int:
    """Hours of work that a task is likely to take, rounded up."""
    hours = kind.hours[1] * times / max(crews, 1)
    return calendar.most_within(hours) if kind.clock == "calendar" else math.ceil(hours - 1e-9)


def _after(
    kind: TaskKind, place: Place, kinds: dict[str, TaskKind], inside: dict[tuple[str, str, str], list[str]]
) -> Iterator[str]:
    """Names of the tasks that it waits for: in its place, around it or within it."""
    for other in kind.after:
        level = kinds[other].per
        if level in place.within:
            yield f"{other} {place.within[level]}"
        else:
            yield from (f"{other} {name}" for name in inside[level, place.level, place.name])


def _lots(design: Design) -> list[tuple[str, str, Ints, bool]]:
    """Pods and lots of common racks in the order of building: name, hall, racks, whether it is a pod.

    The racks that serve all pods come spread among the pods that need them.
    """
    racks = design.racks
    rows = np.flatnonzero(racks.pod >= 0)
    rows = rows[np.argsort(racks.pod[rows], kind="stable")]
    pods = [
        part.astype(np.int32)
        for part in np.split(rows, np.flatnonzero(np.diff(racks.pod[rows])) + 1)
        if len(part)
    ]
    shared = np.flatnonzero(racks.pod < 0).astype(np.int32)
    common = [shared[i : i + COMMON] for i in range(0, len(shared), COMMON)]
    found = []
    for number, part in enumerate(common):
        at = number * len(pods) / len(common)
        found.append((at - 0.5, f"common-{number:03d}", part, False))
    for number, part in enumerate(pods):
        found.append((float(number), f"pod-{racks.pod[part[0]]:03d}", part, True))
    found.sort(key=lambda each: each[0])
    return [(name, design.halls[racks.hall[part[0]]], part, is_pod) for _, name, part, is_pod in found]


def _common_of_pods(design: Design) -> dict[str, str]:
    """The last lot of common racks that comes before each pod."""
    found, last = {}, ""
    for name, _, _, is_pod in _lots(design):
        if is_pod and last:
            found[name] = last
        if not is_pod:
            last = name
    return found


def _arrivals(design: Design, spec: ConstructionSpec) -> dict[str, float]:
    """Day on which each lot comes: when all racks before it and its own have been made."""
    found, so_far = {}, 0
    for name, _, rows, _ in _lots(design):
        found[name] = spec.deliveries.first_day + 7 * so_far / spec.deliveries.racks_a_week
        so_far += len(rows)
    return found


def _cables(design: Design) -> Ints:
    """Cables whose lower end is in each rack: those are laid with it."""
    lower = design.devices.rack[design.cables.lower]
    return np.bincount(lower, minlength=len(design.racks)).astype(np.int32)


def _gpus(design: Design, rows: Ints) -> int:
    """In these racks."""
    nodes = design.devices.rack[design.devices_of("node")]
    return int(np.isin(nodes, rows).sum()) * design.node.gpus
