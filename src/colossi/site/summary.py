"""What a design comes to, as one document: racks, devices, cables, power, cooling, losses, bill."""

from typing import Any

import numpy as np

from colossi.site.design import KINDS, MEDIA, NETWORKS, Design
from colossi.site.losses import feed_losses, switch_losses, widths
from colossi.site.racks import things_of
from colossi.site.supply import MEGA, heat_of, supply_of
from colossi.spec.site import SiteSpec

WATER = 4186.0  # J/(kg K)
WARMING = 10.0  # K that the liquid warms by on its way; assumption


def facts_of(design: Design, site: SiteSpec) -> dict[str, Any]:
    """By name, in the units that the keys say."""
    counts = np.bincount(design.devices.kind, minlength=len(KINDS)).tolist()
    return {
        "name": design.name,
        "node": design.node.name,
        "nodes": design.nodes,
        "gpus": design.nodes * design.node.gpus,
        "pods": design.pods,
        "racks": _racks(design),
        "rack": rack_contents(design, 0),
        "halls": _halls(design),
        "devices": {kind: count for kind, count in zip(KINDS, counts, strict=True) if count},
        "cables": _cables(design),
        "bandwidth": [vars(width) for width in widths(design)],
        "power": _power(design, site),
        "cooling": _cooling(design, site),
        "losses": {
            "switches": [vars(loss) for loss in switch_losses(design)],
            "feeds": [vars(loss) for loss in feed_losses(design, site.cooling.overhead)],
        },
        "bill": [
            {
                "item": line.item,
                "number": line.number,
                "dollars": line.number * line.dollars,
                "source": line.source,
            }
            for line in design.bill
        ],
        "dollars": sum(line.number * line.dollars for line in design.bill),
    }


def rack_contents(design: Design, rack: int) -> list[dict[str, Any]]:
    """What is in a rack's units, from the bottom."""
    devices = design.devices
    inside = np.flatnonzero(devices.rack == rack)
    return [
        {
            "device": design.device_name(device),
            "unit": int(devices.unit[device]),
            "height": int(devices.height[device]),
        }
        for device in inside[np.argsort(devices.unit[inside])].tolist()
    ]


def _racks(design: Design) -> list[dict[str, Any]]:
    """Racks of nodes, of pods' switches, and of what serves all."""
    racks = design.racks
    with_nodes = np.zeros(len(racks), bool)
    with_nodes[design.devices.rack[: design.nodes]] = True
    rows = []
    for what, mine in (
        ("nodes", with_nodes),
        ("switches of a pod", ~with_nodes & (racks.pod >= 0)),
        ("network and servers", racks.pod < 0),
    ):
        if mine.any():
            rows.append(
                {
                    "of": what,
                    "number": int(mine.sum()),
                    "liquid": bool(racks.liquid[mine].any()),
                    "kilowatts_at_most": float(racks.watts[mine].max()) / 1e3,
                    "kilograms_at_most": float(racks.kilograms[mine].max()),
                    "megawatts": float(racks.watts[mine].sum()) / MEGA,
                }
            )
    return rows


def _halls(design: Design) -> list[dict[str, Any]]:
    racks = design.racks
    rows = []
    for hall, name in enumerate(design.halls):
        mine = racks.hall == hall
        rows.append(
            {
                "name": name,
                "racks": int(mine.sum()),
                "rows": len(np.unique(racks.row[mine])),
                "pods": len(np.unique(racks.pod[mine & (racks.pod >= 0)])),
                "megawatts": float(racks.watts[mine].sum()) / MEGA,
            }
        )
    return rows


def _cables(design: Design) -> list[dict[str, Any]]:
    """By network, medium and length."""
    cables = design.cables
    key = np.stack([cables.network, cables.medium, np.round(cables.metres * 2)]).astype(np.int64)
    packed, number = np.unique(key[0] << 40 | key[1] << 32 | key[2], return_counts=True)
    return [
        {
            "network": NETWORKS[code >> 40],
            "medium": MEDIA[code >> 32 & 255],
            "metres": (code & 0xFFFFFFFF) / 2,
            "number": count,
        }
        for code, count in zip(packed.tolist(), number.tolist(), strict=True)
    ]


def _power(design: Design, site: SiteSpec) -> dict[str, Any]:
    supply = supply_of(design, site.cooling.overhead)
    racks, watts = design.racks, float(design.racks.watts.sum())
    return {
        "redundancy": site.redundancy,
        "racks_megawatts": watts / MEGA,
        "site_megawatts": watts * (1 + site.cooling.overhead) / MEGA,
        "feeds": [
            {
                "name": feed.name,
                "day": feed.day,
                "megawatts": feed.watts / MEGA,
                "racks": int(((racks.feed_a == number) | (racks.feed_b == number)).sum()),
                "load_megawatts": float(supply.normal[number]) / MEGA,
                "worst_megawatts": float(supply.worst[number]) / MEGA,
            }
            for number, feed in enumerate(design.feeds)
        ],
    }


def _cooling(design: Design, site: SiteSpec) -> dict[str, Any]:
    """A loop for each pod of racks with a CDU; litres a minute at so much warming."""
    heat = heat_of(design.node, design.nodes, float(design.racks.watts.sum()))
    cdus, cdu = len(design.devices_of("cdu")), things_of(site)["cdu"]
    nodes = int(np.bincount(design.devices.rack[: design.nodes]).max())
    return {
        "liquid_megawatts": heat.liquid / MEGA,
        "liquid_limit_megawatts": site.cooling.liquid_mw,
        "air_megawatts": heat.air / MEGA,
        "air_limit_megawatts": site.cooling.air_mw,
        "cdus": cdus,
        "loops": len(np.unique(design.racks.pod[design.racks.liquid])),
        "cdu_kilowatts": nodes * design.node.power * design.node.liquid / 1e3 if cdus else 0.0,
        "cdu_limit_kilowatts": (cdu.heat or 0.0) / 1e3 if cdus else None,
        "litres_per_minute": heat.liquid / (WATER * WARMING) * 60,
    }
