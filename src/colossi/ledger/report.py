"""
What the ledger says about a run: losses, speed, goodput, and where the time went.

`report(events)` is a pure function; it works alike for a real run, a simulated one and one that still
goes on. `clock.py` gives each second of each worker to one part; here the rest is counted.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from colossi.ledger.clock import BEGINS, BESIDE, ENDS, Account, Interruption, Span, account
from colossi.ledger.events import Event

LOAD_STEPS = 100  # that the load of the experts is the mean of: single steps differ by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """One life of the run, from its start to its end."""

    number: int
    started: float  # [unix s]
    ended: float  # [unix s] its last sign of life
    first_step: int | None  # None: it never finished a step
    last_step: int | None
    from_step: int | None  # the last step in what it restored
    source: str  # of what it restored: memory, buddy, disk, start; "" where the ledger does not say
    end: str  # finished, stopped, gave_up; interrupted; "" while it goes on
    why: str
    workers: int | None
    missing: int | None  # workers that the spec asks for and that were not there
    spares: int | None


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
    """A run in numbers. `time` has each of the `worker_seconds` in one part; paused time is in none.

    Spares are paid for, so they count in the goodput. ETTR is the effective training time ratio: it asks only
    whether the run got on, with however many workers.
    """

    steps: int  # the highest step done
    goal: int | None
    losses: tuple[tuple[int, float], ...]
    tokens: int  # in steps that count, so not those done again
    step_seconds: float | None  # [s] median of the steps, but for the first of each incarnation
    cpu_seconds: float | None  # [s] the same of what rank 0 had of the cores, over all its threads
    tokens_per_second: float | None  # over productive time
    mfu: float | None
    goodput: float | None  # productive worker-seconds / all of them
    ettr: float | None  # productive wall time / wall time
    wall_seconds: float
    worker_seconds: float  # of all that were paid for: those that trained, those missing, spares
    paused_seconds: float  # between an end on purpose and the next start
    time: Mapping[str, float]  # part -> worker-seconds
    final_loss: float | None
    best_loss: float | None
    expert_load: tuple[float, ...]  # share of the tokens that each expert got, over the newest steps
    evaluations: tuple[Evaluation, ...]
    checkpoints: tuple[Checkpoint, ...]
    incarnations: tuple[Incarnation, ...]
    interruptions: tuple[Interruption, ...]
    timeline: tuple[Span, ...]  # of the wall time, without pauses
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
    workers = math.fsum(spent.parts.values())
    return Report(
        steps=max((event.step or 0 for event in history if event.kind == "step_done"), default=0),
        goal=goal,
        losses=losses,
        tokens=spent.tokens,
        step_seconds=_median_of_steps(history, "seconds"),
        cpu_seconds=_median_of_steps(history, "cpu_seconds"),
        tokens_per_second=spent.tokens / spent.productive if spent.productive > 0 else None,
        mfu=spent.flops / spent.peak_flops if spent.peak_flops > 0 else None,
        goodput=spent.parts["productive"] / workers if workers > 0 else None,
        ettr=spent.productive / spent.wall if spent.wall > 0 else None,
        wall_seconds=spent.wall,
        worker_seconds=workers,
        paused_seconds=spent.paused,
        time=spent.parts,
        final_loss=losses[-1][1] if losses else None,
        best_loss=min(lowest, default=None),
        expert_load=_expert_load(history),
        evaluations=_evaluations(history),
        checkpoints=_checkpoints(history),
        incarnations=_incarnations(history, spent),
        interruptions=tuple(spent.interruptions),
        timeline=tuple(spent.timeline),
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


def _median_of_steps(history: Sequence[Event], key: str) -> float | None:
    """The first step of an incarnation makes room and warms up, so it is left out."""
    warm: set[int] = set()
    found = []
    for event in history:
        if event.kind == "step_done" and (value := event.number(key)) is not None:
            of_one = float(value) / max(event.whole("steps") or 1, 1)
            found += [of_one] if event.incarnation in warm else []
            warm.add(event.incarnation)
    return median(found) if found else None


def _expert_load(history: Sequence[Event]) -> tuple[float, ...]:
    """Mean over the newest steps; nothing for a dense model."""
    loads = [event.numbers("expert_load") for event in history if event.kind == "step_done"][-LOAD_STEPS:]
    newest = [load for load in loads if load and len(load) == len(loads[-1])]
    return tuple(math.fsum(shares) / len(newest) for shares in zip(*newest, strict=True))


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


def _incarnations(history: Sequence[Event], spent: Account) -> tuple[Incarnation, ...]:
    lives: dict[int, list[Event]] = {}
    for event in history:
        if event.kind in BEGINS or event.incarnation in lives:
            lives.setdefault(event.incarnation, []).append(event)
    causes = {each.incarnation: each.cause for each in reversed(spent.interruptions)}
    return tuple(_life(number, lives[number], causes.get(number)) for number in sorted(lives))


def _life(number: int, events: Sequence[Event], cause: str | None) -> Incarnation:
    """`cause`: what interrupted it, if anything did."""
    start = events[0]
    steps = [event.step for event in events if event.kind == "step_done" and event.step is not None]
    restored = next((event for event in events if event.kind in ("restored", "resumed")), None)
    end = next((event for event in events if event.kind in ENDS), None)
    return Incarnation(
        number=number,
        started=start.time,
        ended=max(event.time for event in events if event.kind not in BESIDE),
        first_step=steps[0] if steps else None,
        last_step=steps[-1] if steps else None,
        from_step=restored.whole("from_step") if restored else None,
        source=restored.text("source") if restored else "",
        end=end.kind if end else "" if cause is None else "interrupted",
        why=end.text("why") if end else cause or "",
        workers=start.whole("workers"),
        missing=start.whole("missing"),
        spares=start.whole("spares"),
    )


def _finite(value: Any) -> Any:
    """The same, with every float that is not finite as None and every tuple as a list."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
