"""
The parts of a machine that can fail: how many there are, and which nodes go with a switch, a rack or a feed.

Counts only; it does not know which cable goes where.
"""

from dataclasses import dataclass

from colossi.plan.translate import hardware_of
from colossi.spec.failures import FailuresSpec, Unit
from colossi.spec.spec import Spec

# Colossus (ServeTheHome, 2024-10): 64 GPUs in a rack, 8 racks in an array. That an array's racks have one
# feed, and no other, is an assumption.
GPUS_PER_RACK = 64
RACKS_PER_FEED = 8

# Rail-optimised, of switches with so many ports, half of them down: a leaf takes one NIC of each of 32 nodes.
RADIX = 64


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
    """That of a cluster, with the spares of [cluster] or, if it has none, of [failures]."""
    cluster, failures = spec.cluster, spec.failures or FailuresSpec()
    if cluster.profile is not None or (cluster.gpu is None and cluster.node is None):
        gpus = nics = cluster.workers_per_node
    else:
        server = hardware_of(cluster)[1]
        gpus, nics = server.gpus, server.nics
    needed = -(-cluster.workers // gpus)
    nodes = needed + (cluster.spares or round(failures.spares_fraction * needed))
    leaves, spines, cores, trunks = _fabric(nodes, nics)
    return Machinery(
        nodes=nodes,
        gpus_per_node=gpus,
        nics_per_node=nics,
        nodes_per_rack=max(1, GPUS_PER_RACK // gpus),
        racks_per_feed=RACKS_PER_FEED,
        nodes_per_leaf=RADIX // 2,
        leaves=leaves,
        spines=spines,
        cores=cores,
        cables=nodes * nics + trunks,
    )


def _fabric(nodes: int, rails: int) -> tuple[int, int, int, int]:
    """Leaves, spines, cores and the cables between them, of a fat tree with as much bandwidth up as down.

    One leaf for each rail of a group of nodes; up to RADIX leaves under one layer of spines, more of them in
    pods of half as many, under cores.
    """
    half = RADIX // 2
    leaves = -(-nodes // half) * rails
    if leaves == 1:
        return 1, 0, 0, 0
    up = leaves * half
    if leaves <= RADIX:
        return leaves, -(-up // RADIX), 0, up
    spines = -(-leaves // half) * half
    return leaves, spines, -(-spines * half // RADIX), up + spines * half
