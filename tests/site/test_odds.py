"""Odds against distributions that are known in closed form."""

import numpy as np
import pytest
from scipy import stats

from colossi.errors import BadInput
from colossi.site.odds import Risks, Spread, odds, rank_correlation
from colossi.site.project import Project, Resource, Schedule, Task

NONE = Risks({}, {}, {})


def alone(**changes: object) -> Project:
    return Project("alone", 1.0, (Task("t", 1000, kind="work", **changes),), ())  # type: ignore[arg-type]


def test_without_risks_the_plan_is_kept() -> None:
    tasks = (Task("a", 3, uses={"crew": 1}, group="pod 0"), Task("b", 4, uses={"crew": 1}))
    project = Project("plan", 1.0, tasks, (Resource("crew", ((0, 1),)),))
    found = odds(project, Schedule({"a": 4, "b": 0}, 7, 7), NONE, samples=3)
    assert found.milestones[""].ends.tolist() == [7, 7, 7]
    assert found.milestones["pod 0"].planned == 7
    assert found.criticality == {"": 1.0}


@pytest.mark.parametrize(
    ("spread", "theirs"),
    [
        (Spread(0.8, 1.0, 1.7, "test"), stats.triang(0.2 / 0.9, 0.8, 0.9)),
        (Spread(0.8, 1.0, 1.5, "test", "lognormal"), stats.lognorm(np.log(1.5) / stats.norm.ppf(0.9))),
    ],
)
def test_one_task_has_the_quantiles_of_its_spread(spread: Spread, theirs: stats.rv_continuous) -> None:
    found = odds(alone(), Schedule({"t": 0}, 1000, 1000), Risks({"work": spread}, {}, {}), samples=4000)
    for share in (0.5, 0.9):
        # four standard errors of a quantile: sqrt(p (1 - p) / n) / density
        value = theirs.ppf(share)
        error = 4 * (share * (1 - share) / 4000) ** 0.5 / theirs.pdf(value)
        assert found.milestones[""].quantile(share) / 1000 == pytest.approx(value, abs=error)
    assert spread.median() == pytest.approx(theirs.ppf(0.5))


def test_rework_repeats_the_task() -> None:
    # a geometric number of times with mean 1 / (1 - p) = 1.25 and variance p / (1 - p)^2 = 0.3125
    found = odds(alone(), Schedule({"t": 0}, 1000, 1000), Risks({}, {}, {"work": 0.2}), samples=4000)
    ends = found.milestones[""].ends
    assert set(ends % 1000) == {0}
    assert ends.mean() / 1000 == pytest.approx(1.25, abs=4 * (0.3125 / 4000) ** 0.5)


def test_a_delivery_slips() -> None:
    spread = Spread(1.0, 1.0, 3.0, "test")
    found = odds(
        alone(earliest=500), Schedule({"t": 500}, 1500, 1500), Risks({}, {"work": spread}, {}), samples=500
    )
    ends = found.milestones[""].ends
    assert ends.min() >= 1500
    assert ends.max() <= 2500
    assert found.correlation["work"] == pytest.approx(1.0, abs=1e-3)


def test_what_is_never_on_the_way_drives_nothing() -> None:
    tasks = (Task("long", 100, kind="long"), Task("short", 10, kind="short"))
    spread = Spread(0.9, 1.0, 1.2, "test")
    found = odds(
        Project("two", 1.0, tasks, ()),
        Schedule({"long": 0, "short": 0}, 100, 100),
        Risks({"long": spread, "short": spread}, {}, {}),
        samples=300,
    )
    assert found.criticality == {"long": 1.0, "short": 0.0}
    assert found.correlation["long"] > 0.99
    assert abs(found.correlation["short"]) < 0.25


def test_seeds_and_processes() -> None:
    risks = Risks({"work": Spread(0.5, 1.0, 2.0, "test")}, {}, {})
    one = odds(alone(), Schedule({"t": 0}, 1000, 1000), risks, samples=60)
    two = odds(alone(), Schedule({"t": 0}, 1000, 1000), risks, samples=60, processes=2)
    other = odds(alone(), Schedule({"t": 0}, 1000, 1000), risks, samples=60, seed=1)
    assert one.milestones[""].ends.tolist() == two.milestones[""].ends.tolist()
    assert one.milestones[""].ends.tolist() != other.milestones[""].ends.tolist()


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 9, 50).astype(float), rng.integers(0, 9, 50).astype(float)
    assert rank_correlation(one, two) == pytest.approx(stats.spearmanr(one, two).statistic)


def test_spreads_that_cannot_be() -> None:
    with pytest.raises(BadInput, match="low <= likely <= high"):
        Spread(1.2, 1.0, 1.5, "test")
    with pytest.raises(BadInput, match="triangular or lognormal"):
        Spread(0.9, 1.0, 1.5, "test", "normal")
