"""
The fabric as it is cabled: a rail-optimised Clos of two or three tiers, port by port.

A scalable unit is as many nodes as a leaf has ports down; it has a leaf for each rail, and NIC r of each of
its nodes goes to leaf r. Every leaf has equally many cables to each spine of its pod, and every spine equally
many to each core of its group, so that traffic may be spread evenly; what does not divide so takes more
switches. With two tiers there is one pod. Spine s of each pod belongs to group s, and reaches the cores of
that group only. Nothing joins two planes but the NICs.

Not here: where a switch stands, how long a cable is. Assumed: pods are made of neighbouring units, all rails.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colossi.errors import BadInput
from colossi.spec.fabric import FabricSpec

Links = NDArray[np.int32]  # [n, 4]: lower device, lower port, upper device, upper port
NEAR = 1e-3  # an oversubscription written with four digits is the ratio of two numbers of ports


@dataclass(frozen=True)
class Counts:
    """Switches of each tier, and cables between the tiers."""

    leaves: int
    spines: int
    cores: int
    node_leaf: int
    leaf_spine: int
    spine_core: int

    @property
    def switches(self) -> int:
        return self.leaves + self.spines + self.cores

    @property
    def cables(self) -> int:
        return self.node_leaf + self.leaf_spine + self.spine_core


@dataclass(frozen=True)
class Fabric:
    """Devices are numbered from 0 in each tier, ports from 0 on each device; ports count single lanes.

    Plane by plane, and within a plane pod by pod, then unit by unit, then rail by rail. The managers of the
    fabric are the devices after the nodes. Ports of a device that share a cage are neighbours.
    """

    nodes: int
    rails: int  # NICs of a node
    spec: FabricSpec
    tiers: int
    pod_leaves: int  # in a full pod of one plane
    pod_spines: int
    node_leaf: Links
    leaf_spine: Links
    spine_core: Links  # empty with two tiers

    @property
    def counts(self) -> Counts:
        """Switches that have a cable, and cables: ports of a lower device that share a cage share a cable."""
        links = (self.node_leaf, self.leaf_spine, self.spine_core)
        switches = [len(np.unique(tier[:, 2])) for tier in links]
        return Counts(*switches, *(_cables(tier, self.spec.ports_per_cable) for tier in links))


def clos(nodes: int, rails: int, spec: FabricSpec, spine_radix: int | None = None, spines: int = 1) -> Fabric:
    """The fabric of so many nodes with so many NICs each. BadInput names the nearest that can be built.

    Spines and cores have as many ports as leaves, or `spine_radix`. At least `spines` are above each leaf,
    and as many cores above each spine, if it has the ports.
    """
    wide = spine_radix or spec.radix
    down, up = split(spec.radix, spec.oversubscription, "oversubscription")
    _check_cages(spec, down)
    slots = nodes * rails + spec.managers
    units = -(-slots // (rails * down))
    tiers = spec.tiers or (2 if units * rails <= wide else 3)
    if tiers == 2:
        spine_down, spine_up, pods = wide, 0, 1
        if units * rails > wide:
            raise _too_many(nodes, wide // rails * down, spec, "tiers = 3, or a larger radix")
    else:
        spine_down, spine_up = split(wide, spec.spine_oversubscription, "spine_oversubscription")
        if rails > spine_down:
            enough = math.ceil(rails * (1 + 1 / spec.spine_oversubscription))
            raise BadInput(
                f"fabric: a spine with {spine_down} ports down cannot reach the {rails} leaves of one unit",
                f"the nearest radix that can: {_nearest_radix(enough, spec.spine_oversubscription)}",
            )
        pods = -(-units // (spine_down // rails))
        if pods > wide:
            raise _too_many(nodes, wide * (spine_down // rails) * down, spec, "a larger radix")
    pod_units = -(-units // pods)  # as equal as may be; the last pod may be smaller
    pod_leaves = pod_units * rails
    leaf_links = links_per_pair(up, pod_leaves, spine_down, spines)
    pod_spines = up // leaf_links

    node_leaf = _nodes_to_leaves(nodes, rails, spec, down)
    plane_leaves = units * rails
    leaf_spine = _leaves_to_spines(plane_leaves, down, up, leaf_links, pod_leaves)
    spine_core = np.empty((0, 4), np.int32)
    plane_cores = 0
    if tiers == 3:
        core_links = links_per_pair(spine_up, pods, wide, spines)
        plane_cores = pod_spines * (spine_up // core_links)
        spine_core = _spines_to_cores(pods, pod_spines, spine_down, spine_up, core_links)
    return Fabric(
        nodes=nodes,
        rails=rails,
        spec=spec,
        tiers=tiers,
        pod_leaves=pod_leaves,
        pod_spines=pod_spines,
        node_leaf=_planes_of_nodes(node_leaf, spec, plane_leaves, nodes),
        leaf_spine=_planes(leaf_spine, spec.planes, plane_leaves, pods * pod_spines),
        spine_core=_planes(spine_core, spec.planes, pods * pod_spines, plane_cores),
    )


def split(radix: int, ratio: float, key: str) -> tuple[int, int]:
    """Ports down and up of a switch: down / up = ratio. BadInput where no whole numbers of ports are so."""
    up = min(range(1, radix), key=lambda ports: abs((radix - ports) / ports - ratio), default=0)
    if up and abs((radix - up) / up - ratio) <= NEAR * ratio:
        return radix - up, up
    nearest = f"{radix - up}:{up}, {key} = {(radix - up) / up:.5g}" if up else "2 ports, 1:1"
    raise BadInput(
        f"fabric: {radix} ports do not divide {ratio:g}:1 into down and up",
        f"the nearest that divides: {nearest}; or radix = {_nearest_radix(radix, ratio)}",
    )


def links_per_pair(uplinks: int, lower: int, ports: int, least: int = 1) -> int:
    """Cables from each of `lower` switches to each upper one of `ports`: the most that divides evenly.

    There are `least` upper ones at least, where a lower one has as many uplinks.
    """
    even = (m for m in range(1, uplinks + 1) if uplinks % m == 0)
    return max(m for m in even if m == 1 or (m * lower <= ports and uplinks // m >= least))


def _check_cages(spec: FabricSpec, down: int) -> None:
    """A cable joins two switches, or a NIC and the leaves of its planes; no cage is divided among others."""
    each = spec.ports_per_cable
    if spec.planes % each:
        raise BadInput(
            f"fabric: {each} ports of a cable do not divide a NIC's {spec.planes} ports, one on each plane",
            f"the nearest that divides: {math.gcd(each, spec.planes)}",
        )
    if down % each or spec.radix % each:
        raise BadInput(
            f"fabric: {each} ports of a cable do not divide a leaf's {spec.radix} ports, {down} of them down",
            f"the nearest that divides: {math.gcd(each, down, spec.radix)}",
        )


def _nearest_radix(radix: int, ratio: float) -> str:
    """The smallest switch from `radix` on whose ports divide by the ratio; none below 4,096 is none."""
    for ports in range(max(radix, 2), 4097):
        up = round(ports / (1 + ratio))
        if 0 < up < ports and abs((ports - up) / up - ratio) <= NEAR * ratio:
            return str(ports)
    return "none up to 4096"


def _too_many(nodes: int, most: int, spec: FabricSpec, hint: str) -> BadInput:
    return BadInput(
        f"fabric: {nodes} nodes are more than {spec.tiers or 3} tiers of {spec.radix} ports hold",
        f"the nearest is {most} nodes; or {hint}",
    )


def _rows(
    lower: NDArray[np.int_], port: NDArray[np.int_], upper: NDArray[np.int_], at: NDArray[np.int_]
) -> Links:
    return np.stack(np.broadcast_arrays(lower, port, upper, at), axis=-1).reshape(-1, 4).astype(np.int32)


def _nodes_to_leaves(nodes: int, rails: int, spec: FabricSpec, down: int) -> Links:
    """One plane; a manager is a device of one port, and takes the next place as if it were a NIC."""
    slot = np.arange(nodes * rails + spec.managers)
    node, rail = slot // rails, slot % rails
    real = slot < nodes * rails
    device = np.where(real, node, nodes + slot - nodes * rails)
    port = np.where(real, rail * spec.planes, 0)
    return _rows(device, port, node // down * rails + rail, node % down)


def _leaves_to_spines(leaves: int, down: int, up: int, each: int, pod_leaves: int) -> Links:
    """One plane; uplink u of a leaf goes to spine u // each of its pod."""
    leaf, u = np.arange(leaves)[:, None], np.arange(up)[None, :]
    spine = leaf // pod_leaves * (up // each) + u // each
    return _rows(leaf, down + u, spine, leaf % pod_leaves * each + u % each)


