"""
`[failures]`: how often machines fail, and what is done about it; and the rates of the catalogue.

Rates are those of fleets that somebody counted. They do not know how old a machine is, that some nodes fail
again and again, or that a job of another kind works the GPUs otherwise.
"""

from functools import cache
from typing import Literal

from pydantic import Field, field_validator

from colossi.errors import SpecError
from colossi.spec.entries import read_entry
from colossi.spec.table import Table

DAY = 86400.0


class Cause(Table):
    """What stopped a job so many times in the days that were counted."""

    name: str
    of: Literal["gpu", "node"]  # what there must be more of for it to come more often
    count: float = Field(gt=0)
    repair: bool  # the node is lost until it is repaired


class FailureRates(Table):
    """Unplanned stops that somebody counted, and over how much machinery."""

    name: str
    gpus: int = Field(ge=1)
    gpus_per_node: int = Field(ge=1)
    days: float = Field(gt=0)
    planned: float = Field(ge=0)  # stops besides, on purpose
    causes: tuple[Cause, ...] = Field(min_length=1)

    @property
    def per_gpu_day(self) -> float:
        """Of one GPU, whatever server it is in [1/day]."""
        return self._count("gpu") / (self.gpus * self.days)

    @property
    def per_node_day(self) -> float:
        """Of one server, its GPUs apart, with its share of the network and of the software [1/day]."""
        return self._count("node") / (self.gpus / self.gpus_per_node * self.days)

    @property
    def planned_per_second(self) -> float:
        """Stops on purpose of a job, however large [1/s]."""
        return self.planned / (self.days * DAY)

    @property
    def repaired_share(self) -> float:
        """Of the failures, those after which a node is out until it is repaired [1]."""
        total = sum(cause.count for cause in self.causes)
        return sum(cause.count for cause in self.causes if cause.repair) / total

    def of_job(self, gpus: int, gpus_per_node: int = 8) -> float:
        """Unplanned stops of a job of so many GPUs, any of which stops it [1/s]."""
        return (gpus * self.per_gpu_day + gpus / gpus_per_node * self.per_node_day) / DAY

    def _count(self, of: str) -> float:
        return sum(cause.count for cause in self.causes if cause.of == of)


@cache
def failure_rates(name: str) -> FailureRates:
    """Those of a fleet by its name in the catalogue, such as "llama3". SpecError offers the nearest names."""
    document = read_entry("failures", name, "failure rates")
    return FailureRates.model_validate({"name": name, **document})


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

    @field_validator("rates")
    @classmethod
    def _is_in_the_catalogue(cls, name: str) -> str:
        try:
            failure_rates(name)
        except SpecError as error:
            raise ValueError(f"{name!r} is not in the catalogue: {error.hint}") from None
        return name
