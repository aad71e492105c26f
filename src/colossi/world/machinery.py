"""
The parts of a machine that can fail: how many there are, and which nodes go with a switch, a rack or a feed.

Counts only; colossi.site.fabric knows which cable goes where.
"""

from dataclasses import dataclass

from colossi.errors import BadInput
from colossi.plan.translate import hardware_of
from colossi.site.fabric import Fabric, clos, split
from colossi.spec.cluster import ClusterSpec
from colossi.spec.fabric import FabricSpec
from colossi.spec.failures import FailuresSpec, Unit
from colossi.spec.spec import Spec

# Colossus (ServeTheHome, 2024-10): 64 GPUs in a rack, 8 racks in an array. That an array's racks have one
# feed, and no other, is an assumption.
GPUS_PER_RACK = 64
RACKS_PER_FEED = 8

# Ports of the switches of a cluster without a [fabric]: NVIDIA's Quantum-2 at 400 Gb/s, and its SN5600, whose
# 64 ports of 800 Gb/s are 128 of 400.
RADIXES = (64, 128)


@dataclass(frozen=True, slots=True)
class Machinery:
    """What there is that can fail."""

    nodes: int  # those that stand by included
    gpus_per_node: int
    nics_per_node: int
    nodes_per_rack: int
    racks_per_feed: int
    nodes_per_leaf: int
    leaves: int
    spines: int
    cores: int
    cables: int  # those of the NICs and those between switches

    @property
    def racks(self) -> int:
        return -(-self.nodes // self.nodes_per_rack)

    @property
    def feeds(self) -> int:
        return -(-self.racks // self.racks_per_feed)

    def number_of(self, unit: Unit) -> int:
        """How many of them there are."""
        links = self.nodes * self.nics_per_node
        return {
            "gpu": self.nodes * self.gpus_per_node,
            "node": self.nodes,
            "nic": links,
            "link": links,
            "trunk": self.cables - links,
            "leaf": self.leaves,
            "spine": self.spines + self.cores,
            "rack": self.racks,
            "feed": self.feeds,
            "job": 1,
        }[unit]

    def nodes_of(self, unit: Unit, index: int) -> range:
        """The nodes that are lost with one leaf, rack or feed."""
        if unit == "leaf":
            rails = max(1, self.leaves // -(-self.nodes // self.nodes_per_leaf))
            index, size = index // rails, self.nodes_per_leaf
        else:
            size = self.nodes_per_rack * (self.racks_per_feed if unit == "feed" else 1)
        return range(min(self.nodes, index * size), min(self.nodes, (index + 1) * size))


def machinery_of(spec: Spec) -> Machinery:
    """That of a cluster and its [fabric]; BadInput where such a fabric cannot be built."""
    nodes, (gpus, nics) = nodes_of_site(spec), _server(spec.cluster)
    fabric = _fabric(spec.fabric, nodes, nics)
    counts, alone = fabric.counts, len(fabric.leaf_spine) and int(fabric.leaf_spine[:, 0].max()) == 0
    return Machinery(
        nodes=nodes,
        gpus_per_node=gpus,
        nics_per_node=nics,
        nodes_per_rack=max(1, GPUS_PER_RACK // gpus),
        racks_per_feed=RACKS_PER_FEED,
        nodes_per_leaf=split(fabric.spec.radix, fabric.spec.oversubscription, "oversubscription")[0],
        leaves=counts.leaves,
        spines=0 if alone else counts.spines,  # above a single leaf nothing is needed
        cores=counts.cores,
        cables=counts.node_leaf if alone else counts.cables,
    )


def nodes_of_site(spec: Spec) -> int:
    """Servers, with the spares of [cluster] or, if it has none, of [failures]."""
    cluster, failures = spec.cluster, spec.failures or FailuresSpec()
    needed = -(-cluster.workers // _server(cluster)[0])
    return needed + (cluster.spares or round(failures.spares_fraction * needed))


def _server(cluster: ClusterSpec) -> tuple[int, int]:
    """GPUs and NICs of one; of one that no catalogue has, a NIC for each worker."""
    if cluster.profile is not None or (cluster.gpu is None and cluster.node is None):
        return cluster.workers_per_node, cluster.workers_per_node
    server = hardware_of(cluster)[1]
    return server.gpus, server.nics


def _fabric(said: FabricSpec | None, nodes: int, rails: int) -> Fabric:
    """As [fabric] says; else of the smaller switches, or the larger where three tiers do not hold all."""
    if said is not None:
        return clos(nodes, rails, said)
    try:
        return clos(nodes, rails, FabricSpec(radix=RADIXES[0]))
    except BadInput:
        return clos(nodes, rails, FabricSpec(radix=RADIXES[1]))
