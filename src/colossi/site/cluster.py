"""
From a spec to the complete cluster: how many nodes, then networks, racks, places, feeds, cables, bill.

`design` is a pure function. What cannot be built is refused with how much is lacking.
"""

from dataclasses import dataclass

import numpy as np

from colossi.errors import BadInput
from colossi.site.bill import EQUIPMENT, bill_of
from colossi.site.cabling import lay
from colossi.site.design import KINDS, Design, Devices, Feed, Floats, Ints, Racks
from colossi.site.floor import check_room, first_service_row, grid, origins, place_pods, row_y, share
from colossi.site.networks import Networks, Switches, choose_switches, connect
from colossi.site.supply import MEGA, feed_racks
from colossi.spec.equipment import Switch, equipment
from colossi.spec.hardware import Node, gpu, node
from colossi.spec.site import SiteSpec
from colossi.spec.spec import Spec

ROUNDS = 8  # of placing pods and the network's racks beside each other; two are the rule


def design(spec: Spec) -> Design:
    """The cluster of [site] and [cluster]. BadInput says what is lacking, and by how much."""
    site, server = spec.site, server_of(spec)
    if site is None:
        raise BadInput("table [site] is missing", "add it: see [site] in docs/spec.md")
    nodes = nodes_of(spec, server)
    per_rack = nodes_per_rack(server, site)
    rack_of_node = np.arange(nodes, dtype=np.int32) // per_rack
    node_racks = int(rack_of_node[-1]) + 1
    pod_of_rack = np.arange(node_racks, dtype=np.int32) // site.racks_per_pod
    switches = choose_switches(server, site, spec.fabric)
    networks = connect(server, nodes, pod_of_rack[rack_of_node], pod_of_rack, site, spec.fabric, switches)
    models = models_of(switches)
    height, watts, kilograms = _columns(networks, server, models)
    pods = int(pod_of_rack[-1]) + 1

    racks, rack, unit = _place(networks, server, site, per_rack, pods, height, watts, kilograms)
    kind = np.repeat(np.arange(len(KINDS), dtype=np.int8), list(networks.counts.values()))
    number = np.concatenate([np.arange(count, dtype=np.int32) for count in networks.counts.values()])
    devices = Devices(kind, number, rack, unit, height.astype(np.int32))
    load = np.bincount(rack, watts, len(racks.hall))
    feed_a, feed_b = feed_racks(load, site)
    strips = 1 + (feed_a != feed_b)
    weight = (
        np.bincount(rack, kilograms, len(racks.hall))
        + equipment("rack").weight
        + strips * equipment("pdu").weight
    )
    with_cdu = np.zeros(len(racks.hall), bool)
    with_cdu[rack[kind == KINDS.index("cdu")]] = True
    built = Racks(
        racks.hall,
        racks.row,
        racks.place,
        racks.pod,
        racks.x,
        racks.y,
        load,
        weight,
        with_cdu,
        feed_a,
        feed_b,
    )
    _check_racks(built, site)

    links = networks.links
    slow = np.zeros(sum(map(len, links)), bool)
    manage = links[2]
    slow[-len(manage) :] = np.isin(kind[manage[:, 2]], KINDS.index("management leaf"))
    across = built.y + origins(site)[built.hall]
    cables = lay(links, slow, devices, built.x, across, site)
    lanes = networks.compute.spec.ports_per_cable
    return Design(
        name=spec.name,
        node=server,
        nodes=nodes,
        halls=tuple(hall.name for hall in site.halls),
        pods=pods,
        racks=built,
        devices=devices,
        cables=cables,
        feeds=tuple(Feed(feed.name, feed.megawatts * MEGA, feed.day) for feed in site.feeds),
        bill=bill_of(server, models, devices, built, cables, slow, lanes),
    )


def server_of(spec: Spec) -> Node:
    """The server that [cluster] names, or the usual one of its GPU."""
    cluster = spec.cluster
    if cluster.node is None and cluster.gpu is None:
        raise BadInput("[cluster] names no server of the catalogue", 'give cluster.node, such as "DGX-H100"')
    server = node(cluster.node or gpu(cluster.gpu or "").usual_node)
    if cluster.gpu is not None and server.gpu.name != cluster.gpu:
        raise BadInput(
            f"cluster.gpu = {cluster.gpu!r} is not what cluster.node = {server.name!r} has: {server.gpu.name}",
            "leave out cluster.gpu",
        )
    return server


