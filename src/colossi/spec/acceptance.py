"""
Limits that a node must keep to be accepted, from the catalogue: of a GPU, and those of every machine.

The files in catalogue/acceptance say where each number is from.
"""

from functools import cache
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from colossi.spec.entries import entry_names, read_entry
from colossi.spec.table import Table
from colossi.spec.units import UNITS, WRITTEN


def _any_quantity(value: object) -> object:
    """A bare number is a count; what is written with a unit becomes its base unit."""
    found = WRITTEN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    number, unit = found.groups()
    sizes = [units[unit] for units in UNITS.values() if unit in units]
    return float(number) * sizes[0] if sizes else value


AnyQuantity = Annotated[float, BeforeValidator(_any_quantity)]


class Limit(Table):
    """At least, or at most, in base units."""

    check: str
    least: AnyQuantity | None = None
    most: AnyQuantity | None = None
    written: str  # the same, as the file has it
    level: Literal["warn", "fail"] = "fail"
    source: str

    @model_validator(mode="before")
    @classmethod
    def _keep_words(cls, keys: object) -> object:
        if isinstance(keys, dict) and "written" not in keys:
            words = [
                f"{word} {keys[key]}"
                for key, word in (("least", "at least"), ("most", "at most"))
                if key in keys
            ]
            return {**keys, "written": ", ".join(words)}
        return keys

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError(f"the limit of {self.check} needs `least` or `most`")
        return self

    @property
    def in_words(self) -> str:
        """At least 48 GB/s."""
        return self.written


class Acceptance(Table):
    """Limits by check."""

    name: str
    devices: tuple[str, ...] = ()  # what NVML calls GPUs that these are for
    limits: tuple[Limit, ...] = Field(default=())

    def limit(self, check: str) -> Limit | None:
        """Of one check, if it has one."""
        return next((limit for limit in self.limits if limit.check == check), None)

    def over(self, other: "Acceptance") -> "Acceptance":
        """These, and of the other those that these have not."""
        own = {limit.check for limit in self.limits}
        more = tuple(limit for limit in other.limits if limit.check not in own)
        return self.model_copy(update={"limits": self.limits + more})


EVERY = "every-machine"


@cache
def acceptance(name: str) -> Acceptance:
    """Limits by their name in the catalogue, such as "H100-SXM". SpecError offers the nearest names."""
    return Acceptance.model_validate({"name": name, **read_entry("acceptance", name, "limits of acceptance")})


def acceptance_of(gpu: str | None = None, device: str = "") -> Acceptance:
    """For nodes with this GPU, or what NVML calls `device`; where there are none, those of every machine."""
    every = acceptance(EVERY)
    for name in entry_names("acceptance"):
        if name == gpu or (gpu is None and device and device in acceptance(name).devices):
            return acceptance(name).over(every)
    return every
