"""
The power of a run: its load, its swings and ramps against what the grid allows, and the battery between.

    power_of(account(events), step_parts, server, nodes, spec.power, spec.prices)

The load is colossi.world.load's; how a battery keeps the grid's draw within the ramp, and which is the
smallest that can, is colossi.world.battery's. Within a step the battery takes the whole swing, so that the
grid sees none of it; over stops and starts it lets the grid follow at the ramp.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from colossi.ledger.clock import Account
from colossi.spec.hardware import Node
from colossi.spec.power import PowerSpec
from colossi.spec.prices import PricesSpec
from colossi.world.battery import Limits, Smoothed, smooth
from colossi.world.load import Cycle, Load, cycle_of, load_of, with_checkpoints, with_stalls

PERCENTILES = (50.0, 99.0, 99.9, 100.0)
BURN = 0.9  # the highest floor that NVIDIA's power smoothing offers, of TDP (docs/power.md)


@dataclass(frozen=True, slots=True)
class Battery:
    """[W] at its terminals, and [J] stored."""

    power: float
    energy: float


@dataclass(frozen=True, slots=True)
class Floor:
    """The other cure: GPUs of the job never take less than this share of their TDP."""

    share: float
    energy: float  # [J] more than without
    dollars: float
    swing: float  # [W] left within a step
    battery: Battery  # that is still needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Of a run; base units."""

    load: Load
    smoothed: Smoothed | None  # none where the battery cannot take a stop at any ramp
    peak: float  # [W] in the phase of a step that takes most
    mean: float  # [W]
    least: float  # [W]
    energy: float  # [J] of the site, without the battery's losses
    dollars: float
    swing: float  # [W] within a step, of the largest world
    period: float  # [s] of a step
    fundamental: float  # [W] amplitude of the swing's part at one over that period
    drop: float  # [W] largest fall when training stops, to the least before it goes on
    rise: float  # [W] largest rise when it begins
    ramps: dict[float, float]  # percentile -> [W/s] between the means of two seconds
    too_fast: float  # share of the seconds in which the load changes by more than the grid allows
    limit: float  # [W/s] that the grid allows
    kept: float | None  # [W/s] that the battery keeps to: the limit if it is large enough
    needed: Battery
    battery: Battery  # as given, else as needed
    lost: float  # [J] in the battery
    cycles: float  # what it gave over what it holds
    floor: Floor

    def as_json(self) -> dict[str, Any]:
        """In MW, MWh, MW a minute and dollars."""
        return {
            "days": self.load.length / 86400,
            "peak_mw": self.peak / 1e6,
            "mean_mw": self.mean / 1e6,
            "least_mw": self.least / 1e6,
            "energy_mwh": self.energy / 3.6e9,
            "energy_usd": self.dollars,
            "step_swing_mw": self.swing / 1e6,
            "step_period_seconds": self.period,
            "step_fundamental_mw": self.fundamental / 1e6,
            "largest_drop_mw": self.drop / 1e6,
            "largest_rise_mw": self.rise / 1e6,
            "ramp_mw_per_minute": {f"p{rank:g}": _per_minute(found) for rank, found in self.ramps.items()},
            "too_fast_share": self.too_fast,
            "ramp_limit_mw_per_minute": _per_minute(self.limit),
            "ramp_kept_mw_per_minute": None if self.kept is None else _per_minute(self.kept),
            "battery_needed": _battery(self.needed),
            "battery": _battery(self.battery),
            "battery_lost_mwh": self.lost / 3.6e9,
            "battery_cycles": self.cycles,
            "floor": {
                "share_of_tdp": self.floor.share,
                "energy_mwh": self.floor.energy / 3.6e9,
                "energy_usd": self.floor.dollars,
                "step_swing_mw": self.floor.swing / 1e6,
                "battery_needed": _battery(self.floor.battery),
            },
        }


def _per_minute(rate: float) -> float:
    return rate * 60 / 1e6


def _battery(battery: Battery) -> dict[str, float]:
    return {"mw": battery.power / 1e6, "mwh": battery.energy / 3.6e9}


