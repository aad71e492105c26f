"""Designs beside what a hand would check on the floor: ports, units, weights, feeds, ways of cables."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from colossi.errors import BadInput
from colossi.site.cluster import design
from colossi.site.design import KINDS, MEDIA, NETWORKS, Design
from colossi.site.losses import feed_losses, switch_losses, widths
from colossi.site.supply import feed_racks, supply_of
from colossi.spec import Spec, read_spec
from colossi.spec.equipment import cable, equipment, switch
from colossi.spec.read import build_spec

EXAMPLES = Path(__file__).parents[2] / "examples"
HALL = {"name": "h1", "length": 40.0, "width": 25.0}
FEEDS = [{"name": name, "megawatts": 1.5} for name in "abcd"]


def spec(cluster: dict[str, Any], **site: Any) -> Spec:
    document = {"name": "s", "cluster": cluster, "site": {"halls": [HALL], "feeds": FEEDS} | site}
    return build_spec(document, "here")


def dgx(nodes: int, **site: Any) -> Spec:
    return spec({"node": "DGX-H100", "gpus": 8 * nodes}, **site)


SITES = st.builds(
    lambda node, nodes, rack, gap, pod, redundancy, halls, feeds, fabric: build_spec(
        {
            "name": "s",
            "cluster": {"node": node, "nodes": nodes},
            "site": {
                "halls": [HALL | {"name": f"h{n}"} for n in range(halls)],
                "feeds": [{"name": f"f{n}", "megawatts": 2.0 + n} for n in range(feeds)],
                "redundancy": redundancy,
                "racks_per_pod": pod,
                "rack": {"nodes": rack, "gap": gap, "kilowatts": 50.0},
            },
        }
        | ({"fabric": {"radix": 64} | fabric} if node == "DGX-H100" else {}),
        "here",
    ),
    node=st.sampled_from(["DGX-H100", "colossus", "DGX-B200"]),
    nodes=st.integers(1, 90),
    rack=st.integers(1, 3),
    gap=st.integers(0, 2),
    pod=st.integers(1, 9),
    redundancy=st.sampled_from(["N", "N+1", "2N"]),
    halls=st.integers(1, 3),
    feeds=st.sampled_from([2, 4]),
    fabric=st.sampled_from(
        [{}, {"tiers": 3}, {"oversubscription": 3.0}, {"oversubscription": 7.0, "managers": 3}]
    ),
)


@given(wanted=SITES)
@settings(max_examples=60, deadline=None)
def test_what_a_hand_would_check(wanted: Spec) -> None:
    try:
        found = design(wanted)
    except BadInput:
        assume(False)
    assert found.nodes == wanted.cluster.nodes
    check_ports(found, wanted)
    check_racks(found, wanted)
    check_floor(found, wanted)
    check_feeds(found, wanted)
    check_ways(found, wanted)
    check_rails(found)
    check_reach(found)
    check_losses(found)


def check_ports(found: Design, wanted: Spec) -> None:
    """No port has two cables, and none is beyond those that the device has."""
    cables = found.cables
    ends = [*zip(cables.lower.tolist(), cables.lower_port.tolist(), strict=True)]
    ends += zip(cables.upper.tolist(), cables.upper_port.tolist(), strict=True)
    assert len(set(ends)) == len(ends)
    compute = switch("SN5600") if found.node.network == "ethernet" else switch("QM9700")
    ports = {
        "node": found.node.nics + 2,  # and storage, and management
        **dict.fromkeys(("leaf", "spine", "core", "storage leaf", "storage spine"), compute.ports + 1),
        "management leaf": switch("SN2201").ports,
        "management spine": switch("SN4600C").ports,
        "storage node": 2,
        "manager": 2,
        "management server": 1,
        "cdu": 1,
    }
    for device, port in ends:
        assert 0 <= port < ports[KINDS[found.devices.kind[device]]]


def check_racks(found: Design, wanted: Spec) -> None:
    """Nothing overlaps in a rack, and no rack is above its limits; weights and watts added up one by one."""
    assert wanted.site is not None
    devices, site = found.devices, wanted.site
    own = {
        "storage node": equipment("storage-server"),
        "management server": equipment("management-server"),
        "cdu": equipment("cdu"),
        "manager": equipment("fabric-manager"),
        "node": found.node,
        "management leaf": switch("SN2201"),
        "management spine": switch("SN4600C"),
    }
    taken: dict[int, list[int]] = defaultdict(list)
    watts: Counter[int] = Counter()
    kilograms: Counter[int] = Counter()
    compute = switch("SN5600") if found.node.network == "ethernet" else switch("QM9700")
    for kind, rack, unit, height in zip(
        devices.kind.tolist(),
        devices.rack.tolist(),
        devices.unit.tolist(),
        devices.height.tolist(),
        strict=True,
    ):
        model = own.get(KINDS[kind], compute)
        assert height == model.height
        taken[rack] += range(unit, unit + height)
        watts[rack] += model.power
        kilograms[rack] += model.weight
    for rack in range(len(found.racks)):
        assert len(set(taken[rack])) == len(taken[rack]) > 0
        assert min(taken[rack]) >= 1 and max(taken[rack]) <= site.rack.units
        assert (
            watts[rack] == pytest.approx(found.racks.watts[rack]) and watts[rack] <= site.rack.kilowatts * 1e3
        )
        # An empty rack weighs 140 kg here, a power strip 15.
        assert found.racks.kilograms[rack] == pytest.approx(kilograms[rack] + 170)
        assert found.racks.kilograms[rack] <= site.rack.kilograms
    assert found.racks.watts.sum() == pytest.approx(sum(watts.values()))


def check_floor(found: Design, wanted: Spec) -> None:
    """Racks stand inside the walls, none on another; a pod is in one hall, its switches with it."""
    assert wanted.site is not None
    racks, site = found.racks, wanted.site
    spots = list(zip(racks.hall.tolist(), racks.row.tolist(), racks.place.tolist(), strict=True))
    assert len(set(spots)) == len(spots)
    margin = site.floor.margin
    assert racks.x.min() >= margin and racks.y.min() >= margin
    assert racks.x.max() + site.rack.width <= HALL["length"] - margin + 1e-6  # type: ignore[operator]
    assert racks.y.max() + site.rack.depth <= HALL["width"] - margin + 1e-6  # type: ignore[operator]
    for hall in range(len(found.halls)):
        fronts = np.unique(racks.y[racks.hall == hall])
        assert (
            np.diff(fronts) >= site.rack.depth + min(site.floor.hot_aisle, site.floor.cold_aisle) - 1e-6
        ).all()
    pods = racks.pod[racks.pod >= 0]
    halls = {
        (pod, hall) for pod, hall in zip(pods.tolist(), racks.hall[racks.pod >= 0].tolist(), strict=True)
    }
    assert len(halls) == found.pods == len(set(pods.tolist()))


def check_feeds(found: Design, wanted: Spec) -> None:
    """No feed above its rating, nor after the loss of any one where that is promised: rack by rack."""
    assert wanted.site is not None
    racks, plant = found.racks, 1 + wanted.site.cooling.overhead
    for lost in (None, *range(len(found.feeds))):
        load, dark = [0.0] * len(found.feeds), 0
        for a, b, watts in zip(
            racks.feed_a.tolist(), racks.feed_b.tolist(), racks.watts.tolist(), strict=True
        ):
            there = {a, b} - {lost}
            dark += not there
            for feed in there:
                load[feed] += watts * plant / len(there)
        if lost is None or wanted.site.redundancy != "N":
            assert dark == 0
            assert all(x <= feed.watts * (1 + 1e-9) for x, feed in zip(load, found.feeds, strict=True))
        if lost is None:
            assert load == pytest.approx(supply_of(found, plant - 1).normal.tolist())
        else:
            counted = feed_losses(found, plant - 1)[lost]
            rest = [x / f.watts for n, (x, f) in enumerate(zip(load, found.feeds, strict=True)) if n != lost]
            assert (counted.dark, counted.highest) == (dark, pytest.approx(max(rest)))


def check_ways(found: Design, wanted: Spec) -> None:
    """A cable is as long as it must be, of a length that is sold, and no much longer."""
    assert wanted.site is not None
    cables, racks, devices, floor = found.cables, found.racks, found.devices, wanted.site.floor
    hall = (HALL["width"] + floor.between_halls) * racks.hall  # type: ignore[operator]
    for row in range(0, len(cables), 7):
        a, b = cables.lower[row], cables.upper[row]
        ra, rb = devices.rack[a], devices.rack[b]
        heights = [0.04445 * (devices.unit[d] + devices.height[d] / 2) for d in (a, b)]
        if ra == rb:
            way = abs(heights[0] - heights[1]) + 0.3
        else:
            across = abs(racks.y[ra] + hall[ra] - racks.y[rb] - hall[rb])
            way = abs(racks.x[ra] - racks.x[rb]) + across + sum(floor.tray - height for height in heights)
        way += floor.slack
        names = [MEDIA[cables.medium[row]]]
        if names == ["DAC"] and KINDS[devices.kind[b]] == "management leaf":
            names = ["Cat6"]
        assert cables.metres[row] == min(each for each in cable(names[0]).lengths if each >= way - 1e-5)
        if names == ["AOC"]:
            assert way > cable("DAC").lengths[-1]
        if names == ["fibre"] and KINDS[devices.kind[b]] != "management leaf":
            assert way > cable("AOC").lengths[-1]


def check_rails(found: Design) -> None:
    """Every NIC has its cable; those of a leaf are all of one rail."""
    cables, kind = found.cables, found.devices.kind
    mine = (cables.network == 0) & (kind[cables.lower] == 0)
    assert mine.sum() == found.nodes * found.node.nics
    rails: dict[int, set[int]] = defaultdict(set)
    for leaf, port in zip(cables.upper[mine].tolist(), cables.lower_port[mine].tolist(), strict=True):
        rails[leaf].add(port)
    assert all(len(each) == 1 for each in rails.values())


def check_reach(found: Design) -> None:
    """In each network, all reaches all else, also without the first or the last upper switch."""
    for network in range(len(NETWORKS)):
        mine = found.cables.network == network
        pairs = set(zip(found.cables.lower[mine].tolist(), found.cables.upper[mine].tolist(), strict=True))
        upper = {b for _, b in pairs if not KINDS[found.devices.kind[b]].endswith("leaf")}
        everyone = {each for pair in pairs for each in pair}
        for lost in (None, min(upper, default=None), max(upper, default=None)):
            parent = {each: each for each in everyone if each != lost or lost is None}

            def root(x: int, parent: dict[int, int] = parent) -> int:
                while parent[x] != x:
                    parent[x] = parent[parent[x]]
                    x = parent[x]
                return x

            for a, b in pairs:
                if lost is None or lost not in (a, b):
                    parent[root(a)] = root(b)
            leaves = {x for x in parent if x not in upper}
            assert len({root(x) for x in leaves}) == 1


def check_losses(found: Design) -> None:
    """What the loss of each compute switch leaves, counted again one by one: never nothing."""
    rows = [loss for loss in switch_losses(found) if loss.network == "compute"]
    cables, kind = found.cables, found.devices.kind
    ways = Counter(cables.lower[cables.network == 0].tolist())
    for loss in rows:
        worst, most = 1.0, 0
        for switch_ in found.devices_of(loss.kind):
            below = Counter(cables.lower[cables.upper == switch_].tolist())
            below = Counter({x: n for x, n in below.items() if KINDS[kind[x]] == loss.below})
            most = max(most, len(below))
            for device, lost in below.items():
                worst = min(worst, 1 - lost / ways[device])
        assert (loss.touched, loss.left) == (most, pytest.approx(worst))
        assert loss.left >= (1 - 1 / found.node.nics if loss.kind == "leaf" else 0.5)


def test_bisection_and_losses_of_a_superpod() -> None:
    """127 nodes, 32 leaves with 32 ports up, 16 spines.

    A lost leaf takes one rail of eight from 32 nodes, a lost spine 2 of 32 ports up from every leaf.
    """
    found = design(build_spec({**dgx(127).model_dump(exclude_none=True), "fabric": {"managers": 4}}, "here"))
    assert widths(found)[0].worst == 1.0
    rows = {(loss.network, loss.kind): loss for loss in switch_losses(found)}
    leaf, spine = rows["compute", "leaf"], rows["compute", "spine"]
    assert (leaf.below, leaf.touched, leaf.left) == ("node", 32, 7 / 8)
    assert (spine.below, spine.touched, spine.left) == ("leaf", 32, 30 / 32)


@pytest.mark.parametrize("ratio", [1.0, 3.0, 7.0])
def test_no_leaf_has_less_up_than_promised(ratio: float) -> None:
    document = dgx(120).model_dump(exclude_none=True) | {"fabric": {"oversubscription": ratio}}
    assert min(width.worst for width in widths(design(build_spec(document, "here")))) >= 1 / ratio - 1e-9


def test_colossus() -> None:
    """100,000 GPUs: 12,500 servers, 64 GPUs and a CDU in a rack, 512 in an array; numbers from the press."""
    found = design(read_spec(EXAMPLES / "colossus.toml", needs=("site",)))
    assert found.nodes == 12_500 and found.pods == 196
    first = found.devices.rack == 0
    assert Counter(found.devices.kind[first].tolist()) == {0: 8, KINDS.index("cdu"): 1}
    leaves = found.devices_of("leaf")
    assert (
        found.racks.pod[found.devices.rack[leaves]] == np.arange(len(leaves)) // 8
    ).all()  # 8 in each array
    assert found.device_name(42) == "node-00042" and found.rack_name(0) == "h1-r00-00"


def test_twice_as_many() -> None:
    found = design(read_spec(EXAMPLES / "colossus.toml", ["cluster.gpus=200000"], needs=("site",)))
    assert found.nodes == 25_000
    for ends in (
        (found.cables.lower, found.cables.lower_port),
        (found.cables.upper, found.cables.upper_port),
    ):
        ports = ends[0].astype(np.int64) << 32 | ends[1]
        assert len(np.unique(ports)) == len(ports)
    units = np.repeat(np.arange(len(found.devices)), found.devices.height)
    within = np.arange(len(units)) - np.repeat(
        np.cumsum(found.devices.height) - found.devices.height, found.devices.height
    )
    spots = found.devices.rack[units].astype(np.int64) * 100 + found.devices.unit[units] + within
    assert len(np.unique(spots)) == len(spots)


def test_a_power_budget_is_filled_and_not_exceeded() -> None:
    """A DGX H100 takes 10.2 kW, so 1 MW holds fewer than 98 with their network."""
    found = design(spec({"node": "DGX-H100"}, it_megawatts=1.0))
    assert found.racks.watts.sum() <= 1e6
    more = design(spec({"node": "DGX-H100", "nodes": found.nodes + 1}))
    assert more.racks.watts.sum() > 1e6 and 80 < found.nodes < 98


def test_spares_are_built_too() -> None:
    assert design(spec({"node": "DGX-H100", "gpus": 64, "spares": 2})).nodes == 10


def test_the_bill_adds_up() -> None:
    """Every device and cable is on it once."""
    found = design(dgx(40))
    number = {line.item: line.number for line in found.bill}
    cables = sum(n for item, n in number.items() if item.split()[0] in NETWORKS and item.endswith(" m"))
    assert cables == len(found.cables)
    assert number["node DGX-H100"] == 40 and number["rack"] == len(found.racks)
    assert all(line.source and line.dollars > 0 for line in found.bill)


def test_every_fibre_has_two_transceivers() -> None:
    found = design(read_spec(EXAMPLES / "colossus.toml", needs=("site",)))
    number = {line.item: line.number for line in found.bill}
    assert number["transceiver"] == 2 * int((found.cables.medium == MEDIA.index("fibre")).sum()) > 0


def test_nodes_that_nvlink_joins_stand_in_one_rack() -> None:
    """NVL72: 18 trays of four GPUs, 120 kW; eight racks are a scalable unit of 576 GPUs (NVIDIA, GB200)."""
    limits = {"kilowatts": 130.0, "kilograms": 1700.0}
    cooling = {"cdu": "cdu-250kw"}
    found = design(spec({"node": "GB200-NVL72", "gpus": 576}, rack=limits, cooling=cooling))
    assert np.bincount(found.devices.rack[: found.nodes]).tolist() == [18] * 8
    with pytest.raises(BadInput, match="NVLink joins 18"):
        design(spec({"node": "GB200-NVL72", "gpus": 576}, rack=limits | {"nodes": 16}, cooling=cooling))


@pytest.mark.parametrize(("redundancy", "share"), [("N", 1.0), ("2N", 0.5), ("N+1", 0.75)])
def test_feeds_carry_nearly_all_that_they_could(redundancy: str, share: float) -> None:
    """Four equal feeds, 1,000 racks of unequal power: 99% of what the promise leaves."""
    watts = np.random.default_rng(0).uniform(5e3, 80e3, 1000)
    each = watts.sum() * 1.1 / 4 / share / 0.99
    feeds = [{"name": name, "megawatts": each / 1e6} for name in "abcd"]
    site = dgx(1, redundancy=redundancy, feeds=feeds).site
    assert site is not None
    a, b = feed_racks(watts, np.zeros(1000, np.int32), site)
    assert (a == b).all() == (redundancy == "N")
    for lost in range(4) if redundancy != "N" else [4]:
        load = [0.0] * 4
        for x, y, w in zip(a.tolist(), b.tolist(), watts.tolist(), strict=True):
            for feed in {x, y} - {lost}:
                load[feed] += w * 1.1 / len({x, y} - {lost})
        assert max(load) <= each


def test_a_promise_that_no_pairs_of_feeds_keep_is_refused() -> None:
    """On four feeds of 1 MW: three racks of 0.95, of which two share a feed that may then carry 1.4 MW.

    Or one rack of 1.2, which either of its feeds must carry alone.
    """
    feeds = [{"name": name, "megawatts": 1.0} for name in "abcd"]
    site = dgx(1, redundancy="N+1", feeds=feeds, cooling={"overhead": 0.0}).site
    assert site is not None
    for count, each in ((3, 950), (1, 1200)):
        with pytest.raises(BadInput, match=f"no feed has {each:,} kW left"):
            feed_racks(np.full(count, each * 1e3), np.zeros(count, np.int32), site)


def test_racks_of_switches_keep_to_their_limits() -> None:
    """11 kW is six switches of 1.7 kW; 320 kg is ten of 15 kg over a rack of 170."""
    for limits, most in (({"kilowatts": 11.0, "nodes": 1}, 6), ({"kilograms": 320.0, "nodes": 1}, 10)):
        found = design(dgx(64, rack=limits))
        check_racks(found, dgx(64, rack=limits))
        leaves = found.devices.rack[found.devices_of("leaf")]
        assert np.bincount(leaves).max() <= most and len(found.racks) > 64 + 2


@pytest.mark.parametrize(("tiers", "ratio"), [(2, 1.0), (2, 3.0), (3, 1.0), (3, 3.0)])
def test_bisection_as_promised(tiers: int, ratio: float) -> None:
    """The maximum flow from the NICs of the first half of the nodes to those of the second, in ports."""
    fabric = {"tiers": tiers, "oversubscription": ratio}
    document = dgx(128).model_dump(exclude_none=True) | {"fabric": fabric}
    found = design(build_spec(document, "here"))
    cables, count = found.cables, len(found.devices)
    mine = cables.network == NETWORKS.index("compute")
    a, b = cables.lower[mine], cables.upper[mine]
    half = np.arange(64)
    ends = np.r_[np.full(64, count), half + 64]
    into = np.r_[half, np.full(64, count + 1)]
    rows, columns = np.r_[a, b, ends], np.r_[b, a, into]
    ports = np.r_[np.ones(2 * len(a), np.int32), np.full(128, 8, np.int32)]
    graph = csr_array((ports, (rows, columns)), shape=(count + 2, count + 2), dtype=np.int32)
    assert maximum_flow(graph, count, count + 1).flow_value >= 64 * 8 / ratio - 1e-9


REFUSED = [
    # 200 nodes take 2.04 MW, with network and plant about 2.4; four feeds of 1.5 in pairs carry 3.0.
    (dgx(200, redundancy="2N", feeds=FEEDS[:2]), "1.5 MW with redundancy '2N'", "MW too few"),
    (dgx(100, halls=[HALL | {"width": 7.0}]), "racks, or about", "m2, too few"),
    (dgx(8, rack={"nodes": 5}), "5 DGX-H100 in a rack need 51 kW, and it has 45 for them", "6 too few"),
    (dgx(8, rack={"kilowatts": 8.0}), "1 DGX-H100 in a rack need 10.2 kW", "2.2 too few"),
    (dgx(8, rack={"nodes": 4, "kilograms": 500.0}), "need 522 kg, and it has 330", "192 too few"),
    (dgx(20, cooling={"air_mw": 0.1}), "site.cooling.air_mw = 0.1 is below the heat", "MW too few"),
    (dgx(8, halls=[HALL | {"floor_load": 200.0}]), "h1 puts 427 kg/m2", "227 too few"),
    (spec({"node": "DGX-H100", "gpus": 8}, it_megawatts=1.0), "both say the nodes", ""),
    (spec({"node": "DGX-H100"}, it_megawatts=0.005), "does not hold one DGX-H100", "too few"),
    (spec({"node": "DGX-H100", "gpus": 70_000}, feeds=[{"name": "a", "megawatts": 999.0}]), "8750 nodes", ""),
    (spec({"nodes": 3}), "[cluster] names no server", ""),
]


@pytest.mark.parametrize(("wanted", "said", "by"), REFUSED)
def test_what_cannot_be_built_says_by_how_much(wanted: Spec, said: str, by: str) -> None:
    with pytest.raises(BadInput) as caught:
        design(wanted)
    assert said in caught.value.message and by in caught.value.message and caught.value.exit_code == 2
