"""
When to do what: pure functions and the numbers behind them, each with its source.

Knows no state of a run; the controller and the detectors ask it. Measured failure rates are those of
shared/RELIABILITY.md.

[Daly06]  J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
     Future Generation Computer Systems 22 (2006) 303-312, equation 37; its first term is Young's of 1974.
[NVRx]  nvidia-resiliency-ext, FaultToleranceConfig: safety_factor 5, max_no_progress_restarts 3; and
     straggler.Detector's report: gpu_rel_threshold 0.75.
[torch]  torch.distributed.elastic, RendezvousSettings: a keep-alive every 5 s, and three of them missed.
[RSC]  "Revisiting Reliability in Large-Scale Machine Learning Research Clusters", HPCA 2025: 2.34 to 6.50
     failures in 1,000 node-days; without its 40 lemon nodes the large jobs failed 4% of the time, not 14%.
"""

from collections import Counter
from collections.abc import Sequence
from math import ceil, log2, sqrt

DAY = 86_400.0  # [s]

HEARTBEAT_SECONDS = 5.0  # [s] between two heartbeats of an agent [torch]
HEARTBEATS_MISSED = 3  # [torch]
HUNG_STEPS = 5.0  # silent for so many median steps [NVRx]
HUNG_FLOOR_SECONDS = 10.0  # [s] steps of milliseconds say little about a machine that stalls
STARTUP_SECONDS = (
    600.0  # [s] to the first step: forming a group of 10,000+ takes 30 s (MegaScale), compiling more
)

STRIKES = 3  # failures within STRIKE_SECONDS: see is_lemon
STRIKE_SECONDS = DAY
CORRUPTIONS = 2  # a flip can be a cosmic ray; a second one in the same run is the chip
FRUITLESS = 3  # incarnations in a row that did not complete a step [NVRx], as torchrun's max_restarts
FRUITLESS_WITH_LOSSES = 60  # the same where nodes were lost: see is_hopeless

WAIT_SECONDS = 600.0  # [s] for nodes: detection and diagnosis took under 10 min at 10,000 GPUs (MegaScale)
ADOPT_SECONDS = (
    2 * HEARTBEATS_MISSED * HEARTBEAT_SECONDS
)  # [s] an agent finds out that it must come back, then does
STOP_SECONDS = (
    120.0  # [s] to answer Stop; who beats but cannot kill its workers has a broken kernel or driver
)

STRAGGLER_FACTOR = 1 / 0.75  # its time over its peers' median [NVRx]; jitter of MLPerf steps: p99 1.06
STRAGGLER_FLOOR_SECONDS = 0.05  # [s] more than its peers; less is the jitter of a shared core
STRAGGLER_STEPS = 10  # in a row


def checkpoint_interval(write_seconds: float, failure_seconds: float) -> float:
    """The interval between checkpoints that wastes least [s], if failures are so far apart [Daly06].

    sqrt(2wM) (1 + sqrt(w/2M)/3 + (w/2M)/9) - w for w < 2M, else M.
    """
    w, m = write_seconds, failure_seconds
    if w >= 2 * m:
        return m
    part = w / (2 * m)
    return sqrt(2 * w * m) * (1 + sqrt(part) / 3 + part / 9) - w


def hung_after(
    median_step_seconds: float | None,
    *,
    floor: float = HUNG_FLOOR_SECONDS,
    startup: float = STARTUP_SECONDS,
) -> float:
    """How long nothing may get on [s]; without a median no step is done yet in this incarnation [NVRx]."""
    return startup if median_step_seconds is None else max(floor, HUNG_STEPS * median_step_seconds)


def lost_after(heartbeat_seconds: float = HEARTBEAT_SECONDS) -> float:
    """How long a node may be silent [s]."""
    return HEARTBEATS_MISSED * heartbeat_seconds


def recent(strikes: Sequence[float], now: float) -> list[float]:
    """The strikes that still count."""
    return [time for time in strikes if now - time <= STRIKE_SECONDS]


def is_lemon(strikes: Sequence[float], now: float, limit: int | None = STRIKES) -> bool:
    """Whether a node has failed too often to be an unlucky sound one; never with a limit of None.

    A sound node of the worse cluster of [RSC] fails 6.5e-3 times a day, so three times in one day with
    p = 6.5e-3^3 / 6 = 5e-8: once in 800 days among 25,000 nodes. Twice in a day would be every second day.
    """
    return limit is not None and len(recent(strikes, now)) >= limit


def is_corrupting(corruptions: int) -> bool:
    """Whether a node has spoilt results so often that no node is better than this one."""
    return corruptions >= CORRUPTIONS


def is_hopeless(by_workers: int, by_nodes: int, limit: int = FRUITLESS, nodes: int = 1) -> bool:
    """Whether so many incarnations in a row ended without one step that the next one would too.

    A worker that fails before a step is done is most often the program; but the more nodes there are, the
    more workers fail by chance while the run comes back, so each doubling beyond 64 gives it one more try.
    Nodes that are lost are the world: where they fail every 15 minutes and a restart takes ten, half of the
    incarnations are fruitless, and 12 in a row come about once in 80 days; where 4 of 5 are, 60 in a row
    still do not come in a year.
    """
    doublings = max(0, ceil(log2(max(nodes, 1) / 64)))
    return (
        by_workers >= limit + doublings or by_workers + by_nodes >= FRUITLESS_WITH_LOSSES * limit / FRUITLESS
    )


def buddy_places(racks: Sequence[str]) -> tuple[int | None, ...]:
    """For each place the place that keeps copies of its snapshots, by the rack that each is in.

    In another rack where that can be, else the next place; None for a place that is alone. No two have the
    same buddy. Sorted by rack and shifted by the size of the largest one, none falls in its own rack, unless
    that one holds more than half of all.
    """
    count = len(racks)
    if count < 2:
        return (None,) * count
    largest = max(Counter(racks).values())
    if largest == count:
        return tuple((place + 1) % count for place in range(count))
    order = sorted(range(count), key=racks.__getitem__)
    buddies: list[int | None] = [None] * count
    for position, place in enumerate(order):
        buddies[place] = order[(position + largest) % count]
    return tuple(buddies)