def power_of(
    spent: Account,
    parts: dict[str, float],
    server: Node,
    nodes: int,
    power: PowerSpec,
    prices: PricesSpec,
    *,
    checkpoint_interval: float | None = None,
) -> Power:
    """Of a run as the ledger accounts for it, on a site of so many servers, spares and lost ones included.

    `parts`: seconds of a step by what they go to (Step.parts). Where `checkpoint_interval` [s] is given,
    stalls for checkpoints come that often, else they are shared out among the steps.
    """
    load = load_of_run(spent, parts, server, nodes, power.floor, prices, checkpoint_interval)
    ripple = ripple_of(load.cycle, power.round_trip)
    level = load.base + load.train * ripple.level
    needed = battery_for(load, ripple, level, power)
    limits = Limits(float(level.min()), float(level.max()), power.watts_per_second, power.round_trip)
    battery, spare = needed, limits.least_energy  # what is left beside the steps' swing
    if power.battery_mw is not None and power.battery_mwh is not None:
        battery = Battery(power.battery_mw * 1e6, power.battery_mwh * 3.6e9)
        spare = battery.energy - ripple.energy * float(load.train.max())
    kept, smoothed = None, None
    if battery.power >= needed.power * (1 - 1e-9) and spare >= 0:
        slowest = limits.ramp_for(spare)
        if slowest < np.inf:
            kept = max(limits.ramp, slowest)
            smoothed = smooth(load.seconds, level, limits.at(kept), spare)

    seconds = load.each_second()
    changes = np.abs(np.diff(seconds)) if len(seconds) > 1 else np.zeros(1)
    too_fast = float(np.mean(changes > power.watts_per_second))
    ramps = dict(
        zip(PERCENTILES, np.percentile(changes, PERCENTILES, overwrite_input=True).tolist(), strict=True)
    )
    energy = load.energy()
    drop, rise = stops_of(load)
    stepping = float(load.train @ load.seconds)
    lost, given = stepping * (ripple.level - load.cycle.mean), stepping * ripple.given
    if smoothed is not None:
        lost, given = lost + smoothed.lost, given + smoothed.discharged
    return Power(
        load=load,
        smoothed=smoothed,
        peak=float(load.highest.max()),
        mean=energy / load.length,
        least=float(load.lowest.min()),
        energy=energy,
        dollars=energy / 3.6e6 * prices.kilowatt_hour,
        swing=float((load.highest - load.lowest).max()),
        period=load.cycle.length,
        fundamental=float(load.train.max()) * load.cycle.fundamental,
        drop=drop,
        rise=rise,
        ramps=ramps,
        too_fast=too_fast,
        limit=power.watts_per_second,
        kept=kept,
        needed=needed,
        battery=battery,
        lost=lost,
        cycles=given / battery.energy if battery.energy else 0.0,
        floor=_floor(spent, parts, server, nodes, power, prices, checkpoint_interval),
    )


def load_of_run(
    spent: Account,
    parts: dict[str, float],
    server: Node,
    nodes: int,
    floor: float,
    prices: PricesSpec,
    checkpoint_interval: float | None,
) -> Load:
    """What `power_of` begins with: the draw of the site, stretch by stretch, without any battery."""
    cycle, timeline = cycle_of(parts, server, floor), spent.timeline
    cycle = with_stalls(cycle, spent, server, floor, checkpoints=checkpoint_interval is None)
    if checkpoint_interval is not None:
        trained = spent.parts["productive"] + spent.parts["checkpoint"]
        stall = checkpoint_interval * spent.parts["checkpoint"] / trained if trained else 0.0
        timeline = with_checkpoints(timeline, checkpoint_interval, stall)
    return load_of(timeline, cycle, server, nodes, prices.pue, floor)


def stops_of(load: Load) -> tuple[float, float]:
    """The largest drop from training to the least until it goes on, and the largest rise to it [W]."""
    drop = rise = 0.0
    before, least = -np.inf, np.inf  # the last training's peak, and the least since
    for high, low, steps in zip(
        load.highest.tolist(), load.lowest.tolist(), load.train.tolist(), strict=True
    ):
        if steps:
            rise = max(rise, high - least)
            before, least = high, np.inf
        else:
            least = min(low, least)
            drop = max(drop, before - least)
    return drop, rise


@dataclass(frozen=True, slots=True)
class Ripple:
    """What a battery does within each step so that the grid gives a steady level; all for one server."""

    level: float  # [W] of the grid: the mean, and the battery's losses
    energy: float  # [J] between its fullest and its emptiest
    given: float  # [W] that it gives, on the mean


def ripple_of(cycle: Cycle, round_trip: float) -> Ripple:
    """The level at which a step ends with as much stored as it began with, by bisection: it is monotone."""
    e = round_trip**0.5

    def stored(level: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        surplus = level - cycle.watts
        return np.cumsum(cycle.seconds * np.where(surplus > 0, surplus * e, surplus / e))

    low, high = float(cycle.watts.min()), float(cycle.watts.max())
    for _ in range(80):
        level = (low + high) / 2
        low, high = (low, level) if stored(level)[-1] > 0 else (level, high)
    path = np.concatenate([[0.0], stored(high)])
    given = float(cycle.seconds @ np.maximum(cycle.watts - high, 0.0)) / cycle.length
    return Ripple(high, float(path.max() - path.min()), given)


def battery_for(
    load: Load, ripple: Ripple, level: np.ndarray[Any, np.dtype[np.float64]], power: PowerSpec
) -> Battery:
    """The smallest that keeps the ramp through all stops and starts between the run's levels, and steps."""
    low, high = float(level.min()), float(level.max())
    limits = Limits(low, high, power.watts_per_second, power.round_trip)
    watts = max(float(load.highest.max()) - low, high - float(load.lowest.min()))
    return Battery(watts, limits.least_energy + ripple.energy * float(load.train.max()))


def _floor(
    spent: Account,
    parts: dict[str, float],
    server: Node,
    nodes: int,
    power: PowerSpec,
    prices: PricesSpec,
    checkpoint_interval: float | None,
) -> Floor:
    """The spec's floor, or else the highest that there is, against none at all."""
    share = power.floor or BURN
    without = load_of_run(spent, parts, server, nodes, 0.0, prices, checkpoint_interval)
    load = load_of_run(spent, parts, server, nodes, share, prices, checkpoint_interval)
    ripple = ripple_of(load.cycle, power.round_trip)
    energy = load.energy() - without.energy()
    return Floor(
        share=share,
        energy=energy,
        dollars=energy / 3.6e6 * prices.kilowatt_hour,
        swing=float((load.highest - load.lowest).max()),
        battery=battery_for(load, ripple, load.base + load.train * ripple.level, power),
    )
