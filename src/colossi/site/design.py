"""
The complete cluster as a value: racks, devices, cables, feeds, as columns of numbers.

A row is a thing, and rows refer to each other by their number, so 200,000 GPUs with three quarters of a
million cables fit into some hundred megabytes. Names and labels are made when somebody asks for one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colossi.spec.hardware import Node

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]

# What a device can be, a network, a cable; columns hold the index into these.
KINDS = (
    "node",
    "leaf",
    "spine",
    "core",
    "storage node",
    "storage leaf",
    "storage spine",
    "management leaf",
    "management spine",
    "management server",
    "cdu",
    "manager",
)
NETWORKS = ("compute", "storage", "management")
MEDIA = ("DAC", "AOC", "fibre")  # copper; optics that are part of the cable; two transceivers and a fibre


@dataclass(frozen=True)
class Racks:
    """Columns, a row for each rack. Positions are of its front left corner in its hall [m]."""

    hall: Ints
    row: Ints  # in its hall
    place: Ints  # in its row, from 0
    pod: Ints  # the array of racks that is built and handed over together; -1: serves them all
    x: Floats
    y: Floats
    watts: Floats  # at full load
    kilograms: Floats
    liquid: NDArray[np.bool_]  # or air only
    feed_a: Ints  # power feeds; equal where there is one only
    feed_b: Ints

    def __len__(self) -> int:
        return len(self.hall)


@dataclass(frozen=True)
class Devices:
    """Columns, a row for each thing in a rack."""

    kind: NDArray[np.int8]  # into KINDS
    number: Ints  # from 0, among those of its kind
    rack: Ints
    unit: Ints  # lowest rack unit, from 1 at the bottom
    height: Ints  # [rack units]

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Cables:
    """Columns, a row for each cable; the lower end is nearer to the nodes. Ports count from 0 on a device."""

    network: NDArray[np.int8]  # into NETWORKS
    lower: Ints  # devices
    lower_port: Ints
    upper: Ints
    upper_port: Ints
    metres: NDArray[np.float32]  # as ordered: a length that is sold, not less than the way
    medium: NDArray[np.int8]  # into MEDIA

    def __len__(self) -> int:
        return len(self.network)


@dataclass(frozen=True)
class Feed:
    """A power feed: what it carries, what hangs on it, and when it is there."""

    name: str
    watts: float
    day: float  # after the start of construction


@dataclass(frozen=True)
class Line:
    """A line of the bill of materials. `source` says where the price is from, or that it is an assumption."""

    item: str
    number: int
    dollars: float  # each
    source: str


@dataclass(frozen=True)
class Design:
    """The cluster that was asked for."""

    name: str
    node: Node
    nodes: int  # that compute, spares included
    halls: tuple[str, ...]
    pods: int
    racks: Racks
    devices: Devices
    cables: Cables
    feeds: tuple[Feed, ...]
    bill: tuple[Line, ...]

    def device_name(self, device: int) -> str:
        """Such as "node-00042" or "leaf-0007": what Slurm, NetBox and the labels call it."""
        kind = KINDS[self.devices.kind[device]].replace(" ", "-")
        return f"{kind}-{self.devices.number[device]:05d}"

    def rack_name(self, rack: int) -> str:
        """Such as "h1-r03-07": hall, row, place."""
        racks = self.racks
        return f"{self.halls[racks.hall[rack]]}-r{racks.row[rack]:02d}-{racks.place[rack]:02d}"

    def devices_of(self, kind: str) -> NDArray[Any]:
        """Rows of all devices of a kind, by number."""
        return np.flatnonzero(self.devices.kind == KINDS.index(kind))
