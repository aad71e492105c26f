"""The simulation beside the closed form, which knows nothing of it, where the latter's assumptions hold."""

import math
import random
import statistics
from dataclasses import replace

import pytest

from colossi.plan.goodput import Conditions, Snapshots, goodput
from colossi.simulation.scenario import Scenario
from colossi.simulation.seeds import life_of
from colossi.simulation.striking import play
from colossi.world.failures import Fault

from .small import fault, plan, scenario

LIVES = 40
SECONDS = 200_000.0
APART = 300.0  # [s] between failures: often enough that recoveries are interrupted as well

# It is never done, never gives up and never sets a node aside.
ENDLESS = scenario(
    plan=plan(steps=10**9, fruitless=10**6, strikes=None), seconds=SECONDS, detection=0.0, restart=20.0
)
# The same, and steps of a second.
CONDITIONS = Conditions(failure_rate=1 / APART, restart=20.0, reload=30.0)


def crashes(seed: int) -> list[Fault]:
    """Poisson, of processes; no node is lost, so that all snapshots stay."""
    rng, found = random.Random(seed), []
    time = rng.expovariate(1 / APART)
    while time < SECONDS:
        found.append(fault(time, "crash", rng.randrange(4)))
        time += rng.expovariate(1 / APART)
    return found


def simulated(machine: Scenario) -> tuple[float, float]:
    """Mean ETTR, and its standard error."""
    lives = [life_of(machine, seed, play(machine, crashes(seed))) for seed in range(1, LIVES + 1)]
    assert not any(life.gave_up or life.finished for life in lives)
    ettr = [life.ettr for life in lives]
    return statistics.fmean(ettr), statistics.stdev(ettr) / math.sqrt(LIVES)


@pytest.mark.parametrize(("every", "write"), [(50, 5.0), (100, 30.0)])
def test_from_disk(every: int, write: float) -> None:
    mean, error = simulated(replace(ENDLESS, snapshot_every=0, checkpoint_every=every, checkpoint=write))
    told = goodput(replace(CONDITIONS, interval=every, checkpoint=write)).ettr
    assert error < 0.002
    assert abs(mean - told) < 3 * error


@pytest.mark.parametrize("every", [1, 5])
def test_from_memory(every: int) -> None:
    """A snapshot is whole when the step after it is done, so all is as though a restart took a step more."""
    mean, error = simulated(replace(ENDLESS, snapshot_every=every, snapshot=0.05, checkpoint_every=0))
    told = goodput(
        replace(CONDITIONS, restart=20.0 + 1.0, snapshots=Snapshots(interval=every, cost=0.05))
    ).ettr
    assert error < 0.001
    assert abs(mean - told) < 3 * error


def test_a_failure_before_the_first_is_noticed_adds_nothing() -> None:
    """The closed form begins detection anew. Here each failure outside of it costs it once."""
    seconds = 60.0
    mean, error = simulated(replace(ENDLESS, snapshot_every=0, checkpoint=5.0, detection=seconds))
    undetected = goodput(replace(CONDITIONS, interval=50, checkpoint=5.0)).ettr
    begun_anew = goodput(replace(CONDITIONS, interval=50, checkpoint=5.0, detection=seconds)).ettr
    assert abs(mean - undetected / (1 + seconds / APART)) < 3 * error
    assert begun_anew < mean - 3 * error