def nodes_of(spec: Spec, server: Node) -> int:
    """Nodes with the spares: of cluster.gpus, else of cluster.nodes."""
    cluster = spec.cluster
    wanted = -(-cluster.gpus // server.gpus) if cluster.gpus is not None else cluster.nodes
    return wanted + cluster.spares


def nodes_per_rack(server: Node, site: SiteSpec) -> int:
    """As the spec says, or as many as power, weight and units allow. BadInput where they do not."""
    rack, cdu = site.rack, equipment("cdu")
    own = cdu if server.liquid else None
    empty = equipment("rack").weight + 2 * equipment("pdu").weight + (own.weight if own else 0.0)
    heat = own.heat if own and own.heat else np.inf
    limits = {
        "units": ((rack.units - (own.height if own else 0)), server.height + rack.gap, "rack units"),
        "kilowatts": (rack.kilowatts - (own.power / 1e3 if own else 0.0), server.power / 1e3, "kW"),
        "kilograms": (rack.kilograms - empty, server.weight, "kg"),
        "cooling": (heat / 1e3, server.power * server.liquid / 1e3, "kW of a CDU"),
    }
    fits = {key: max(0, int(room / each + 1e-9)) for key, (room, each, _) in limits.items() if each}
    least = min(fits, key=lambda key: fits[key])
    wanted = rack.nodes or max(1, fits[least])
    if wanted > fits[least]:
        room, each, what = limits[least]
        raise BadInput(
            f"site.rack: {wanted} {server.name} in a rack need {wanted * each:,.5g} {what}, and it has "
            f"{room:,.5g}: {wanted * each - room:,.5g} too few",
            f"site.rack.nodes = {fits[least]}" if fits[least] else f"a larger site.rack.{least}",
        )
    return wanted


def models_of(switches: Switches) -> dict[str, Switch]:
    """The switch of each kind of device that is one."""
    return {
        **dict.fromkeys(("leaf", "spine", "core"), switches.compute),
        **dict.fromkeys(("storage leaf", "storage spine"), switches.storage),
        "management leaf": switches.management_leaf,
        "management spine": switches.management_spine,
    }


def _columns(networks: Networks, server: Node, models: dict[str, Switch]) -> tuple[Ints, Floats, Floats]:
    """Height [units], power [W] and weight [kg] of every device."""
    of = {"node": server, **models, **{kind: equipment(name) for kind, name in EQUIPMENT.items()}}
    counts = list(networks.counts.values())
    columns = [[getattr(of[kind], key) for kind in KINDS] for key in ("height", "power", "weight")]
    height, watts, kilograms = (np.repeat(column, counts) for column in columns)
    return height, watts.astype(float), kilograms.astype(float)


@dataclass(frozen=True)
class _Stood:
    """Columns of racks that have a place, but no load yet."""

    hall: Ints
    row: Ints
    place: Ints
    pod: Ints
    x: Floats
    y: Floats


def _place(
    networks: Networks,
    server: Node,
    site: SiteSpec,
    per_rack: int,
    pods: int,
    height: Ints,
    watts: Floats,
    kilograms: Floats,
) -> tuple[_Stood, Ints, Ints]:
    """Racks, and of each device its rack and its lowest unit."""
    nodes, counts = networks.counts["node"], networks.counts
    rack, unit = np.empty(len(height), np.int32), np.empty(len(height), np.int32)
    node_racks = -(-nodes // per_rack)
    rack[:nodes] = np.arange(nodes) // per_rack
    base = equipment("cdu").height if counts["cdu"] else 0
    step = server.height + site.rack.gap
    unit[:nodes] = 1 + base + site.rack.gap + np.arange(nodes) % per_rack * step
    cdu = networks.first("cdu") + np.arange(counts["cdu"])
    rack[cdu], unit[cdu] = np.arange(counts["cdu"]), 1

    others = np.setdiff1d(np.arange(nodes, len(height)), cdu)
    of_pod = others[networks.pods[others] >= 0]
    of_pod = of_pod[np.argsort(networks.pods[of_pod], kind="stable")]
    shelf = _Shelves(site, height, watts, kilograms)
    pod_shelves = [
        shelf.fill(part)
        for part in np.split(of_pod, np.searchsorted(networks.pods[of_pod], np.arange(1, pods)))
    ]
    wide = max(map(len, pod_shelves))
    block = site.racks_per_pod + wide

    grids = [grid(hall, site, block) for hall in site.halls]
    of_site = others[networks.pods[others] < 0]
    service = [0] * len(grids)
    for _ in range(ROUNDS):
        check_room(pods, service, grids, site)
        rows = [-(-racks // max(1, of.places)) for racks, of in zip(service, grids, strict=True)]
        given = share(pods, [of.pods(used) for of, used in zip(grids, rows, strict=True)])
        halls = _halls_of(of_site, networks.near, given)
        hall_shelves = [shelf.fill(of_site[halls == hall]) for hall in range(len(grids))]
        found = [len(each) for each in hall_shelves]
        if found == service:
            break
        service = found
    check_room(pods, service, grids, site)
    hall, row, place = place_pods(given, grids, rows, block)

    # Racks of nodes first, pod by pod; then those of the pods' switches; then the network's own.
    middle = site.racks_per_pod // 2
    slots = np.r_[0:middle, middle + wide : block]
    pod, within = np.divmod(np.arange(node_racks), site.racks_per_pod)
    columns = [[pod, *(each[pod, slots[within]] for each in (hall, row, place))]]
    at = node_racks
    for number, shelves in enumerate(pod_shelves):
        for slot, things in enumerate(shelves):
            _mount(things, at, rack, unit, height)
            columns.append(
                [
                    np.array([each])
                    for each in (number, *(c[number, middle + slot] for c in (hall, row, place)))
                ]
            )
            at += 1
    for number, (shelves, of) in enumerate(zip(hall_shelves, grids, strict=True)):
        first = first_service_row(given[number], of)
        for slot, things in enumerate(shelves):
            _mount(things, at, rack, unit, height)
            columns.append(
                [np.array([each]) for each in (-1, number, first + slot // of.places, slot % of.places)]
            )
            at += 1
    pod_c, hall_c, row_c, place_c = (
        np.concatenate(each).astype(np.int32) for each in zip(*columns, strict=True)
    )
    fronts = np.array([row_y(each, site) for each in range(max(of.rows for of in grids) + 1)])
    x = site.floor.margin + place_c * site.rack.width
    return _Stood(hall_c, row_c, place_c, pod_c, x, fronts[row_c]), rack, unit


def _halls_of(things: Ints, near: Ints, given: list[int]) -> Ints:
    """The hall of each of the network's own devices: where what it serves stands, or dealt out evenly."""
    hall_of_pod = np.repeat(np.arange(len(given)), given)
    used = np.flatnonzero(given)
    spread = used[np.arange(len(things)) * len(used) // max(1, len(things))]
    return np.where(near[things] < 0, spread, hall_of_pod[near[things]]).astype(np.int32)


@dataclass(frozen=True)
class _Shelves:
    """Racks filled one after the other, each up to its limits."""

    site: SiteSpec
    height: Ints
    watts: Floats
    kilograms: Floats

    def fill(self, things: Ints) -> list[list[int]]:
        """Devices of each rack, in the given order."""
        limit = self.site.rack
        empty = equipment("rack").weight + 2 * equipment("pdu").weight
        racks: list[list[int]] = []
        units = power = weight = np.inf
        for thing in things.tolist():
            units, power, weight = (
                units + self.height[thing],
                power + self.watts[thing],
                weight + self.kilograms[thing],
            )
            if units > limit.units or power > limit.kilowatts * 1e3 or weight > limit.kilograms:
                racks.append([])
                units, power, weight = self.height[thing], self.watts[thing], empty + self.kilograms[thing]
            racks[-1].append(thing)
        return racks


def _mount(things: list[int], at: int, rack: Ints, unit: Ints, height: Ints) -> None:
    """One above the other from the bottom."""
    rack[things] = at
    unit[things] = 1 + np.cumsum([0, *height[things][:-1]])


def _check_racks(racks: Racks, site: SiteSpec) -> None:
    """BadInput where the floor bears less than the heaviest rack weighs."""
    floor, rack = site.floor, site.rack
    area = rack.width * (rack.depth + (floor.cold_aisle + floor.hot_aisle) / 2)
    for number, hall in enumerate(site.halls):
        mine = racks.kilograms[racks.hall == number]
        if len(mine) and mine.max() > hall.floor_load * area:
            raise BadInput(
                f"site.halls: a rack of {mine.max():,.0f} kg over {area:.2f} m2 is {mine.max() / area:,.0f} kg/m2, and "
                f"{hall.name} bears {hall.floor_load:,.0f}: {mine.max() / area - hall.floor_load:,.0f} too few",
                "fewer nodes in a rack, or wider aisles",
            )
