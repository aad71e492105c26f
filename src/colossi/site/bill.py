"""What a design costs to buy: its devices, racks and cables at the catalogue's prices."""

import numpy as np
from numpy.typing import NDArray

from colossi.site.design import KINDS, MEDIA, NETWORKS, Cables, Devices, Line, Racks
from colossi.spec.equipment import Equipment, Switch, cable, equipment
from colossi.spec.hardware import Node


def bill_of(
    server: Node,
    models: dict[str, Switch | Equipment],
    devices: Devices,
    racks: Racks,
    cables: Cables,
    slow: NDArray[np.bool_],
    lanes: int,
) -> tuple[Line, ...]:
    """A line for each kind of device, and for each network, medium and length of cables.

    `models` are the switches and other equipment by kind; `slow` marks cables of 1 Gb/s; `lanes` links of
    the compute network share a cable.
    """
    number = np.bincount(devices.kind, minlength=len(KINDS))
    lines = [Line(f"node {server.name}", int(number[0]), server.cost, f"catalogue/nodes/{server.name}.toml")]
    for kind, count in zip(KINDS[1:], number[1:].tolist(), strict=True):
        if count:
            model = models[kind]
            item = f"{kind} {model.name}" if isinstance(model, Switch) else model.name
            lines.append(Line(item, count, model.cost, model.source))
    strips = len(racks) + int((racks.feed_a != racks.feed_b).sum())
    for name, count in (("rack", len(racks)), ("pdu", strips)):
        lines.append(Line(name, count, equipment(name).cost, equipment(name).source))
    return (*lines, *_of_cables(cables, slow, lanes))


def _of_cables(cables: Cables, slow: NDArray[np.bool_], lanes: int) -> list[Line]:
    twisted = slow & (cables.medium == MEDIA.index("DAC"))
    key = np.stack(
        [cables.network, np.where(twisted, len(MEDIA), cables.medium), np.round(cables.metres * 2)]
    )
    lines = []
    packed = (key[0] * 8 + key[1]).astype(np.int64) * 100_000 + key[2].astype(np.int64)
    for code, count in zip(*np.unique(packed, return_counts=True), strict=True):
        which, metres = divmod(int(code), 100_000)
        network, medium = divmod(which, 8)
        sold = cable((*MEDIA, "Cat6")[medium])
        each = lanes if NETWORKS[network] == "compute" else 1
        item = f"{NETWORKS[network]} {sold.name} {metres / 2:g} m"
        lines.append(Line(item, -(-int(count) // each), sold.price(metres / 2), sold.source))
    fibres = sum(line.number for line in lines if " fibre " in line.item)
    if fibres:
        end = equipment("transceiver")
        lines.append(Line(end.name, 2 * fibres, end.cost, end.source))
    return lines