def _spines_to_cores(pods: int, pod_spines: int, down: int, up: int, each: int) -> Links:
    """One plane; uplink u of spine s of a pod goes to core u // each of group s."""
    spine, u = np.arange(pods * pod_spines)[:, None], np.arange(up)[None, :]
    core = spine % pod_spines * (up // each) + u // each
    return _rows(spine, down + u, core, spine // pod_spines * each + u % each)


def _planes(links: Links, planes: int, lower: int, upper: int) -> Links:
    """The same in each plane, whose devices follow those of the plane before."""
    step = np.array([lower, 0, upper, 0], np.int32)
    return np.concatenate([links + plane * step for plane in range(planes)])


def _planes_of_nodes(links: Links, spec: FabricSpec, leaves: int, nodes: int) -> Links:
    """A NIC's next port goes to the same place in the next plane; managers are on the first only."""
    of_nodes, step = links[links[:, 0] < nodes], np.array([0, 1, leaves, 0], np.int32)
    return np.concatenate([links, *(of_nodes + plane * step for plane in range(1, spec.planes))])


def _cables(links: Links, ports_per_cable: int) -> int:
    cages = np.stack([links[:, 0], links[:, 1] // ports_per_cable])
    return int(np.unique(cages[0].astype(np.int64) << 32 | cages[1]).size)
