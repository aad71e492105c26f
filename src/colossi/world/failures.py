"""
What fails in a machine, and when: a list of faults, drawn before the run.

Faults of one cause come as a Poisson process, at the rate of the fleet whose counts are used, for as much
machinery as there is here. The rate may change with the machine's age (Weibull); a few nodes, the lemons,
have more than their part. What a fault does to a run, and that one in a node under repair does nothing, is
for those who read the list. It does not know what the run does: more work does not bring more faults.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colossi.spec.failures import DAY, Cause, Effect, FailureRates, FailuresSpec, failure_rates
from colossi.world.machinery import Machinery

# Repairs are lognormal (Schroeder and Gibson, DSN 2006). That their mean is five times their median, most
# being a reset, and a few a part that must come first, is an assumption.
SPREAD = math.sqrt(2 * math.log(5))

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens at a moment."""

    time: float  # [s] since the run began, in whole milliseconds
    component: str  # "gpu", "software", "switch"; as in the catalogue
    effect: Effect
    nodes: Sequence[int]  # struck; none for "job" and "storage"; one whose traffic it was for a "flap"
    repair: (
        float  # [s] until nodes are sound again (loss, corrupt), or the trouble is over (slow, flap, storage)
    )
    factor: float = 1.0  # slow: step time of the whole job while this node is in it


def rates_of(failures: FailuresSpec) -> FailureRates:
    """Those of the fleet that it names, with what it says otherwise, and repair times filled in."""
    rates = failure_rates(failures.rates)
    own = ("age_days", "lemons_fraction", "lemons_share")
    given = {key: value for key in own if (value := getattr(failures, key)) is not None}
    causes = {
        key: tuple(
            cause.model_copy(
                update={
                    "count": cause.count * _times(failures, cause),
                    "lasts": failures.repair_hours * 3600 if cause.lasts is None else cause.lasts,
                }
            )
            for cause in getattr(rates, key)
        )
        for key in ("causes", "others")
    }
    return rates.model_copy(update=given | causes)


def _times(failures: FailuresSpec, cause: Cause) -> float:
    """How many times as often as in the catalogue."""
    by_effect = {
        "hang": failures.hangs,
        "slow": failures.stragglers,
        "corrupt": failures.corruption,
        "flap": failures.flaps,
        "storage": failures.outages,
    }
    if cause.effect in by_effect:
        return by_effect[cause.effect]
    return failures.outages if cause.per in ("leaf", "rack", "feed") else 1.0


def expected(machinery: Machinery, rates: FailureRates, cause: Cause, seconds: float) -> float:
    """Faults of a cause in so long a time, on average."""
    per_day, age = rates.per_day(cause) * machinery.number_of(cause.per), age_of(rates)
    return per_day * (worn(rates, cause, age + seconds / DAY) - worn(rates, cause, age))


def age_of(rates: FailureRates) -> float:
    """Of the machine when a run begins [d]."""
    return rates.counted_at_days if rates.age_days is None else rates.age_days


def worn(rates: FailureRates, cause: Cause, age: float) -> float:
    """Cumulative hazard of a part at an age [d], in days at the rate at which faults were counted.

    Weibull's, (age / scale)^shape; the scale is such that the days of the count have as many as it says.
    """
    return _pace(rates, cause) * age**cause.shape


def _pace(rates: FailureRates, cause: Cause) -> float:
    begin, end = rates.counted_at_days, rates.counted_at_days + rates.days
    return rates.days / (end**cause.shape - begin**cause.shape)


def faults(machinery: Machinery, rates: FailureRates, seed: int, seconds: float) -> list[Fault]:
    """All faults of so long a time, in order of time; `rates` as of `rates_of`.

    Each cause has random streams of its own, by its place in the catalogue, so that more or fewer faults of
    one leave the others as they are; one that comes more often has the same faults earlier, then others.
    """
    causes = rates.causes + rates.others
    lemons, *streams = np.random.SeedSequence(seed).spawn(1 + len(causes))
    order = np.random.default_rng(lemons).permutation(machinery.nodes)
    found: list[Fault] = []
    for cause, stream in zip(causes, streams, strict=True):
        found += _of_one(machinery, rates, cause, stream, order, seconds)
    return sorted(found, key=lambda fault: fault.time)  # stable: at the same moment in the catalogue's order


def _of_one(
    machinery: Machinery,
    rates: FailureRates,
    cause: Cause,
    stream: np.random.SeedSequence,
    order: NDArray[np.int64],
    seconds: float,
) -> list[Fault]:
    """Those of one cause; `order` has the lemons among the nodes first."""
    when, where, how_long, how_bad = (np.random.default_rng(child) for child in stream.spawn(4))
    times = _times_of(machinery, rates, cause, when, seconds)
    count = len(times)
    picks = where.random((count, 2))
    # The mean of a lognormal is exp(SPREAD^2 / 2) times its median.
    repairs = _mean_repair(cause) * np.exp(SPREAD * how_long.standard_normal(count) - SPREAD**2 / 2)
    factors = 1.0 + cause.slowdown * how_bad.standard_exponential(count)
    if cause.effect in ("job", "storage"):
        struck: list[Sequence[int]] = [()] * count
    elif cause.effect == "loss" and cause.per in ("leaf", "rack", "feed"):
        which = (picks[:, 1] * machinery.number_of(cause.per)).astype(np.int64)
        struck = [machinery.nodes_of(cause.per, index) for index in which.tolist()]
    else:
        lemons = round(rates.lemons_fraction * machinery.nodes)
        struck = [(node,) for node in _nodes(picks, order, lemons, rates.lemons_share).tolist()]
    columns = (times.tolist(), struck, repairs.round(3).tolist(), factors.round(6).tolist())
    return [
        Fault(time, cause.component, cause.effect, nodes, repair, factor)
        for time, nodes, repair, factor in zip(*columns, strict=True)
    ]


def _mean_repair(cause: Cause) -> float:
    """Of one fault [s]; 0 for what is over once processes start again."""
    if cause.effect in ("crash", "hang", "job"):
        return 0.0
    assert cause.lasts is not None, "rates_of fills it in"
    return cause.lasts


def _times_of(
    machinery: Machinery, rates: FailureRates, cause: Cause, rng: np.random.Generator, seconds: float
) -> Floats:
    """When [s]: arrivals at rate one, at the times when so much hazard has accumulated."""
    total = expected(machinery, rates, cause, seconds)
    if total == 0:
        return np.empty(0)
    arrivals = np.cumsum(rng.standard_exponential(math.ceil(total + 8 * math.sqrt(total) + 32)))
    arrivals = arrivals[arrivals < total]
    per_day = rates.per_day(cause) * machinery.number_of(cause.per) * _pace(rates, cause)
    if cause.shape == 1:
        days = arrivals / per_day
    else:
        age = age_of(rates)
        days = (arrivals / per_day + age**cause.shape) ** (1 / cause.shape) - age
    times: Floats = np.clip(days * DAY, 0, seconds).round(3)
    return times


def _nodes(picks: Floats, order: NDArray[np.int64], lemons: int, share: float) -> NDArray[np.int64]:
    """A node for each pick: one of the lemons in their share of all, else one of the others."""
    nodes = len(order)
    if not 0 < lemons < nodes:
        return order[(picks[:, 1] * nodes).astype(np.int64)]
    sour = picks[:, 0] < share
    first, many = np.where(sour, 0, lemons), np.where(sour, lemons, nodes - lemons)
    chosen: NDArray[np.int64] = order[first + (picks[:, 1] * many).astype(np.int64)]
    return chosen
