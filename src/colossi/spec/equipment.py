"""
Switches, cables and other equipment of the catalogue, in base units.

Each entry of catalogue/switches, catalogue/equipment and catalogue/cables says in `source` where its numbers
are from, and which of them are assumptions; the bill of materials repeats it.
"""

from functools import cache
from typing import Literal

from pydantic import Field

from colossi.spec.entries import entry_names, read_entry
from colossi.spec.table import Table
from colossi.spec.units import Dollars, Kilograms, Watts

Network = Literal["infiniband", "ethernet"]


class Equipment(Table):
    """A thing that stands in a rack; height 0: beside or behind what is mounted."""

    name: str
    height: int = Field(ge=0)  # [rack units]
    power: Watts  # at full load
    weight: Kilograms
    cost: Dollars
    heat: Watts | None = None  # that a CDU can carry away
    source: str


class Switch(Table):
    """A switch, its ports at the speed at which they are used: 64 of 800 Gb/s may be 128 of 400."""

    name: str
    ports: int = Field(ge=2)
    gigabits: float = Field(gt=0)  # of a port, each way [Gb/s]
    network: Network
    height: int = Field(ge=1)  # [rack units]
    power: Watts  # at full load, transceivers included
    weight: Kilograms
    cost: Dollars
    source: str


class Cable(Table):
    """A medium: lengths that are sold [m], in order, and what one costs; a fibre's transceivers are extra."""

    name: str
    lengths: tuple[float, ...]
    cost: Dollars
    cost_per_metre: Dollars
    source: str

    def price(self, metres: float) -> float:
        """Of a cable of this length [USD]."""
        return self.cost + self.cost_per_metre * metres


@cache
def equipment(name: str) -> Equipment:
    """An entry of catalogue/equipment. SpecError with the nearest names if there is none."""
    return Equipment.model_validate({"name": name, **read_entry("equipment", name, "equipment")})


@cache
def switch(name: str) -> Switch:
    """An entry of catalogue/switches. SpecError with the nearest names if there is none."""
    return Switch.model_validate({"name": name, **read_entry("switches", name, "switch")})


@cache
def cable(name: str) -> Cable:
    """An entry of catalogue/cables."""
    return Cable.model_validate({"name": name, **read_entry("cables", name, "cable")})


def switch_names() -> list[str]:
    """Switches of the catalogue."""
    return entry_names("switches")
