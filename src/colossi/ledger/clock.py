"""
Where the time of a run went, worker by worker and second by second.

One walk along the events with a cursor: each stretch between two of them goes to exactly one part, once for
each worker that was paid for, so the parts sum to wall time times workers whatever the events are. The wall
runs from the first event to the last, without the time after an end on purpose. Evaluations and data
preparation are not training and take no part.

The time since a step belongs to the next one if that is done, and is lost if a fault comes in between. So
most events only leave a note; the cursor moves when a step is done, and when training begins, waits or ends.
"""

import math
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace

from colossi.ledger.events import Event

PARTS = {
    "productive": "steps, each counted the first time that it was done",
    "startup": "from a start to the beginning of its first step",
    "snapshot": "training waited for a snapshot in memory",
    "checkpoint": "training waited for a checkpoint",
    "detection": "from the last sign of life before a fault to the moment that it was known",
    "restart": "from there to the beginning of the next step: stopping, forming anew, restoring",
    "recomputation": "steps done again, and work on a step that a fault cut short",
    "waiting": "for nodes: all workers while there are too few, and those that a smaller world lacks",
    "idle": "spares, and workers between two steps",
}
LOSSES = ("detection", "restart", "recomputation", "waiting")  # the parts that an interruption costs
TRAINING = "training"  # steps and the short waits inside and between them
BEGINS = {"incarnation_started", "run_started"}  # older ledgers know only the second
CHANGES = {"promoted", "shrunk", "grown"}  # of the world, as the controller wanted it
ENDS = {"finished", "stopped", "gave_up"}
CHECKPOINTS = {"checkpoint_begun", "checkpoint_complete", "checkpoint_failed"}
BESIDE = {
    "evaluated",
    "data_prepared",
    "readmitted",
    "node_tested",
    "left_in",
}  # neither begins nor prolongs a run


def _nothing_lost() -> dict[str, float]:
    return dict.fromkeys(LOSSES, 0.0)


@dataclass(slots=True, kw_only=True)
class Interruption:
    """One end of training that nobody asked for, or a change of its world, and what it cost.

    A fault that ended no incarnation, such as the loss of a spare, is none.
    """

    incarnation: int  # the one that ended
    time: float  # [unix s] when it was known
    elapsed: float  # [s] of wall time until then
    step: int | None  # the last one done
    cause: str
    node: str | None
    rank: int | None
    steps_again: int = 0  # that had to be done once more
    seconds: dict[str, float] = field(default_factory=_nothing_lost)  # part of LOSSES -> [s] of wall time
    worker_seconds: dict[str, float] = field(default_factory=_nothing_lost)  # the same, times workers


@dataclass(slots=True)
class Span:
    """A time in which the run did one thing: TRAINING, startup, or one of LOSSES."""

    part: str
    incarnation: int
    begin: float  # [s] of wall time before it
    seconds: float
    workers: int
    missing: int


@dataclass(slots=True)
class Account:
    """Worker-seconds by part, and what the productive ones brought. Filled by `account`, then only read."""

    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    wall: float = 0.0  # [s]
    productive: float = 0.0  # [s] of the wall
    paused: float = 0.0  # [s] between an end on purpose and the next start; in no part
    tokens: int = 0  # in productive steps
    flops: float = 0.0  # [FLOP] of productive steps whose incarnation knows its peak
    peak_flops: float = 0.0  # [FLOP] that the hardware could have done in the same seconds
    interruptions: list[Interruption] = field(default_factory=list)
    timeline: list[Span] = field(default_factory=list)


def account(events: Iterable[Event]) -> Account:
    """Give each second to its part. Times that run backwards (two clocks) count as no time."""
    ongoing = Ongoing()
    for event in events:
        ongoing.add(event)
    return ongoing.account()


