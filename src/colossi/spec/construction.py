"""
`[construction]`: when building begins, who works, what comes when, and what power could be had meanwhile.

The kinds of tasks, their durations and lead times are the catalogue's (catalogue/construction/tasks.toml,
each with its source); `[construction.tasks.KIND]` overrides them. How it becomes a project is in site/.
"""

import datetime
import difflib
import tomllib
from functools import cache
from importlib import resources
from typing import Literal, Self

from pydantic import Field, model_validator

from colossi.spec.table import Table

Hours = tuple[float, float, float]  # low, likely, high
MOST_OFFERS = 6  # all their subsets are tried: 64


class TaskKind(Table):
    """What is done once in each place of a kind."""

    kind: str
    per: Literal["site", "feed", "hall", "zone", "pod", "rack", "first pods"]
    trade: str = ""  # who does it; "": nobody, it takes time
    clock: Literal["work", "calendar"] = "work"
    times: Literal["", "rack", "cable"] = ""  # `hours` are of one of these
    hours: Hours
    crews: int = 1  # at most so many in one place, if they have more than a shift of work there
    after: tuple[str, ...] = ()
    source: str


class TaskOverride(Table):
    """A kind of task otherwise than in the catalogue."""

    hours: Hours | None = Field(
        default=None, description="low, likely and high, as in the catalogue of work or of the clock"
    )
    after: tuple[str, ...] | None = Field(default=None, description="kinds of tasks that it waits for")
    source: str = Field(min_length=1, description="where this is from")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.hours is not None and not 0 <= self.hours[0] <= self.hours[1] <= self.hours[2]:
            low, likely, high = self.hours
            raise ValueError(
                f"hours = [{low:g}, {likely:g}, {high:g}] contradict each other: "
                "give low, likely and high, in this order"
            )
        return self


class Crews(Table):
    """How many crews of a trade work at the same time; the defaults are assumptions."""

    builders: int = Field(default=4, ge=1, description="floors and walls")
    electricians: int = Field(default=6, ge=1, description="feeds, busways, power-on")
    pipefitters: int = Field(default=6, ge=1, description="cooling plant, mains, manifolds")
    riggers: int = Field(default=4, ge=1, description="move racks to their places")
    cablers: int = Field(default=12, ge=1, description="lay, label and test cables")
    technicians: int = Field(default=6, ge=1, description="firmware and acceptance")
    docks: int = Field(default=4, ge=1, description="lorries unloaded at the same time")


class Deliveries(Table):
    """When racks come; a lot is a pod's racks."""

    first_day: float = Field(default=0.0, ge=0, description="after `start`, of the first lot [days]")
    racks_a_week: float = Field(gt=0, description="that the makers ship, all days of the week alike")


class Offer(Table):
    """Power that could be had besides the feeds of [site]; taken as a whole or not at all."""

    kind: Literal["turbines", "batteries", "grid"] = Field(
        description="batteries give no energy, but take the swings that turbines cannot follow"
    )
    megawatts: float = Field(gt=0, description="of one")
    count: int = Field(default=1, ge=1, description="how many")
    lead_days: float | None = Field(
        default=None, ge=0, description="until they are on the site; left out: a transformer's lead time"
    )
    dollars: float = Field(default=0.0, ge=0, description="once, for one")
    dollars_a_day: float = Field(default=0.0, ge=0, description="rent of one, until the feeds suffice")
    fuel: float = Field(default=0.0, ge=0, description="dollars for a MWh that it makes")
    source: str = Field(min_length=1, description="of size, lead time and price")

    @model_validator(mode="after")
    def _has_a_date(self) -> Self:
        if self.lead_days is None and self.kind != "grid":
            raise ValueError("lead_days is missing: give the days until it is on the site")
        return self

    @property
    def watts(self) -> float:
        """Of all of them."""
        return self.megawatts * 1e6 * self.count


