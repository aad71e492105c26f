"""Rates beside linear programs, paths beside a walk over the cables, times beside sums done by hand."""

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from colossi.errors import BadInput
from colossi.site.fabric import Fabric, clos
from colossi.spec.fabric import FabricSpec
from colossi.spec.hardware import node
from colossi.world.fairshare import fair_rates
from colossi.world.network import (
    PAYLOAD,
    RING_SHARE,
    Work,
    bus_bandwidth,
    collective_seconds,
    line_rate_share,
    together,
)
from colossi.world.routing import FLOWLETS, Health, Loads, Routing, Transfers, loads, whole
from colossi.world.traffic import Job, _double_tree, traffic
from tests.world.lexicographic import exact_rates

H100 = node("DGX-H100")
PORT = 50e9 * PAYLOAD
GIB = 2.0**30
ROUTINGS: tuple[Routing, ...] = get_args(Routing)


def dense(put: Loads, flows: int) -> np.ndarray:
    matrix = np.zeros((len(put.capacity), flows))
    np.add.at(matrix, (put.link, put.flow), put.weight)
    return matrix


@given(data=st.data(), links=st.integers(1, 7), flows=st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_rates_are_the_exact_ones(data: st.DataObject, links: int, flows: int) -> None:
    sizes = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 3.0])
    cells = data.draw(st.lists(sizes, min_size=links * flows, max_size=links * flows))
    capacities = data.draw(st.lists(st.floats(0.1, 10.0), min_size=links, max_size=links))
    matrix, capacity = np.array(cells).reshape(links, flows), np.array(capacities)
    assume((matrix.sum(axis=0) > 0).all())
    link, flow = np.nonzero(matrix)
    rates = fair_rates(link, flow, matrix[link, flow], capacity, flows)
    assert rates == pytest.approx(exact_rates(matrix, capacity), rel=1e-6, abs=1e-6)


