"""
A slice of the fabric for containerlab: a few nodes, their leaves and the spines above, on one machine.

Enough to try addresses, routing and a controller on the real wiring before a rack is there. Everything is a
Linux container, switches with FRRouting: ports keep their true numbers, as eth1 is the first port.
"""

import numpy as np
import yaml

from colossi.site.design import KINDS, NETWORKS, Design
from colossi.site.naming import Names

NODES, LEAVES, SPINES = 4, 2, 2
NODE_IMAGE, SWITCH_IMAGE = "alpine:3.20", "quay.io/frrouting/frr:10.1.1"


def containerlab(design: Design, names: Names) -> str:
    """Topology of the first nodes of the compute network and of what is above them."""
    links = slice_of(design)
    cables = design.cables
    ends = np.unique(np.concatenate([cables.lower[links], cables.upper[links]]))
    nodes = {}
    for row in ends.tolist():
        node = design.devices.kind[row] == KINDS.index("node")
        image = NODE_IMAGE if node else SWITCH_IMAGE
        labels = {"place": names.places[row]}
        nodes[names.devices[row]] = {"kind": "linux", "image": image, "labels": labels}
    columns = zip(
        cables.lower[links].tolist(),
        cables.lower_port[links].tolist(),
        cables.upper[links].tolist(),
        cables.upper_port[links].tolist(),
        strict=True,
    )
    wires = [
        {"endpoints": [f"{names.devices[a]}:eth{p + 1}", f"{names.devices[b]}:eth{q + 1}"]}
        for a, p, b, q in columns
    ]
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{design.name}-slice")
    return yaml.safe_dump({"name": name, "topology": {"nodes": nodes, "links": wires}}, sort_keys=False)


def slice_of(design: Design) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Rows of cables: the first nodes to their first leaves, those to the first spines that they reach."""
    cables = design.cables
    compute = cables.network == NETWORKS.index("compute")
    found = []
    below = design.devices_of("node")[:NODES]
    for most in (LEAVES, SPINES):
        here = compute & np.isin(cables.lower, below)
        above = np.unique(cables.upper[here])[:most]
        found.append(np.flatnonzero(here & np.isin(cables.upper, above)))
        below = above
    return np.concatenate(found)
