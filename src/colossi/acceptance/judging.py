"""
Whether what was found will do: by the limits of the catalogue, or by what the other nodes of the fleet have.

[IH93]  B. Iglewicz, D. Hoaglin, "How to detect and handle outliers", ASQC 1993: a value is an outlier when
     0.6745 |x - median| / MAD is above 3.5. MAD is the median of |x - median|.
[NVRx]  nvidia-resiliency-ext, straggler.Detector's report: gpu_rel_threshold 0.75.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Literal

from colossi.acceptance.result import Result, Status, quantity
from colossi.spec.acceptance import Acceptance, Limit

OUTLIER = 3.5  # [IH93]
NORMAL = 0.6745  # [IH93]: the MAD of a normal distribution, in standard deviations
SHARE = 0.75  # of the median that a node must reach, whatever the spread [NVRx]
HALF = 0.5  # of the median: an assumption
FEWEST = 4  # nodes, to say what is usual

Bad = Literal["low", "high"]
# What is compared between nodes: the end that is bad, and how bad. A disk may serve others at the same time.
COMPARED: dict[str, tuple[Bad, Status]] = {
    "processor.product": ("high", "fail"),
    "memory.copy": ("low", "fail"),
    "memory.triad": ("low", "fail"),
    "disk.write": ("low", "warn"),
    "disk.read": ("low", "warn"),
    "loopback.rate": ("low", "fail"),
    "pairs.rate": ("low", "fail"),
    "nic.speed": ("low", "fail"),
    "infiniband.speed": ("low", "fail"),
    "gpu.count": ("low", "fail"),
    "gpu.product": ("low", "fail"),
    "gpu.memory": ("low", "fail"),
    "gpu.host_to_device": ("low", "fail"),
    "gpu.peer": ("low", "fail"),
    "gpu.all_reduce": ("low", "fail"),
    "gpu.clock_most": ("low", "fail"),
}


def judge(results: Mapping[str, Sequence[Result]], limits: Acceptance) -> dict[str, list[Result]]:
    """For each node its results, with what limits say, and of the others what the fleet says."""
    judged = {node: [by_limits(each, limits) for each in own] for node, own in results.items()}
    usual = _values(judged)
    return {node: [by_fleet(each, usual) for each in own] for node, own in judged.items()}


def by_limits(result: Result, limits: Acceptance) -> Result:
    """What its own check found wrong stays wrong."""
    limit = limits.limit(result.check)
    if limit is None or result.value is None or result.status in ("fail", "skipped"):
        return result
    wrong = exceeds(result.value, limit)
    known = replace(result, limit=limit.in_words)
    return (
        replace(known, status=limit.level, why=f"{quantity(result.value, result.unit)}, not {limit.in_words}")
        if wrong
        else known
    )


def exceeds(value: float, limit: Limit) -> bool:
    """Whether a value is outside of it."""
    low = limit.least is not None and value < limit.least
    return low or (limit.most is not None and value > limit.most)


def by_fleet(result: Result, usual: Mapping[tuple[str, str], Sequence[float]]) -> Result:
    """Against all nodes' values of the same thing, if no limit has been named."""
    values = usual.get((result.check, result.what), ())
    if result.limit or result.value is None or result.status != "pass" or len(values) < FEWEST:
        return result
    bad, level = COMPARED[result.check]
    bound = bound_of(values, bad)
    outside = result.value < bound if bad == "low" else result.value > bound
    middle = median(values)
    words = (
        f"{'at least' if bad == 'low' else 'at most'} {bound / middle:.2f} of the median" if middle else ""
    )
    if not outside:
        return replace(result, limit=words)
    why = f"{result.value / middle:.2f} times the median of {len(values)} nodes"
    return replace(result, status=level, why=why, limit=words)


def bound_of(values: Sequence[float], bad: Bad) -> float:
    """What a node must reach, or not exceed: off by a quarter of the median and by more than the spread.

    Both: among equal machines the spread is tiny and says nothing; among unequal ones a quarter is usual. But
    half of the median is too little in any fleet: with a few nodes the spread can be as wide as one likes.
    """
    middle = median(values)
    spread = median(abs(value - middle) for value in values)
    off = OUTLIER / NORMAL * spread
    if bad == "low":
        return max(min(SHARE * middle, middle - off), HALF * middle)
    return min(max(middle / SHARE, middle + off), middle / HALF)


def _values(results: Mapping[str, Sequence[Result]]) -> dict[tuple[str, str], list[float]]:
    """(check, what) -> the values of all nodes that have it."""
    found: dict[tuple[str, str], list[float]] = {}
    for own in results.values():
        for each in own:
            if each.check in COMPARED and each.value is not None and each.status != "skipped":
                found.setdefault((each.check, each.what), []).append(each.value)
    return found


def doubtful(results: Mapping[str, Sequence[Result]]) -> dict[str, set[str]]:
    """Nodes with the checks that failed only by comparison: to be measured once more before it counts.

    A node of a shared machine, or one that somebody logged in to, may have been busy for a moment.
    """
    found: dict[str, set[str]] = {}
    for node, own in results.items():
        names = {each.check for each in own if each.status == "fail" and "times the median" in each.why}
        if names:
            found[node] = names
    return found
