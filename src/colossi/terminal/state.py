"""
What a display knows of a run: a small frozen state, moved on by one event at a time.

It stays small however long the run is: the loss curve is thinned as it grows (`trace.py`), speeds are taken
over the last steps. No clock and no drawing here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from colossi.ledger.events import Event
from colossi.terminal.trace import Trace

WINDOW = 20  # steps over which speeds are averaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One step, as far as speed goes."""

    time: float  # [unix s] its end
    seconds: float
    tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """All that `live.render` and `plain.line` show."""

    name: str
    goal: int | None = None
    start: Mapping[str, Any] = field(default_factory=dict)  # the data of the newest run_started
    incarnation: int = 0
    step: int = 0
    last: Event | None = None  # the newest step_done
    losses: Trace = field(default_factory=Trace)
    best: float | None = None
    paces: tuple[Pace, ...] = ()
    checkpoint: int | None = None  # the newest complete one
    saving: int | None = None  # the one being written
    note: str = ""  # the last thing that happened beside steps
    noted: float = 0.0  # [unix s]
    end: str = ""  # finished, stopped or failed; "" while it goes on

    @property
    def tokens_per_second(self) -> float | None:
        seconds = sum(pace.seconds for pace in self.paces)
        return sum(pace.tokens for pace in self.paces) / seconds if seconds > 0 else None

    @property
    def step_seconds(self) -> float | None:
        """From the end of one step to the end of the next, so with all that is between them. [s]"""
        if len(self.paces) < 2:
            return self.paces[0].seconds if self.paces else None
        return (self.paces[-1].time - self.paces[0].time) / (len(self.paces) - 1)

    @property
    def mfu(self) -> float | None:
        flops, peak, speed = (
            self.start.get("flops_per_token"),
            self.start.get("peak_flops"),
            self.tokens_per_second,
        )
        return flops * speed / peak if flops and peak and speed is not None else None

    @property
    def done(self) -> float:
        """Share of the goal, 0 to 1."""
        return min(1.0, self.step / self.goal) if self.goal else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Until the goal, at the present pace; None while there is no pace."""
        if self.goal is None or self.step_seconds is None or self.last is None:
            return None
        since = min(max(now - self.last.time, 0.0), self.step_seconds)  # within the step that runs now
        return max(0.0, (self.goal - self.step) * self.step_seconds - since)


def advance(state: RunState, event: Event) -> RunState:
    """The state after the event."""
    if event.kind == "run_started":
        return _started(state, event)
    if event.kind == "step_done":
        return _stepped(state, event)
    if event.kind == "resumed":
        state = _gone_back(state, event.whole("from_step") or 0)
    if event.kind == "checkpoint_begun":
        return replace(state, saving=event.step)
    if event.kind == "checkpoint_complete":
        return replace(state, checkpoint=event.step, saving=None)
    if event.kind == "checkpoint_failed":
        state = replace(state, saving=None)
    if event.kind in ("finished", "stopped", "failed"):
        state = replace(state, end=event.kind)
    return replace(state, note=sentence(event), noted=event.time)


def sentence(event: Event) -> str:
    """What happened, in words; empty for a step and for what a step already shows."""
    at = "" if event.step is None else f" at step {event.step}"
    why, rank = event.text("why"), event.number("rank")
    match event.kind:
        case "run_started":
            workers = f"started with {event.text('workers') or '?'} workers"
            return workers if event.incarnation <= 1 else f"incarnation {event.incarnation} {workers}"
        case "resumed":
            return f"resumed from step {event.text('from_step')} ({event.text('source')})"
        case "checkpoint_failed":
            return f"checkpoint{at.replace(' at', ' of')} failed: {why}"
        case "checkpoint_damaged":
            return f"{event.text('folder')} is damaged ({why}); the one before it is used"
        case "stopped":
            return f"stopped{at}: {why}"
        case "failed":
            return f"failed{at}{'' if rank is None else f' on rank {rank:.0f}'}: {why}"
        case "finished":
            return f"finished{at}"
        case "evaluated":
            accuracy, questions = event.number("accuracy") or 0.0, event.number("questions") or 0
            return f"{event.text('task')}: {accuracy:.1%} of {questions:.0f} questions right"
        case _:
            return ""


def _started(state: RunState, event: Event) -> RunState:
    goal = event.whole("steps")
    return replace(
        state,
        goal=state.goal if goal is None else goal,
        start=dict(event.data),
        incarnation=event.incarnation,
        paces=(),
        saving=None,
        end="",
        note=sentence(event),
        noted=event.time,
    )


def _stepped(state: RunState, event: Event) -> RunState:
    step, loss = event.step or state.step + 1, event.number("loss")
    seconds = (event.number("seconds") or 0.0) + (event.number("stall_seconds") or 0.0)
    pace = Pace(time=event.time, seconds=seconds, tokens=event.number("tokens") or 0.0)
    return replace(
        state,
        step=step,
        last=event,
        incarnation=max(state.incarnation, event.incarnation),
        losses=state.losses if loss is None else state.losses.add(step, float(loss)),
        best=_lower(state.best, loss),
        paces=(*state.paces, pace)[-WINDOW:],
    )


def _lower(best: float | None, loss: float | None) -> float | None:
    if loss is None or not math.isfinite(loss):
        return best
    return loss if best is None else min(best, loss)


def _gone_back(state: RunState, step: int) -> RunState:
    return replace(
        state,
        step=step,
        losses=state.losses.before(step + 1),
        checkpoint=step or state.checkpoint,
        paces=(),
    )
