"""
`[failures]`: how often machines fail, and what is done about it; and the rates of the catalogue.

Rates are those of fleets that somebody counted, by cause. What a rate does not know is that a job of another
kind works the GPUs otherwise.
"""

from functools import cache
from typing import Any, Literal

from pydantic import Field, field_validator

from colossi.errors import SpecError
from colossi.spec.entries import read_entry
from colossi.spec.table import Table
from colossi.spec.units import Seconds

DAY = 86400.0

# crash: a process dies, and may start again on its node; loss: a node is out until it is repaired; hang: a
# collective never returns; slow: a node holds all others up; corrupt: a bit flips; flap: a link is down for a
# moment; job: all stops, no node is to blame; storage: the file system is away.
Effect = Literal["crash", "loss", "hang", "slow", "corrupt", "flap", "job", "storage"]

# link: a cable from a NIC to its switch; trunk: one between switches; leaf: a switch that NICs are on; spine:
# any other; feed: what a group of racks has its power from.
Unit = Literal["gpu", "node", "nic", "link", "trunk", "leaf", "spine", "rack", "feed", "job"]


class Cause(Table):
    """What happened so many times in the days that were counted."""

    name: str
    component: str
    effect: Effect
    per: Unit  # what there must be more of for it to come more often
    count: float = Field(ge=0)
    lasts: Seconds | None = None  # the mean, where it ends by itself or by repair; None: repair_hours
    shape: float = Field(default=1.0, gt=0)  # Weibull's, by age: below 1 infancy, 1 constant, above 1 wear
    slowdown: float = Field(default=0.0, ge=0)  # of the whole job, on average, while the node is in it

    @property
    def repaired(self) -> bool:
        """The node is taken out until it is repaired."""
        return self.effect in ("loss", "corrupt")


class Units(Table):
    """What a fleet has besides GPUs and nodes."""

    nic: float = Field(gt=0)
    link: float = Field(gt=0)
    trunk: float = Field(gt=0)
    leaf: float = Field(gt=0)
    spine: float = Field(gt=0)
    rack: float = Field(gt=0)
    feed: float = Field(gt=0)


class FailureRates(Table):
    """Unplanned stops that somebody counted, and over how much machinery."""

    name: str
    gpus: int = Field(ge=1)
    gpus_per_node: int = Field(ge=1)
    units: Units
    days: float = Field(gt=0)
    planned: float = Field(ge=0)  # stops besides, on purpose
    counted_at_days: float = Field(ge=0)  # age of the machine when the count began
    age_days: float | None = Field(default=None, ge=0)  # when a run begins; None: as when the count began
    lemons_fraction: float = Field(ge=0, lt=1)  # of the nodes
    lemons_share: float = Field(ge=0, le=1)  # of the failures of nodes and what is in them: the lemons'
    causes: tuple[Cause, ...] = Field(min_length=1)  # of stops
    others: tuple[Cause, ...] = ()  # what stops nothing, or was not counted

    @property
    def per_gpu_day(self) -> float:
        """Of one GPU, whatever server it is in [1/day]."""
        return sum(cause.count for cause in self.causes if cause.per == "gpu") / (self.gpus * self.days)

    @property
    def per_node_day(self) -> float:
        """Of one server, its GPUs apart, with its share of the network and of the software [1/day]."""
        count = sum(cause.count for cause in self.causes if cause.per != "gpu")
        return count / (self.nodes * self.days)

    @property
    def nodes(self) -> float:
        return self.gpus / self.gpus_per_node

    @property
    def planned_per_second(self) -> float:
        """Stops on purpose of a job, however large [1/s]."""
        return self.planned / (self.days * DAY)

    @property
    def repaired_share(self) -> float:
        """Of the failures, those after which a node is out until it is repaired [1]."""
        total = sum(cause.count for cause in self.causes)
        return sum(cause.count for cause in self.causes if cause.repaired) / total

    def of_job(self, gpus: int, gpus_per_node: int = 8) -> float:
        """Unplanned stops of a job of so many GPUs, any of which stops it [1/s]."""
        return (gpus * self.per_gpu_day + gpus / gpus_per_node * self.per_node_day) / DAY

    def number_of(self, unit: Unit) -> float:
        """How many of them the fleet had."""
        if unit == "gpu":
            return self.gpus
        if unit == "node":
            return self.nodes
        return 1.0 if unit == "job" else getattr(self.units, unit)

    def per_day(self, cause: Cause) -> float:
        """Of one of what the cause is `per` [1/day]."""
        return cause.count / (self.number_of(cause.per) * self.days)


