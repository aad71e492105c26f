"""The inventory, read by the rules of Ansible's INI form: its hosts are the design's devices."""

import re

import numpy as np

from colossi.site.exports.ansible import inventory
from colossi.site.naming import Names

from .small import large, names, small

RANGE = re.compile(r"\[(\d+):(\d+)\]")


def read(text: str) -> dict[str, list[str]]:
    """Hosts, or children, by group."""
    groups: dict[str, list[str]] = {}
    members: list[str] = []
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]") and not RANGE.search(line):
            members = groups.setdefault(line[1:-1], [])
        elif line and not line.startswith("#"):
            members += expanded(line)
    return groups


def expanded(host: str) -> list[str]:
    """Ansible's ranges hold both ends, and keep leading zeros."""
    found = RANGE.search(host)
    if found is None:
        return [host]
    first, last = found[1], found[2]
    return [RANGE.sub(f"{n:0{len(first)}d}", host, count=1) for n in range(int(first), int(last) + 1)]


def test_every_device_is_in_the_group_of_its_kind_hall_and_pod() -> None:
    design = small()
    groups = read(inventory(design))
    assert all(re.fullmatch(r"[a-z0-9_]+(:children)?", name) for name in groups)
    assert groups["node"] == [f"node-{number:05d}" for number in range(64)]
    assert sorted(groups["hall_h1"]) == sorted(names().devices)
    pod = design.racks.pod[design.devices.rack]
    for number in range(design.pods):
        wanted = [names().devices[row] for row in np.flatnonzero(pod == number)]
        assert sorted(groups[f"pod_{number:04d}"]) == sorted(wanted)
    assert set(groups["switches:children"]) <= set(groups)
    assert "leaf" in groups["switches:children"] and "node" not in groups["switches:children"]


def test_the_inventory_of_100_000_gpus_is_short() -> None:
    design = large(100_000)
    text = inventory(design)
    assert len(text.splitlines()) < 3_000
    groups = read(text)
    kinds = [group for name, group in groups.items() if not re.match(r"hall_|pod_|switches", name)]
    assert sorted(host for group in kinds for host in group) == sorted(Names(design).devices)
