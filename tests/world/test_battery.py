"""The battery's rule against its limits, a game played out, and linear programs that know the future."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from colossi.world.battery import Limits, Smoothed, smooth

levels = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
stretches = st.lists(st.tuples(st.floats(0.01, 30), levels), min_size=1, max_size=12)
LONG = np.array([0.0, 1.0] * 3), np.full(6, 1000.0)  # loads of which each lasts longer than any ramp


def played(pairs: list[tuple[float, float]], limits: Limits, energy: float) -> Smoothed:
    seconds, load = (np.array(column) for column in zip(*pairs, strict=True))
    return smooth(seconds, load, limits, energy)


@given(stretches, st.floats(0.3, 1.0), st.floats(0.02, 2.0), st.sampled_from([1.0, 1.0, 1.7]))
def test_ramp_and_storage_keep_to_their_limits(
    pairs: list[tuple[float, float]], round_trip: float, ramp: float, larger: float
) -> None:
    limits = Limits(0.0, 1.0, ramp, round_trip)
    energy = larger * limits.least_energy
    found = played(pairs, limits, energy)
    assert np.all(np.abs(np.diff(found.grid)) <= ramp * np.diff(found.times) * (1 + 1e-9) + 1e-12)
    assert found.stored.min() >= -1e-9 * energy and found.stored.max() <= energy * (1 + 1e-9)
    assert found.grid.min() >= -1e-12 and found.grid.max() <= 1 + 1e-12
    for grid, stored in zip(found.grid, found.stored, strict=True):  # every future is still open
        assert limits.floor(grid) - 1e-9 * energy <= stored <= limits.ceiling(grid, energy) + 1e-9 * energy


@given(stretches, st.floats(0.3, 1.0), st.floats(0.02, 2.0))
def test_what_goes_in_comes_out_is_lost_or_is_there(
    pairs: list[tuple[float, float]], round_trip: float, ramp: float
) -> None:
    limits = Limits(0.0, 1.0, ramp, round_trip)
    found = played(pairs, limits, limits.least_energy)
    site = sum(seconds * load for seconds, load in pairs)
    drawn = float(np.trapezoid(found.grid, found.times))
    assert drawn == pytest.approx(site + found.charged - found.discharged, abs=1e-9)
    e = round_trip**0.5
    change = float(found.stored[-1] - found.stored[0])
    assert change == pytest.approx(found.charged * e - found.discharged / e, abs=1e-9)
    assert found.lost == pytest.approx((1 - e) * found.charged + (1 / e - 1) * found.discharged, abs=1e-9)


def test_one_stop_and_one_start_by_hand() -> None:
    # 100 MW to 0 at 1 MW/s without losses: 100 s of ramp, 100 * 100 / 2 = 5,000 MJ each way.
    limits = Limits(0.0, 100e6, 1e6, 1.0)
    assert limits.least_energy == 5e9
    found = played([(50, 100e6), (500, 0.0), (500, 100e6)], limits, 5e9)
    assert found.times.tolist() == [0, 50, 150, 550, 650, 1050]
    assert found.grid.tolist() == [100e6, 100e6, 0, 0, 100e6, 100e6]
    assert found.stored.tolist() == [0, 0, 5e9, 5e9, 0, 0]


def test_one_percent_less_runs_dry() -> None:
    # Worth 1% of energy: the rule, which keeps the ramp, then asks for what is not there.
    limits = Limits(0.0, 1.0, 0.1, 0.9)
    load, seconds = LONG
    for share, fits in ((1.0, True), (0.99, False)):
        energy = share * limits.least_energy
        stored = smooth(seconds, load, limits, energy).stored
        assert bool(stored.min() >= -1e-9 and stored.max() <= energy + 1e-9) is fits


def winnable(steps: int, capacity: int, per_charge: int, per_discharge: int) -> bool:
    """Whether a rule that sees only the present can hold out for ever, of all rules: a game played out.

    The grid's draw is one of 0 to `steps` and moves by one at a time, after the load of the moment (0 or
    `steps`) is known; the store counts whole units from 0 to `capacity`. From the states that are within the
    limits, those are crossed out from which some load leaves no move to another, until nothing changes.
    """
    safe = np.ones((steps + 1, capacity + 1), bool)
    while True:
        before = safe.copy()
        for load in (0, steps):
            possible = np.zeros_like(safe)
            for draw in range(steps + 1):
                for after in range(max(draw - 1, 0), min(draw + 1, steps) + 1):
                    surplus = after - load
                    change = surplus * (per_charge if surplus > 0 else per_discharge)
                    ahead = np.zeros(capacity + 1, bool)
                    if change >= 0:
                        ahead[: capacity + 1 - change] = safe[after, change:]
                    else:
                        ahead[-change:] = safe[after, : capacity + 1 + change]
                    possible[draw] |= ahead
            safe &= possible
        if not safe.any() or (safe == before).all():
            return bool(safe.any())


@pytest.mark.parametrize(
    ("steps", "per_charge", "per_discharge"), [(4, 1, 1), (6, 1, 1), (5, 1, 2), (6, 1, 4)]
)
def test_no_rule_without_foresight_needs_less(steps: int, per_charge: int, per_discharge: int) -> None:
    # On a jump from 0 to `steps` the grid gives 1, 2, ... and the battery steps - 1, steps - 2, ..., 1.
    least = per_discharge * steps * (steps - 1) // 2
    assert winnable(steps, least, per_charge, per_discharge)
    assert not winnable(steps, least - 1, per_charge, per_discharge)
    # The closed form is that sum's limit for short moves: charge counts e of a unit, discharge 1/e.
    limits = Limits(0.0, steps, 1.0, per_charge / per_discharge)
    unit = (per_charge * per_discharge) ** 0.5
    assert limits.least_energy * unit * (1 - 1 / steps) == pytest.approx(least)


def least_with_foresight(load: np.ndarray, ramp: float, what: str) -> float:
    """The least power, or energy, of a lossless battery for a load that is known: a linear program.

    Unknowns are the grid's draws g [n], what is stored at first, and the size x, which is made least.
    """
    n = len(load)
    one, none = np.ones((n, 1)), np.zeros((n, 1))
    steps = np.hstack([np.diff(np.eye(n), axis=0), np.zeros((n - 1, 2))])
    if what == "power":  # -x <= g - load <= x
        sums, after = np.eye(n), load
        rows = [np.hstack([sums, none, -one]), np.hstack([-sums, none, -one])]
    else:  # 0 <= stored + sum(g - load) <= x
        sums, after = np.tril(np.ones((n, n))), np.cumsum(load)
        rows = [np.hstack([sums, one, -one]), np.hstack([-sums, -one, none])]
    found = linprog(
        np.append(np.zeros(n + 1), 1.0),
        np.vstack([steps, -steps, *rows]),
        np.concatenate([np.full(2 * (n - 1), ramp), after, -after]),
        bounds=[(None, None)] * n + [(0, None)] * 2,
    )
    assert found.success
    return float(found.fun)


def test_who_knows_the_future_needs_half_the_power_and_a_quarter_of_the_energy() -> None:
    n = 20  # moves from low to high
    load = np.repeat([0.0, 1.0, 0.0], 4 * n)
    assert least_with_foresight(load, 1 / n, "power") == pytest.approx(0.5, abs=1 / n)
    whole = Limits(0.0, 1.0, 1 / n, 1.0).least_energy
    assert least_with_foresight(load, 1 / n, "energy") == pytest.approx(whole / 4, rel=0.1)