@cache
def failure_rates(name: str) -> FailureRates:
    """Those of a fleet by its name in the catalogue, such as "llama3". SpecError offers the nearest names."""
    document = {"name": name, **read_entry("failures", name, "failure rates")}
    if "causes_of" in document:
        document = _divided(document)
    return FailureRates.model_validate(document)


def _divided(fleet: dict[str, Any]) -> dict[str, Any]:
    """One rate for a server, `count`, by the causes of another fleet's infrastructure: all but software."""
    other = failure_rates(fleet["causes_of"])
    infrastructure = [cause for cause in other.causes if cause.component != "software"]
    counted = sum(cause.count for cause in infrastructure) / (other.nodes * other.days)
    times = fleet["count"] / (fleet["gpus"] / fleet["gpus_per_node"] * fleet["days"]) / counted
    causes = tuple(cause.model_copy(update={"count": cause.count * times}) for cause in infrastructure)
    kept = ("name", "planned", "lemons_fraction", "lemons_share")
    return dict(other) | {key: fleet[key] for key in kept} | {"causes": causes}


class FailuresSpec(Table):
    """Failures to plan for. A forecast takes from it how much of a run's time is productive."""

    rates: str = Field(default="llama3", description="a fleet of the catalogue: llama3, rsc-1 or rsc-2")
    # Together ten minutes: how long a failure stops synchronous training on about 100,000 GPUs (Meta,
    # FT-HSDP). MegaScale (NSDI 2024) states under ten to find and diagnose, under fifteen to catch up.
    detection_seconds: float = Field(
        default=120.0, ge=0, description="until it is known that the job has stopped, and why"
    )
    restart_seconds: float = Field(
        default=480.0, ge=0, description="from then to the first step, the state being in memory"
    )
    reload_seconds: float = Field(default=0.0, ge=0, description="more than that if it is read from disk")
    # MegaScale's checkpoints in two phases hold the run up "for seconds".
    checkpoint_seconds: float = Field(
        default=10.0, ge=0, description="by which writing a checkpoint holds up the run"
    )
    # ByteRobust (SOSP 2025) saves in memory at every step, for less than 0.9% of it;
    # checkpoint.snapshot_every has the steps between two.
    snapshots: bool = Field(
        default=False,
        description="copies in the memory of other nodes, every checkpoint.snapshot_every steps",
    )
    snapshot_seconds: float = Field(default=0.0, ge=0, description="by which one of them holds up the run")
    snapshots_lost: float = Field(
        default=0.02, ge=0, le=1, description="share of failures that take all copies (an assumption)"
    )
    spares_fraction: float = Field(
        default=0.01, ge=0, description="nodes that stand by, as a share of those that run (an assumption)"
    )
    repair_hours: float = Field(default=24.0, ge=0, description="until a lost node is back (an assumption)")
    age_days: float | None = Field(
        default=None, ge=0, description="of the machine when the run begins; left out: as those counted"
    )
    lemons_fraction: float | None = Field(
        default=None, ge=0, lt=1, description="nodes that fail again and again; left out: as in `rates`"
    )
    lemons_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the nodes' failures that they have; left out: as in `rates`",
    )
    hangs: float = Field(default=1.0, ge=0, description="times as many hangs; 0: none")
    stragglers: float = Field(default=1.0, ge=0, description="times as many slow nodes")
    corruption: float = Field(default=1.0, ge=0, description="times as many flipped bits")
    flaps: float = Field(default=1.0, ge=0, description="times as many links that are down for a moment")
    outages: float = Field(
        default=1.0, ge=0, description="times as many failures of switches, racks, power feeds and storage"
    )

    @field_validator("rates")
    @classmethod
    def _is_in_the_catalogue(cls, name: str) -> str:
        try:
            failure_rates(name)
        except SpecError as error:
            raise ValueError(f"{name!r} is not in the catalogue: {error.hint}") from None
        return name
