"""Where on the map each node is drawn: in its rack, rack beside rack."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP = 0.6  # of a cell, between racks


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
