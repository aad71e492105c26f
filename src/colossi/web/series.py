"""
The course of a run in a bounded number of points: when there are too many, every other one goes.

A point is one event of `step_done`. It says what its steps did, and how the time of all workers until then is
shared out; so a page can show the account of any moment without asking again.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from colossi.ledger.clock import PARTS, Account
from colossi.ledger.events import Event

MOST = 2048  # points; a chart is some 1,000 pixels wide


@dataclass(frozen=True, slots=True)
class Point:
    """Per second of the steps' own time."""

    id: int
    time: float  # [unix s]
    step: int
    loss: float | None
    step_seconds: float | None  # [s] a step
    tokens_per_second: float | None
    mfu: float | None
    parts: tuple[float, ...]  # [worker-seconds] until then, by PARTS


@dataclass(slots=True)
class Series:
    """Points by id, evenly thinned; `newest` is always the last one, also where it was not kept."""

    points: list[Point] = field(default_factory=list)
    newest: Point | None = None
    stride: int = 1
    seen: int = 0

    def add(self, point: Point) -> None:
        self.newest = point
        if self.seen % self.stride == 0:
            self.points.append(point)
        self.seen += 1
        if len(self.points) > MOST:
            self.points = self.points[::2]
            self.stride *= 2

    def after(self, number: int) -> list[Point]:
        """Those that are kept with an id above this one."""
        return self.points[bisect_right(self.points, number, key=lambda point: point.id) :]


def point_of(number: int, event: Event, spent: Account, flops_per_token: float, peak: float) -> Point:
    """Of one event of `step_done`; what it does not say is None. `peak` of all workers together [FLOP/s]."""
    seconds, tokens = event.number("seconds"), event.number("tokens")
    speed = tokens / seconds if tokens is not None and seconds else None
    return Point(
        id=number,
        time=event.time,
        step=event.step or 0,
        loss=event.number("loss"),
        step_seconds=None if seconds is None else seconds / max(event.whole("steps") or 1, 1),
        tokens_per_second=speed,
        mfu=speed * flops_per_token / peak if speed is not None and flops_per_token and peak else None,
        parts=tuple(spent.parts[part] for part in PARTS),
    )
