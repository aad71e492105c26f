"""
What the ledger says about a run: losses, speed, goodput, and where the time went.

`report(events)` is a pure function; it works alike for a real run, a simulated one and one that still
goes on. `clock.py` gives each second of the wall time to one part; here the rest is counted.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from colossi.ledger.clock import BESIDE, ENDS, Account, account
from colossi.ledger.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """One life of the run, from its start to its end."""

    number: int
    started: float  # [unix s]
    ended: float  # [unix s] its last sign of life
    first_step: int | None  # None: it never finished a step
    last_step: int | None
    end: str  # finished, stopped, failed; lost: the next one followed without a word; "" while it goes on
    why: str
    workers: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """One end that nobody asked for, and what it cost."""

    incarnation: int  # the one that ended
    step: int | None  # the last one that it had done
    cause: str
    rank: int | None
    seconds: Mapping[str, float]  # part -> [s]: down, startup and recomputation until the run was back


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    step: int
    seconds: float  # [s] mostly in the background
    stall_seconds: float  # [s] that training waited
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    task: str
    questions: int
    accuracy: float
    step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run in numbers. `time` has each second of `wall_seconds` in one part; paused time is in neither."""

    steps: int  # the highest step done
    goal: int | None
    losses: tuple[tuple[int, float], ...]
    tokens: int  # in steps that count, so not those done again
    tokens_per_second: float | None  # over productive time
    mfu: float | None
    goodput: float | None  # productive / wall
    wall_seconds: float
    paused_seconds: float  # between an end on purpose and the next start
    time: Mapping[str, float]
    final_loss: float | None
    best_loss: float | None
    evaluations: tuple[Evaluation, ...]
    checkpoints: tuple[Checkpoint, ...]
    incarnations: tuple[Incarnation, ...]
    interruptions: tuple[Interruption, ...]
    run: Mapping[str, Any]  # what the newest run_started said: world, layout, parameters, ...

    def as_json(self) -> dict[str, Any]:
        """Plain data for json.dumps; a number that JSON has no word for (a loss that is NaN) is null."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def report(events: Iterable[Event]) -> Report:
    """Everything there is to say about the run with these events, in the order of the ledger."""
    history = list(events)
    spent = account(history)
    losses = _losses(history)
    lowest = [loss for _, loss in losses if math.isfinite(loss)]
    started = [event for event in history if event.kind == "run_started"]
    goal = started[-1].whole("steps") if started else None
    wall = math.fsum(spent.parts.values())
    productive = spent.parts["productive"]
    return Report(
        steps=max((event.step or 0 for event in history if event.kind == "step_done"), default=0),
        goal=goal,
        losses=losses,
        tokens=spent.tokens,
        tokens_per_second=spent.tokens / productive if productive > 0 else None,
        mfu=spent.flops / spent.peak_flops if spent.peak_flops > 0 else None,
        goodput=productive / wall if wall > 0 else None,
        wall_seconds=wall,
        paused_seconds=spent.paused,
        time=spent.parts,
        final_loss=losses[-1][1] if losses else None,
        best_loss=min(lowest, default=None),
        evaluations=_evaluations(history),
        checkpoints=_checkpoints(history),
        incarnations=_incarnations(history),
        interruptions=_interruptions(history, spent),
        run=dict(started[-1].data) if started else {},
    )


def _losses(history: Sequence[Event]) -> tuple[tuple[int, float], ...]:
    """(step, loss) by step; of a step done twice, the newest incarnation's, and its last word."""
    newest: dict[int, tuple[int, float]] = {}
    for event in history:
        loss = event.number("loss")
        if event.kind != "step_done" or event.step is None or loss is None:
            continue
        if event.incarnation >= newest.get(event.step, (0, 0.0))[0]:
            newest[event.step] = (event.incarnation, float(loss))
    return tuple((step, newest[step][1]) for step in sorted(newest))


def _evaluations(history: Sequence[Event]) -> tuple[Evaluation, ...]:
    """The newest score of each task, in the order in which the tasks first came."""
    scores: dict[str, Evaluation] = {}
    for event in history:
        if event.kind == "evaluated":
            scores[event.text("task")] = Evaluation(
                task=event.text("task"),
                questions=event.whole("questions") or 0,
                accuracy=float(event.number("accuracy") or 0.0),
                step=event.step,
            )
    return tuple(scores.values())


def _checkpoints(history: Sequence[Event]) -> tuple[Checkpoint, ...]:
    return tuple(
        Checkpoint(
            step=event.step or 0,
            seconds=float(event.number("seconds") or 0.0),
            stall_seconds=float(event.number("stall_seconds") or 0.0),
            bytes=event.whole("bytes") or 0,
        )
        for event in history
        if event.kind == "checkpoint_complete"
    )


def _incarnations(history: Sequence[Event]) -> tuple[Incarnation, ...]:
    lives: dict[int, list[Event]] = {}
    for event in history:
        if event.kind == "run_started" or event.incarnation in lives:
            lives.setdefault(event.incarnation, []).append(event)
    newest = max(lives, default=0)
    return tuple(_life(number, lives[number], number == newest) for number in sorted(lives))


def _life(number: int, events: Sequence[Event], newest: bool) -> Incarnation:
    ends = [event for event in events if event.kind in ENDS]
    steps = [event.step for event in events if event.kind == "step_done" and event.step is not None]
    alive = [event.time for event in events if event.kind not in BESIDE]
    return Incarnation(
        number=number,
        started=events[0].time,
        ended=max(alive),
        first_step=steps[0] if steps else None,
        last_step=steps[-1] if steps else None,
        end=ends[0].kind if ends else "" if newest else "lost",
        why=ends[0].text("why") if ends else "",
        workers=events[0].whole("workers"),
    )


def _interruptions(history: Sequence[Event], spent: Account) -> tuple[Interruption, ...]:
    failures = [event for event in history if event.kind == "failed"]
    ranks = {event.incarnation: event.whole("rank") for event in reversed(failures)}
    lives = _incarnations(history)
    found = []
    for life, after in itertools.zip_longest(lives, lives[1:]):
        if life.end not in ("failed", "lost"):
            continue
        cost = spent.restarts.get(after.number, {}) if after else {}
        found.append(
            Interruption(
                incarnation=life.number,
                step=life.last_step,
                cause=life.why or "ended without a word",
                rank=ranks.get(life.number),
                seconds=cost,
            )
        )
    return tuple(found)


def _finite(value: Any) -> Any:
    """The same, with every float that is not finite as None and every tuple as a list."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
