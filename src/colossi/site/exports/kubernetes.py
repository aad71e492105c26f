"""
Labels of Kubernetes nodes, and the levels of a Kueue Topology that schedules by them.

The labels are Node objects for `kubectl apply --server-side`: it adds these labels and leaves all else as the
kubelet has it. Levels, from the widest: the group of units that share spines, the unit whose nodes share
leaves, the node. Kueue then places a job's pods within the lowest level that holds them all.
"""

import json
from typing import Any

from colossi.site.design import Design
from colossi.site.naming import Names, units_of

DOMAIN = "topology.colossi"
LEVELS = (f"{DOMAIN}/group", f"{DOMAIN}/unit", "kubernetes.io/hostname")


def kubernetes_files(design: Design, names: Names) -> dict[str, str]:
    """Text by name."""
    topology, flavor = kueue(design)
    return {
        "nodes.yaml": "\n---\n".join(map(json.dumps, labelled_nodes(design, names))) + "\n",
        "kueue.yaml": json.dumps(topology, indent=2) + "\n---\n" + json.dumps(flavor, indent=2) + "\n",
    }


def labelled_nodes(design: Design, names: Names) -> list[dict[str, Any]]:
    """A Node object each; JSON of them is YAML too, and is written twenty times as fast."""
    units = units_of(design)
    racks = design.racks
    found = []
    for number, row in enumerate(design.devices_of("node").tolist()):
        rack, unit = int(design.devices.rack[row]), int(units.unit[number])
        labels = {
            "topology.kubernetes.io/zone": design.halls[racks.hall[rack]],
            LEVELS[0]: f"group-{units.group[unit]:04d}",
            LEVELS[1]: f"unit-{unit:04d}",
            f"{DOMAIN}/cluster": cluster_name(design),
            f"{DOMAIN}/pod": f"pod-{racks.pod[rack]:04d}",
            f"{DOMAIN}/rack": names.racks[rack],
        }
        metadata = {"name": names.devices[row], "labels": labels}
        found.append({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
    return found


def kueue(design: Design) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Topology, and a ResourceFlavor of the labelled nodes that uses it."""
    name = cluster_name(design)
    version = "kueue.x-k8s.io/v1beta1"
    topology = {
        "apiVersion": version,
        "kind": "Topology",
        "metadata": {"name": name},
        "spec": {"levels": [{"nodeLabel": level} for level in LEVELS]},
    }
    # A flavor with a topology must say of which nodes.
    flavor = {
        "apiVersion": version,
        "kind": "ResourceFlavor",
        "metadata": {"name": name},
        "spec": {"nodeLabels": {f"{DOMAIN}/cluster": name}, "topologyName": name},
    }
    return topology, flavor


def cluster_name(design: Design) -> str:
    """Small letters, digits and dashes, as names of objects must be (RFC 1123)."""
    letters = "".join(
        letter if letter.isascii() and letter.isalnum() else "-" for letter in design.name.lower()
    )
    return letters.strip("-")[:63] or "cluster"
