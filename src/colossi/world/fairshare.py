"""
Max-min fair rates of flows that share links, by progressive filling.

All flows grow together; where a link is full, its flows have their rate, and the others go on. A flow may put
any weight on a link: 1 where it passes once, 0.5 where half of it does, 3 where a ring passes three times.

[1] D. Bertsekas, R. Gallager, "Data Networks", 1992, section 6.5.2: max-min fairness, progressive filling.
"""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Real = NDArray[np.float64]
TIE = 1e-12  # relative: levels nearer than this are one, and are filled at once


def fair_rates(link: Index, flow: Index, weight: Real, capacity: Real, flows: int) -> Real:
    """The rate of each of `flows` flows, of which entry i puts weight[i] on link[i] per unit of rate.

    In the units of `capacity`, which is one for each link. A flow on no link is without limit: infinity.
    Links are filled many at a time: one is a bottleneck as soon as none of its flows has a lower limit
    elsewhere, since levels of links only rise while others fill up.
    """
    order = np.argsort(flow, kind="stable")
    link, flow, weight = link[order], flow[order], weight[order].astype(np.float64)
    weighs = weight > 0
    link, flow, weight = link[weighs], flow[weighs], weight[weighs]
    rates = np.full(flows, np.inf)
    left = capacity.astype(np.float64)
    while flow.size:
        load = np.bincount(link, weight, len(left))
        level = np.divide(np.maximum(left, 0.0), load, out=np.full(len(left), np.inf), where=load > 0)
        starts = np.flatnonzero(np.r_[True, flow[1:] != flow[:-1]])
        here = level[link]
        lowest = np.minimum.reduceat(here, starts)
        limit = np.repeat(lowest, np.diff(np.r_[starts, flow.size]))
        waits = np.zeros(len(left), bool)  # links with a flow that is held lower elsewhere
        waits[link[limit < here * (1 - TIE)]] = True
        full = ~waits[link] & (here <= limit * (1 + TIE))
        done = np.zeros(flows, bool)
        done[flow[full]] = True
        rates[flow[starts]] = np.where(done[flow[starts]], lowest, np.inf)
        gone = done[flow]
        left = left - np.bincount(link[gone], weight[gone] * limit[gone], len(left))
        link, flow, weight = link[~gone], flow[~gone], weight[~gone]
    return rates