class Ongoing:
    """The account of a run that goes on: it takes each event once, in the order of the ledger."""

    def __init__(self) -> None:
        self._early: list[Event] = []  # before it is known how many workers there are
        self._walk: _Walk | None = None

    def add(self, event: Event) -> None:
        if event.kind in BESIDE:
            return
        if self._walk is not None:
            return self._walk.on(event)
        if event.kind == "quarantined" and not self._early:
            return  # by a check, before the run began
        self._early.append(event)
        if event.kind in BEGINS:
            self._walk, self._early = _walk(self._early), []

    @property
    def so_far(self) -> Account:
        """What is given to a part for good; to be read only, and only until the next event."""
        return self._walk.spent if self._walk else Account()

    def account(self) -> Account:
        """With what is open, as if nothing came after; it does not change with the events to come."""
        walk = self._walk.copy() if self._walk else _walk(self._early) if self._early else None
        if walk is None:
            return Account()
        walk.settle(walk.heard)
        return walk.spent


def _walk(history: list[Event]) -> "_Walk":
    """Along these events, of which at most the last says how many workers there are."""
    world = World.of(history[-1]) if history[-1].kind in BEGINS else World()
    walk = _Walk(spent=Account(), world=world, cursor=history[0].time, heard=history[0].time)
    for event in history:
        walk.on(event)
    return walk


@dataclass(frozen=True, slots=True)
class World:
    """How many workers are paid for, from the beginning of one incarnation to that of the next."""

    workers: int = 1  # that train
    missing: int = 0  # that the spec asks for, and that are not there
    spares: int = 0  # that have nothing to do

    @classmethod
    def of(cls, event: Event) -> "World":
        """One worker where the event does not say; older ledgers know neither missing ones nor spares."""
        workers, missing, spares = (max(event.whole(key) or 0, 0) for key in ("workers", "missing", "spares"))
        return cls(max(workers, 1), missing, spares)


