"""
From a spec to the complete cluster: how many nodes, then networks, racks, places, feeds, cables, bill.

`design` is a pure function. What cannot be built is refused with how much is lacking.
"""

import numpy as np

from colossi.errors import BadInput
from colossi.site.bill import bill_of
from colossi.site.cabling import lay
from colossi.site.design import KINDS, Design, Devices, Feed, Racks
from colossi.site.floor import origins
from colossi.site.networks import Networks, Switches, choose_switches, connect
from colossi.site.racks import Sizes, Standing, empty_rack, nodes_per_rack, stand, things_of
from colossi.site.supply import MEGA, check_cooling, feed_racks
from colossi.spec.equipment import Equipment, Switch
from colossi.spec.hardware import Node, gpu, node
from colossi.spec.site import SiteSpec
from colossi.spec.spec import Spec


def design(spec: Spec) -> Design:
    """The cluster of [site] and [cluster]. BadInput says what is lacking, and by how much."""
    site, server = spec.site, server_of(spec)
    if site is None:
        raise BadInput("table [site] is missing", "add it: see [site] in docs/spec.md")
    per_rack = nodes_per_rack(server, site)
    switches = choose_switches(server, site, spec.fabric)
    models = models_of(switches, site)
    nodes = nodes_of(spec, server, switches)
    networks = networks_of(spec, server, nodes, switches)
    sizes = sizes_of(networks, server, models)
    standing = stand(networks, server, site, per_rack, sizes)
    counts = list(networks.counts.values())
    devices = Devices(
        kind=np.repeat(np.arange(len(KINDS), dtype=np.int8), counts),
        number=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        rack=standing.rack,
        unit=standing.unit,
        height=sizes.units,
    )
    racks = _racks(standing, devices, sizes, site)
    _check_floor(racks, site)
    check_cooling(server, nodes, float(racks.watts.sum()), site)

    links = networks.links
    manage = links[2]
    slow = np.zeros(sum(map(len, links)), bool)  # 1 Gb/s over twisted pairs
    slow[len(slow) - len(manage) :] = devices.kind[manage[:, 2]] == KINDS.index("management leaf")
    cables = lay(links, slow, devices, racks.x, racks.y + origins(site)[racks.hall], site)
    return Design(
        name=spec.name,
        node=server,
        nodes=nodes,
        halls=tuple(hall.name for hall in site.halls),
        pods=int(racks.pod.max()) + 1,
        racks=racks,
        devices=devices,
        cables=cables,
        feeds=tuple(Feed(feed.name, feed.megawatts * MEGA, feed.day) for feed in site.feeds),
        bill=bill_of(server, models, devices, racks, cables, slow, networks.compute.spec.ports_per_cable),
    )


def server_of(spec: Spec) -> Node:
    """The server that [cluster] names, or the usual one of its GPU."""
    cluster = spec.cluster
    if cluster.node is None and cluster.gpu is None:
        raise BadInput("[cluster] names no server of the catalogue", 'give cluster.node, such as "DGX-H100"')
    server = node(cluster.node or gpu(cluster.gpu or "").usual_node)
    if cluster.gpu is not None and server.gpu.name != cluster.gpu:
        raise BadInput(
            f"cluster.gpu = {cluster.gpu!r}, but cluster.node = {server.name!r} has {server.gpu.name}",
            "leave out cluster.gpu",
        )
    return server


