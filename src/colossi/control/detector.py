"""
Readings folded into changes: who has gone silent, when nobody gets on, who is slower than the others.

Pure as the controller is: the time is an argument, and never runs backwards [s]. Each change is told once. A
reading costs the same however many are watched; asking costs as much as there is to tell.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from statistics import median

from colossi.control import policy

_STEPS = 32  # whose median says how long a step takes


class Heartbeats:
    """Nodes that must be heard of every `seconds`: since when each has been silent, the longest first."""

    def __init__(self, seconds: float = policy.lost_after()) -> None:
        self.seconds = seconds
        self._heard: OrderedDict[str, float] = OrderedDict()

    def beat(self, name: str, now: float) -> None:
        """A sign of life; the first one begins the watch."""
        self._heard[name] = now
        self._heard.move_to_end(name)

    def forget(self, name: str) -> None:
        """It is no longer watched."""
        self._heard.pop(name, None)

    def overdue(self, now: float) -> list[str]:
        """Those silent for too long, once each; another sign of life begins the watch again."""
        silent = []
        while self._heard:
            name = next(iter(self._heard))
            if now - self._heard[name] <= self.seconds:
                break
            del self._heard[name]
            silent.append(name)
        return silent


class Progress:
    """The workers of an incarnation: whether all together get on. Whether each lives its agent knows."""

    def __init__(
        self,
        *,
        startup_seconds: float = policy.STARTUP_SECONDS,
        floor_seconds: float = policy.HUNG_FLOOR_SECONDS,
    ) -> None:
        self._startup, self._floor = startup_seconds, floor_seconds
        self._steps: deque[float] = deque(maxlen=_STEPS)  # [s] each; they outlive the incarnation
        self._since: float | None = None  # the last step or other sign of getting on; None while nobody must
        self._stepped: float | None = None  # the end of the last step, if nothing but a step came after it
        self._started = False  # this incarnation has done a step

    def restart(self, now: float) -> None:
        """An incarnation begins."""
        self.pause()
        self._since, self._started = now, False

    def linger(self, now: float) -> None:
        """A last checkpoint takes what it takes, but no longer than a beginning may."""
        if self._since is not None:
            self._since, self._stepped, self._started = now, None, False

    def pause(self) -> None:
        """Nobody is expected to get on, until the next incarnation begins."""
        self._since = self._stepped = None

    def step(self, now: float) -> None:
        """A step is done."""
        if self._since is None:
            return  # a late word of workers that are being stopped
        if self._stepped is not None:
            self._steps.append(now - self._stepped)
        self._since = self._stepped = now
        self._started = True

    def other(self, now: float) -> None:
        """They get on with something that is no step: an evaluation, a checkpoint."""
        if self._since is not None:
            self._since, self._stepped = now, None

    def overdue(self, now: float) -> float | None:
        """How long nobody has got on [s], once, if that is too long: a collective that never returns."""
        if self._since is None or now - self._since <= self.patience:
            return None
        stuck, self._since = now - self._since, None
        return stuck

    @property
    def patience(self) -> float:
        """How long a step may take now [s]."""
        usual = median(self._steps) if self._started and self._steps else None
        return policy.hung_after(usual, floor=self._floor, startup=self._startup)


class Stragglers:
    """Ranks that take longer over the same work than their peers, for many steps in a row."""

    def __init__(
        self,
        factor: float = policy.STRAGGLER_FACTOR,
        steps: int = policy.STRAGGLER_STEPS,
        floor: float = policy.STRAGGLER_FLOOR_SECONDS,
    ) -> None:
        self.factor, self.steps, self.floor = factor, steps, floor
        self._slow: dict[int, int] = {}  # rank -> how many steps in a row
        self._told: dict[int, int] = {}  # rank -> how often, so that who stays slow is told of less and less

    def restart(self) -> None:
        """Other nodes, or other workers: what was is forgotten."""
        self._slow, self._told = {}, {}

    def on(self, seconds: Sequence[float]) -> tuple[int, float] | None:
        """A step, by rank how long it worked without waiting for others [s]: the worst rank and its factor.

        The peers of a rank are all the others; above the median their median is the same for each.
        """
        count, half = len(seconds), len(seconds) // 2
        if count < 2:
            return None
        rising = sorted(seconds)
        usual = (rising[half - 1] + rising[half]) / 2 if count % 2 else rising[half - 1]
        limit = max(self.factor * usual, usual + self.floor)
        self._slow = {
            rank: self._slow.get(rank, 0) + 1 for rank in range(count) if seconds[rank] > limit and usual > 0
        }
        due = [
            rank for rank, steps in self._slow.items() if steps >= self.steps * 2 ** self._told.get(rank, 0)
        ]
        if not due:
            return None
        worst = max(due, key=seconds.__getitem__)
        self._told[worst] = self._told.get(worst, 0) + 1
        return worst, seconds[worst] / usual
