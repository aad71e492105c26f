"""
The three networks of a cluster as they are cabled, between devices that are numbered through.

Compute is the rail-optimised Clos; storage and management are Clos networks of one port for each end. Devices
are numbered kind by kind in the order of KINDS. Not here: where anything stands.
"""

from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Switches:
    """Models that the networks are made of."""

    compute: Switch
    storage: Switch
    management_leaf: Switch
    management_spine: Switch


@dataclass(frozen=True)
class Networks:
    """Devices of each kind, their pods, and links between devices.

    `pods` is the pod [1 for each device] that a device belongs to; -1: none, it serves all. `links` has for
    each network rows of lower device, lower port, upper device, upper port.
    """

    compute: Fabric
    counts: dict[str, int]
    pods: Ints
    near: Ints  # the pod in whose hall it stands; -1: spread over the halls
    links: tuple[Links, Links, Links]

    def first(self, kind: str) -> int:
        """The number of the first device of a kind among all devices."""
        return sum(self.counts.get(each, 0) for each in KINDS[: KINDS.index(kind)])


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
    nodes: int,
    node_pods: Ints,
    racks: Ints,
    site: SiteSpec,
    fabric: FabricSpec | None,
    switches: Switches,
) -> Networks:
    """All devices and links. `node_pods` is of each node, `racks` the pod of each rack of nodes.

    BadInput as `clos` raises it, where a network cannot be built.
    """
    said = fabric or FabricSpec(radix=switches.compute.ports, gigabits=switches.compute.gigabits)
    compute = clos(nodes, server.nics, said)
    servers = site.storage.servers or -(-nodes // NODES_PER_STORAGE_SERVER)
    storage = clos(
        nodes + servers,
        1,
        FabricSpec(radix=switches.storage.ports, oversubscription=site.storage.oversubscription),
    )
    cdus = len(racks) if server.liquid else 0
    helpers = site.management.servers or max(3, -(-nodes // NODES_PER_MANAGEMENT_SERVER))

    # Switches without a cable are not built; those that are count on from 0.
    tiers = [_numbered(each) for each in (compute, storage)]
    pods_of = [_pods(links, node_pods) for links in tiers]
    counts = {
        "node": nodes,
        "leaf": len(pods_of[0][0]),
        "spine": len(pods_of[0][1]),
        "core": len(pods_of[0][2]),
        "storage node": servers,
        "storage leaf": len(pods_of[1][0]),
        "storage spine": len(pods_of[1][1]) + len(pods_of[1][2]),
        "management server": helpers,
        "cdu": cdus,
        "manager": said.managers,
    }
    none = np.full
    pods = {
        "node": node_pods,
        "leaf": pods_of[0][0],
        "spine": none(counts["spine"], -1),
        "core": none(counts["core"], -1),
        "storage node": none(servers, -1),
        "storage leaf": pods_of[1][0],
        "storage spine": none(counts["storage spine"], -1),
        "management server": none(helpers, -1),
        "cdu": racks[:cdus],
        "manager": none(said.managers, -1),
    }
    ends = np.concatenate([pods[kind] for kind in pods])
    # Neighbours share a management leaf: pod by pod, and what serves all at the end.
    order = np.argsort(np.where(ends < 0, np.iinfo(np.int32).max, ends), kind="stable")
    uplinks, ports = site.management.uplinks, switches.management_leaf.ports
    if uplinks >= ports:
        raise BadInput(
            f"site.management.uplinks = {uplinks} leaves no port of {ports} for a node",
            f"give at most {ports - 1}",
        )
    manage = clos(
        len(ends),
        1,
        FabricSpec(radix=ports, oversubscription=(ports - uplinks) / uplinks),
        switches.management_spine.ports,
    )
    of_manage = _numbered(manage)
    pods_of_manage = _pods(of_manage, ends[order])
    counts |= {
        "management leaf": len(pods_of_manage[0]),
        "management spine": len(pods_of_manage[1]) + len(pods_of_manage[2]),
    }
    pods |= {
        "management leaf": pods_of_manage[0],
        "management spine": none(counts["management spine"], -1),
    }
    counts = {kind: counts[kind] for kind in KINDS}
    near = pods | {
        "spine": pods_of[0][1],
        "storage spine": np.concatenate(pods_of[1][1:]),
        "management spine": np.concatenate(pods_of_manage[1:]),
    }
    columns = [np.concatenate([each[k] for k in KINDS]).astype(np.int32) for each in (pods, near)]
    found = Networks(compute, counts, *columns, ())  # type: ignore[arg-type]
    first = {kind: found.first(kind) for kind in KINDS}

    own = np.concatenate(
        [
            first[kind] + np.arange(len(pods[kind]))
            for kind in pods
            if "management l" not in kind and "management sp" not in kind
        ]
    )
    port = np.concatenate(
        [
            np.full(counts[kind], number)
            for kind, number in {
                "node": server.nics * said.planes + 1,
                "leaf": switches.compute.ports,
                "spine": switches.compute.ports,
                "core": switches.compute.ports,
                "storage node": 1,
                "storage leaf": switches.storage.ports,
                "storage spine": switches.storage.ports,
                "management server": 0,
                "cdu": 0,
                "manager": 1,
            }.items()
        ]
    )
    links = (
        _joined(
            tiers[0], _ends(nodes, first["node"], said.managers, first["manager"]), None, first, "", nodes
        ),
        _joined(
            tiers[1],
            _ends(nodes, first["node"], servers, first["storage node"]),
            np.concatenate([np.full(nodes, server.nics * said.planes), np.zeros(servers, int)]),
            first,
            "storage ",
            nodes,
        ),
        _joined(of_manage, own[order], port[order], first, "management ", nodes),
    )
    return replace(found, links=links)


def _ends(nodes: int, first: int, others: int, first_other: int) -> NDArray[np.int_]:
    return np.concatenate([first + np.arange(nodes), first_other + np.arange(others)])


def _numbered(fabric: Fabric) -> tuple[Links, Links, Links]:
    """Its links, with switches counted from 0 in each tier without those that have no cable."""
    node_leaf, leaf_spine, spine_core = (
        fabric.node_leaf.copy(),
        fabric.leaf_spine.copy(),
        fabric.spine_core.copy(),
    )
    for below, above in ((node_leaf, leaf_spine), (leaf_spine, spine_core)):
        used = np.unique(np.concatenate([below[:, 2], above[:, 0]]))
        below[:, 2] = np.searchsorted(used, below[:, 2])
        above[:, 0] = np.searchsorted(used, above[:, 0])
    spine_core[:, 2] = np.unique(spine_core[:, 2], return_inverse=True)[1].reshape(-1)
    return node_leaf, leaf_spine, spine_core


def _pods(tiers: tuple[Links, Links, Links], end_pods: Ints) -> list[Ints]:
    """Of the switches of each tier: the pod of the first end below it; -1 for cores, which are below all."""
    node_leaf, leaf_spine, spine_core = tiers
    of_leaves = np.append(end_pods, -1)[np.minimum(_lowest(node_leaf), len(end_pods))]
    of_spines = of_leaves[_lowest(leaf_spine)]
    cores = int(spine_core[:, 2].max()) + 1 if len(spine_core) else 0
    return [of_leaves.astype(np.int32), of_spines.astype(np.int32), np.full(cores, -1, np.int32)]


def _lowest(links: Links) -> NDArray[np.int_]:
    """For each upper device, the lowest number below it."""
    found = np.full(int(links[:, 2].max()) + 1, np.iinfo(np.int32).max)
    np.minimum.at(found, links[:, 2], links[:, 0])
    return found


def _joined(
    tiers: tuple[Links, Links, Links],
    ends: NDArray[np.int_],
    port: NDArray[np.int_] | None,
    first: dict[str, int],
    prefix: str,
    nodes: int,
) -> Links:
    """The tiers' links with devices of the cluster in place of numbers in a tier."""
    node_leaf, leaf_spine, spine_core = (links.astype(np.int64) for links in tiers)
    spines = int(leaf_spine[:, 2].max()) + 1
    core = first["core"] if not prefix else first[f"{prefix}spine"] + spines
    if port is not None:
        node_leaf[:, 1] = port[node_leaf[:, 0]]
    node_leaf[:, 0] = ends[node_leaf[:, 0]]
    node_leaf[:, 2] += first[f"{prefix}leaf"]
    leaf_spine += [first[f"{prefix}leaf"], 0, first[f"{prefix}spine"], 0]
    spine_core += [first[f"{prefix}spine"], 0, core, 0]
    return np.concatenate([node_leaf, leaf_spine, spine_core]).astype(np.int32)
