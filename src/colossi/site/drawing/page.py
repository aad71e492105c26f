"""
One HTML page of a design that needs no server and no network: plans, racks, fabric, bill, and a search.

Racks, devices and cables travel as columns of numbers, compressed (gzip, base64) inside the page; the browser
unpacks them into typed arrays (DecompressionStream); page.html's script makes names only of what is shown.
"""

import base64
import gzip
import json
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from colossi.site.design import KINDS, NETWORKS, Design
from colossi.site.drawing.fabric import fabric_diagram
from colossi.site.drawing.floor import floor_plan
from colossi.site.drawing.paint import COLORS, STYLE, escape
from colossi.site.naming import NIC, WORDS, Names, first_ports, media_of, switches

COMPRESSION = 6  # level 9 takes four times as long for a twentieth less


def page(design: Design, names: Names) -> str:
    """The whole HTML."""
    head, body = packed(design)
    plans = "".join(
        f'<section class="hall" data-hall="{hall}">{floor_plan(design, hall, names.racks)}</section>'
        for hall in range(len(design.halls))
    )
    parts = {
        "TITLE": escape(design.name),
        "SUMMARY": escape(summary(design)),
        "STYLE": STYLE,
        "HALLS": "".join(f"<button>{escape(name)}</button>" for name in design.halls),
        "PLANS": plans,
        "FABRIC": fabric_diagram(design),
        "BILL": _bill(design),
        "LEGEND": "".join(f'<i style="background:{COLORS[kind]}"></i>{kind} ' for kind in KINDS),
        "HEAD": json.dumps(head).replace("</", "<\\/"),
        "BODY": body,
    }
    text = files("colossi.site.drawing").joinpath("page.html").read_text(encoding="utf-8")
    before, *pieces = text.split("{{")
    found = [before]
    for piece in pieces:
        key, _, rest = piece.partition("}}")
        found += [parts[key], rest]
    return "".join(found)


def packed(design: Design) -> tuple[dict[str, object], str]:
    """What the script must know to read the columns, and the columns themselves in base64."""
    racks, devices, cables = design.racks, design.devices, design.cables
    columns: dict[str, NDArray[np.generic]] = {
        "rackWatts": racks.watts.astype(np.float32),
        "rackKilograms": racks.kilograms.astype(np.float32),
        "rackHall": racks.hall,
        "rackRow": racks.row,
        "rackPlace": racks.place,
        "rackPod": racks.pod,
        "rackA": racks.feed_a,
        "rackB": racks.feed_b,
        "number": devices.number,
        "rack": devices.rack,
        "lower": _steps(cables.lower),
        "upper": _steps(cables.upper),
        "metres": cables.metres,
        "lowerPort": cables.lower_port.astype(np.uint16),
        "upperPort": cables.upper_port.astype(np.uint16),
        "unit": devices.unit.astype(np.uint8),
        "height": devices.height.astype(np.uint8),
        "kind": devices.kind.astype(np.uint8),
        "network": cables.network.astype(np.uint8),
        "medium": media_of(design),
    }
    # Wide numbers first, so that each column begins where its type may.
    order = sorted(columns, key=lambda name: -columns[name].dtype.itemsize)
    head: dict[str, object] = {
        "columns": [[name, columns[name].dtype.name, len(columns[name])] for name in order],
        "kinds": KINDS,
        "networks": NETWORKS,
        "media": WORDS,
        "words": [NIC[network] for network in NETWORKS],
        "colors": [COLORS[kind] for kind in KINDS],
        "first": first_ports(design).tolist(),
        "switches": switches().tolist(),
        "halls": design.halls,
        "feeds": [feed.name for feed in design.feeds],
    }
    data = b"".join(columns[name].tobytes() for name in order)
    return head, base64.b64encode(gzip.compress(data, COMPRESSION, mtime=0)).decode()


def _steps(column: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each less the one before: ends of cables in order are then mostly the same small numbers."""
    return np.diff(column, prepend=np.int32(0)).astype(np.int32)


def summary(design: Design) -> str:
    """A line: how much there is of everything."""
    return (
        f"{design.nodes:,} nodes of {design.node.name}, {design.nodes * design.node.gpus:,} GPUs, "
        f"{len(design.racks):,} racks in {', '.join(design.halls)}, {len(design.devices):,} devices, "
        f"{len(design.cables):,} cables, {design.racks.watts.sum() / 1e6:,.2f} MW"
    )


def _bill(design: Design) -> str:
    rows = [
        f"<tr><td>{escape(line.item)}<td>{line.number:,}<td>{line.dollars:,.0f}"
        f"<td>{line.number * line.dollars:,.0f}<td>{escape(line.source)}"
        for line in design.bill
    ]
    total = sum(line.number * line.dollars for line in design.bill)
    return "".join(rows) + f"<tr><th>Total<th><th><th>{total:,.0f}<th>"
