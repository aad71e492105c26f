"""
A battery between a site and the grid, which keeps the grid's draw from changing faster than it may.

The load L stays between `low` and `high`, and nobody knows when it jumps: a fault gives no notice. The grid's
draw g may change by at most `ramp` [W/s]; the battery gives L - g, or takes it. With e the efficiency of one
way, so that e^2 is that of a round trip, s joules stored are enough for every future exactly if

    s >= floor(g) = (high - g)^2 / (2 ramp e)         a jump to `high` now can be served while g follows
    s <= ceiling(g) = energy - e (g - low)^2 / (2 ramp)     and after a fall to `low` there is room

On the first bound, under the worst load, s falls by (high - g) / e a second, and so does floor(g) as g rises
at `ramp`: whoever is inside can stay inside (and likewise for the second). A load that stays long at `low`
brings g there, and one long at `high` to `high`. So the smallest battery of any rule that does not know the
future holds floor(low) = (high - low)^2 / (2 ramp e) and has the power high - low. A rule that knew when the
load jumps would need half the power and, without losses, a quarter of the energy.

`smooth` plays such a rule in closed form over stretches of constant load: it follows the load at `ramp`,
and on its way stops where a bound is met until enough is stored, or taken, that the rest of the way is safe.
Time constants of inverters, self-discharge and ageing are not in it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """What load and grid keep to."""

    low: float  # [W] the load's least
    high: float  # [W] and most
    ramp: float  # [W/s] of the grid's draw, either way
    round_trip: float  # energy out over energy in

    @property
    def one_way(self) -> float:
        return math.sqrt(self.round_trip)

    @property
    def least_energy(self) -> float:
        """Of the smallest battery that serves every load within the limits [J]."""
        return (self.high - self.low) ** 2 / (2 * self.ramp * self.one_way)

    def at(self, ramp: float) -> "Limits":
        """The same with another ramp [W/s]."""
        return Limits(self.low, self.high, ramp, self.round_trip)

    def ramp_for(self, energy: float) -> float:
        """The slowest ramp to which a battery of so much energy keeps [W/s]; without one there is none."""
        if self.high == self.low:
            return 0.0
        return (self.high - self.low) ** 2 / (2 * energy * self.one_way) if energy > 0 else math.inf

    def floor(self, grid: float) -> float:
        """What must be stored at this draw of the grid [J]."""
        return (self.high - grid) ** 2 / (2 * self.ramp * self.one_way)

    def ceiling(self, grid: float, energy: float) -> float:
        """What may be stored at most [J]."""
        return energy - self.one_way * (grid - self.low) ** 2 / (2 * self.ramp)


@dataclass(frozen=True, slots=True)
class Smoothed:
    """The grid's draw and what is stored: between two times the draw is linear and the load constant."""

    times: Floats  # [s]
    grid: Floats  # [W]
    stored: Floats  # [J]
    charged: float  # [J] taken by the battery, at its terminals
    discharged: float  # [J] given

    @property
    def lost(self) -> float:
        """Heat [J]: what went in, did not come out and is not there."""
        return self.charged - self.discharged - float(self.stored[-1] - self.stored[0])

    def each_second(self, begin: int, end: int) -> Floats:
        """The grid's draw at whole seconds from `begin` to before `end` [W]."""
        return np.interp(np.arange(begin, end, dtype=np.float64), self.times, self.grid)


def smooth(seconds: Floats, load: Floats, limits: Limits, energy: float) -> Smoothed:
    """Play the rule over stretches of constant load, all within limits, with a battery of `energy` [J].

    Begins at the first load, stored half way between the bounds. Draw and storage keep to their limits
    wherever `energy` is at least `limits.least_energy`.
    """
    grid = float(load[0])
    stored = (limits.floor(grid) + limits.ceiling(grid, energy)) / 2
    walk = _Walk(limits.ramp, limits.one_way, [0.0], [grid], [stored])
    for length, level in zip(seconds.tolist(), load.tolist(), strict=True):
        end = walk.times[-1] + length
        for speed, duration in _way(level, walk.grid[-1], walk.stored[-1], limits, energy):
            walk.go(level, speed, min(duration, end - walk.times[-1]))
        walk.go(level, 0.0, end - walk.times[-1])
    times, draws, held = (np.array(each) for each in (walk.times, walk.grid, walk.stored))
    return Smoothed(times, draws, held, walk.charged, walk.discharged)


def _way(load: float, grid: float, stored: float, limits: Limits, energy: float) -> list[tuple[float, float]]:
    """How the grid comes to the load: (speed in W/s, for how long), at most three of them.

    Going down, with x above the load, stored + e (x0^2 - x^2) / (2 ramp) must not fall below floor(load + x):
    a quadratic in x, whose lower root is where to stop. There, it waits for what is still missing at the
    load, less what the rest of the way stores. Going up is the same mirrored, losses the other way round.
    """
    e, ramp = limits.one_way, limits.ramp
    away = abs(grid - load)
    if away == 0:
        return []
    if grid > load:
        reach, have, gain, sign = limits.high - load, stored, limits.round_trip, -ramp
        root = _stop(gain, reach, 2 * ramp * e * have + gain * away**2 - reach**2)
    else:
        reach, gain, sign = load - limits.low, limits.round_trip, ramp
        root = _stop(gain, gain * reach, 2 * ramp * e * (energy - stored) + away**2 - gain * reach**2)
    root = min(root, away)
    moves = [(sign, (away - root) / ramp)]
    if root > 0:
        if grid > load:
            there = stored + e * (away**2 - root**2) / (2 * ramp)
            wanted = limits.floor(load) - e * root**2 / (2 * ramp)
            wait = (wanted - there) / (e * root)
        else:
            there = stored - (away**2 - root**2) / (2 * ramp * e)
            wanted = limits.ceiling(load, energy) + root**2 / (2 * ramp * e)
            wait = (there - wanted) * e / root
        moves += [(0.0, max(wait, 0.0)), (sign, root / ramp)]
    return moves


def _stop(gain: float, half: float, rest: float) -> float:
    """The lower root x of -(1 + gain) x^2 + 2 half x + rest = 0, not below 0."""
    inside = half**2 + (1 + gain) * rest
    return max((half - math.sqrt(max(inside, 0.0))) / (1 + gain), 0.0)


@dataclass(slots=True)
class _Walk:
    """Where the grid and the battery have been."""

    ramp: float
    one_way: float
    times: list[float]
    grid: list[float]
    stored: list[float]
    charged: float = 0.0
    discharged: float = 0.0

    def go(self, load: float, speed: float, duration: float) -> None:
        """On for `duration` [s]; the draw does not cross the load meanwhile."""
        if duration <= 0:
            return
        before = self.grid[-1]
        after = before + speed * duration
        if (before - load) * (after - load) < 0:
            after = load  # rounding
        surplus = ((before + after) / 2 - load) * duration
        if surplus > 0:
            self.charged += surplus
            change = surplus * self.one_way
        else:
            self.discharged -= surplus
            change = surplus / self.one_way
        self.times.append(self.times[-1] + duration)
        self.grid.append(after)
        self.stored.append(self.stored[-1] + change)
