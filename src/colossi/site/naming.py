"""
What everything in a design is called: devices, racks, ports, cables, and the place of an end.

Names of many things at once, as lists in the order of their rows: a design of 200,000 GPUs has two million
ports, and asking for one at a time would take minutes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from colossi.site.design import KINDS, MEDIA, NETWORKS, Design, Ints

NIC = {"compute": "nic", "storage": "storage", "management": "mgmt"}  # ports of what is no switch of it
TIERS = ("leaf", "spine", "core")
WORDS = (*MEDIA, "Cat6")  # media as a person at a rack calls them


@dataclass(frozen=True)
class Names:
    """Names of a design's things, each list made once when it is asked for."""

    design: Design

    @cached_property
    def devices(self) -> list[str]:
        """Such as "node-00042"."""
        devices = self.design.devices
        kinds = [kind.replace(" ", "-") for kind in KINDS]
        pairs = zip(devices.kind.tolist(), devices.number.tolist(), strict=True)
        return [f"{kinds[kind]}-{number:05d}" for kind, number in pairs]

    @cached_property
    def racks(self) -> list[str]:
        """Such as "h1-r03-07"."""
        return [self.design.rack_name(rack) for rack in range(len(self.design.racks))]

    @cached_property
    def places(self) -> list[str]:
        """Rack and lowest unit of each device, such as "h1-r03-07 u12"."""
        devices, racks = self.design.devices, self.racks
        pairs = zip(devices.rack.tolist(), devices.unit.tolist(), strict=True)
        return [f"{racks[rack]} u{unit:02d}" for rack, unit in pairs]

    @cached_property
    def cables(self) -> list[str]:
        """The label of each cable: the network's letter, and a number that no other cable has."""
        letters = [network[0].upper() for network in NETWORKS]
        return [f"{letters[n]}{row:06d}" for row, n in enumerate(self.design.cables.network.tolist())]

    @cached_property
    def ports(self) -> tuple[list[str], list[str]]:
        """Of both ends of each cable, as `port_names` says."""
        cables = self.design.cables
        return (
            port_names(self.design, cables.lower, cables.lower_port),
            port_names(self.design, cables.upper, cables.upper_port),
        )


def port_names(design: Design, devices: Ints, ports: Ints) -> list[str]:
    """What is printed beside the port at this end of each cable, in the order of the cables.

    Ports of a switch count from 1, "p17", as they do on its face; those of a NIC from 0, "nic3", as the
    operating system has them. A switch's own management port is "mgmt0".
    """
    kinds, networks = design.devices.kind[devices], design.cables.network
    switch = switches()[kinds, networks]
    first = first_ports(design)[kinds, networks]
    words = np.array([NIC[network] for network in NETWORKS])[networks]
    return [
        f"p{port + 1}" if own else f"{word}{port - start}"
        for own, word, port, start in zip(
            switch.tolist(), words.tolist(), ports.tolist(), first.tolist(), strict=True
        )
    ]


def media_of(design: Design) -> NDArray[np.uint8]:
    """Of each cable, into WORDS: copper from a management leaf to what it serves is twisted pairs."""
    cables, kind = design.cables, design.devices.kind
    served = kind[cables.upper] == KINDS.index("management leaf")
    copper = cables.medium == MEDIA.index("DAC")
    return np.where(served & copper, len(MEDIA), cables.medium).astype(np.uint8)


def switches() -> NDArray[np.bool_]:
    """[kind, network]: whether devices of the kind are switches of that network."""
    found = np.zeros((len(KINDS), len(NETWORKS)), bool)
    for column, network in enumerate(NETWORKS):
        prefix = "" if network == "compute" else f"{network} "
        for tier in TIERS:
            if prefix + tier in KINDS:
                found[KINDS.index(prefix + tier), column] = True
    return found


def first_ports(design: Design) -> Ints:
    """[kind, network]: the lowest port that devices of the kind have on a network; 0 where they have none."""
    cables = design.cables
    found = np.full((len(KINDS), len(NETWORKS)), np.iinfo(np.int32).max, np.int32)
    for ends, ports in ((cables.lower, cables.lower_port), (cables.upper, cables.upper_port)):
        np.minimum.at(found, (design.devices.kind[ends], cables.network), ports)
    found[found == np.iinfo(np.int32).max] = 0
    return found


@dataclass(frozen=True)
class Units:
    """Which nodes share leaves, and which of those share spines: what a scheduler wants to know.

    A unit is the nodes that have the same leaf on their first rail (in a rail-optimised fabric they share
    the leaves of all rails), a group the units whose leaves reach the same spines. Both count from 0.
    """

    unit: Ints  # of each node, by its number
    group: Ints  # of each unit

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1


def units_of(design: Design) -> Units:
    """From the cables of the compute network. A node without any is in unit 0."""
    cables, kind = design.cables, design.devices.kind
    compute = cables.network == NETWORKS.index("compute")
    lowest_above = np.full(len(kind), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(lowest_above, cables.lower[compute], cables.upper[compute])
    nodes = design.devices_of("node")
    leaves, unit = np.unique(lowest_above[nodes], return_inverse=True)
    above = lowest_above[np.minimum(leaves, len(kind) - 1)]
    _, group = np.unique(above, return_inverse=True)
    return Units(unit.astype(np.int32), group.astype(np.int32))


def model_of(design: Design, kind: str) -> str:
    """What is bought as this kind of device, such as "SN5600": from the bill, else the kind itself."""
    if kind == "node":
        return design.node.name
    items = (line.item for line in design.bill if line.item.startswith(f"{kind} "))
    return next((item.removeprefix(f"{kind} ") for item in items), kind.replace(" ", "-"))


def kinds_of(design: Design) -> list[str]:
    """Kinds that the design has any of."""
    return [kind for number, kind in enumerate(KINDS) if (design.devices.kind == number).any()]


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each unbroken stretch of rising numbers."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] + 1 == number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def hostlist(prefix: str, numbers: list[int], digits: int = 5) -> str:
    """As Slurm writes many hosts: "node-[00000-00063,00070]"."""
    parts = [f"{a:0{digits}d}" if a == b else f"{a:0{digits}d}-{b:0{digits}d}" for a, b in ranges(numbers)]
    return f"{prefix}-{parts[0]}" if len(numbers) == 1 else f"{prefix}-[{','.join(parts)}]"
