"""
Many lives of the same run, each with failures of its own, and what they have in common.

A life is counted by its ledger, as a real run is. Seeds are shared out among the cores; each result is a line
in a file as soon as it is there, so that a sweep that was broken off goes on where it was.
"""

import json
import math
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from colossi.ledger.clock import PARTS, account
from colossi.ledger.events import Event
from colossi.plan.forecast import DAY, HOUR
from colossi.simulation.scenario import Scenario, faults_of
from colossi.simulation.striking import play

LOST = tuple(part for part in PARTS if part != "productive")


@dataclass(frozen=True, slots=True)
class Life:
    """What became of one run. Everything but the counts is of wall time and the machine as a whole."""

    seed: int
    interruptions: dict[str, int]  # by component, those on purpose too
    ettr: float
    goodput: float
    tokens: int
    days: float  # until all tokens are trained; where the run did not get there, at this pace; inf for never
    lost_hours: dict[str, float]  # of the machine that trains, by reason
    spares_used: int  # how often a spare took a place
    finished: bool
    gave_up: str  # why, or ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"days": self.days if math.isfinite(self.days) else None}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Life":
        return cls(**{**said, "days": math.inf if said["days"] is None else said["days"]})


def live(scenario: Scenario, seed: int) -> tuple[Life, list[Event]]:
    """One life, and its ledger."""
    arrivals = scenario.built.of(seed) if scenario.built is not None else ()
    history = play(scenario, faults_of(scenario, seed), arrivals)
    return life_of(scenario, seed, history), history


def life_of(scenario: Scenario, seed: int, history: Sequence[Event]) -> Life:
    """What a ledger says of it."""
    spent = account(history)
    counts = Counter(one.cause.partition(":")[0] for one in spent.interruptions)
    workers = scenario.plan.places * scenario.plan.per_node
    goal = scenario.plan.steps * scenario.tokens_per_step
    return Life(
        seed=seed,
        interruptions=dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))),
        ettr=spent.productive / spent.wall if spent.wall else 0.0,
        goodput=spent.parts["productive"] / math.fsum(spent.parts.values()) if spent.wall else 0.0,
        tokens=spent.tokens,
        days=spent.wall / DAY * (goal / spent.tokens) if spent.tokens else math.inf,
        lost_hours={part: spent.parts[part] / workers / HOUR for part in LOST},
        spares_used=sum(event.kind == "promoted" for event in history),
        finished=any(event.kind == "finished" for event in history),
        gave_up=next((event.text("why") for event in history if event.kind == "gave_up"), ""),
    )


def lives(
    scenario: Scenario,
    seeds: int,
    kept: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Life]:
    """Of the seeds 1, 2, ..., in this order; those that `kept` has are not lived again."""
    found = {life.seed: life for life in _kept(kept) if life.seed <= seeds} if kept else {}
    missing = [seed for seed in range(1, seeds + 1) if seed not in found]
    progress(len(found), seeds)
    for life in _each(scenario, missing):
        found[life.seed] = life
        if kept:
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(life.as_json()) + "\n")
        progress(len(found), seeds)
    return [found[seed] for seed in sorted(found)]


def _each(scenario: Scenario, seeds: Sequence[int]) -> Iterator[Life]:
    """As they are done."""
    workers = min(len(os.sched_getaffinity(0)), len(seeds))
    if workers < 2:
        yield from (_live(scenario, seed) for seed in seeds)
        return
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
        try:
            for done in as_completed([pool.submit(_live, scenario, seed) for seed in seeds]):
                yield done.result()
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()  # the lives that it is in the middle of are lived again next time
            raise


def _end_with_parent() -> None:
    """A worker does not survive its parent, even one that was killed; Ctrl-C is for the parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _live(scenario: Scenario, seed: int) -> Life:
    return live(scenario, seed)[0]


def _kept(file: Path) -> list[Life]:
    """A last line that a kill has cut off is no life; it is taken away, lest the next one be added to it."""
    if not file.exists():
        return []
    whole, newline, cut = file.read_bytes().rpartition(b"\n")
    if cut:
        os.truncate(file, len(whole + newline))
    return [Life.from_json(json.loads(line)) for line in whole.splitlines()]


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over all seeds."""

    mean: float
    low: float  # 5th percentile
    high: float  # 95th

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return cls(math.inf, math.inf, math.inf)
        low, high = np.percentile(finite, (5, 95))
        return cls(math.fsum(finite) / len(finite), float(low), float(high))

    def as_json(self) -> dict[str, float | None]:
        return {
            key: value if math.isfinite(value) else None
            for key, value in (("mean", self.mean), ("p5", self.low), ("p95", self.high))
        }


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The mean of paired differences, and half the width of its 95% confidence interval (normal)."""
    count = len(differences)
    mean = math.fsum(differences) / count
    if count < 2:
        return mean, math.inf
    variance = math.fsum((each - mean) ** 2 for each in differences) / (count - 1)
    return mean, 1.96 * math.sqrt(variance / count)
