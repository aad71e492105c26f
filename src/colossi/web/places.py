"""Where on the map each node is drawn: in its rack, on the floor of the site or rack beside rack."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from colossi.site.design import Design, Floats, Racks
from colossi.spec.site import SiteSpec

GAP = 0.6  # of a cell, between racks
BETWEEN_HALLS = 3.0  # [m] on the map


@dataclass(frozen=True, slots=True)
class Map:
    """In cells: a node is one wide and one high. `x` and `y` are its upper left corner."""

    x: list[float]
    y: list[float]
    racks: list[tuple[str, float, float, float, float]]  # name, left, top, width, height
    arranged: str  # by what

    @property
    def width(self) -> float:
        return max((left + wide for _, left, _, wide, _ in self.racks), default=1.0)

    @property
    def height(self) -> float:
        return max((top + high for _, _, top, _, high in self.racks), default=1.0)


def by_rack(names: Sequence[str], racks: Mapping[str, str], nodes_per_rack: int) -> Map:
    """Racks as the nodes name them; those that name none fill racks of `nodes_per_rack` in their order.

    A rack is a column of nodes; racks fill rows so that the whole is about twice as wide as high.
    """
    members: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        members.setdefault(racks.get(name) or f"rack-{number // nodes_per_rack:04}", []).append(number)
    high = max((len(numbers) for numbers in members.values()), default=1)
    wide = max(1, round(math.sqrt(2 * len(members) * (high + GAP) / (1 + GAP / 2))))
    x, y = [0.0] * len(names), [0.0] * len(names)
    outlines = []
    for place, (rack, numbers) in enumerate(members.items()):
        left, top = place % wide * (1 + GAP / 2), place // wide * (high + GAP)
        outlines.append((rack, left, top, 1.0, float(len(numbers))))
        for unit, number in enumerate(numbers):
            x[number], y[number] = left, top + unit
    return Map(x, y, outlines, "rack by rack")


def by_design(names: Sequence[str], built: Design, site: SiteSpec) -> Map:
    """As the site's floor plan has it, seen from above; nodes that are not built stand in racks below it.

    The nodes of a rack fill its footprint, the lowest first. Of each hall only what is built on is drawn.
    """
    racks, devices, rows = built.racks, built.devices, built.devices_of("node")
    wide, deep = site.rack.width, site.rack.depth
    in_rack = devices.rack[rows]
    most = int(np.bincount(in_rack).max())
    cell, columns = max((min(wide / k, deep / -(-most // k)), k) for k in range(1, most + 1))
    left, top = _side_by_side(racks, wide, deep)
    left, top, down = left / cell, top / cell, float(top.max() + deep + BETWEEN_HALLS) / cell
    order = np.lexsort((devices.unit[rows], in_rack))
    begins = np.searchsorted(in_rack[order], in_rack[order])
    slot = np.empty(len(rows), np.int64)
    slot[order] = np.arange(len(rows)) - begins
    number = {built.device_name(int(row)): place for place, row in enumerate(rows)}
    found = [number.get(name, -1) for name in names]
    x, y = left[in_rack] + slot % columns, top[in_rack] + slot // columns
    outlines = [
        (built.rack_name(rack), float(left[rack]), float(top[rack]), wide / cell, deep / cell)
        for rack in range(len(racks))
    ]
    others = [name for name, place in zip(names, found, strict=True) if place < 0]
    below = by_rack(others, {}, most)
    outlines += [(rack, left, top + down, w, h) for rack, left, top, w, h in below.racks]
    rest = iter(range(len(others)))
    places = [(x[at], y[at]) if at >= 0 else _of(below, next(rest), down) for at in found]
    return Map([float(x) for x, _ in places], [float(y) for _, y in places], outlines, "as the site is built")


def _side_by_side(racks: Racks, wide: float, deep: float) -> tuple[Floats, Floats]:
    """Left and top [racks] [m]; as many halls in a row as make the whole about twice as wide as high."""
    left, top, halls = racks.x.copy(), racks.y.copy(), np.unique(racks.hall)
    for hall in halls:
        left[racks.hall == hall] -= left[racks.hall == hall].min()
        top[racks.hall == hall] -= top[racks.hall == hall].min()
    width, height = left.max() + wide + BETWEEN_HALLS, top.max() + deep + BETWEEN_HALLS

    def size(columns: int) -> float:
        return max(columns * width / 2, -(-len(halls) // columns) * height)

    columns = min(range(1, len(halls) + 1), key=size)
    place = np.searchsorted(halls, racks.hall)
    return left + place % columns * width, top + place // columns * height


def _of(below: Map, number: int, down: float) -> tuple[float, float]:
    return below.x[number], below.y[number] + down
