"""Units and groups by what is cabled, and names that are nobody else's."""

from collections import defaultdict

import pytest

from colossi.site.design import NETWORKS, Design
from colossi.site.naming import Names, hostlist, ranges, units_of

from .exports.small import large, small


def above(design: Design) -> dict[int, set[int]]:
    """Devices that each device's compute cables go up to."""
    found: dict[int, set[int]] = defaultdict(set)
    cables = design.cables
    for lower, upper, network in zip(
        cables.lower.tolist(), cables.upper.tolist(), cables.network.tolist(), strict=True
    ):
        if NETWORKS[network] == "compute":
            found[lower].add(upper)
    return found


@pytest.mark.parametrize("design", [small(), large(20_000)], ids=["two tiers", "three tiers"])
def test_nodes_of_a_unit_share_all_leaves_and_units_of_a_group_all_spines(design: Design) -> None:
    units, up = units_of(design), above(design)
    leaves: dict[int, set[int]] = {}
    for number, node in enumerate(design.devices_of("node").tolist()):
        assert leaves.setdefault(int(units.unit[number]), up[node]) == up[node]
    every = [leaf for each in leaves.values() for leaf in each]
    assert len(every) == len(set(every))  # no leaf is of two units
    spines: dict[int, set[int]] = {}
    for unit, of_unit in leaves.items():
        reached = set().union(*(up[leaf] for leaf in of_unit))
        assert spines.setdefault(int(units.group[unit]), reached) == reached
    every = [spine for each in spines.values() for spine in each]
    assert len(every) == len(set(every))
    assert len(spines) == units.groups


def test_names_are_unique_and_agree_with_the_designs_own() -> None:
    design = small()
    names = Names(design)
    for each in (names.devices, names.racks, names.cables):
        assert len(set(each)) == len(each)
    assert names.devices == [design.device_name(row) for row in range(len(design.devices))]
    ends = [*zip(design.cables.lower.tolist(), names.ports[0], strict=True)]
    ends += zip(design.cables.upper.tolist(), names.ports[1], strict=True)
    assert len(set(ends)) == len(ends)


def test_hostlists() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == [(0, 2), (5, 5), (7, 8)]
    assert hostlist("node", [0, 1, 2, 5]) == "node-[00000-00002,00005]"
    assert hostlist("unit", [7], 4) == "unit-0007"
