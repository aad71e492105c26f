"""
The loss of a run of any length in a bounded number of points, evenly spaced.

Each point is the mean of `stride` steps; when there are too many points, neighbours become one and the
stride doubles. Adding a step is cheap and never looks at the whole run.
"""

import math
from dataclasses import dataclass, replace

POINTS = 512  # more than twice the columns of a wide terminal, whose characters are two dots wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """`points` hold whole strides; `pending` the steps after them."""

    points: tuple[tuple[int, float], ...] = ()
    pending: tuple[tuple[int, float], ...] = ()
    stride: int = 1

    @property
    def shown(self) -> tuple[tuple[int, float], ...]:
        """(step, loss), up to the newest step."""
        return (*self.points, _mean(self.pending)) if self.pending else self.points

    @property
    def _last(self) -> float:
        newest = self.pending or self.points
        return newest[-1][0] if newest else -math.inf

    def add(self, step: int, loss: float) -> "Trace":
        """With one more step; a loss that is not finite has no place on a curve."""
        if not math.isfinite(loss):
            return self
        trace = self.before(step) if self._last >= step else self
        pending = (*trace.pending, (step, loss))
        if len(pending) < trace.stride:
            return replace(trace, pending=pending)
        points = (*trace.points, _mean(pending))
        if len(points) < POINTS:
            return replace(trace, points=points, pending=())
        pairs = zip(points[::2], points[1::2], strict=True)
        return Trace(points=tuple(_mean(pair) for pair in pairs), stride=2 * trace.stride)

    def before(self, step: int) -> "Trace":
        """Without that step and all after it."""
        return replace(
            self,
            points=tuple(point for point in self.points if point[0] < step),
            pending=tuple(point for point in self.pending if point[0] < step),
        )


def _mean(points: tuple[tuple[int, float], ...]) -> tuple[int, float]:
    """One point at the last step."""
    return points[-1][0], math.fsum(loss / len(points) for _, loss in points)
