"""
What a site draws, from what its nodes do: stretches of a run's timeline, and the swing within a step.

Between two stretches nothing changes but the step's own phases, so all is in closed form; the load of any
second is a difference of the energy drawn until then. Nodes that do not train stand powered and idle. Losses
of transformers, supplies and cables follow the load; cooling, the rest of the overhead, follows its mean over
the run, since water and air hold heat for longer than a stop takes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colossi.ledger.clock import TRAINING, Account, Span
from colossi.plan.energy import OUTSIDE, STEP
from colossi.spec.hardware import Node

Floats = NDArray[np.float64]

# Of the servers' power, lost on the way to them: a transformer and an uninterruptible supply, 97 to 98% each
# (assumption). It is a part of the PUE.
DISTRIBUTION = 0.05
# The order in which a step's parts show at the site. What alternates layer by layer, in milliseconds, is one
# phase at its mean; once a step come the wait for the pipeline, the gradients, and the optimizer.
MIXED = ("compute", "recompute", "tensor", "context", "expert", "pipeline")
PHASES = (MIXED, ("bubble",), ("data", "jitter"), ("optimizer",))
CHUNK = 1 << 20  # seconds at a time, so that temporaries stay small


@dataclass(frozen=True, slots=True)
class Cycle:
    """A step as the site sees it: phases one after the other."""

    seconds: Floats  # [phases]
    watts: Floats  # [phases] of one server

    @property
    def length(self) -> float:
        return float(self.seconds.sum())

    @property
    def mean(self) -> float:
        """[W] of one server."""
        return float(self.seconds @ self.watts / self.length)

    @property
    def fundamental(self) -> float:
        """Amplitude of the sine whose period is a step [W] of one server: the first Fourier coefficient."""
        turns = np.exp(-2j * np.pi * np.concatenate([[0.0], np.cumsum(self.seconds)]) / self.length)
        return float(abs(np.diff(turns) @ self.watts) / np.pi)


@dataclass(frozen=True, slots=True)
class Load:
    """A site's draw, [n] stretches: `base`, and where it trains `train` times the cycle's watts."""

    begins: Floats  # [n] [s]
    seconds: Floats  # [n]
    base: Floats  # [n] [W] of all that does not step
    train: Floats  # [n] servers that step, times the losses on the way to them; else 0
    cycle: Cycle

    @property
    def length(self) -> float:
        """[s]"""
        return float(self.begins[-1] + self.seconds[-1])

    @property
    def highest(self) -> Floats:
        """[n] [W] in the phase that takes most."""
        return self.base + self.train * self.cycle.watts.max()

    @property
    def lowest(self) -> Floats:
        """[n] [W] in the phase that takes least."""
        return self.base + self.train * self.cycle.watts.min()

    def energy(self) -> float:
        """[J]"""
        return float(self.energy_until(np.array([self.length]))[0])

    def energy_until(self, times: Floats) -> Floats:
        """Drawn from the beginning to each time [J]; steps begin anew with each stretch."""
        cycle = self.cycle
        ends = np.concatenate([[0.0], np.cumsum(cycle.seconds)])
        joules = np.concatenate([[0.0], np.cumsum(cycle.seconds * cycle.watts)])

        def stepped(seconds: Floats) -> Floats:
            steps = np.floor(seconds / cycle.length)
            return steps * joules[-1] + np.interp(seconds - steps * cycle.length, ends, joules)

        each = self.base * self.seconds + self.train * stepped(self.seconds)
        before = np.concatenate([[0.0], np.cumsum(each)[:-1]])
        at = np.clip(np.searchsorted(self.begins, times, side="right") - 1, 0, None)
        since = np.minimum(times - self.begins[at], self.seconds[at])
        return before[at] + self.base[at] * since + self.train[at] * stepped(since)

    def each_second(self) -> Floats:
        """Mean load of every second of the run [W]; the last one may be cut short, and counts as whole."""
        count = int(np.ceil(self.length))
        found = np.empty(count)
        for begin in range(0, count, CHUNK):
            end = min(begin + CHUNK, count)
            found[begin:end] = np.diff(self.energy_until(np.arange(begin, end + 1, dtype=np.float64)))
        return found


def cycle_of(parts: dict[str, float], server: Node, floor: float = 0.0) -> Cycle:
    """A step's parts [s], as the planner has them, as phases."""
    seconds, watts = [], []
    for names in PHASES:
        length = sum(parts.get(name, 0.0) for name in names)
        if length > 0:
            joules = sum(parts.get(name, 0.0) * server.watts(STEP[name], floor) for name in names)
            seconds.append(length)
            watts.append(joules / length)
    return Cycle(np.array(seconds), np.array(watts))