@dataclass(slots=True, kw_only=True)
class _Walk:
    """Where the walk stands, and the notes that it has taken since the cursor moved."""

    spent: Account
    world: World
    cursor: float  # [unix s] all before is given to a part
    heard: float  # [unix s] the last event, at or after the cursor
    phase: str = "startup"  # what goes on until the next step is done: TRAINING, startup, restart or waiting
    incarnation: int = 0
    running: bool = False  # the incarnation has begun, and as far as the cursor nothing ended it
    paused: bool = False
    saving: bool = False  # there was word of a checkpoint since the last step
    faults: list[tuple[float, Event]] = field(default_factory=list)  # with the time that they count at
    words: tuple[float, Event] | None = None  # of a worker that failed, or of the controller that gave up
    change: str = ""  # of the world, for the next incarnation
    silence: tuple[float, float] | None = None  # [unix s] from the last event to a new controller
    step: int | None = None  # the last one done
    stepped: float = float("-inf")  # [unix s] its end
    done: set[int] = field(default_factory=set)
    highest: int = 0  # of them
    stretched: int = 0  # all steps up to this one are done, by the word of events that stand for many
    flops_per_token: float = 0.0
    peak_flops: float = 0.0
    newest: Interruption | None = None  # since the last end on purpose
    lacking: Interruption | None = None  # the one since which workers are missing

    def on(self, event: Event) -> None:
        """Take a note of the event, or give the time up to it."""
        anew = event.kind == "controller_started"
        if event.incarnation < self.incarnation and not anew:
            return  # a late word of an incarnation that is already replaced
        if self.paused and not anew and event.kind not in BEGINS:
            return  # after an end on purpose nothing but a new start counts
        now = max(event.time, self.heard)
        if self.paused:
            self._wake(now)
        match event.kind:
            case "controller_started" if self.running:
                self.silence = self.silence or (self.heard, now)
            case "incarnation_started" | "run_started":
                self._begin(now, event)
            case "step_done":
                self._step(now, event)
            case "fault":
                self.faults.append((now, event))
            case "failed":
                self.words = self.words or (now, event)
            case "waiting":
                self._interrupt(now, event.text("why"))
                self.phase = "waiting"
            case "gave_up":
                self.words = self.words or (now, event)
                self._interrupt(now, event.text("why"))
                self.phase = self._getting_ready()
            case "finished" | "stopped":
                self.settle(now)
                self.paused = True
            case kind if kind in CHANGES:
                self.change = f"{kind}: {event.text('why')}"
            case kind if kind in CHECKPOINTS:
                self.saving = True
        self.heard = now

    def copy(self) -> "_Walk":
        """One that may be settled while this one goes on; what neither changes any more they share."""
        copies = {id(one): deepcopy(one) for one in (self.newest, self.lacking)}
        spent = replace(
            self.spent,
            parts=dict(self.spent.parts),
            interruptions=[copies.get(id(one)) or one for one in self.spent.interruptions],
            timeline=[*self.spent.timeline[:-1], *map(replace, self.spent.timeline[-1:])],
        )
        newest, lacking = copies[id(self.newest)], copies[id(self.lacking)]
        return replace(self, spent=spent, newest=newest, lacking=lacking, faults=list(self.faults))

    def settle(self, now: float) -> None:
        """Give what is open at an end on purpose, and where the ledger ends."""
        if self.paused:
            return
        if self.words or any(at > self.stepped for at, _ in self.faults):
            self._interrupt(now, "")
        self._until(now, self._before_a_step())

    def _wake(self, now: float) -> None:
        self.spent.paused += now - self.cursor
        self.cursor = self.heard = now
        self.phase, self.paused, self.running, self.saving = "startup", False, False, False
        self.newest = None
        self.faults, self.words, self.silence, self.change = [], None, None, ""

    def _begin(self, now: float, event: Event) -> None:
        """An incarnation begins; its run_started after an incarnation_started only adds what it knows."""
        if event.incarnation > self.incarnation:
            self._interrupt(now, event.text("reason") or self.change)
            self.phase = self._getting_ready()
            world = World.of(event)
            if world.missing > self.world.missing:
                self.lacking = self.newest
            self.world, self.incarnation, self.running = world, event.incarnation, True
        if event.kind == "run_started":
            self.flops_per_token = float(event.whole("flops_per_token") or 0)
            self.peak_flops = float(event.whole("peak_flops") or 0)

    def _getting_ready(self) -> str:
        return "restart" if self.newest else "startup"

    def _before_a_step(self) -> str:
        """The part of the time from the cursor to the beginning of a step."""
        if self.phase == TRAINING:
            return "checkpoint" if self.saving else "idle"
        return self.phase

    def _step(self, now: float, event: Event) -> None:
        """The stretch since the cursor ends with this step: from its end backwards, work, stall, the rest."""
        gap = now - self.cursor
        self.faults = [note for note in self.faults if note[0] > self.cursor]  # it has outlived the others
        stall = _within(event.number("stall_seconds"), gap)
        work = _within(event.number("seconds"), gap - stall)  # right whether `seconds` has the stall or not
        snapshot = _within(event.number("snapshot_seconds"), work)
        steps, again = self._again(event)
        worked = work - snapshot
        self._give(self._before_a_step(), gap - stall - work)
        self._give("checkpoint", stall)
        self._give("snapshot", snapshot)
        self._give("recomputation", worked * (again / steps))
        self._give("productive", worked * ((steps - again) / steps))
        if again < steps:
            self._produce(event, worked, (steps - again) / steps)
        if again and self.newest:
            self.newest.steps_again += again
        self.cursor = self.stepped = now
        self.step, self.phase, self.running, self.saving = event.step, TRAINING, True, False
        self.words, self.silence, self.change = None, None, ""

    def _again(self, event: Event) -> tuple[int, int]:
        """For how many steps the event stands, and how many of them had been done before."""
        last, steps = event.step or 0, max(event.whole("steps") or 1, 1)
        before = self.highest
        self.highest = max(before, last)
        if steps == 1:
            again = last in self.done or 0 < last <= self.stretched
            self.done.add(last)
            return 1, int(again)
        self.stretched = self.highest
        return steps, min(max(before - (last - steps), 0), steps)

    def _produce(self, event: Event, work: float, share: float) -> None:
        """Of the time of these steps, what brought something new is productive."""
        work *= share
        tokens = round((event.whole("tokens") or 0) * share)
        self.spent.productive += work
        self.spent.tokens += tokens
        if self.peak_flops > 0 and self.flops_per_token > 0:
            self.spent.flops += tokens * self.flops_per_token
            self.spent.peak_flops += work * self.peak_flops

    def _interrupt(self, now: float, reason: str) -> None:
        """Give the time up to now, in which something ended the training, or disturbed the way back to it."""
        for silent, known, cause in self._causes(now, reason):
            found = self._interruption(known, cause)
            if self.phase != TRAINING:
                self._until(silent, self.phase)  # what an earlier one costs
            self.newest = found
            self._until(silent, "recomputation")
            self._until(known, "waiting" if self.phase == "waiting" else "detection")
            self.phase = "waiting" if self.phase == "waiting" else "restart"
            found.elapsed = self.spent.wall
            self.spent.interruptions.append(found)
        self._until(now, self.phase)
        self.running = False
        self.faults, self.words, self.silence, self.change = [], None, None, ""

    def _causes(self, now: float, reason: str) -> Iterator[tuple[float, float, Event]]:
        """(the last sign of life, when the end was known, what says why), one after the other."""
        if not self.running and not self.newest:
            return  # nothing was begun that could be disturbed
        # Rank 0 may note a step just after a fault; such a fault counts if none is newer.
        for known, fault in [note for note in self.faults if note[0] > self.stepped] or self.faults:
            silent = known - _within(fault.number("seconds_to_detect"), math.inf)
            if self.silence and known >= self.silence[1]:
                silent = min(silent, self.silence[0])
            yield silent, known, fault
        if self.faults or not self.running:
            return
        if self.words:
            yield self.words[0], *self.words
        elif self.silence or not reason:
            silent, known = self.silence or (self.heard, now)
            yield silent, known, self._made_up(known, "ended without a word")
        else:  # the controller wanted it so, and chose the end of a step
            yield self.cursor, self.cursor, self._made_up(self.cursor, reason)

    def _made_up(self, time: float, cause: str) -> Event:
        return Event(time=time, kind="fault", incarnation=self.incarnation, data={"cause": cause})

    def _interruption(self, known: float, cause: Event) -> Interruption:
        return Interruption(
            incarnation=self.incarnation,
            time=known,
            elapsed=self.spent.wall,
            step=self.step if cause.step is None else cause.step,
            cause=cause.text("cause") or cause.text("why"),
            node=cause.text("node") or None,
            rank=cause.whole("rank"),
        )

    def _until(self, time: float, part: str) -> None:
        """Give the time from the cursor on, if there is any, and move the cursor."""
        if time > self.cursor:
            self._give(part, time - self.cursor)
            self.cursor = time

    def _give(self, part: str, seconds: float) -> None:
        """To one part for those who train, to their own for the missing and the spares."""
        if seconds <= 0:
            return
        world, spent = self.world, self.spent
        self._draw(part if part == "startup" or part in LOSSES else TRAINING, seconds)
        spent.wall += seconds
        spent.parts[part] += seconds * world.workers
        spent.parts["waiting"] += seconds * world.missing
        spent.parts["idle"] += seconds * world.spares
        if self.newest and part in LOSSES:
            self.newest.seconds[part] += seconds
            self.newest.worker_seconds[part] += seconds * world.workers
        if self.lacking:
            self.lacking.worker_seconds["waiting"] += seconds * world.missing

    def _draw(self, part: str, seconds: float) -> None:
        now, spans = self.world, self.spent.timeline
        same = (part, self.incarnation, now.workers, now.missing)
        if spans and same == (spans[-1].part, spans[-1].incarnation, spans[-1].workers, spans[-1].missing):
            spans[-1].seconds += seconds
            return
        spans.append(Span(part, self.incarnation, self.spent.wall, seconds, now.workers, now.missing))


def _within(seconds: float | None, most: float) -> float:
    """`seconds`, but neither less than nothing nor more than there was. NaN and None count as nothing."""
    return min(seconds, most) if seconds is not None and seconds > 0 else 0.0
