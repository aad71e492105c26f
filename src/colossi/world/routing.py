"""
Which links a transfer between two NICs loads, and by how much.

* ecmp      each connection is hashed onto one of the shortest live paths, at every switch anew, and stays.
* flowlet   as ecmp, but each connection is hashed anew so many times that its bytes are on FLOWLETS paths.
* adaptive  each packet goes where there is room: all shortest paths, in proportion to what they can carry.

A switch does not use a cable behind which no live way is left, as BGP withdraws a route; it does not know of
degraded ones unless it is adaptive. Hashes are random draws: polarisation (all tiers hashing alike) is not
here, and neither are queues, losses and congestion control: rates are those of a fluid.

A link is one cable in one direction. With adaptive routing the cables between two switches are one link, and
where no cable between switches is impaired all those of a leaf are, since every path is as good as another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from colossi.site.fabric import Fabric

Routing = Literal["ecmp", "flowlet", "adaptive"]
Index = NDArray[np.int64]
Real = NDArray[np.float64]
Tier = Literal["node_leaf", "leaf_spine", "spine_core"]

FLOWLETS = 8  # assumed: nothing is published for RDMA, which leaves few gaps between packets
CHUNK = 1 << 17  # transfers worked on at a time, to bound memory


@dataclass(frozen=True)
class Health:
    """How much of a cable's bandwidth is there: 1 whole, 0 cut. One for each row of the fabric's links."""

    node_leaf: Real
    leaf_spine: Real
    spine_core: Real

    def with_(self, tier: Tier, rows: NDArray[np.int_], share: float = 0.0) -> "Health":
        """The same, but for some cables of a tier."""
        changed = getattr(self, tier).copy()
        changed[rows] = share
        return replace(self, **{tier: changed})


@dataclass(frozen=True)
class Transfers:
    """Traffic from NIC to NIC (node * rails + rail), and the flow, whose rate is sought, that it is of."""

    source: Index
    target: Index
    flow: Index
    weight: Real  # traffic on this transfer for each unit of its flow's rate


@dataclass(frozen=True)
class Loads:
    """A sparse matrix, links by flows, and the links' capacities, as shares of a port."""

    link: Index
    flow: Index
    weight: Real
    capacity: Real


def whole(fabric: Fabric) -> Health:
    """Every cable is well."""
    return Health(*(np.ones(len(t)) for t in (fabric.node_leaf, fabric.leaf_spine, fabric.spine_core)))


@dataclass(frozen=True)
class _Grid:
    """The fabric by position: L leaves, U uplinks of each, S spines of a pod, K uplinks of each."""

    nic_row: Index  # [NIC, plane] row of node_leaf
    nic_leaf: Index  # [NIC, plane]
    leaf_cable: Real  # [L, U] health
    spine_cable: Real  # [spines, K] health
    pod_leaves: int
    plane_leaves: int
    pods: int
    spines: int  # S
    leaf_each: int  # cables from a leaf to a spine
    core_each: int  # cables from a spine to a core

    def pod(self, leaf: Index) -> Index:
        """Of all planes, so that pods of two planes differ."""
        return leaf // self.plane_leaves * self.pods + leaf % self.plane_leaves // self.pod_leaves


