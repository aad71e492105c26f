"""
How much of a run's time is productive, in closed form.

Interruptions are Poisson and stop the whole job. Work since the newest state that survived is done again;
every recovery may itself be interrupted and begins anew. So nothing here is first order in rate times time:
it holds where a recovery takes as long as failures are apart. It does not know replicas that go on without
each other, failures that come in bursts, slow nodes, or checkpoints that are only safe some time after they
were begun.

[Young]   J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974.
[Daly]    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future
          Generation Computer Systems 22(3), 2006, doi 10.1016/j.future.2004.11.016: (20) time of a run, (37)
          the best interval as a series, of which the Lambert function is the sum.
[Meta]    A. Kokolis et al., "Revisiting reliability in large-scale machine learning research clusters", HPCA
          2025, arXiv 2410.21680: the first-order estimate.
[Erlang]  A. K. Erlang, 1917, loss formula; B. A. Sevastyanov, 1957: it holds for any distribution of the
          service time with the same mean.

How the closed form comes about. Failures come at rate f; a share q of them takes the snapshots too ("deep":
the run goes back to disk), the others do not ("shallow": back to the newest snapshot). Let z be a piece of
L seconds that must be had without interruption, u the recovery from memory, v that from disk. The Laplace
transform at q*f of the time that z takes under shallow failures alone is, both kinds written out and
solved,

    1 / psi(L) = 1 + q * (e^(f*L) - 1) * S,      S = e^(f*u) / (1 + q * (e^(f*u) - 1))

and psi is the probability that no deep failure comes meanwhile. A segment from one checkpoint to the next
is n pieces (work and a snapshot) and the write of w seconds: phi = psi(piece)^n * psi(w). Attempts end at
rate q*f, so

    attempts  T = (1/phi - 1) / (q*f)         recoveries from disk  (1/phi - 1) * (e^(f*v) - 1) / f

With q = 1 this is [Daly] (20), M * e^(v/M) * (e^((work+w)/M) - 1), whatever the pieces. The best n makes
(1/phi - 1) / n least: with A = -ln psi(piece) and B = -ln psi(w) it is x/A where e^(x+B) * (1-x) = 1.
"""

import math
from dataclasses import dataclass
from typing import Any

SERIES_ENDS = 1e-30  # a rate [1/s] below this is none: its expm1 would be lost in rounding
LARGEST = 300.0  # an exponent above this is this: such a run never ends, but two of them multiply


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    """Copies of the state in the memory of nodes."""

    interval: float  # work from one to the next: at most this is lost [s]
    cost: float = 0.0  # by which one holds up the run [s]
    lost: float = 0.0  # probability that a failure takes all copies of somebody's state


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What interrupts a run, and what is done about it. Everything is 0 or more."""

    failure_rate: float  # of the whole job, unplanned [1/s]
    detection: float = 0.0  # until it is known that the job has stopped [s]
    restart: float = 0.0  # from then to the first step, the state being in memory [s]
    reload: float = 0.0  # more than that if the state comes from disk [s]
    checkpoint: float = 0.0  # by which a write to disk holds up the run [s]
    interval: float | None = None  # work between two of them [s]; None for the best
    snapshots: Snapshots | None = None
    nodes: int = 1
    spares: int = 0  # nodes that stand by
    node_loss_rate: float = 0.0  # of those failures that cost a node until it is repaired [1/s]
    repair: float = 0.0  # mean time of that [s]
    planned_rate: float = 0.0  # of stops for maintenance, changes of data and code [1/s]; one saves first


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Where a run's wall time goes."""

    parts: dict[str, float]  # share of wall time by what it was spent on; their sum is 1
    goodput: float  # productive node time over that of all nodes, spares too
    interval: float  # work between checkpoints on disk [s]; infinite where none is worth its time
    time_to_interruption: float  # mean, unplanned [s]

    @property
    def ettr(self) -> float:
        """Effective training time ratio: productive wall time over wall time."""
        return self.parts["productive"]

    def as_json(self) -> dict[str, Any]:
        """Numbers that JSON has: what is infinite is null."""
        return {
            "ettr": self.ettr,
            "goodput": self.goodput,
            "checkpoint_interval_seconds": _finite(self.interval),
            "mean_time_to_interruption_seconds": _finite(self.time_to_interruption),
            "parts": dict(self.parts),
        }


def goodput(conditions: Conditions) -> Goodput:
    """Of a long run under these conditions: shares of wall time, best checkpoint interval."""
    c = conditions
    segment, interval = _segment(c)
    length = sum(segment.values())
    waiting = waiting_share(c.spares, c.node_loss_rate * c.repair)
    stops = c.planned_rate * _stretched(c.failure_rate, c.checkpoint + c.restart + c.reload)
    running = (1 - waiting) / (1 + stops)
    parts = {reason: running * seconds / length for reason, seconds in segment.items()}
    parts |= {"waiting": waiting, "planned": running * stops}
    return Goodput(
        parts=parts,
        goodput=parts["productive"] * (c.nodes / (c.nodes + c.spares)),
        interval=interval,
        time_to_interruption=1 / c.failure_rate if c.failure_rate else math.inf,
    )


