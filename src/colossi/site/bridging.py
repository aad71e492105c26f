"""
The power that a site has on each day: its feeds, and offers that are taken for the time until these suffice.

Turbines on a grid of their own take or drop only a share `step` of their rating at once, and the load of a
training run swings by a share `swing` of itself. So R watts of turbines with B watts of batteries carry
min(R, (step * R + B) / swing): without batteries two thirds of their rating, at the spec's defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from colossi.site.design import Feed
from colossi.site.project import Task
from colossi.site.workdays import Workdays
from colossi.spec.construction import ConstructionSpec, Offer

POWER = "power"  # the resource [kW]


@dataclass(frozen=True)
class Supply:
    """`steps` is what the feeds give [kW] from an hour on; `tasks` bring the offers that are taken."""

    offers: tuple[str, ...]
    steps: tuple[tuple[int, int], ...]
    tasks: tuple[Task, ...]

    @property
    def kilowatts(self) -> int:
        """In the end."""
        return self.steps[-1][1] + sum(task.gives.get(POWER, 0) for task in self.tasks)

    @property
    def profile(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """What matters to a schedule: two supplies that share it are alike."""
        given = [(task.duration, task.gives[POWER]) for task in self.tasks if task.gives.get(POWER)]
        return self.steps, tuple(given)


def supply(
    feeds: Sequence[Feed], spec: ConstructionSpec, taken: tuple[str, ...], calendar: Workdays
) -> Supply:
    """The feeds and the offers that are taken, in the order in which these come."""
    arrivals = sorted((calendar.hour_at(feed.day), feed.watts) for feed in feeds)
    steps, watts = {0: 0}, 0.0
    for hour, more in arrivals:
        watts += more
        steps[hour] = int(watts / 1e3)
    offers = sorted((lead_hours(spec, name, calendar), name) for name in taken)
    tasks: list[Task] = []
    come: list[Offer] = []
    before = ""
    energising = spec.kinds["energising"]
    for lead, name in offers:
        had = carried(come, spec)
        come.append(spec.offers[name])
        brings = int((carried(come, spec) - had) / 1e3)
        tasks.append(Task(f"waiting for {name}", lead, group=name, kind="power"))
        work = round(energising.hours[1])
        after = [(f"waiting for {name}", 0), *([(f"energising {before}", 0)] if before else [])]
        tasks.append(
            Task(
                f"energising {name}",
                work,
                tuple(after),
                uses={energising.trade: 1},
                gives={POWER: brings} if brings else {},
                group=name,
                kind="power",
            )
        )
        before = name
    return Supply(taken, tuple(sorted(steps.items())), tuple(tasks))


def firm_feeds(feeds: Sequence[Feed], redundancy: str) -> list[Feed]:
    """What may be taken of feeds: of a pair (2N) what either carries, of N+1 all but the largest.

    A site that is being built runs on the feed that is there; the second of a pair may come later.
    """
    if redundancy == "2N":
        pairs = zip(feeds[::2], feeds[1::2], strict=True)
        return [Feed(a.name, min(a.watts, b.watts), min(a.day, b.day)) for a, b in pairs]
    if redundancy == "N+1":
        largest = max(range(len(feeds)), key=lambda at: (feeds[at].watts, -feeds[at].day))
        return [feed for at, feed in enumerate(feeds) if at != largest]
    return list(feeds)


def lead_hours(spec: ConstructionSpec, name: str, calendar: Workdays) -> int:
    """Hours of work until an offer is on the site; a grid connection without a date takes a transformer's."""
    lead = spec.offers[name].lead_days
    return calendar.most_within(24 * lead if lead is not None else spec.kinds["transformer"].hours[1])


def carried(offers: Sequence[Offer], spec: ConstructionSpec) -> float:
    """Watts that a training load may take of turbines, batteries and grid connections together."""
    of = {kind: sum(o.watts for o in offers if o.kind == kind) for kind in ("turbines", "batteries", "grid")}
    turbines = min(of["turbines"], (spec.step * of["turbines"] + of["batteries"]) / spec.swing)
    return turbines + of["grid"]
