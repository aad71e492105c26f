"""
What stands in which rack, and at which unit: nodes over their CDU, switches and servers one above the other.

Racks are numbered: those of nodes, pod by pod; those of the pods' switches; those of the network's own
devices and servers, hall by hall. Nothing here is watched for power feeds or cables.
"""

from dataclasses import dataclass

import numpy as np

from colossi.errors import BadInput
from colossi.site.design import Floats, Ints
from colossi.site.floor import (
    Grid,
    Places,
    check_room,
    first_service_row,
    grid,
    place_pods,
    positions,
    service_rows,
    share,
)
from colossi.site.networks import Networks
from colossi.spec.equipment import Equipment, equipment
from colossi.spec.fit import multiples_near
from colossi.spec.hardware import Node
from colossi.spec.site import SiteSpec

ROUNDS = 8  # of placing pods and the network's racks beside each other; two are the rule


@dataclass(frozen=True)
class Sizes:
    """Columns for devices."""

    units: Ints  # height [rack units]
    watts: Floats
    kilograms: Floats


@dataclass(frozen=True)
class Standing:
    """Racks, and of each device its rack and its lowest unit."""

    places: Places
    pod: Ints  # [racks]
    rack: Ints  # [devices]
    unit: Ints  # [devices]


def things_of(site: SiteSpec) -> dict[str, Equipment]:
    """What is neither node nor switch, by kind of device."""
    names = {
        "storage node": "storage-server",
        "management server": "management-server",
        "cdu": site.cooling.cdu,
        "manager": "fabric-manager",
    }
    return {kind: equipment(name) for kind, name in names.items()}


def empty_rack() -> float:
    """Weight of a rack with two power strips, and nothing else [kg]."""
    return equipment("rack").weight + 2 * equipment("pdu").weight