def _segment(c: Conditions) -> tuple[dict[str, float], float]:
    """Expected seconds from one checkpoint to the next by reason, and the work between them [s]."""
    rate, write = c.failure_rate, c.checkpoint
    if c.snapshots is None:  # every failure is deep, and the size of a piece does not matter
        deep, work, cost, least = 1.0, 1.0, 0.0, 0.0
    else:  # a checkpoint is of a snapshot, so there are no fewer of these
        deep, cost, least = c.snapshots.lost, c.snapshots.cost, 1.0
        work = c.snapshots.interval if c.interval is None else min(c.snapshots.interval, c.interval)
    shallow_recovery = c.detection + c.restart
    deep_recovery = shallow_recovery + c.reload
    stretch = _exp(rate * shallow_recovery) / (1 + deep * _expm1(rate * shallow_recovery))  # S above
    deep_rate = deep * rate

    def attempts_log(seconds: float) -> float:
        return math.log1p(deep_rate * _stretched(rate, seconds) * stretch)

    per_piece, per_write = attempts_log(work + cost), attempts_log(write)
    best = _root(per_write) / per_piece if per_piece > 0 else math.inf  # not rounded to whole pieces
    pieces = max(least, best) if c.interval is None else c.interval / work
    interval = pieces * work
    if math.isinf(pieces):  # never to disk: any number of pieces is as good as another
        pieces, write, per_write = 1.0, 0.0, 0.0

    failed = _expm1(pieces * per_piece + per_write)  # attempts that a deep failure ended: 1/phi - 1
    if deep_rate > SERIES_ENDS:
        attempts = failed / deep_rate
    else:
        attempts = (pieces * _stretched(rate, work + cost) + _stretched(rate, write)) * stretch
    running = attempts / stretch
    shallow, from_disk = attempts - running, failed * _stretched(rate, deep_recovery)
    noticed = _share(rate, c.detection, shallow_recovery), _share(rate, c.detection, deep_recovery)
    detection = shallow * noticed[0] + from_disk * noticed[1]
    return {
        "productive": pieces * work,
        "lost work": max(0.0, running - pieces * (work + cost) - write),
        "checkpoint": write,
        "snapshot": pieces * cost,
        "detection": detection,
        "restart": max(0.0, shallow + from_disk - detection),
    }, interval


def best_interval(failure_rate: float, checkpoint: float) -> float:
    """Work between checkpoints that costs least in all [s]: M * (1 + W(-e^(-1 - w/M))), exact [Daly].

    sqrt(2*w*M) [Young] is its beginning. It does not depend on how long a restart takes.
    """
    if failure_rate <= SERIES_ENDS:
        return math.inf
    return _root(failure_rate * checkpoint) / failure_rate


def first_order_ettr(failure_rate: float, restart: float, checkpoint: float) -> float:
    """[Meta]'s estimate (1 - f*(u + i/2)) / (1 + w/i) with [Young]'s interval i; 0 where it is negative.

    Not to be used where f*(u + i/2) is above 0.1. For Llama 3's failures and writes of 10 s it is right to
    0.001 at 16,384 GPUs that restart in 5 minutes, and 0.06 too low at 200,000; where it is above 1, it says
    that nothing is ever done. Kept for comparison.
    """
    if failure_rate == 0:
        return 1.0
    if checkpoint == 0:
        return max(0.0, 1 - failure_rate * restart)
    interval = math.sqrt(2 * checkpoint / failure_rate)
    return max(0.0, (1 - failure_rate * (restart + interval / 2)) / (1 + checkpoint / interval))


def waiting_share(spares: int, in_repair: float) -> float:
    """Share of wall time in which too few nodes are whole, so that the job waits.

    `in_repair` is the rate at which the running job loses nodes times the mean repair time [1]. Repairs are
    not held up by each other, and a job that waits loses no nodes: a loss system with spares + 1 places,
    [Erlang].
    """
    share = 1.0
    for places in range(1, spares + 2):
        share = in_repair * share / (places + in_repair * share)
    return share


def _root(per_write: float) -> float:
    """The x from 0 to 1 with e^(x+B) * (1-x) = 1, that is 1 + W(-e^(-1-B)), by Newton from above.

    -x - ln(1-x) = B is convex and grows with x, so every step goes down and none too far.
    """
    x = -math.expm1(-1 - per_write)
    for _ in range(200):
        if x <= 0 or x >= 1:
            break
        step = (-x - math.log1p(-x) - per_write) * (1 - x) / x
        if step <= 1e-14 * x:
            break
        x -= step
    return max(x, 0.0)


def _stretched(rate: float, seconds: float) -> float:
    """Expected time until `seconds` passed without a failure, begun anew at each: (e^(f*L) - 1) / f [s]."""
    return _expm1(rate * seconds) / rate if rate > SERIES_ENDS else seconds


def _share(rate: float, part: float, whole: float) -> float:
    """Of the time in recoveries that take `whole`, interrupted ones too, what their first `part` takes."""
    if whole == 0:
        return 0.0
    in_whole = math.expm1(-rate * whole)
    return math.expm1(-rate * part) / in_whole if in_whole else part / whole


def _exp(x: float) -> float:
    return math.exp(min(x, LARGEST))


def _expm1(x: float) -> float:
    return math.expm1(min(x, LARGEST))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
