"""
How long a cable is, and of what: its way over the trays, rounded up to a length that is sold.

A way goes from a port straight up to the tray over its rack, along rows and aisles (so distances add as on a
chessboard for rooks), and straight down. In one rack it runs along the rack.
"""

import numpy as np
from numpy.typing import NDArray

from colossi.errors import BadInput
from colossi.site.design import MEDIA, NETWORKS, Cables, Devices, Floats
from colossi.site.fabric import Links
from colossi.spec.equipment import cable
from colossi.spec.site import SiteSpec

UNIT = 0.04445  # metres of a rack unit (EIA-310)
MIDDLE = (
    0.3  # metres from the middle of a rack to a port and back to the rack's side, in one rack; assumption
)


def lay(
    links: tuple[Links, Links, Links],
    slow: NDArray[np.bool_],
    devices: Devices,
    x: Floats,
    y: Floats,
    site: SiteSpec,
) -> Cables:
    """All cables. `x`, `y` are of each rack on the common plan [m]; `slow` marks those of 1 Gb/s.

    BadInput if a way is longer than any cable that is sold.
    """
    rows = np.concatenate(links)
    network = np.repeat(np.arange(len(NETWORKS), dtype=np.int8), [len(each) for each in links])
    ways = way(rows, devices, x, y, site)
    metres = np.empty(len(rows), np.float32)
    medium = np.empty(len(rows), np.int8)
    copper, optic, fibre, twisted = (np.array(cable(name).lengths) for name in (*MEDIA, "Cat6"))
    fast = ~slow
    for number, (lengths, mine) in enumerate(
        (
            (copper, fast & (ways <= copper[-1])),
            (optic, fast & (ways > copper[-1]) & (ways <= optic[-1])),
            (fibre, (fast & (ways > optic[-1])) | (slow & (ways > twisted[-1]))),
            (twisted, slow & (ways <= twisted[-1])),
        )
    ):
        at = np.searchsorted(lengths, ways[mine] - 1e-6)
        if len(at) and int(at.max()) == len(lengths):
            raise BadInput(
                f"site: a cable of {float(ways.max()):,.0f} m is needed, and none is sold above "
                f"{lengths[-1]:,.0f} m",
                "halls that are smaller or nearer",
            )
        metres[mine] = lengths[at]
        medium[mine] = number % len(MEDIA)  # twisted pairs are copper
    return Cables(network, rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], metres, medium)


def way(rows: Links, devices: Devices, x: Floats, y: Floats, site: SiteSpec) -> Floats:
    """Of each cable, slack included [m]."""
    lower, upper = rows[:, 0], rows[:, 2]
    a, b = devices.rack[lower], devices.rack[upper]
    height = (devices.unit + devices.height / 2) * UNIT
    across = np.abs(x[a] - x[b]) + np.abs(y[a] - y[b])
    over = across + 2 * site.floor.tray - height[lower] - height[upper]
    along = np.abs(height[lower] - height[upper]) + MIDDLE
    return np.where(a == b, along, over) + site.floor.slack
