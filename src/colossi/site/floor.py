"""
Where racks stand: rows in halls, pod by pod, with the network's own rows in the middle of each hall.

A pod's racks stand side by side, those of its switches in their middle. Positions are in the hall; `origins`
puts the halls on one plan, side by side, for the ways of cables.
"""

import math
from dataclasses import dataclass

import numpy as np

from colossi.errors import BadInput
from colossi.site.design import Floats, Ints
from colossi.spec.site import HallSpec, SiteSpec


@dataclass(frozen=True)
class Places:
    """Columns for racks: hall, row in it, place in the row, position [m]."""

    hall: Ints
    row: Ints
    place: Ints
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Grid:
    """Rows of a hall and places of a row; how many rows a pod of `block` racks takes, or pods a row holds."""

    rows: int
    places: int
    block: int

    @property
    def pods_per_row(self) -> int:
        return max(1, self.places // self.block) if self.places else 0

    @property
    def rows_per_pod(self) -> int:
        return max(1, -(-self.block // self.places)) if self.places else 1

    def pods(self, service_rows: int) -> int:
        """That it holds beside so many rows of the network's own racks."""
        return max(0, self.rows - service_rows) // self.rows_per_pod * self.pods_per_row


def grid(hall: HallSpec, site: SiteSpec, block: int) -> Grid:
    """The rows that fit: front aisles and back aisles take turns, and the margin runs round."""
    floor, rack = site.floor, site.rack
    places = math.floor((hall.length - 2 * floor.margin) / rack.width + 1e-9)
    rows = 0
    while row_y(rows, site) + rack.depth + floor.margin <= hall.width + 1e-9:
        rows += 1
    return Grid(rows, max(0, places), block)


def row_y(row: int, site: SiteSpec) -> float:
    """Of a row's front edge [m]: rows stand back to back in pairs."""
    floor, depth = site.floor, site.rack.depth
    pair, second = divmod(row, 2)
    return (
        floor.margin
        + pair * (2 * depth + floor.cold_aisle + floor.hot_aisle)
        + second * (depth + floor.hot_aisle)
    )


def share(pods: int, room: list[int]) -> list[int]:
    """So many pods over halls with so much room, as evenly as may be."""
    given = [0] * len(room)
    left = pods
    while left:
        open_ = [hall for hall in range(len(room)) if given[hall] < room[hall]]
        if not open_:
            break
        lowest = min(given[hall] for hall in open_)
        for hall in open_:
            if left and given[hall] == lowest:
                given[hall] += 1
                left -= 1
    return given


def service_rows(racks: list[int], grids: list[Grid]) -> list[int]:
    """Rows of each hall that so many of the network's own racks take."""
    return [-(-count // max(1, of.places)) for count, of in zip(racks, grids, strict=True)]


def place_pods(given: list[int], grids: list[Grid], service: list[int]) -> tuple[Ints, Ints, Ints]:
    """Hall, row and place [pods, block] of the racks of each pod."""
    halls, rows, places = [], [], []
    for hall, (count, of, used) in enumerate(zip(given, grids, service, strict=True)):
        if not count:
            continue
        pod, slot = np.arange(count)[:, None], np.arange(of.block)[None, :]
        at = pod % of.pods_per_row * of.block + slot
        row = pod // of.pods_per_row * of.rows_per_pod + at // of.places
        halls.append(np.full((count, of.block), hall))
        rows.append(np.where(row >= first_service_row(count, of), row + used, row))
        places.append(at % of.places)
    return np.concatenate(halls), np.concatenate(rows), np.concatenate(places)


def first_service_row(pods: int, of: Grid) -> int:
    """The row of the network's own racks: in the middle of the rows that pods take."""
    bands = -(-pods // max(1, of.pods_per_row))
    return bands // 2 * of.rows_per_pod


def positions(hall: Ints, row: Ints, place: Ints, site: SiteSpec) -> Places:
    """Racks in these places, with where that is."""
    fronts = np.array([row_y(each, site) for each in range(int(row.max()) + 1)])
    x: Floats = np.asarray(site.floor.margin + place * site.rack.width, np.float64)
    return Places(hall, row, place, x, fronts[row])


def check_room(pods: int, service: list[int], grids: list[Grid], site: SiteSpec) -> None:
    """BadInput if the pods do not fit beside the network's rows: by how many racks and square metres."""
    block, places = grids[0].block, [of.places for of in grids]
    room = sum(of.pods(rows) for of, rows in zip(grids, service, strict=True))
    if room >= pods:
        return
    lacking = (pods - room) * block
    pitch = site.rack.depth + (site.floor.cold_aisle + site.floor.hot_aisle) / 2
    raise BadInput(
        f"site.halls hold {room:,} of {pods:,} pods of {block} racks beside the network's: "
        f"{lacking:,} racks, or about {lacking * site.rack.width * pitch:,.0f} m2, too few",
        "larger halls, another hall, more nodes in a rack, or fewer nodes"
        if max(places)
        else "a hall that is longer than its margins",
    )


def origins(site: SiteSpec) -> Floats:
    """Of each hall on the common plan, [halls]: how far across it begins [m]."""
    widths = [hall.width + site.floor.between_halls for hall in site.halls]
    return np.cumsum([0.0, *widths[:-1]])
