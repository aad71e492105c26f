"""
Where the wall time of a run went, second by second.

One walk along the events with a cursor: each stretch between two of them goes to exactly one part, so the
parts sum to the wall time whatever the events are. The wall runs from the first run_started to the last
sign of life, without the time after an end on purpose. Evaluations and data preparation are not training
and take no part.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from colossi.ledger.events import Event

PARTS = {
    "productive": "steps, each counted the first time that it was done",
    "startup": "from a start to the beginning of its first step",
    "checkpoint": "training waited for a checkpoint",
    "recomputation": "steps done again",
    "down": "from the last sign of life of one incarnation to the start of the next",
    "other": "between steps, and work on a step that never ended",
}
ENDS = {"finished", "stopped", "failed"}
CHECKPOINTS = {"checkpoint_complete", "checkpoint_failed"}
BESIDE = {"evaluated", "data_prepared"}  # neither begins nor prolongs a run


@dataclass(slots=True)
class Account:
    """Seconds by part, and what the productive ones brought. Filled by `account`, then only read."""

    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    paused: float = 0.0  # [s] between an end on purpose and the next start; in no part
    tokens: int = 0  # in productive steps
    flops: float = 0.0  # [FLOP] of productive steps whose incarnation knows its peak
    peak_flops: float = 0.0  # [FLOP] that the hardware could have done in the same seconds
    restarts: dict[int, dict[str, float]] = field(
        default_factory=dict
    )  # incarnation -> part -> [s] until back


@dataclass(slots=True)
class _Walk:
    """Where the walk stands."""

    cursor: float  # [unix s] all before is given to a part
    heard: float  # [unix s] the last sign of life, at or after the cursor
    incarnation: int = 0
    starting: bool = True  # no step of this incarnation yet
    on_purpose: bool = False  # the last end was finished or stopped
    saved: float | None = None  # [unix s] the last checkpoint that ended since the cursor
    flops_per_token: float = 0.0
    peak_flops: float = 0.0
    done: set[int] = field(default_factory=set)


def account(events: Iterable[Event]) -> Account:
    """Give each second to its part. Times that run backwards (two clocks) count as no time."""
    spent, walk = Account(), None
    for event in events:
        if event.kind in BESIDE or (walk and event.incarnation < walk.incarnation):
            continue  # the second: a late word of an incarnation that is already replaced
        walk = walk or _Walk(cursor=event.time, heard=event.time)
        now = max(event.time, walk.heard)
        if event.kind == "run_started":
            _start(spent, walk, now, event)
        elif event.kind == "step_done":
            _step(spent, walk, now, event)
        else:
            _sign_of_life(spent, walk, now, event)
    if walk:
        _tail(spent, walk, ended=walk.on_purpose)
    return spent


def _start(spent: Account, walk: _Walk, now: float, event: Event) -> None:
    _tail(spent, walk, ended=walk.on_purpose)
    if walk.on_purpose:
        spent.paused += now - walk.heard
    else:
        _give(spent, walk, "down", now - walk.heard, event.incarnation)
    walk.cursor = walk.heard = now
    walk.incarnation, walk.starting, walk.on_purpose, walk.saved = event.incarnation, True, False, None
    walk.flops_per_token = float(event.whole("flops_per_token") or 0)
    walk.peak_flops = float(event.whole("peak_flops") or 0)


def _step(spent: Account, walk: _Walk, now: float, event: Event) -> None:
    """The stretch since the cursor ends with this step: from its end backwards, work, stall, the rest."""
    gap = now - walk.cursor
    stall = _within(event.number("stall_seconds"), gap)
    work = _within(event.number("seconds"), gap - stall)  # right whether `seconds` has the stall in it or not
    again = event.step in walk.done
    _give(spent, walk, "startup" if walk.starting else "other", gap - stall - work)
    _give(spent, walk, "checkpoint", stall)
    _give(spent, walk, "recomputation" if again else "productive", work)
    if not again:
        _produce(spent, walk, event, work)
    walk.done.add(event.step or 0)
    walk.cursor = walk.heard = now
    walk.starting, walk.on_purpose, walk.saved = False, False, None


def _produce(spent: Account, walk: _Walk, event: Event, work: float) -> None:
    tokens = event.whole("tokens") or 0
    spent.tokens += tokens
    if walk.peak_flops > 0 and walk.flops_per_token > 0:
        spent.flops += tokens * walk.flops_per_token
        spent.peak_flops += work * walk.peak_flops


def _sign_of_life(spent: Account, walk: _Walk, now: float, event: Event) -> None:
    if walk.on_purpose:
        return  # after a clean end nothing but a new start counts
    walk.heard = now
    if event.kind in CHECKPOINTS:
        walk.saved = now
    if event.kind in ENDS:
        walk.on_purpose = event.kind != "failed"
        _tail(spent, walk, ended=walk.on_purpose)


def _tail(spent: Account, walk: _Walk, *, ended: bool) -> None:
    """From the last step to the last sign of life; an end on purpose waits for its last checkpoint."""
    waited = walk.saved - walk.cursor if ended and walk.saved is not None else 0.0
    _give(spent, walk, "checkpoint", waited)
    _give(spent, walk, "startup" if walk.starting else "other", walk.heard - walk.cursor - waited)
    walk.cursor, walk.saved = walk.heard, None


def _give(spent: Account, walk: _Walk, part: str, seconds: float, incarnation: int | None = None) -> None:
    spent.parts[part] += seconds
    number = walk.incarnation if incarnation is None else incarnation
    if part in ("down", "startup", "recomputation"):
        cost = spent.restarts.setdefault(number, {"down": 0.0, "startup": 0.0, "recomputation": 0.0})
        cost[part] += seconds


def _within(seconds: float | None, most: float) -> float:
    """`seconds`, but neither less than nothing nor more than there was. NaN and None count as nothing."""
    return min(seconds, most) if seconds is not None and seconds > 0 else 0.0