def nodes_per_rack(server: Node, site: SiteSpec) -> int:
    """As the spec says, or as many as units, power, weight and CDU allow. BadInput: by how much too few.

    Nodes that NVLink joins stand in one rack: a whole number of such domains.
    """
    rack, cdu = site.rack, things_of(site)["cdu"]
    own = cdu if server.liquid else None
    room = {
        "units": (rack.units - (own.height if own else 0), server.height + rack.gap, "rack units"),
        "kilowatts": (rack.kilowatts - (own.power if own else 0.0) / 1e3, server.power / 1e3, "kW"),
        "kilograms": (rack.kilograms - empty_rack() - (own.weight if own else 0.0), server.weight, "kg"),
    }
    if own is not None and own.heat is not None:
        room["cdu"] = (own.heat / 1e3, server.power * server.liquid / 1e3, "kW of a CDU's heat")
    fits = {key: max(0, int(free / each + 1e-9)) for key, (free, each, _) in room.items()}
    least = min(fits, key=lambda key: fits[key])
    domain = max(1, server.domain // server.gpus)
    wanted = site.rack.nodes or max(domain, fits[least] // domain * domain)
    if wanted % domain:
        raise BadInput(
            f"site.rack.nodes = {wanted}, but NVLink joins {domain} {server.name}, which stand in one rack",
            f"site.rack.nodes = {multiples_near(domain, wanted)}",
        )
    if wanted > fits[least]:
        free, each, what = room[least]
        raise BadInput(
            f"site.rack: {wanted} {server.name} in a rack need {wanted * each:,.5g} {what}, and it has "
            f"{free:,.5g} for them: {wanted * each - free:,.5g} too few",
            f"site.rack.nodes = {fits[least] // domain * domain}"
            if fits[least] >= domain
            else "larger limits in [site.rack], another site.cooling.cdu, or another node",
        )
    return wanted


def stand(networks: Networks, server: Node, site: SiteSpec, per_rack: int, sizes: Sizes) -> Standing:
    """Everything in its place. BadInput where the halls are too small."""
    nodes, cdus = networks.counts["node"], networks.counts["cdu"]
    pods = int(networks.pods[nodes - 1]) + 1
    rack, unit = np.empty((2, len(sizes.units)), np.int32)
    base = things_of(site)["cdu"].height if cdus else 0
    step = server.height + site.rack.gap
    rack[:nodes] = np.arange(nodes) // per_rack
    unit[:nodes] = 1 + base + site.rack.gap + np.arange(nodes) % per_rack * step
    cdu = networks.first("cdu") + np.arange(cdus)
    rack[cdu], unit[cdu] = np.arange(cdus), 1

    others = np.setdiff1d(np.arange(nodes, len(unit)), cdu).astype(np.int32)
    of_pods = [fill(part, sizes, site) for part in _by_pod(others, networks.pods, pods)]
    wide = max(map(len, of_pods))
    grids = [grid(hall, site, site.racks_per_pod + wide) for hall in site.halls]
    given, of_halls = _over_halls(others[networks.pods[others] < 0], networks.near, pods, grids, sizes, site)
    rows = service_rows([len(shelves) for shelves in of_halls], grids)
    at = place_pods(given, grids, rows)  # hall, row, place of each pod's racks

    # The racks of a pod's switches stand in its middle, where the cables are shortest.
    middle = site.racks_per_pod // 2
    slots = np.r_[0:middle, middle + wide : site.racks_per_pod + wide]
    pod, within = np.divmod(np.arange(int(rack[nodes - 1]) + 1), site.racks_per_pod)
    racks = [np.stack([pod, *(each[pod, slots[within]] for each in at)])]
    shelves = [things for each in (*of_pods, *of_halls) for things in each]
    racks += [
        np.array([[number, *(each[number, middle + slot] for each in at)]]).T
        for number, each in enumerate(of_pods)
        for slot in range(len(each))
    ]
    racks += [
        np.array([[-1, hall, first_service_row(given[hall], of) + slot // of.places, slot % of.places]]).T
        for hall, (each, of) in enumerate(zip(of_halls, grids, strict=True))
        for slot in range(len(each))
    ]
    for number, things in enumerate(shelves, racks[0].shape[1]):
        rack[things] = number
        unit[things] = 1 + np.cumsum([0, *sizes.units[things][:-1]])
    columns = np.concatenate(racks, axis=1).astype(np.int32)
    return Standing(positions(columns[1], columns[2], columns[3], site), columns[0], rack, unit)


def fill(things: Ints, sizes: Sizes, site: SiteSpec) -> list[list[int]]:
    """The devices of each rack, one rack after the other, up to its limits. BadInput if one alone is over."""
    limit, bare = site.rack, empty_rack()
    racks: list[list[int]] = []
    units, power, weight = np.inf, 0.0, 0.0
    for thing in things.tolist():
        own = (int(sizes.units[thing]), float(sizes.watts[thing]), float(sizes.kilograms[thing]))
        units, power, weight = units + own[0], power + own[1], weight + own[2]
        if units > limit.units or power > limit.kilowatts * 1e3 or weight > limit.kilograms:
            racks.append([])
            units, power, weight = own[0], own[1], bare + own[2]
            if units > limit.units or power > limit.kilowatts * 1e3 or weight > limit.kilograms:
                raise BadInput(
                    f"site.rack: a device of {own[0]} units, {power / 1e3:.1f} kW and {own[2]:.0f} kg "
                    f"fits no rack of {limit.units} units, {limit.kilowatts:g} kW and {limit.kilograms:g} kg",
                    "raise the limits of [site.rack]",
                )
        racks[-1].append(thing)
    return racks


def _by_pod(things: Ints, pod_of: Ints, pods: int) -> list[Ints]:
    """Those that belong to each pod."""
    mine = things[pod_of[things] >= 0]
    mine = mine[np.argsort(pod_of[mine], kind="stable")]
    return np.split(mine, np.searchsorted(pod_of[mine], np.arange(1, pods)))


def _over_halls(
    things: Ints, near: Ints, pods: int, grids: list[Grid], sizes: Sizes, site: SiteSpec
) -> tuple[list[int], list[list[list[int]]]]:
    """Pods of each hall, and the racks of the network's own devices in it.

    How many racks these take depends on which pods are near, so both are tried again until they agree.
    """
    shelves: list[list[list[int]]] = [[] for _ in grids]
    for _ in range(ROUNDS):
        taken = [len(each) for each in shelves]
        rows = service_rows(taken, grids)
        check_room(pods, rows, grids, site)
        given = share(pods, [of.pods(used) for of, used in zip(grids, rows, strict=True)])
        halls = _halls_of(things, near, given)
        shelves = [fill(things[halls == hall], sizes, site) for hall in range(len(grids))]
        needed = service_rows([len(each) for each in shelves], grids)
        if all(of.pods(used) >= count for of, used, count in zip(grids, needed, given, strict=True)):
            return given, shelves
    check_room(pods, needed, grids, site)
    raise BadInput("site.halls have too little room for the network's own racks", "a little larger halls")


def _halls_of(things: Ints, near: Ints, given: list[int]) -> Ints:
    """The hall of each of the network's own devices: where what it serves stands, or dealt out evenly."""
    hall_of_pod = np.repeat(np.arange(len(given)), given)
    used = np.flatnonzero(given)
    spread = used[np.arange(len(things)) * len(used) // max(1, len(things))]
    return np.where(near[things] < 0, spread, hall_of_pod[near[things]]).astype(np.int32)
