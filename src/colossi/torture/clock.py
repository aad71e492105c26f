"""Virtual time: what is to happen when. The same calls in the same order, however long they take."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from colossi.engines.clock import Clock

BEGIN = 1000.0  # [s] a machine has been up for a while
EPOCH = 1_700_000_000.0  # [unix s] where the ledger's dates begin


class VirtualClock(Clock):
    """Time passes only in `advance`; of two calls for one moment that asked for first is made first."""

    def __init__(self) -> None:
        self._now = BEGIN
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = 0

    def now(self) -> float:
        """[s]"""
        return self._now

    def date(self) -> float:
        """[unix s]"""
        return EPOCH + self._now

    def later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call so much later, or at once where that is no time at all."""
        self._asked += 1
        heappush(self._due, (self._now + max(seconds, 0.0), self._asked, call, arguments))

    def of_a_process(self) -> "ProcessClock":
        """The same time, for calls that are not made any more when the process is killed."""
        return ProcessClock(self)

    def advance(self) -> None:
        """To the next call, and make it."""
        self._now, _, call, arguments = heappop(self._due)
        call(*arguments)


class ProcessClock(Clock):
    """A process's view of a clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.killed = clock, False

    def now(self) -> float:
        """[s]"""
        return self.clock.now()

    def date(self) -> float:
        """[unix s]"""
        return self.clock.date()

    def later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """If it still lives then."""
        self.clock.later(seconds, self._if_alive, call, arguments)

    def _if_alive(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self.killed:
            call(*arguments)
