"""
What a design still does when one thing in it is lost: counted cable by cable and rack by rack.

One loss at a time. Whether traffic finds the ways that are left is another question (colossi.world.routing).
"""

from dataclasses import dataclass

import numpy as np

from colossi.site.design import KINDS, NETWORKS, Design
from colossi.site.supply import supply_of


@dataclass(frozen=True)
class SwitchLoss:
    """The worst switch of a kind: devices cabled to it from below, and what each keeps of its way up.

    `left` is the share of its cables in this network towards that tier. A node counts its NICs.
    """

    network: str
    kind: str
    below: str
    touched: int
    left: float


@dataclass(frozen=True)
class FeedLoss:
    """A feed lost: racks without power, and the highest load of another feed, of its rating."""

    feed: str
    dark: int
    highest: float


def switch_losses(design: Design) -> list[SwitchLoss]:
    """A row for each network and kind of switch. Managers, which have one port, are not asked."""
    cables, kind = design.cables, design.devices.kind
    asked = kind[cables.lower] != KINDS.index("manager")
    low, high = kind[cables.lower].astype(np.int64), kind[cables.upper].astype(np.int64)
    tier = cables.network.astype(np.int64) * 512 + high * 16 + (low == high)
    losses = []
    for code in np.unique(tier[asked]):
        mine = np.flatnonzero((tier == code) & asked)
        lower, upper = cables.lower[mine].astype(np.int64), cables.upper[mine].astype(np.int64)
        pairs, each = np.unique(upper << 32 | lower, return_counts=True)
        ways = np.bincount(lower)
        above = pairs >> 32
        lost = each / ways[pairs & 0xFFFFFFFF]
        touched = np.bincount(above - above.min())
        what, below = KINDS[kind[upper[0]]], KINDS[kind[lower[0]]]
        losses.append(
            SwitchLoss(
                network=NETWORKS[cables.network[mine[0]]],
                kind=f"{what} (third tier)" if code % 16 else what,
                below="device" if what.endswith(" leaf") else below,
                touched=int(touched.max()),
                left=1 - float(lost.max()),
            )
        )
    return losses


def feed_losses(design: Design, overhead: float) -> list[FeedLoss]:
    """A row for each feed; `overhead` is the plant's power for each watt in racks."""
    racks, supply = design.racks, supply_of(design, overhead)
    rating = np.array([feed.watts for feed in design.feeds])
    load = racks.watts * (1 + overhead)
    found = []
    for lost, feed in enumerate(design.feeds):
        on_a, on_b = racks.feed_a == lost, racks.feed_b == lost
        moved = np.zeros(len(rating))
        np.add.at(moved, racks.feed_b[on_a & ~on_b], load[on_a & ~on_b] / 2)
        np.add.at(moved, racks.feed_a[on_b & ~on_a], load[on_b & ~on_a] / 2)
        after = np.delete((supply.normal + moved) / rating, lost)
        found.append(FeedLoss(feed.name, int((on_a & on_b).sum()), float(after.max(initial=0.0))))
    return found


@dataclass(frozen=True)
class Width:
    """Bandwidth of a tier of the compute network, upwards, over that of what is cabled below it.

    With an oversubscription of n:1 no switch is below 1/n: `worst`. `whole`: the tier's over all NICs'.
    """

    tier: str
    worst: float
    whole: float


def widths(design: Design) -> list[Width]:
    """Of leaves and, with three tiers, of spines. A spine's own cables down are what it serves."""
    cables, kind = design.cables, design.devices.kind
    compute = cables.network == NETWORKS.index("compute")
    nodes = int((kind[cables.lower[compute]] == KINDS.index("node")).sum())
    found = []
    for tier in ("leaf", "spine"):
        is_tier = kind == KINDS.index(tier)
        up, down = (
            np.bincount(ends[compute & is_tier[ends]], minlength=len(kind))
            for ends in (cables.lower, cables.upper)
        )
        used = (down > 0) & (up > 0)
        if used.any():
            found.append(Width(tier, float((up[used] / down[used]).min()), float(up.sum() / nodes)))
    return found
