"""
An Ansible inventory of a design, as INI: groups by kind of device, by hall and by pod.

Ansible's own ranges, `node-[00000:00063]`, keep it short: 25,000 nodes are some thousand lines.
"""

from collections.abc import Iterable

import numpy as np

from colossi.site.design import KINDS, Design
from colossi.site.naming import kinds_of, ranges


def inventory(design: Design) -> str:
    """The whole file. Names of groups have underscores, as Ansible asks for."""
    devices, racks = design.devices, design.racks
    parts = [f"# {design.name}: ansible-inventory -i inventory.ini --graph"]
    for kind in kinds_of(design):
        numbers = devices.number[design.devices_of(kind)]
        parts.append(_group(_word(kind), [(kind, numbers.tolist())]))
    hall = racks.hall[devices.rack]
    for number, name in enumerate(design.halls):
        parts.append(_group(f"hall_{_word(name)}", _members(design, hall == number)))
    pod = racks.pod[devices.rack]
    for number in range(design.pods):
        parts.append(_group(f"pod_{number:04d}", _members(design, pod == number)))
    parts.append("[switches:children]\n" + "\n".join(_switch_groups(design)))
    return "\n\n".join(parts) + "\n"


def _members(
    design: Design, which: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
) -> list[tuple[str, list[int]]]:
    rows = np.flatnonzero(which)
    kinds, numbers = design.devices.kind[rows], design.devices.number[rows]
    return [(KINDS[kind], np.sort(numbers[kinds == kind]).tolist()) for kind in np.unique(kinds)]


def _group(name: str, members: Iterable[tuple[str, list[int]]]) -> str:
    lines = [f"[{name}]"]
    for kind, numbers in members:
        prefix = kind.replace(" ", "-")
        lines += [
            f"{prefix}-{first:05d}" if first == last else f"{prefix}-[{first:05d}:{last:05d}]"
            for first, last in ranges(numbers)
        ]
    return "\n".join(lines)


def _switch_groups(design: Design) -> list[str]:
    return [_word(kind) for kind in kinds_of(design) if kind.split()[-1] in ("leaf", "spine", "core")]


def _word(name: str) -> str:
    return name.replace(" ", "_").replace("-", "_")
