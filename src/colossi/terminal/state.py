"""
What a display knows of a run: a small frozen state, moved on by one event at a time.

It stays small however long the run is: the loss curve is thinned as it grows (`trace.py`), speeds are taken
over the last steps. No clock and no drawing here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from colossi.ledger.clock import CHANGES, ENDS
from colossi.ledger.events import Event
from colossi.terminal.numerals import duration
from colossi.terminal.trace import Trace

WINDOW = 20  # steps over which speeds are averaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One step, as far as speed goes."""

    time: float  # [unix s] its end
    seconds: float
    tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps the run from its next step."""

    cause: str
    incarnation: int  # that it ended
    step: int  # the last one done
    since: float  # [unix s] the last sign of life
    known: float  # [unix s]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """All that `live.render` and `plain.line` show."""

    name: str
    goal: int | None = None
    start: Mapping[str, Any] = field(default_factory=dict)  # the data of the newest run_started
    world: Mapping[str, Any] = field(default_factory=dict)  # the data of the newest incarnation_started
    incarnation: int = 0
    step: int = 0
    last: Event | None = None  # the newest step_done
    losses: Trace = field(default_factory=Trace)
    best: float | None = None
    paces: tuple[Pace, ...] = ()
    checkpoint: int | None = None  # the newest complete one
    saving: int | None = None  # the one being written
    trouble: Trouble | None = None
    note: str = ""  # the last thing that happened beside steps
    noted: float = 0.0  # [unix s]
    end: str = ""  # finished, stopped or gave_up; "" while it goes on

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
    match event.kind:
        case "step_done":
            return _stepped(state, event)
        case "run_started":
            state = _started(state, event)
        case "incarnation_started":
            state = _formed(state, event)
        case "fault":
            silence = event.number("seconds_to_detect") or 0.0
            state = _in_trouble(state, event, event.text("cause"), event.time - silence)
        case kind if kind in CHANGES and state.last:
            state = _in_trouble(state, event, sentence(event), state.last.time)
        case "resumed":
            state = _gone_back(state, event)
            state = replace(state, checkpoint=state.step or state.checkpoint)
        case "restored":
            state = _gone_back(state, event)
        case "checkpoint_begun":
            state = replace(state, saving=event.step)
        case "checkpoint_complete":
            state = replace(state, checkpoint=event.step, saving=None)
        case "checkpoint_failed":
            state = replace(state, saving=None)
        case kind if kind in ENDS:
            state = replace(state, end=kind, trouble=None)
    return _noted(state, event, sentence(event))


def sentence(event: Event) -> str:
    """What happened, in words; empty for a step and for what a step or another sentence already shows."""
    at = "" if event.step is None else f" at step {event.step}"
    why, node, rank = event.text("why"), event.text("node"), event.whole("rank")
    match event.kind:
        case "run_started":
            workers = event.text("workers") or "?"
            words = f"started with {workers} worker{'' if workers == '1' else 's'}"
            return words if event.incarnation <= 1 else f"incarnation {event.incarnation} {words}"
        case "controller_started":
            took_over = "a new controller took over" if event.data.get("took_over") else ""
            quarantined = event.data.get("quarantined")
            out = ", ".join(quarantined) if isinstance(quarantined, Mapping) else ""
            still = f"still quarantined: {out} (--readmit NODE uses it again)" if out else ""
            return "; ".join(filter(None, (took_over, still)))
        case "fault":
            return _at(event.text("cause"), event.step)
        case "readmitted":
            return f"{node} is no longer quarantined: {why}"
        case "promoted" | "quarantined":
            return f"{node} {event.kind}: {why}"
        case "shrunk" | "grown" | "waiting":
            return f"{event.kind}: {why}"
        case "straggler":
            return f"{node} is slow: {why}"
        case "checked":  # that it failed is told by its quarantine
            return f"{node} passed its check and stands by" if event.data.get("passed") else ""
        case "corrupted":
            return f"{node}{'' if rank is None else f', rank {rank}'} corrupted{at}: {why}"
        case "chaos":
            return f"chaos: {event.text('fault')}"
        case "refused":
            return f"{event.text('peer')} refused: {why}"
        case "resumed":
            return f"resumed from step {event.text('from_step')} ({event.text('source')})"
        case "checkpoint_failed":
            return f"checkpoint{at.replace(' at', ' of')} failed: {why}"
        case "checkpoint_damaged":
            return f"{event.text('folder')} is damaged ({why}); the one before it is used"
        case "stopped":
            return f"stopped{at}: {why}"
        case "failed":
            return f"failed{at}{'' if rank is None else f' on rank {rank}'}: {why}"
        case "gave_up":
            return f"gave up{at}: {why}"
        case "finished":
            return f"finished{at}"
        case "evaluated":
            accuracy, questions = event.number("accuracy") or 0.0, event.number("questions") or 0
            return f"{event.text('task')}: {accuracy:.1%} of {questions:.0f} questions right"
        case _:
            return ""


def _at(cause: str, step: int | None) -> str:
    """`worker 1 killed by SIGKILL at step 20`; some causes say themselves at which step."""
    return cause if step is None or "at step" in cause else f"{cause} at step {step}"


def _noted(state: RunState, event: Event, words: str) -> RunState:
    return replace(state, note=words, noted=event.time) if words else state


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
    )


def _formed(state: RunState, event: Event) -> RunState:
    return replace(state, world=dict(event.data), incarnation=event.incarnation, paces=(), end="")


def _in_trouble(state: RunState, event: Event, cause: str, since: float) -> RunState:
    """The first cause stays until there is a step again; a run that has ended is in no trouble."""
    if state.trouble or state.end:
        return state
    trouble = Trouble(
        cause=cause, incarnation=event.incarnation, step=state.step, since=since, known=event.time
    )
    return replace(state, trouble=trouble)


def _stepped(state: RunState, event: Event) -> RunState:
    step, loss = event.step or state.step + 1, event.number("loss")
    seconds = (event.number("seconds") or 0.0) + (event.number("stall_seconds") or 0.0)
    pace = Pace(time=event.time, seconds=seconds, tokens=event.number("tokens") or 0.0)
    began, trouble = event.time - seconds, state.trouble
    if trouble and event.incarnation > trouble.incarnation:
        state = _noted(state, event, _back(trouble, began, step))
        trouble = None
    elif trouble:  # noted just after the fault; or a fault that training outlives, such as a spare's
        trouble = replace(trouble, step=step) if began < trouble.known else None
    return replace(
        state,
        step=step,
        last=event,
        incarnation=max(state.incarnation, event.incarnation),
        losses=state.losses if loss is None else state.losses.add(step, float(loss)),
        best=_lower(state.best, loss),
        paces=(*state.paces, pace)[-WINDOW:],
        trouble=trouble,
    )


def _back(trouble: Trouble, began: float, step: int) -> str:
    """What had happened, how long the run was away until this step began, and what it has to do again."""
    again = trouble.step - step + 1
    lost = "nothing lost" if again <= 0 else f"{again} step{'s' if again > 1 else ''} done again"
    away = duration(began - trouble.since)
    return f"{_at(trouble.cause, trouble.step)}; back at step {step} after {away}, {lost}"


def _lower(best: float | None, loss: float | None) -> float | None:
    if loss is None or not math.isfinite(loss):
        return best
    return loss if best is None else min(best, loss)


def _gone_back(state: RunState, event: Event) -> RunState:
    step = event.whole("from_step") or 0
    return replace(state, step=step, losses=state.losses.before(step + 1), paces=())
