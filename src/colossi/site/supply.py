"""
Power from the feeds to the racks, and heat from the racks to the plant.

A rack takes its power in equal halves from its two feeds while both are there, and all of it from either when
the other is lost; with one feed, all from that. The plant's own power is a share of the racks' and hangs on
the same feeds.
"""

from dataclasses import dataclass

import numpy as np

from colossi.errors import BadInput
from colossi.site.design import Design, Floats, Ints
from colossi.spec.hardware import Node
from colossi.spec.site import SiteSpec

MEGA = 1e6


@dataclass(frozen=True)
class Supply:
    """Of each feed [feeds]: its load when all are there, and the most when another one is lost [W]."""

    normal: Floats
    worst: Floats


def feed_racks(watts: Floats, pod: Ints, site: SiteSpec) -> tuple[Ints, Ints]:
    """The feeds of each rack, pod by pod. BadInput, by how many MW, where they do not carry it all.

    Racks that serve all pods are fed as the pods are: the first of them with the first pods.
    """
    needed = watts * (1 + site.cooling.overhead)
    rating = np.array([feed.megawatts * MEGA for feed in site.feeds])
    usable = carried(rating, site.redundancy)
    lacking = needed.sum() - usable
    if lacking > 0:
        raise BadInput(
            f"site.feeds carry {usable / MEGA:,.4g} MW with redundancy {site.redundancy!r}, and racks and "
            f"plant take {needed.sum() / MEGA:,.4g}: {lacking / MEGA:,.4g} MW too few",
            "more or larger feeds, another redundancy, or fewer nodes",
        )
    shared = pod < 0
    turn = pod.astype(np.float64)
    turn[shared] = np.linspace(0, pod.max() + 1, int(shared.sum()), endpoint=False)
    order = np.argsort(turn, kind="stable")
    feed_a, feed_b = np.empty((2, len(watts)), np.int32)
    found = (
        _alone(needed[order], rating)
        if site.redundancy == "N"
        else _pairs(needed[order], rating, site.redundancy)
    )
    feed_a[order], feed_b[order] = found
    return feed_a, feed_b


def carried(rating: Floats, redundancy: str) -> float:
    """What the feeds can carry at most and keep the promise [W]."""
    if redundancy == "N":
        return float(rating.sum())
    if redundancy == "2N":
        return float(np.minimum(rating[0::2], rating[1::2]).sum())
    return float(rating.sum() - rating.max())


def _alone(needed: Floats, rating: Floats) -> tuple[Ints, Ints]:
    """In order: the first feed until it is full, then the next."""
    feed = np.empty(len(needed), np.int32)
    left = rating.copy()
    for rack, load in enumerate(needed.tolist()):
        fits = np.flatnonzero(left >= load)
        if not len(fits):
            raise _divided(load)
        feed[rack] = fits[0]
        left[fits[0]] -= load
    return feed, feed.copy()


def _pairs(needed: Floats, rating: Floats, redundancy: str) -> tuple[Ints, Ints]:
    """Each rack on the pair of feeds that is least loaded after the worst loss that concerns it."""
    feeds = len(rating)
    if redundancy == "2N":
        pairs = [(first, first + 1) for first in range(0, feeds, 2)]
    else:
        pairs = [(a, b) for a in range(feeds) for b in range(a + 1, feeds)]
    half = np.zeros((feeds, feeds))  # on both a and b: the half that moves when one of them is lost
    a, b = np.array(pairs).T
    chosen = np.empty((len(needed), 2), np.int32)
    others = ~np.eye(feeds, dtype=bool)
    for rack, load in enumerate(needed.tolist()):
        normal = half.sum(axis=1)
        after = normal[:, None] + half  # [feed, lost]
        # With the rack, in the worst case: a carries its whole when b is lost, half when another is.
        full_a, full_b = (after[a, b] + load) / rating[a], (after[b, a] + load) / rating[b]
        most = np.where(others, after, 0).max(axis=1) + load / 2
        score = np.maximum.reduce([full_a, full_b, most[a] / rating[a], most[b] / rating[b]])
        best = int(score.argmin())
        if score[best] > 1:
            raise _divided(load)
        chosen[rack] = pairs[best]
        half[a[best], b[best]] += load / 2
        half[b[best], a[best]] += load / 2
    return chosen[:, 0].copy(), chosen[:, 1].copy()


def _divided(load: float) -> BadInput:
    return BadInput(
        f"site.feeds: no feed has {load / 1e3:,.0f} kW left for one more rack, though all together would",
        "feeds of equal size, or a little more power",
    )


@dataclass(frozen=True)
class Heat:
    """Where the heat of all racks goes [W]."""

    liquid: float
    air: float


def heat_of(server: Node, nodes: int, watts: float) -> Heat:
    """Of racks that take so much [W]: the nodes' cold plates give theirs to the liquid, all else to air."""
    liquid = nodes * server.power * server.liquid
    return Heat(liquid, watts - liquid)


def check_cooling(server: Node, nodes: int, watts: float, site: SiteSpec) -> None:
    """BadInput, by how many MW, where the plant takes away less heat than there is."""
    heat = heat_of(server, nodes, watts)
    for key, there, limit in (
        ("liquid_mw", heat.liquid, site.cooling.liquid_mw),
        ("air_mw", heat.air, site.cooling.air_mw),
    ):
        if limit is not None and there > limit * MEGA:
            raise BadInput(
                f"site.cooling.{key} = {limit:g} is below the heat of {there / MEGA:,.4g} MW: "
                f"{there / MEGA - limit:,.4g} MW too few",
                "more cooling, or fewer nodes",
            )


def supply_of(design: Design, overhead: float) -> Supply:
    """What the feeds of a design carry."""
    racks, feeds = design.racks, len(design.feeds)
    load = racks.watts * (1 + overhead)
    half = np.zeros((feeds, feeds))
    np.add.at(half, (racks.feed_a, racks.feed_b), load / 2)
    alone = np.diag(half) * 2
    np.fill_diagonal(half, 0.0)
    half = half + half.T
    normal = half.sum(axis=1) + alone
    return Supply(normal, normal + half.max(axis=1))
