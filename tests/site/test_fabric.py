"""The fabric beside NVIDIA's published tables, and port by port beside what a hand may plug in."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from colossi.errors import BadInput
from colossi.site.fabric import Counts, Fabric, clos
from colossi.spec.fabric import FabricSpec

# NVIDIA, DGX SuperPOD reference architectures, "network fabrics": H100 (NDR, one node's place is the fabric
# managers'), B200 (NDR), B300 (Spectrum-X, two planes of 400G, twin cables) and B300 (XDR, 144 ports).
H100, B200 = FabricSpec(radix=64, managers=4), FabricSpec(radix=64)
SPECTRUM, XDR = FabricSpec(radix=128, planes=2, ports_per_cable=2), FabricSpec(radix=144)
TABLES = [
    # nodes, leaves, spines, cores, cables node-leaf, leaf-spine, spine-core
    (H100, 31, Counts(8, 4, 0, 252, 256, 0)),
    (H100, 63, Counts(16, 8, 0, 508, 512, 0)),
    (H100, 95, Counts(24, 16, 0, 764, 768, 0)),
    (H100, 127, Counts(32, 16, 0, 1020, 1024, 0)),
    (B200, 64, Counts(16, 8, 0, 512, 512, 0)),
    (B200, 128, Counts(32, 16, 0, 1024, 1024, 0)),
    (B200, 256, Counts(64, 32, 0, 2048, 2048, 0)),
    (B200, 512, Counts(128, 128, 64, 4096, 4096, 4096)),
    (B200, 1024, Counts(256, 256, 128, 8192, 8192, 8192)),
    (B200, 2048, Counts(512, 512, 256, 16384, 16384, 16384)),
    *((SPECTRUM, 64 * su, Counts(16 * su, 8 * su, 0, 512 * su, 512 * su, 0)) for su in (1, 2, 4, 8, 16)),
    (XDR, 72, Counts(8, 4, 0, 576, 576, 0)),
    (XDR, 144, Counts(16, 8, 0, 1152, 1152, 0)),
    (XDR, 288, Counts(32, 18, 0, 2304, 2304, 0)),
    (XDR, 576, Counts(64, 36, 0, 4608, 4608, 0)),
    (XDR, 1296, Counts(144, 72, 0, 10368, 10368, 0)),
]
assert len(TABLES) == 20


@pytest.mark.parametrize(("spec", "nodes", "counts"), TABLES)
def test_the_published_tables(spec: FabricSpec, nodes: int, counts: Counts) -> None:
    assert clos(nodes, 8, spec).counts == counts


def rule(units: int, up: int, radix: int) -> tuple[int, int, int]:
    """Leaves, spines, cores of whole units of 8 rails, one plane, by the rule read off the tables."""
    leaves = 8 * units
    if leaves > radix:
        return leaves, leaves, leaves // 2
    spines = math.ceil(leaves * up / radix)
    while up % spines:
        spines += 1
    return leaves, spines, 0


@pytest.mark.parametrize("radix", [64, 128, 144])
@pytest.mark.parametrize("units", [*range(1, 9), 16, 32, 64])
def test_the_rule_of_the_tables(units: int, radix: int) -> None:
    """Units that fill no whole pods, or pods that do not divide the ports, are beyond the rule."""
    up = radix // 2
    pods = units / (up // 8)
    if 8 * units > radix and (pods % 1 or up % (radix // pods)):
        pytest.skip("not in the tables' rule")
    counts = clos(units * up, 8, FabricSpec(radix=radix)).counts
    assert (counts.leaves, counts.spines, counts.cores) == rule(units, up, radix)


def plugs(fabric: Fabric) -> list[tuple[str, int, int]]:
    """Every end of every cable: tier, device, port."""
    tiers = (("node", fabric.node_leaf, "leaf"), ("leaf", fabric.leaf_spine, "spine"))
    ends = []
    for lower, links, upper in (*tiers, ("spine", fabric.spine_core, "core")):
        for a, a_port, b, b_port in links.tolist():
            ends += [(lower, a, a_port), (upper, b, b_port)]
    return ends


SPECS = st.builds(
    FabricSpec,
    tiers=st.sampled_from([None, 2, 3]),
    radix=st.sampled_from([4, 6, 8, 12, 16, 24]),
    oversubscription=st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0, 7.0]),
    spine_oversubscription=st.sampled_from([1.0, 3.0, 7.0]),
    planes=st.sampled_from([1, 2]),
    managers=st.integers(0, 3),
)


@given(spec=SPECS, nodes=st.integers(1, 60), rails=st.integers(1, 4))
@settings(max_examples=60)
def test_every_port_takes_one_cable(spec: FabricSpec, nodes: int, rails: int) -> None:
    try:
        fabric = clos(nodes, rails, spec)
    except BadInput:
        assume(False)
    ends = plugs(fabric)
    assert len(set(ends)) == len(ends)
    assert all(0 <= port < spec.radix for tier, _, port in ends if tier != "node")
    assert len(fabric.node_leaf) == nodes * rails * spec.planes + spec.managers
    for links in (fabric.leaf_spine, fabric.spine_core):  # evenly: the same between all pairs that are cabled
        pairs = np.unique(links[:, [0, 2]], axis=0, return_counts=True)[1]
        assert len(set(pairs.tolist())) <= 1
    ours = fabric.node_leaf[fabric.node_leaf[:, 0] < nodes]
    rail = ours[:, 1] // spec.planes
    assert (ours[:, 2] % rails == rail).all()  # a leaf is of one rail


@given(spec=SPECS, nodes=st.integers(1, 60), rails=st.integers(1, 4))
@settings(max_examples=60)
def test_every_node_reaches_every_other(spec: FabricSpec, nodes: int, rails: int) -> None:
    """On each plane, by walking the cables."""
    try:
        fabric = clos(nodes, rails, spec)
    except BadInput:
        assume(False)
    for plane in range(spec.planes):
        mine = fabric.node_leaf[:, 1] % spec.planes == plane
        leaves = set(fabric.node_leaf[mine][:, 2].tolist())
        spines = {s for a, _, s, _ in fabric.leaf_spine.tolist() if a in leaves}
        parent = {("leaf", leaf): ("leaf", leaf) for leaf in leaves}

        def root(
            x: tuple[str, int], parent: dict[tuple[str, int], tuple[str, int]] = parent
        ) -> tuple[str, int]:
            while parent.setdefault(x, x) != x:
                x = parent[x]
            return x

        for a, _, b, _ in fabric.leaf_spine.tolist():
            if a in leaves:
                parent[root(("leaf", a))] = root(("spine", b))
        for a, _, b, _ in fabric.spine_core.tolist():
            if a in spines:
                parent[root(("spine", a))] = root(("core", b))
        assert len({root(("leaf", leaf)) for leaf in leaves}) == 1


REFUSED = [
    (31, {"oversubscription": 2.0}, "64 ports do not divide 2:1", "oversubscription = 2.0476; or radix = 66"),
    (257, {"tiers": 2}, "257 nodes are more than 2 tiers of 64 ports hold", "256 nodes; or tiers = 3"),
    (8193, {}, "8193 nodes are more than 3 tiers of 64 ports hold", "8192 nodes"),
    (31, {"radix": 10, "tiers": 3}, "5 ports down cannot reach the 8 leaves", "radix that can: 16"),
    (
        31,
        {"ports_per_cable": 2},
        "2 ports of a cable do not divide a NIC's 1 ports",
        "nearest that divides: 1",
    ),
]


@pytest.mark.parametrize(("nodes", "keys", "message", "hint"), REFUSED)
def test_what_cannot_be_built(nodes: int, keys: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(BadInput) as refused:
        clos(nodes, 8, FabricSpec.model_validate(keys))
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_the_nearest_can_be_built() -> None:
    """What the refusals above offer."""
    assert clos(31, 8, FabricSpec(oversubscription=2.0476)).counts.leaf_spine == 8 * 21
    assert clos(31, 8, FabricSpec(oversubscription=2.0, radix=66)).counts.leaf_spine == 8 * 22
    assert clos(256, 8, FabricSpec(tiers=2)).counts.leaves == 64
    assert clos(8192, 8, FabricSpec()).counts.cores == 1024  # k^3 / 4 hosts, k^2 / 4 cores
    assert clos(31, 8, FabricSpec(radix=16, tiers=3)).tiers == 3


def test_oversubscribed_spines() -> None:
    """1:7 above the pods, as Llama 3's fabric has it: 112 ports down and 16 up."""
    fabric = clos(3072, 8, FabricSpec(radix=128, tiers=3, spine_oversubscription=7.0))
    assert np.unique(fabric.spine_core[:, 0], return_counts=True)[1].tolist() == [16] * fabric.counts.spines
    assert fabric.pod_leaves == 14 * 8 - 16  # 48 units in pods of at most 14: 4 pods of 12


def test_204_800_gpus() -> None:
    counts = clos(25_600, 8, FabricSpec(radix=128)).counts
    assert counts == Counts(3200, 3200, 2048, 204_800, 204_800, 204_800)
