"""
The three networks of a cluster as they are cabled, between devices that are numbered through.

Compute is the rail-optimised Clos; storage and management are Clos networks of one port for each end. Devices
are numbered kind by kind in the order of KINDS. Not here: where anything stands.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colossi.errors import BadInput
from colossi.site.design import KINDS, Ints
from colossi.site.fabric import Fabric, Links, clos
from colossi.spec.equipment import Switch, switch, switch_names
from colossi.spec.fabric import FabricSpec
from colossi.spec.hardware import Node
from colossi.spec.site import SiteSpec

NODES_PER_STORAGE_SERVER = 16  # assumption
NODES_PER_MANAGEMENT_SERVER = 256  # assumption
MANAGEMENT_SERVERS = 5  # at least: those of NVIDIA's SuperPOD H100 of 127 nodes (RA-11333)
SPINES = 2  # at least, over each leaf, and cores over each spine: the loss of one cuts nothing off


@dataclass(frozen=True)
class Switches:
    """Models that the networks are made of."""

    compute: Switch
    storage: Switch
    management_leaf: Switch
    management_spine: Switch


@dataclass(frozen=True)
class Networks:
    """Devices of each kind, their pods, and the cables between them.

    `pods` is the pod [devices] that a device belongs to; -1: none, it serves all. `near` is the pod in whose
    hall a device stands; -1: such devices are spread over the halls. `links` has a table for each network.
    """

    compute: Fabric
    counts: dict[str, int]
    pods: Ints
    near: Ints
    links: tuple[Links, Links, Links]

    def first(self, kind: str) -> int:
        """The number of the first device of a kind among all devices."""
        return first_of(self.counts)[kind]


def first_of(counts: dict[str, int]) -> dict[str, int]:
    """The number of the first device of each kind, where devices are numbered kind by kind."""
    begins = np.cumsum([0, *(counts[kind] for kind in KINDS)])
    return dict(zip(KINDS, begins.tolist(), strict=False))


def choose_switches(server: Node, site: SiteSpec, fabric: FabricSpec | None) -> Switches:
    """Those that the spec names, else those of the catalogue that fit. BadInput where none does."""
    compute = switch(site.switch) if site.switch else _fitting(server, fabric)
    if fabric is not None and (compute.ports, compute.gigabits) != (fabric.radix, fabric.gigabits):
        raise BadInput(
            f"site.switch = {compute.name!r} has {compute.ports} ports of {compute.gigabits:g} Gb/s, and "
            f"[fabric] {fabric.radix} of {fabric.gigabits:g}",
            "give one of the two",
        )
    return Switches(
        compute=compute,
        storage=switch(site.storage.switch) if site.storage.switch else compute,
        management_leaf=switch(site.management.leaf),
        management_spine=switch(site.management.spine),
    )


def _fitting(server: Node, fabric: FabricSpec | None) -> Switch:
    gigabits = fabric.gigabits if fabric else server.nic_bandwidth * 8 / 1e9
    known = [switch(name) for name in switch_names()]
    for each in known:
        if (each.network, each.gigabits) == (server.network, gigabits) and (
            fabric is None or each.ports == fabric.radix
        ):
            return each
    wanted = f"{fabric.radix} ports" if fabric else "ports"
    have = ", ".join(f"{s.name} ({s.ports} of {s.gigabits:g})" for s in known if s.network == server.network)
    raise BadInput(
        f"no {server.network} switch of the catalogue has {wanted} of {gigabits:g} Gb/s, for {server.name}",
        f"[fabric] may say radix and gigabits of one of {have}",
    )


def connect(
    server: Node,
    node_pods: Ints,
    cdu_pods: Ints,
    site: SiteSpec,
    fabric: FabricSpec | None,
    switches: Switches,
) -> Networks:
    """All devices and cables of nodes and CDUs that belong to these pods.

    BadInput as `clos` raises it, where a network cannot be built.
    """
    nodes = len(node_pods)
    said = fabric or FabricSpec(radix=switches.compute.ports, gigabits=switches.compute.gigabits)
    storage_said = FabricSpec(radix=switches.storage.ports, oversubscription=site.storage.oversubscription)
    servers = site.storage.servers or -(-nodes // NODES_PER_STORAGE_SERVER)
    helpers = site.management.servers or max(MANAGEMENT_SERVERS, -(-nodes // NODES_PER_MANAGEMENT_SERVER))
    whole = clos(nodes, server.nics, said, spines=SPINES)
    compute = _tiers(whole, node_pods)
    storage = _tiers(clos(nodes + servers, 1, storage_said, spines=SPINES), node_pods)

    pods = {
        "node": node_pods,
        "leaf": compute.leaf_pods,
        "spine": _all(len(compute.spine_pods)),
        "core": _all(compute.cores),
        "storage node": _all(servers),
        "storage leaf": storage.leaf_pods,
        "storage spine": _all(len(storage.spine_pods) + storage.cores),
        "management server": _all(helpers),
        "cdu": cdu_pods,
        "manager": _all(said.managers),
    }
    # Every one of these has a controller with a port of its own, after its other ports.
    ports = {
        "node": server.nics * said.planes + 1,
        **dict.fromkeys(("leaf", "spine", "core"), switches.compute.ports),
        "storage node": 1,
        **dict.fromkeys(("storage leaf", "storage spine"), switches.storage.ports),
        "management server": 0,
        "cdu": 0,
        "manager": 1,
    }
    # Neighbours share a management leaf: pod by pod, and what serves all at the end.
    ends = np.concatenate(list(pods.values()))
    order = np.argsort(np.where(ends < 0, np.iinfo(np.int32).max, ends), kind="stable")
    manage = _tiers(_management(len(ends), site, switches), ends[order])
    pods |= {
        "management leaf": manage.leaf_pods,
        "management spine": _all(len(manage.spine_pods) + manage.cores),
    }
    near = pods | {
        "spine": compute.spine_pods,
        "storage spine": np.append(storage.spine_pods, _all(storage.cores)),
        "management spine": np.append(manage.spine_pods, _all(manage.cores)),
    }

    counts = {kind: len(pods[kind]) for kind in KINDS}
    first = first_of(counts)
    device = np.concatenate([first[kind] + np.arange(counts[kind]) for kind in ports])
    port = np.concatenate([np.full(counts[kind], number) for kind, number in ports.items()])
    node, storage_node = (first[kind] + np.arange(counts[kind]) for kind in ("node", "storage node"))
    links = (
        compute.joined(np.append(node, first["manager"] + np.arange(said.managers)), None, first, ""),
        storage.joined(
            np.append(node, storage_node),
            np.append(np.full(nodes, server.nics * said.planes), np.zeros(servers, int)),
            first,
            "storage ",
        ),
        manage.joined(device[order], port[order], first, "management "),
    )
    columns = [np.concatenate([each[kind] for kind in KINDS]).astype(np.int32) for each in (pods, near)]
    return Networks(whole, counts, columns[0], columns[1], links)


def _all(count: int) -> Ints:
    """The pod of so many devices that serve all."""
    return np.full(count, -1, np.int32)


def _management(ends: int, site: SiteSpec, switches: Switches) -> Fabric:
    uplinks, ports = site.management.uplinks, switches.management_leaf.ports
    if uplinks >= ports:
        raise BadInput(
            f"site.management.uplinks = {uplinks} leaves none of {ports} ports for a node",
            f"give at most {ports - 1}",
        )
    said = FabricSpec(radix=ports, oversubscription=(ports - uplinks) / uplinks)
    return clos(ends, 1, said, switches.management_spine.ports, SPINES)


@dataclass(frozen=True)
class _Tiers:
    """A network whose switches are counted from 0 in each tier, without those that have no cable."""

    node_leaf: Links
    leaf_spine: Links
    spine_core: Links
    leaf_pods: Ints  # of the first end below
    spine_pods: Ints
    cores: int

    def joined(
        self, ends: NDArray[np.int_], port: NDArray[np.int_] | None, first: dict[str, int], prefix: str
    ) -> Links:
        """All links, between devices: `ends` and their `port` in place of numbers of ends.

        Cores follow the spines of a network that has no kind for them.
        """
        leaf, spine = first[f"{prefix}leaf"], first[f"{prefix}spine"]
        core = spine + len(self.spine_pods) if prefix else first["core"]
        node_leaf = self.node_leaf.astype(np.int64)
        if port is not None:
            node_leaf[:, 1] = port[node_leaf[:, 0]]
        node_leaf[:, 0] = ends[node_leaf[:, 0]]
        node_leaf[:, 2] += leaf
        above = (
            self.leaf_spine + np.array([leaf, 0, spine, 0]),
            self.spine_core + np.array([spine, 0, core, 0]),
        )
        return np.concatenate([node_leaf, *above]).astype(np.int32)


def _tiers(fabric: Fabric, end_pods: Ints) -> _Tiers:
    """A fabric's tiers. A network of one leaf (on each plane) has nothing above it."""
    node_leaf, leaf_spine, spine_core = (
        each.copy() for each in (fabric.node_leaf, fabric.leaf_spine, fabric.spine_core)
    )
    if len(np.unique(node_leaf[:, 2])) == fabric.spec.planes:
        leaf_spine, spine_core = leaf_spine[:0], spine_core[:0]
    for below, above in ((node_leaf, leaf_spine), (leaf_spine, spine_core)):
        used = np.unique(np.append(below[:, 2], above[:, 0]))
        below[:, 2] = np.searchsorted(used, below[:, 2])
        above[:, 0] = np.searchsorted(used, above[:, 0])
    spine_core[:, 2] = np.unique(spine_core[:, 2], return_inverse=True)[1].reshape(-1)
    # Ends beyond `end_pods` (managers, servers of storage) belong to no pod.
    leaf_pods = np.append(end_pods, -1)[np.minimum(_lowest(node_leaf), len(end_pods))]
    return _Tiers(
        node_leaf,
        leaf_spine,
        spine_core,
        leaf_pods.astype(np.int32),
        leaf_pods[_lowest(leaf_spine)].astype(np.int32),
        len(_lowest(spine_core)),
    )


def _lowest(links: Links) -> NDArray[np.int_]:
    """For each upper device, the lowest number below it."""
    found = np.full(int(links[:, 2].max(initial=-1)) + 1, np.iinfo(np.int32).max, np.int64)
    np.minimum.at(found, links[:, 2], links[:, 0])
    return found