def _grid(fabric: Fabric, health: Health) -> _Grid:
    planes, nics = fabric.spec.planes, fabric.nodes * fabric.rails
    ours = np.flatnonzero(fabric.node_leaf[:, 0] < fabric.nodes)
    device, port, leaf, _ = fabric.node_leaf[ours].T.astype(np.int64)
    at = (device * fabric.rails + port // planes, port % planes)
    row, nic_leaf = np.empty((nics, planes), np.int64), np.empty((nics, planes), np.int64)
    row[at], nic_leaf[at] = ours, leaf
    leaves = int(fabric.leaf_spine[:, 0].max()) + 1
    spines = int(fabric.leaf_spine[:, 2].max()) + 1
    uplinks = len(fabric.leaf_spine) // leaves
    spine_up = len(fabric.spine_core) // spines
    return _Grid(
        nic_row=row,
        nic_leaf=nic_leaf,
        leaf_cable=health.leaf_spine.reshape(leaves, uplinks),
        spine_cable=health.spine_core.reshape(spines, spine_up),
        pod_leaves=fabric.pod_leaves,
        plane_leaves=leaves // planes,
        pods=spines // planes // fabric.pod_spines,
        spines=fabric.pod_spines,
        leaf_each=uplinks // fabric.pod_spines,
        core_each=_each(fabric.spine_core),
    )


def _each(links: NDArray[np.int32]) -> int:
    """Cables between the first lower switch and its first upper one."""
    return int(np.sum((links[:, :3:2] == links[0, :3:2]).all(axis=1))) if len(links) else 1


def loads(
    fabric: Fabric, health: Health, transfers: Transfers, routing: Routing, paths: int, seed: int
) -> Loads:
    """What each flow puts on each link. `paths` connections share a transfer, unless routing is adaptive.

    A transfer that finds no way is put on a last link of capacity 0, so that its flow has rate 0.
    """
    grid = _grid(fabric, health)
    network: _Sprayed | _Hashed
    if routing == "adaptive":
        network = _Sprayed(grid, health)
    else:
        again = FLOWLETS if routing == "flowlet" else 1
        network = _Hashed(grid, health, paths * again, np.random.default_rng(seed))
    dead = len(network.capacity)
    parts: list[tuple[Index, Index, Real]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for begin in range(0, len(transfers.source), CHUNK):
        part = slice(begin, begin + CHUNK)
        source, target, flow = transfers.source[part], transfers.target[part], transfers.flow[part]
        lanes = np.minimum(
            health.node_leaf[grid.nic_row[source]], health.node_leaf[grid.nic_row[target]]
        )  # [transfers, planes]
        total = lanes.sum(axis=1)
        share = np.divide(lanes, total[:, None], out=np.zeros_like(lanes), where=total[:, None] > 0)
        cut = total == 0
        parts.append((np.full(cut.sum(), dead), flow[cut], transfers.weight[part][cut]))
        for plane in range(lanes.shape[1]):
            weight = transfers.weight[part] * share[:, plane]
            goes = weight > 0
            ends = (grid.nic_row[source[goes], plane], grid.nic_row[target[goes], plane])
            leaves = (grid.nic_leaf[source[goes], plane], grid.nic_leaf[target[goes], plane])
            for link, which, part_weight in _ways(network, ends, leaves, dead):
                parts.append((link, flow[goes][which], weight[goes][which] * part_weight))
    link, flow, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Loads(link, flow, weight, np.r_[network.capacity, 0.0])


def _ways(
    network: "_Sprayed | _Hashed", ends: tuple[Index, Index], leaves: tuple[Index, Index], dead: int
) -> Iterator[tuple[Index, Index, Real]]:
    """Links, which transfer loads each, and with which part of its weight: its NICs', then its switches'."""
    every = np.arange(len(ends[0]))
    yield ends[0], every, np.ones(len(every))
    yield network.down + ends[1], every, np.ones(len(every))
    climbs = np.flatnonzero(leaves[0] != leaves[1])
    for link, which, weight in network.between(leaves[0][climbs], leaves[1][climbs]):
        yield np.where(link < 0, dead, link), climbs[which], weight


class _Hashed:
    """Links are cables: those of the NICs, the leaves and the spines, up, then the same down."""

    def __init__(self, grid: _Grid, health: Health, paths: int, rng: np.random.Generator) -> None:
        self.grid, self.paths, self.rng = grid, paths, rng
        up = np.concatenate([health.node_leaf, health.leaf_spine, health.spine_core])
        self.capacity, self.down = np.r_[up, up], len(up)
        self.leaf_at = len(health.node_leaf)
        self.spine_at = self.leaf_at + len(health.leaf_spine)
        self.all_well = bool((health.leaf_spine > 0).all() and (health.spine_core > 0).all())

    def between(self, a: Index, b: Index) -> Iterator[tuple[Index, Index, Real]]:
        """From leaf a to leaf b on `paths` paths, each with an equal part."""
        grid, count = self.grid, len(a)
        for _ in range(self.paths):
            every, part = np.arange(count), np.full(count, 1 / self.paths)
            far = grid.pod(a) != grid.pod(b)
            up, lost = self._pick(self._uplinks(a, b), grid.leaf_cable.shape[1], count)
            spine = up // grid.leaf_each  # of the pod
            yield np.where(lost, -1, self.leaf_at + a * grid.leaf_cable.shape[1] + up), every, part
            if far.any():
                yield from self._through_cores(a, b, spine, np.flatnonzero(far & ~lost), part)
            copies = spine[:, None] * grid.leaf_each + np.arange(grid.leaf_each)
            alive = None if self.all_well else grid.leaf_cable[b[:, None], copies] > 0
            copy, _ = self._pick(alive, grid.leaf_each, count)
            last = b * grid.leaf_cable.shape[1] + spine * grid.leaf_each + copy
            yield np.where(lost, -1, self.down + self.leaf_at + last), every, part

    def _through_cores(
        self, a: Index, b: Index, spine: Index, which: Index, part: Real
    ) -> Iterator[tuple[Index, Index, Real]]:
        grid, width = self.grid, self.grid.spine_cable.shape[1]
        here = grid.pod(a[which]) * grid.spines + spine[which]
        there = grid.pod(b[which]) * grid.spines + spine[which]
        alive = None
        if not self.all_well:
            back = np.repeat(_pairs(grid.spine_cable[there], grid.core_each) > 0, grid.core_each, axis=1)
            alive = (grid.spine_cable[here] > 0) & back
        up, _ = self._pick(alive, width, len(which))
        yield self.spine_at + here * width + up, which, part[which]
        copies = up[:, None] // grid.core_each * grid.core_each + np.arange(grid.core_each)
        alive = None if self.all_well else grid.spine_cable[there[:, None], copies] > 0
        copy, _ = self._pick(alive, grid.core_each, len(which))
        link = self.down + self.spine_at + there * width + up // grid.core_each * grid.core_each + copy
        yield link, which, part[which]

    def _uplinks(self, a: Index, b: Index) -> NDArray[np.bool_] | None:
        """[transfers, U] whether a way leads on from an uplink of leaf a; None where all do."""
        if self.all_well:
            return None
        grid = self.grid
        onward = (_pairs(grid.leaf_cable[b], grid.leaf_each) > 0) & (_through(grid, a, b) > 0)
        return (grid.leaf_cable[a] > 0) & np.repeat(onward, grid.leaf_each, axis=1)

    def _pick(
        self, alive: NDArray[np.bool_] | None, width: int, count: int
    ) -> tuple[Index, NDArray[np.bool_]]:
        """One live column of each row, each as likely, and the rows that have none."""
        draw = self.rng.random(count)
        if alive is None:
            return (draw * width).astype(np.int64), np.zeros(count, bool)
        number = alive.sum(axis=1)
        nth = (draw * number).astype(np.int64)
        found = np.argmax(np.cumsum(alive, axis=1) > nth[:, None], axis=1).astype(np.int64)
        return found, number == 0


class _Sprayed:
    """Links are the NICs', then the bundles from a leaf to a spine, then those of a spine to its cores."""

    def __init__(self, grid: _Grid, health: Health) -> None:
        alike = bool((health.leaf_spine == 1).all() and (health.spine_core == 1).all())
        leaf = _pairs(grid.leaf_cable, grid.leaf_each)  # [L, S]
        spine = grid.spine_cable.sum(axis=1).reshape(-1, grid.spines)  # [pods of all planes, S]
        self.grid, self.alike = grid, alike
        if alike:
            leaf, spine = leaf.sum(axis=1, keepdims=True), spine.sum(axis=1, keepdims=True)
        self.leaf, self.spine = leaf, spine
        up = np.concatenate([health.node_leaf, leaf.ravel(), spine.ravel()])
        self.capacity, self.down = np.r_[up, up], len(up)
        self.leaf_at = len(health.node_leaf)
        self.spine_at = self.leaf_at + leaf.size

    def between(self, a: Index, b: Index) -> Iterator[tuple[Index, Index, Real]]:
        """From leaf a to leaf b over all spines, in proportion to the narrowest part of each way."""
        grid, width = self.grid, self.leaf.shape[1]
        width_of = np.minimum(self.leaf[a], self.leaf[b])  # [transfers, S]
        here, there = grid.pod(a), grid.pod(b)
        far = np.flatnonzero(here != there)
        if far.size and not self.alike:
            width_of = np.minimum(width_of, _through(grid, a, b))
        total = width_of.sum(axis=1, keepdims=True)
        part = np.divide(width_of, total, out=np.zeros_like(width_of), where=total > 0)
        lost = np.flatnonzero(total[:, 0] == 0)
        yield np.full(lost.size, -1), lost, np.ones(lost.size)
        column = np.arange(width)
        for at, first, which, rows in (
            (self.leaf_at, 0, np.arange(len(a)), a),
            (self.leaf_at, self.down, np.arange(len(a)), b),
            (self.spine_at, 0, far, here[far]),
            (self.spine_at, self.down, far, there[far]),
        ):
            link = first + at + rows[:, None] * width + column
            yield link.ravel(), np.repeat(which, width), part[which].ravel()


def _pairs(cables: Real, each: int) -> Real:
    """[.., pairs of switches] capacity, of [.., cables]."""
    return cables.reshape(*cables.shape[:-1], cables.shape[-1] // each, each).sum(axis=-1)


def _through(grid: _Grid, a: Index, b: Index) -> Real:
    """[transfers, S] what cores carry between the pods of leaves a and b, by spine; within a pod no limit."""
    here, there = grid.pod(a), grid.pod(b)
    limit = np.full((len(a), grid.spines), np.inf)
    far = here != there
    if far.any():
        cables = _pairs(grid.spine_cable, grid.core_each)  # [spines, cores of a group]
        cables = cables.reshape(-1, grid.spines, cables.shape[-1])
        pairs, which = np.unique(np.stack([here[far], there[far]]), axis=1, return_inverse=True)
        carried = np.stack([np.minimum(cables[p], cables[q]).sum(axis=-1) for p, q in pairs.T])
        limit[far] = carried[which.ravel()]
    return limit