FABRICS = [
    (6, 2, FabricSpec(radix=4)),  # three tiers, a core has two cables from a spine
    (6, 2, FabricSpec(radix=8, managers=1)),
    (9, 2, FabricSpec(radix=6, planes=2)),
    (8, 2, FabricSpec(radix=6, oversubscription=2.0)),
    (8, 1, FabricSpec(radix=4, tiers=3)),
    (16, 2, FabricSpec(radix=8, tiers=3, spine_oversubscription=3.0)),
]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Fabric, Health]:
    """A small fabric some of whose cables are cut or impaired."""
    fabric = clos(*draw(st.sampled_from(FABRICS)))
    health = whole(fabric)
    for tier in ("leaf_spine", "spine_core", "node_leaf"):
        rows = len(getattr(fabric, tier))
        if rows:
            cut = draw(st.lists(st.integers(0, rows - 1), max_size=max(1, rows // 3), unique=True))
            share = draw(st.sampled_from([0.0, 0.0, 0.5]))
            health = health.with_(tier, np.array(cut, np.int64), share)  # type: ignore[arg-type]
    return fabric, health


@given(world=worlds(), routing=st.sampled_from(ROUTINGS), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_rates_on_a_fabric_are_the_exact_ones(
    world: tuple[Fabric, Health], routing: Routing, seed: int
) -> None:
    fabric, health = world
    nics = fabric.nodes * fabric.rails
    target = np.random.default_rng(seed).permutation(nics)
    here = np.flatnonzero(target != np.arange(nics))
    every = Transfers(here, target[here], np.arange(len(here)), np.ones(len(here)))
    put = loads(fabric, health, every, routing, 1, seed)
    rates = fair_rates(put.link, put.flow, put.weight, put.capacity, len(here))
    assert rates == pytest.approx(exact_rates(dense(put, len(here)), put.capacity), rel=1e-6, abs=1e-6)


def ways(fabric: Fabric, health: Health, a: int, b: int) -> list[list[tuple[int, int]]]:
    """Every shortest live way from NIC to NIC as (link, ...) of the six tiers, walked over the cables."""
    nl, ls, sc = fabric.node_leaf, fabric.leaf_spine, fabric.spine_core
    sizes = np.cumsum([0, len(nl), len(ls), len(sc)])
    down = int(sizes[-1])

    def alive(tier: str, links: np.ndarray, column: int, device: int) -> list[int]:
        return [int(i) for i in np.flatnonzero(links[:, column] == device) if getattr(health, tier)[i] > 0]

    found = []
    planes, rails = fabric.spec.planes, fabric.rails
    for plane in range(planes):
        first, last = (
            int(np.flatnonzero((nl[:, 0] == x // rails) & (nl[:, 1] == x % rails * planes + plane))[0])
            for x in (a, b)
        )
        if not (health.node_leaf[first] > 0 and health.node_leaf[last] > 0):
            continue
        ends = [(first, plane), (down + last, plane)]
        leaf_a, leaf_b = int(nl[first, 2]), int(nl[last, 2])
        if leaf_a == leaf_b:
            found.append(ends)
            continue
        same_pod = set(ls[ls[:, 0] == leaf_a][:, 2]) == set(ls[ls[:, 0] == leaf_b][:, 2])
        for up in alive("leaf_spine", ls, 0, leaf_a):
            for back in alive("leaf_spine", ls, 0, leaf_b):
                middle = [(int(sizes[1]) + up, plane), (down + int(sizes[1]) + back, plane)]
                if same_pod:
                    if ls[up, 2] == ls[back, 2]:
                        found.append(ends + middle)
                    continue
                for climb in alive("spine_core", sc, 0, int(ls[up, 2])):
                    for fall in alive("spine_core", sc, 0, int(ls[back, 2])):
                        if sc[climb, 2] == sc[fall, 2]:
                            core = [(int(sizes[2]) + climb, plane), (down + int(sizes[2]) + fall, plane)]
                            found.append(ends + middle + core)
    return found


@given(world=worlds(), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_hashed_path_is_a_way_over_live_cables(
    world: tuple[Fabric, Health], seed: int, data: st.DataObject
) -> None:
    """On each plane that the NICs share one of the ways that a walk finds, and none only if there is none."""
    fabric, health = world
    nics = fabric.nodes * fabric.rails
    a, b = data.draw(st.lists(st.integers(0, nics - 1), min_size=2, max_size=2, unique=True))
    one = Transfers(np.array([a]), np.array([b]), np.zeros(1, np.int64), np.ones(1))
    put = loads(fabric, health, one, "ecmp", 1, seed)
    dead = len(put.capacity) - 1
    possible = ways(fabric, health, a, b)
    live = {plane for way in possible for _, plane in way}
    used = set(put.link.tolist()) - {dead}
    chosen = [way for way in possible if {link for link, _ in way} <= used]
    assert {plane for way in chosen for _, plane in way} == live
    if dead not in put.link:
        assert {link for way in chosen for link, _ in way} == used
        assert put.weight[put.link < len(fabric.node_leaf)].sum() == pytest.approx(1.0)
    else:
        assert len(live) < fabric.spec.planes


@given(world=worlds(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_adaptive_routing_finds_a_way_where_there_is_one(
    world: tuple[Fabric, Health], data: st.DataObject
) -> None:
    fabric, health = world
    nics = fabric.nodes * fabric.rails
    a, b = data.draw(st.lists(st.integers(0, nics - 1), min_size=2, max_size=2, unique=True))
    one = Transfers(np.array([a]), np.array([b]), np.zeros(1, np.int64), np.ones(1))
    put = loads(fabric, health, one, "adaptive", 1, 0)
    (rate,) = fair_rates(put.link, put.flow, put.weight, put.capacity, 1)
    planes = {plane for way in ways(fabric, health, a, b) for _, plane in way}
    if len(planes) == fabric.spec.planes:
        assert rate > 0
    if not planes:
        assert rate == 0


@given(world=worlds(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_adaptive_routing_uses_the_spines_with_a_way_and_no_others(
    world: tuple[Fabric, Health], data: st.DataObject
) -> None:
    fabric, health = world
    assume((np.concatenate([health.leaf_spine, health.spine_core]) < 1).any())
    a, b = data.draw(st.lists(st.integers(0, fabric.nodes * fabric.rails - 1), min_size=2, max_size=2))
    assume(a != b)
    one = Transfers(np.array([a]), np.array([b]), np.zeros(1, np.int64), np.ones(1))
    put = loads(fabric, health, one, "adaptive", 1, 0)
    nics, leaves = len(fabric.node_leaf), len(np.unique(fabric.leaf_spine[:, 0]))
    bundles = put.link[(put.weight > 0) & (put.link >= nics) & (put.link < nics + leaves * fabric.pod_spines)]
    cables = range(nics, nics + len(fabric.leaf_spine))
    climbs = [
        fabric.leaf_spine[link - nics]
        for way in ways(fabric, health, a, b)
        for link, _ in way
        if link in cables
    ]
    spines = {int(row[0]) * fabric.pod_spines + int(row[2]) % fabric.pod_spines for row in climbs}
    assert {int(bundle) - nics for bundle in bundles} == spines


@pytest.mark.parametrize("which", [0, 1, 4])
@pytest.mark.parametrize("cut", [False, True])
def test_every_way_is_as_likely(which: int, cut: bool) -> None:
    """Of 8,000 connections each way has its share within five standard errors, with a cable cut or none."""
    fabric, count = clos(*FABRICS[which]), 8000
    health = whole(fabric)
    if cut:
        health = health.with_("leaf_spine", np.array([len(fabric.leaf_spine) - 1]))
    last = fabric.nodes * fabric.rails - 2
    flows = np.arange(count)
    sent = Transfers(np.zeros(count, np.int64), np.full(count, last), flows, np.ones(count))
    put = loads(fabric, health, sent, "ecmp", 1, 3)
    taken = [put.link[put.flow == flow] for flow in flows]
    found = Counter(frozenset(links.tolist()) for links in taken)
    possible = {frozenset(link for link, _ in way) for way in ways(fabric, health, 0, last)}
    assert set(found) == possible
    expected = count / len(possible)
    assert all(abs(number - expected) < 5 * expected**0.5 for number in found.values())


@pytest.mark.parametrize(("nodes", "rails", "spec"), FABRICS)
def test_bundles_of_like_links_change_nothing(nodes: int, rails: int, spec: FabricSpec) -> None:
    """A cable impaired by almost nothing makes adaptive routing look at every spine for itself."""
    fabric = clos(nodes, rails, spec)
    almost = whole(fabric).with_("leaf_spine", np.array([0]), 1 - 1e-10)
    for seed in range(5):
        alike, apart = (line_rate_share(fabric, "adaptive", seed, health=h) for h in (None, almost))
        assert alike.mean == pytest.approx(apart.mean, rel=1e-8)
        assert alike.slowest == pytest.approx(apart.slowest, rel=1e-8)


def test_hashing_at_one_stage_is_balls_into_bins() -> None:
    """32 flows of a leaf to 32 others: the mean of 1 / (flows on my uplink) is 1 - (1 - 1/32)^32."""
    fabric = clos(33 * 32, 1, FabricSpec(radix=64))
    flows = np.arange(32)
    sent = Transfers(flows, (flows + 1) * 32, flows, np.ones(32))
    rates = [
        fair_rates(put.link, put.flow, put.weight, put.capacity, 32).mean()
        for put in (loads(fabric, whole(fabric), sent, "ecmp", 1, seed) for seed in range(400))
    ]
    assert np.mean(rates) == pytest.approx(1 - (1 - 1 / 32) ** 32, abs=0.01)


def test_adaptive_routing_fills_a_fat_tree_and_hashing_does_not() -> None:
    fabric = clos(512, 8, FabricSpec(radix=64))
    assert fabric.tiers == 3
    hashed, flowlets, adaptive = (line_rate_share(fabric, routing, 1) for routing in ROUTINGS)
    assert adaptive.mean == adaptive.slowest == pytest.approx(PAYLOAD)
    assert hashed.mean < flowlets.mean < adaptive.mean
    assert hashed.mean < 1 - 1 / np.e  # one stage alone would leave that much
    assert FLOWLETS > 1


# ---- collectives, by hand. H100: 8 GPUs of 450 GB/s, 8 NICs of 50 GB/s.


def seconds(fabric: Fabric, job: Job, op: str, health: Health | None = None, size: float = 64 * GIB) -> float:
    return collective_seconds(fabric, job, op, size, "adaptive", 0, health)  # type: ignore[arg-type]


def test_a_ring_goes_at_the_pace_of_nvlink_or_of_the_nics() -> None:
    fabric, job = clos(4, 8, FabricSpec()), Job(np.arange(32), H100, "ring")
    rate = min(450e9 * RING_SHARE, 8 * PORT)
    for op, rounds in (("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)):
        moved = rounds * 31 / 32 * 64 * GIB
        assert seconds(fabric, job, op) == pytest.approx(moved / rate, rel=1e-3)


def test_rings_of_rails_and_trees_are_bound_by_their_nics() -> None:
    fabric = clos(16, 8, FabricSpec())
    part = 64 * GIB / 8 / PORT
    hierarchical, tree = (
        seconds(fabric, Job(np.arange(128), H100, how), "all_reduce")  # type: ignore[arg-type]
        for how in ("hierarchical", "tree")
    )
    assert hierarchical == pytest.approx(2 * 15 / 16 * part, rel=2e-3)
    assert tree == pytest.approx(4 / 2 * part, rel=2e-3)  # up and to two children in a tree, up in the other


def test_an_all_to_all_sends_three_quarters_out() -> None:
    fabric, job = clos(4, 8, FabricSpec()), Job(np.arange(32), H100)
    assert seconds(fabric, job, "all_to_all") == pytest.approx(64 * GIB * 3 / 4 / PORT, rel=1e-3)


def test_one_domain_does_not_touch_the_network() -> None:
    fabric = clos(1, 8, FabricSpec())
    cut = whole(fabric).with_("node_leaf", np.arange(8))
    taken = seconds(fabric, Job(np.arange(8), H100, "ring"), "all_reduce", cut)
    assert bus_bandwidth("all_reduce", 8, 64 * GIB, taken) == pytest.approx(450e9 * RING_SHARE, rel=1e-3)
    assert seconds(fabric, Job(np.array([3]), H100), "all_reduce", cut) == 0.0


def test_any_subset_may_talk() -> None:
    """Two GPUs of one node and three of another: two channels; a rail for each."""
    fabric = clos(2, 8, FabricSpec())
    job = Job(np.array([1, 5, 8, 9, 14]), H100)
    transfers = traffic(job, fabric, "all_reduce", 0).transfers
    assert sorted(zip(transfers.source.tolist(), transfers.target.tolist(), strict=True)) == [
        (1, 8),
        (5, 9),
        (8, 1),
        (9, 5),
    ]
    assert seconds(fabric, job, "all_reduce") == pytest.approx(64 * GIB / 2 / PORT, rel=1e-3)


def test_a_ring_follows_the_order_of_the_job() -> None:
    """Domains 2, 0, 1 on one channel, of the first GPU that is named of each."""
    job = Job(np.array([17, 3, 8]), H100, "ring")
    transfers = traffic(job, clos(3, 8, FabricSpec()), "all_gather", 0).transfers
    assert list(zip(transfers.source.tolist(), transfers.target.tolist(), strict=True)) == [
        (17, 3),
        (3, 8),
        (8, 17),
    ]


def test_a_ring_that_goes_to_and_fro_meets_collisions() -> None:
    """In the order of the cables one flow leaves each leaf; scattered, all do, and hashed ones collide."""
    fabric = clos(256, 8, FabricSpec(radix=64))
    gpus = np.arange(2048)
    scattered = np.random.default_rng(0).permutation(256)[:, None] * 8 + np.arange(8)
    near, far = (Job(order, H100) for order in (gpus, scattered.ravel()))
    size = 1024 * GIB
    one, two, three = (
        collective_seconds(fabric, job, "all_reduce", size, routing, 0)
        for job, routing in ((near, "ecmp"), (far, "adaptive"), (far, "ecmp"))  # type: ignore[arg-type]
    )
    assert one == pytest.approx(two, rel=1e-3)
    # 64 leaves with about 28 of 32 uplinks in use by 32 flows: some link has 4 or more of them
    assert three > 3.5 * two


def test_a_degraded_nic_slows_its_ring_and_a_cut_one_stops_it() -> None:
    fabric, job = clos(16, 8, FabricSpec()), Job(np.arange(128), H100)
    well = seconds(fabric, job, "all_reduce")
    row = np.array([5])
    half = seconds(fabric, job, "all_reduce", whole(fabric).with_("node_leaf", row, 0.5))
    assert half == pytest.approx(2 * well, rel=2e-3)
    assert seconds(fabric, job, "all_reduce", whole(fabric).with_("node_leaf", row)) == np.inf


def test_oversubscription_is_felt_between_leaves_only() -> None:
    """7:1, all nodes of a leaf send to another leaf: a seventh; within a leaf nothing is lost."""
    fabric = clos(112, 1, FabricSpec(radix=64, oversubscription=7.0))  # 56 nodes a leaf
    single = H100.model_copy(update={"gpus": 1, "domain": 1, "nics": 1})
    near, far = (
        [Work(Job(np.array([i, i + step]), single), "all_reduce", 64 * GIB) for i in first]
        for first, step in ((range(0, 56, 2), 1), (range(56), 56))
    )
    alone, crossing = (together(fabric, works, "adaptive", 0) for works in (near, far))
    assert alone == pytest.approx([64 * GIB / PORT] * 28, rel=1e-3)
    assert crossing == pytest.approx([7 * 64 * GIB / PORT] * 56, rel=1e-3)


def test_the_shares_of_one_that_ends_go_to_the_others() -> None:
    """Two pairs cross one cable at half its rate each; then the other alone has 2 of 3 left."""
    fabric = clos(4, 1, FabricSpec(radix=3, oversubscription=2.0, tiers=2))
    assert fabric.leaf_spine.shape[0] == 2
    single = H100.model_copy(update={"gpus": 1, "domain": 1, "nics": 1})
    unit = 64 * GIB
    works = [
        Work(Job(np.array([0, 2]), single), "all_reduce", unit),
        Work(Job(np.array([1, 3]), single), "all_reduce", 3 * unit),
    ]
    taken = together(fabric, works, "ecmp", 0)
    assert taken == pytest.approx([2 * unit / PORT, 4 * unit / PORT], rel=1e-3)


@pytest.mark.parametrize("n", range(2, 40))
def test_two_trees(n: int) -> None:
    """Each spans, is shallow and binary; a domain is inner in one only, but for a root when n is odd."""
    up = _double_tree(n)[:, : 2 * (n - 1)]
    inner = []
    for child, parent in (up[:, : n - 1], up[:, n - 1 :]):
        above = dict(zip(child.tolist(), parent.tolist(), strict=True))
        assert len(above) == n - 1
        for place in range(n):
            steps = 0
            while place in above:
                place, steps = above[place], steps + 1
                assert steps <= np.ceil(np.log2(n))
        assert np.bincount(parent).max() <= 2
        inner.append(set(parent.tolist()))
    assert not (inner[0] & inner[1]) or n % 2


def test_gpus_that_the_fabric_has_not() -> None:
    fabric = clos(2, 8, FabricSpec())
    with pytest.raises(BadInput, match="GPU 23 has no NIC on a fabric of 2 nodes"):
        seconds(fabric, Job(np.arange(24), H100), "all_reduce")
    with pytest.raises(BadInput, match="named twice"):
        seconds(fabric, Job(np.array([1, 1]), H100), "all_reduce")