class RisksSpec(Table):
    """What may go otherwise than planned; the defaults are assumptions. Tasks vary as their `hours` say."""

    deliveries: Hours = Field(
        default=(0.95, 1.0, 1.3), description="low, likely, high: days until a lot comes over those planned"
    )
    power: Hours = Field(default=(1.0, 1.0, 1.3), description="the same of feeds and offers of power")
    fails: dict[str, float] = Field(
        default={"acceptance": 0.05}, description="kind of task -> chance that it must be done again"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key in ("deliveries", "power"):
            low, likely, high = getattr(self, key)
            if not 0 < low <= likely <= high:
                raise ValueError(
                    f"risks.{key} = [{low:g}, {likely:g}, {high:g}] contradict each other: "
                    "give low, likely and high, in this order"
                )
        for kind, chance in self.fails.items():
            if not 0 <= chance < 1:
                raise ValueError(f"risks.fails.{kind} = {chance:g} is no chance: give 0 or more, below 1")
        return self


class ConstructionSpec(Table):
    """How the cluster of [site] is built."""

    start: datetime.date = Field(description="the first day; the days of feeds count from it")
    target: datetime.date | None = Field(
        default=None, description="by when all should run; power is chosen for it"
    )
    hours_a_day: int = Field(default=24, ge=1, le=24, description="that crews work, in shifts")
    days_a_week: int = Field(default=7, ge=1, le=7, description="that they work, from Monday on")
    deliveries: Deliveries = Field(description="below")
    crews: Crews = Field(default=Crews(), description="below")
    offers: dict[str, Offer] = Field(default={}, description="power to be had meanwhile, by name, below")
    tasks: dict[str, TaskOverride] = Field(
        default={}, description="kinds of tasks otherwise than in the catalogue, below"
    )
    risks: RisksSpec = Field(default=RisksSpec(), description="below")
    zone_pods: int = Field(default=8, ge=1, description="pods whose part of a hall is fitted out together")
    racks_per_task: int | None = Field(
        default=None, ge=1, description="left out: the least that makes at most 10,000 tasks"
    )
    first_gpus: int = Field(
        default=8192, ge=1, description="accepted when the first training begins (an assumption)"
    )
    existing_gpus: int = Field(default=0, ge=0, description="that run already, when more are added")
    # Training swings by up to 37.5% of its power [2 in spec/hardware.py]. That a turbine on a grid of its own
    # takes a quarter of its rating at once is an assumption.
    swing: float = Field(default=0.375, gt=0, le=1, description="of the racks' power, up and down")
    step: float = Field(
        default=0.25, ge=0, le=1, description="share of a turbine's rating that it takes or drops at once"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.target is not None and self.target <= self.start:
            raise ValueError(f"target = {self.target} is not after start = {self.start}")
        if len(self.offers) > MOST_OFFERS:
            raise ValueError(
                f"offers are {len(self.offers)}: all their subsets are tried, give at most {MOST_OFFERS}"
            )
        kinds = self.kinds
        check_no_circle(kinds)
        for kind in self.risks.fails:
            if kind not in kinds:
                raise ValueError(f"risks.fails.{kind} is no kind of task: {_meant(kind, list(kinds))}")
        return self

    @property
    def kinds(self) -> dict[str, TaskKind]:
        """The catalogue's, with the overrides; ValueError names what is no kind, and the nearest."""
        kinds = dict(task_kinds())
        for name, change in self.tasks.items():
            if name not in kinds:
                raise ValueError(f"tasks.{name} is no kind of task: {_meant(name, list(kinds))}")
            for other in change.after or ():
                if other not in kinds:
                    raise ValueError(
                        f"tasks.{name}.after has {other!r}, which is no kind of task: "
                        f"{_meant(other, list(kinds))}"
                    )
            given = change.model_dump(exclude_none=True)
            kinds[name] = kinds[name].model_copy(update=given)
        return kinds


@cache
def task_kinds() -> dict[str, TaskKind]:
    """The catalogue's kinds of tasks, by name."""
    text = (resources.files("colossi.spec") / "catalogue" / "construction" / "tasks.toml").read_text()
    return {each["kind"]: TaskKind.model_validate(each) for each in tomllib.loads(text)["tasks"]}


def check_no_circle(kinds: dict[str, TaskKind]) -> None:
    """ValueError names the kinds that wait for each other."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = [*path[path.index(name) :], name]
            raise ValueError(
                f"tasks wait in a circle: {' waits for '.join(map(repr, circle))}: change `after` of one"
            )
        if name not in done:
            for other in kinds[name].after:
                visit(other, (*path, name))
            done.add(name)

    for name in kinds:
        visit(name, ())


def _meant(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(names)}"
