"""The odds of a construction: without luck every life is the plan; a rack waits for its power."""

from pathlib import Path

import numpy as np
import pytest

from colossi.site.bridging import POWER
from colossi.site.chances import FEED, chances, with_power_by_date
from colossi.site.project import Project, Resource, Schedule, Task
from colossi.site.scheduling import Plan, plan
from colossi.spec.construction import ConstructionSpec, RisksSpec, TaskOverride
from colossi.spec.read import read_spec

ROOT = Path(__file__).parents[2]


def planned(risks: RisksSpec | None = None, likely: bool = False) -> Plan:
    """The small site; with `likely` each task takes what it is likely to take."""
    spec = read_spec(ROOT / "examples" / "site.toml", needs=("site", "construction"))
    built = spec.construction
    assert built is not None
    changed: dict[str, object] = {"risks": risks or built.risks}
    if likely:
        changed["tasks"] = {
            name: TaskOverride(hours=(kind.hours[1],) * 3, after=kind.after, source="a test")
            for name, kind in built.kinds.items()
        }
    again = ConstructionSpec.model_validate(built.model_dump() | changed)
    return plan(spec.model_copy(update={"construction": again}), 0.0)


def sure(**changes: object) -> RisksSpec:
    """Nothing goes otherwise than planned, but for this."""
    none = {"deliveries": (1.0, 1.0, 1.0), "power": (1.0, 1.0, 1.0), "fails": {}}
    return RisksSpec.model_validate(none | changes)


def test_without_luck_every_life_is_the_plan() -> None:
    found = planned(sure(), likely=True)
    lives = chances(found, 3)
    for name, days in lives.milestones.items():
        hour = found.hour_of(name)
        assert days.tolist() == [pytest.approx(found.calendar.day(hour))] * 3
    assert np.ptp(lives.pods, axis=0).max() == 0


def test_the_same_seed_has_the_same_lives_and_later_lots_a_later_end() -> None:
    early, late = planned(sure(), likely=True), planned(sure(deliveries=(3.0, 3.5, 5.0)), likely=True)
    one, again, other = chances(late, 4), chances(late, 4), chances(late, 4, seed=1)
    assert np.array_equal(one.pods, again.pods) and not np.array_equal(one.pods, other.pods)
    assert one.pods.min() > chances(early, 1).pods.min()


def test_what_fails_is_done_again() -> None:
    failing = planned(sure(fails={"acceptance": 0.5}), likely=True)
    days = chances(failing, 20).pods.max(axis=1)
    assert days.min() < days.max() and days.min() >= chances(planned(sure(), likely=True), 1).pods.max()


def test_a_rack_waits_for_what_brings_its_power() -> None:
    """10 kW from hour 5 on, 10 more at the end of a task; three racks of 6 kW, in the plan's order."""
    tasks = (
        Task("bring", 7, gives={POWER: 10}, kind="power"),
        *(Task(f"rack {n}", 1, holds={POWER: 6}, kind="power-on") for n in range(3)),
    )
    given = Project("small", 1.0, tasks, (Resource(POWER, ((0, 0), (5, 10), (50, 40))),))
    starts = {"bring": 0, "rack 0": 5, "rack 1": 7, "rack 2": 7}
    found = {task.name: task for task in with_power_by_date(given, Schedule(starts, 8, 8)).tasks}
    assert found["rack 0"].after == (("feed at 5", 0),)
    assert set(found["rack 1"].after) == {("feed at 5", 0), ("bring", 0)} == set(found["rack 2"].after)
    assert found["feed at 5"].earliest == 5 and found["feed at 5"].kind == FEED
    assert "feed at 50" not in found  # nobody waits for it