def nodes_of(spec: Spec, server: Node, switches: Switches) -> int:
    """Nodes with the spares: of cluster.gpus, else of site.it_megawatts, else of cluster.nodes."""
    cluster, budget = spec.cluster, spec.site.it_megawatts if spec.site else None
    if budget is None:
        wanted = -(-cluster.gpus // server.gpus) if cluster.gpus is not None else cluster.nodes
        return wanted + cluster.spares
    if cluster.gpus is not None or "nodes" in cluster.model_fields_set:
        key = "gpus" if cluster.gpus is not None else "nodes"
        raise BadInput(
            f"site.it_megawatts = {budget:g} and cluster.{key} = {getattr(cluster, key)} both say the nodes",
            "remove one of them",
        )
    return _nodes_within(spec, server, switches, budget * MEGA)


def _nodes_within(spec: Spec, server: Node, switches: Switches, budget: float) -> int:
    """The most nodes that halving finds whose racks together take no more than so much [W]."""
    assert spec.site is not None
    models = models_of(switches, spec.site)

    def watts(nodes: int) -> float:
        return float(sizes_of(networks_of(spec, server, nodes, switches), server, models).watts.sum())

    least, most = 0, int(budget / server.power)  # the second is too many, for its switches take power too
    if most and watts(most) <= budget:
        return most
    while most - least > 1:
        half = (least + most) // 2
        least, most = (half, most) if watts(half) <= budget else (least, half)
    if not least:
        raise BadInput(
            f"site.it_megawatts = {budget / MEGA:g} does not hold one {server.name} with its network: "
            f"{(watts(1) - budget) / MEGA:.3f} MW too few",
            f"at least {watts(1) / MEGA:.3f}",
        )
    return least


def networks_of(spec: Spec, server: Node, nodes: int, switches: Switches) -> Networks:
    """All devices and cables of so many nodes, in pods as [site] says."""
    assert spec.site is not None
    site, rack = spec.site, np.arange(nodes, dtype=np.int32) // nodes_per_rack(server, spec.site)
    racks = np.arange(int(rack[-1]) + 1 if server.liquid else 0, dtype=np.int32)
    return connect(
        server, rack // site.racks_per_pod, racks // site.racks_per_pod, site, spec.fabric, switches
    )


def models_of(switches: Switches, site: SiteSpec) -> dict[str, Switch | Equipment]:
    """What each kind of device is, nodes aside."""
    return {
        **things_of(site),
        **dict.fromkeys(("leaf", "spine", "core"), switches.compute),
        **dict.fromkeys(("storage leaf", "storage spine"), switches.storage),
        "management leaf": switches.management_leaf,
        "management spine": switches.management_spine,
    }


def sizes_of(networks: Networks, server: Node, models: dict[str, Switch | Equipment]) -> Sizes:
    """Height, power and weight of every device, as rated."""
    of = {"node": server, **models}
    counts = list(networks.counts.values())
    units, watts, kilograms = (
        np.repeat([getattr(of[kind], key) for kind in KINDS], counts) for key in ("height", "power", "weight")
    )
    return Sizes(units.astype(np.int32), watts.astype(np.float64), kilograms.astype(np.float64))


def _racks(standing: Standing, devices: Devices, sizes: Sizes, site: SiteSpec) -> Racks:
    """With what stands in them, and their feeds."""
    at, count = standing.places, len(standing.pod)
    watts, kilograms = (
        np.bincount(devices.rack, each, count).astype(np.float64) for each in (sizes.watts, sizes.kilograms)
    )
    liquid = np.zeros(count, bool)
    liquid[devices.rack[devices.kind == KINDS.index("cdu")]] = True
    feed_a, feed_b = feed_racks(watts, standing.pod, site)
    return Racks(
        hall=at.hall,
        row=at.row,
        place=at.place,
        pod=standing.pod,
        x=at.x,
        y=at.y,
        watts=watts,
        kilograms=np.add(kilograms, empty_rack()),
        liquid=liquid,
        feed_a=feed_a,
        feed_b=feed_b,
    )


def _check_floor(racks: Racks, site: SiteSpec) -> None:
    """BadInput where the floor bears less than the heaviest rack weighs, over its share of the aisles."""
    floor, rack = site.floor, site.rack
    area = rack.width * (rack.depth + (floor.cold_aisle + floor.hot_aisle) / 2)
    for number, hall in enumerate(site.halls):
        load = racks.kilograms[racks.hall == number].max(initial=0.0) / area
        if load > hall.floor_load:
            raise BadInput(
                f"site.halls: the heaviest rack in {hall.name} puts {load:,.0f} kg/m2 on its {area:.2f} m2, "
                f"which bears {hall.floor_load:,.0f}: {load - hall.floor_load:,.0f} too few",
                "fewer nodes in a rack, or wider aisles",
            )