def with_stalls(cycle: Cycle, account: Account, server: Node, floor: float, checkpoints: bool) -> Cycle:
    """The same with what training time holds beside steps, shared out among them, in the first phase.

    That is snapshots, the time between two steps and, where `checkpoints`, the stalls for them.
    """
    trained = sum(span.seconds * span.workers for span in account.timeline if span.part == TRAINING)
    steps = account.parts["productive"] / cycle.length
    if steps <= 0:
        return cycle
    snapshot, saved = account.parts["snapshot"], account.parts["checkpoint"]
    between = max(trained - account.parts["productive"] - snapshot - saved, 0.0)
    stalls = [("snapshot", snapshot), ("idle", between), ("checkpoint", saved if checkpoints else 0.0)]
    seconds, watts = cycle.seconds.copy(), cycle.watts.copy()
    for part, total in stalls:
        longer = seconds[0] + total / steps
        watts[0] = (watts[0] * seconds[0] + server.watts(OUTSIDE[part], floor) * total / steps) / longer
        seconds[0] = longer
    return Cycle(seconds, watts)


def with_checkpoints(timeline: Iterable[Span], interval: float, seconds: float) -> list[Span]:
    """The timeline with a span "checkpoint" of `seconds` at the end of each `interval` [s] of training."""
    cut: list[Span] = []
    for span in timeline:
        if span.part != TRAINING or seconds <= 0:
            cut.append(span)
            continue
        begin, end = span.begin, span.begin + span.seconds
        while end - begin > interval:
            work = interval - seconds
            cut += [_part(span, TRAINING, begin, work), _part(span, "checkpoint", begin + work, seconds)]
            begin += interval
        cut.append(_part(span, TRAINING, begin, end - begin))
    return cut


def _part(span: Span, part: str, begin: float, seconds: float) -> Span:
    return Span(
        part=part,
        incarnation=span.incarnation,
        begin=begin,
        seconds=seconds,
        workers=span.workers,
        missing=span.missing,
    )


def load_of(
    timeline: Sequence[Span], cycle: Cycle, server: Node, nodes: int, pue: float, floor: float = 0.0
) -> Load:
    """The load of a site with so many servers, of which each span's workers (a GPU each) train.

    `floor` holds for the GPUs of the job, also while it stands. Spans follow each other without gaps.
    """
    assert timeline, "a run without time has no load"
    busy = np.array([span.workers / server.gpus for span in timeline])
    stepping = np.array([span.part in (TRAINING, "recomputation") for span in timeline])
    standing = np.array(
        [0.0 if span.part not in OUTSIDE else server.watts(OUTSIDE[span.part], floor) for span in timeline]
    )
    seconds = np.array([span.seconds for span in timeline])
    servers = busy * standing + np.maximum(nodes - busy, 0.0) * server.watts("idle")
    train = np.where(stepping, busy, 0.0)
    losses = min(DISTRIBUTION, pue - 1)
    begins = np.concatenate([[0.0], np.cumsum(seconds)[:-1]])
    bare = Load(begins, seconds, servers, train, cycle)
    cooling = (pue - 1 - losses) * bare.energy() / bare.length
    return Load(begins, seconds, servers * (1 + losses) + cooling, train * (1 + losses), cycle)
