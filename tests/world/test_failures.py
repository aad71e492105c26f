"""The list of faults: how many, of what, when, where, for how long; against Poisson, Weibull and by hand."""

import hashlib
import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from colossi.errors import BadInput
from colossi.spec import build_spec
from colossi.spec.failures import DAY, Cause, Effect, FailureRates, FailuresSpec, Unit, failure_rates
from colossi.spec.units import quantity
from colossi.world.failures import SPREAD, Fault, expected, faults, rates_of
from colossi.world.machinery import Machinery, machinery_of

from ..docs.pages import ROOT, files, table

# Llama 3's own machine: two servers in a rack, under one switch that has the NICs of all rails.
LLAMA3 = Machinery(
    nodes=2048,
    gpus_per_node=8,
    nics_per_node=8,
    nodes_per_rack=2,
    racks_per_feed=8,
    nodes_per_leaf=2,
    leaves=1024,
    spines=85,
    cores=15,
    cables=16384 + 18725,
)
SMALL = Machinery(
    nodes=70,
    gpus_per_node=8,
    nics_per_node=8,
    nodes_per_rack=8,
    racks_per_feed=4,
    nodes_per_leaf=32,
    leaves=24,
    spines=12,
    cores=0,
    cables=70 * 8 + 24 * 32,
)
MONTHS = 54 * DAY
RATES = rates_of(FailuresSpec())


def only(**fields: object) -> FailureRates:
    """Rates of one cause alone, a loss of a node unless it says otherwise."""
    given = {"name": "it", "component": "it", "effect": "loss", "per": "node", "count": 1.0, "lasts": "1 h"}
    cause = Cause.model_validate(given | fields)
    return RATES.model_copy(update={"causes": (cause,), "others": ()})


def tally(found: list[Fault]) -> Counter[tuple[str, str]]:
    return Counter((fault.component, fault.effect) for fault in found)


def test_each_component_comes_as_often_as_in_the_catalogue() -> None:
    """Sums over 100 seeds are Poisson: within four standard deviations of what the file counts."""
    counted: Counter[tuple[str, str]] = Counter()
    for cause in RATES.causes + RATES.others:
        counted[cause.component, cause.effect] += cause.count  # type: ignore[assignment]
    assert len(counted) == 19
    found = sum((tally(faults(LLAMA3, RATES, seed, MONTHS)) for seed in range(100)), Counter())
    for key, count in counted.items():
        assert abs(found[key] - 100 * count) < 4 * math.sqrt(100 * count), key
    stops = sum(cause.count for cause in RATES.causes)
    assert stops == 419


def test_the_number_of_faults_is_poisson() -> None:
    """Not only on average: a chi-square test of 2,000 counts about a mean of 5."""
    rates = only(count=5)
    counts = np.array([len(faults(LLAMA3, rates, seed, MONTHS)) for seed in range(2000)])
    bins = np.bincount(np.minimum(counts, 12), minlength=13)
    chances = stats.poisson.pmf(np.arange(13), 5)
    chances[12] = stats.poisson.sf(11, 5)
    assert stats.chisquare(bins, 2000 * chances).pvalue > 1e-3


@pytest.mark.parametrize("name", ["rsc-1", "rsc-2"])
def test_a_fleet_that_counted_no_causes_fails_as_often_as_it_said(name: str) -> None:
    rates = failure_rates(name)
    there = 1000 / 2048  # of Llama 3's nodes, and of their network
    stops = sum(expected(LLAMA3, rates, cause, DAY) for cause in rates.causes if cause.shape == 1)
    stops += sum(expected(LLAMA3, rates, cause, MONTHS) / 54 for cause in rates.causes if cause.shape != 1)
    assert stops * there == pytest.approx({"rsc-1": 6.50, "rsc-2": 2.34}[name])
    assert not [cause for cause in rates.causes if cause.component == "software"]


@pytest.mark.parametrize("shape", [0.7, 1.5])
def test_first_failures_of_new_parts_are_weibulls(shape: float) -> None:
    """A part's life is Weibull, with the scale that makes the count come out; SciPy's is the reference."""
    rates = only(count=3000.0, shape=shape).model_copy(update={"age_days": 0.0, "lemons_fraction": 0.0})
    first: dict[int, float] = {}
    for fault in faults(LLAMA3, rates, 7, 400 * DAY):
        first.setdefault(fault.nodes[0], fault.time / DAY)
    # From day 60 to day 114 a node fails 3000 / 2048 times: ((114/s)^k - (60/s)^k) is that.
    scale = ((114**shape - 60**shape) / (3000 / 2048)) ** (1 / shape)
    life = stats.weibull_min(shape, scale=scale)
    lives = np.array(sorted(first.values()))
    whole = life.cdf(400)
    assert abs(len(lives) - 2048 * whole) <= 4 * math.sqrt(2048 * whole * (1 - whole)) + 1
    assert stats.kstest(lives, lambda t: life.cdf(t) / whole).pvalue > 1e-3


@pytest.mark.parametrize(("shape", "more"), [(0.7, True), (1.0, None), (1.5, False)])
def test_infants_fail_more_and_the_worn_too(shape: float, more: bool | None) -> None:
    rates = only(count=100.0, shape=shape)
    new = rates.model_copy(update={"age_days": 0.0})
    cause = rates.causes[0]
    assert expected(LLAMA3, rates, cause, MONTHS) == pytest.approx(100)  # as old as those counted
    count = expected(LLAMA3, new, cause, MONTHS)
    assert count == pytest.approx(100) if more is None else (count > 100) is more
    # By hand for 0.7: 100 * 54^0.7 / (114^0.7 - 60^0.7) = 100 * 16.318 / (27.530 - 17.567) = 163.8
    if shape == 0.7:
        assert count == pytest.approx(163.8, abs=0.2)


def test_lemons_fail_again_and_again() -> None:
    """13% of the failures fall on 27 nodes of 2,048, on each ten times as many; the whole stays the same."""
    found = [f for seed in range(20) for f in faults(LLAMA3, only(count=2000.0), seed, MONTHS)]
    assert abs(len(found) - 40_000) < 4 * 200
    by_node = Counter(fault.nodes[0] for fault in faults(LLAMA3, only(count=20_000.0), 3, MONTHS))
    worst = by_node.most_common(27)
    share = sum(count for _, count in worst) / by_node.total()
    assert share == pytest.approx(0.13, abs=4 * math.sqrt(0.13 * 0.87 / 20_000))
    sound = by_node.most_common()[27:]
    assert worst[-1][1] > 2 * sound[0][1] > 0
    without = only(count=20_000.0).model_copy(update={"lemons_fraction": 0.0})
    assert max(Counter(f.nodes[0] for f in faults(LLAMA3, without, 3, MONTHS)).values()) < 30  # mean 9.8


def test_a_seed_has_the_same_lemons_for_every_cause() -> None:
    all_share = RATES.model_copy(update={"lemons_share": 1.0})
    nodes: dict[str, set[int]] = {}
    for fault in faults(LLAMA3, all_share, 5, MONTHS):
        if len(fault.nodes) == 1 and fault.component in ("gpu", "hbm", "nic", "cable"):
            nodes.setdefault(fault.component, set()).add(fault.nodes[0])
    assert len(set.union(*nodes.values())) == 27 == round(0.013 * 2048)


# 70 nodes: groups 0..31, 32..63, 64..69, eight leaves each; racks of 8, the last of 6; feeds of 4 racks.
@pytest.mark.parametrize(
    ("unit", "index", "struck"),
    [
        ("leaf", 0, range(32)),
        ("leaf", 7, range(32)),
        ("leaf", 8, range(32, 64)),
        ("leaf", 23, range(64, 70)),
        ("rack", 0, range(8)),
        ("rack", 8, range(64, 70)),
        ("feed", 1, range(32, 64)),
        ("feed", 2, range(64, 70)),
    ],
)
def test_a_switch_and_a_feed_strike_exactly_their_nodes(unit: str, index: int, struck: range) -> None:
    assert SMALL.nodes_of(unit, index) == struck  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", ["leaf", "rack", "feed"])
def test_all_of_a_kind_are_struck_and_nothing_else(unit: str) -> None:
    found = faults(SMALL, only(per=unit, count=1e4), 1, MONTHS)
    number = SMALL.number_of(unit)  # type: ignore[arg-type]
    assert {f.nodes for f in found} == {SMALL.nodes_of(unit, at) for at in range(number)}  # type: ignore[arg-type]
    assert set(itertools.chain(*(fault.nodes for fault in found))) == set(range(70))


def test_llama3s_switch_has_the_two_servers_of_its_rack() -> None:
    assert LLAMA3.nodes_of("leaf", 1023) == range(2046, 2048) == LLAMA3.nodes_of("rack", 1023)


def test_more_of_one_cause_leaves_the_others_alone() -> None:
    """Common random numbers: two policies meet the same faults but for those that were changed."""
    base = faults(LLAMA3, RATES, 11, MONTHS)
    without = rates_of(FailuresSpec(hangs=0, flaps=0, stragglers=0))
    gone = {"hang", "flap", "slow"}
    assert [f for f in base if f.effect not in gone] == faults(LLAMA3, without, 11, MONTHS)
    twice = faults(LLAMA3, rates_of(FailuresSpec(corruption=2)), 11, MONTHS)
    assert [f for f in base if f.effect != "corrupt"] == [f for f in twice if f.effect != "corrupt"]
    before, after = ([f for f in each if f.effect == "corrupt"] for each in (base, twice))
    assert len(after) > len(before)
    for one, other in zip(before, after, strict=False):  # the same faults, in half the time
        assert (other.nodes, other.repair) == (one.nodes, one.repair)
        assert other.time == pytest.approx(one.time / 2, abs=1e-3)


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    long = faults(LLAMA3, RATES, 4, MONTHS)
    assert [f for f in long if f.time < MONTHS / 3] == faults(LLAMA3, RATES, 4, MONTHS / 3)


def test_the_same_seed_gives_the_same_list_and_another_seed_another() -> None:
    one = faults(LLAMA3, RATES, 2, MONTHS)
    assert one == faults(LLAMA3, RATES, 2, MONTHS) != faults(LLAMA3, RATES, 3, MONTHS)
    assert all(round(f.time * 1000) / 1000 == f.time for f in one)


def test_the_list_is_the_one_that_was_written_down() -> None:
    """To the last byte, on any machine and with any version of NumPy, or else a seed means nothing."""
    found = faults(LLAMA3, RATES, 2, MONTHS)
    assert found[0] == Fault(1816.988, "cable", "flap", (1053,), 1.224)
    assert hashlib.sha256(repr(found).encode()).hexdigest()[:16] == "a6744906ed33611a"


def test_cables_and_switches_bring_their_own_failures() -> None:
    """Twice the cables between switches, the same GPUs: twice their failures, and no other's."""
    wider = replace(LLAMA3, cables=16384 + 2 * 18725, leaves=2 * 1024, nodes_per_leaf=2)
    for cause in RATES.causes + RATES.others:
        times = 2 if cause.per in ("trunk", "leaf") else 1
        before, after = (expected(each, RATES, cause, MONTHS) for each in (LLAMA3, wider))
        assert after == pytest.approx(times * before), cause.name
    fewer = replace(LLAMA3, nics_per_node=1, cables=2048 + 18725)
    for cause in RATES.causes + RATES.others:
        times = 1 / 8 if cause.per in ("nic", "link") else 1
        before, after = (expected(each, RATES, cause, MONTHS) for each in (LLAMA3, fewer))
        assert after == pytest.approx(times * before), cause.name


def test_repairs_take_as_long_as_they_say() -> None:
    """Lognormal, of the mean that is given: 24 h of [failures], or the cause's own."""
    losses = [f.repair for s in range(30) for f in faults(LLAMA3, RATES, s, MONTHS) if f.component == "gpu"]
    assert np.median(losses) == pytest.approx(86400 / 5, rel=0.1)  # the mean is five times the median
    law = stats.lognorm(SPREAD, scale=86400 / 5)
    assert law.mean() == pytest.approx(86400)
    assert stats.kstest(losses, law.cdf).pvalue > 1e-3
    sooner = rates_of(FailuresSpec(repair_hours=6))
    pairs = zip(faults(LLAMA3, RATES, 1, MONTHS), faults(LLAMA3, sooner, 1, MONTHS), strict=True)
    for day, hours in pairs:
        own = day.component in ("rack", "feed") or day.effect in ("flap", "slow", "storage")
        assert hours.repair == pytest.approx(day.repair if own else day.repair / 4, abs=1e-3)


def test_slow_nodes_are_as_slow_as_they_say() -> None:
    slow = [f for s in range(100) for f in faults(LLAMA3, RATES, s, MONTHS) if f.effect == "slow"]
    excess = np.array([f.factor for f in slow]) - 1
    assert excess.mean() == pytest.approx(0.1, abs=4 * 0.1 / math.sqrt(len(slow)))
    assert excess.min() > 0


def test_effects_strike_what_they_should() -> None:
    found = [f for seed in range(30) for f in faults(LLAMA3, RATES, seed, MONTHS)]
    for fault in found:
        if fault.effect in ("job", "storage"):
            assert fault.nodes == ()
        else:
            assert len(fault.nodes) == {"switch": 2, "rack": 2, "feed": 16}.get(fault.component, 1) or (
                fault.effect == "flap" and len(fault.nodes) == 1
            )
        assert (fault.repair > 0) is (fault.effect not in ("crash", "hang", "job"))
        assert (fault.factor > 1) is (fault.effect == "slow")


SPECS = st.builds(
    FailuresSpec,
    rates=st.sampled_from(["llama3", "rsc-1", "rsc-2"]),
    age_days=st.none() | st.floats(0, 2000),
    lemons_fraction=st.none() | st.floats(0, 0.99),
    lemons_share=st.none() | st.floats(0, 1),
    hangs=st.floats(0, 10),
    outages=st.floats(0, 10),
    repair_hours=st.floats(0, 1000),
)
MACHINES = st.builds(
    lambda nodes, gpus, nics, per_rack, per_leaf, rails, trunks: Machinery(
        nodes=nodes,
        gpus_per_node=gpus,
        nics_per_node=nics,
        nodes_per_rack=per_rack,
        racks_per_feed=3,
        nodes_per_leaf=per_leaf,
        leaves=-(-nodes // per_leaf) * rails,
        spines=trunks // 64,
        cores=0,
        cables=nodes * nics + trunks,
    ),
    *(st.integers(1, 3000), st.integers(1, 8), st.integers(1, 8), st.integers(1, 20)),
    *(st.integers(1, 64), st.integers(1, 8), st.integers(0, 5000)),
)


@given(MACHINES, SPECS, st.integers(0, 2**32), st.floats(0, 100))
def test_whatever_the_machine_faults_are_in_order_and_in_it(
    machine: Machinery, spec: FailuresSpec, seed: int, days: float
) -> None:
    found = faults(machine, rates_of(spec), seed, days * DAY)
    times = [fault.time for fault in found]
    assert times == sorted(times)
    for fault in found:
        assert 0 <= fault.time <= days * DAY + 1e-3
        assert math.isfinite(fault.repair) and fault.repair >= 0 and math.isfinite(fault.factor)
        assert all(0 <= node < machine.nodes for node in fault.nodes)
        assert fault.effect in ("job", "storage") or len(fault.nodes) > 0


def machine_of(**cluster: object) -> Machinery:
    return machinery_of(build_spec({"name": "x", "model": {"preset": "grok-1"}, "cluster": cluster}, "here"))


def test_the_machinery_of_a_cluster() -> None:
    """1,024 GPUs: 128 servers and one spare; five groups of leaves, the last for that one; two layers.

    40 leaves of 32 uplinks do not divide over 20 spines, so each has one to each of 32.
    """
    found = machine_of(node="DGX-H100", gpus=1024)
    assert (found.nodes, found.racks, found.feeds) == (129, 17, 3)
    assert (found.leaves, found.spines, found.cores, found.cables) == (40, 32, 0, 129 * 8 + 40 * 32)
    assert machine_of(node="DGX-H100", gpus=1024, spares=32).nodes == 160


def test_the_machinery_of_colossus_has_three_layers() -> None:
    """12,500 servers and 125 spares, of switches with 128 ports: 64 hold 8,192 servers at most.

    198 groups of 64 nodes are 1,584 leaves, in 25 pods of 64 spines, each of which has 16 cores to itself.
    """
    found = machine_of(node="colossus", gpus=100_000)
    assert found.nodes == 12_625
    assert (found.leaves, found.spines, found.cores) == (198 * 8, 25 * 64, 64 * 16)
    assert found.cables == 12_625 * 8 + 1584 * 64 + 1600 * 64
    assert found.nodes_per_leaf == 64


def test_the_machinery_is_that_of_the_fabric_that_is_built() -> None:
    """Half as many uplinks, half as many cables between switches; and one that cannot be built is refused."""
    document = {"name": "x", "model": {"preset": "grok-1"}, "cluster": {"node": "DGX-H100", "gpus": 1024}}
    whole, half = (
        machinery_of(build_spec(document | {"fabric": {"radix": radix, "oversubscription": ratio}}, "here"))
        for radix, ratio in ((64, 1.0), (48, 2.0))
    )
    assert whole.number_of("trunk") == 40 * 32 and whole.nodes_per_leaf == 32
    assert half.number_of("trunk") == 40 * 16 and half.nodes_per_leaf == 32
    larger = {"fabric": {"tiers": 2}, "cluster": {"gpu": "H100-SXM", "gpus": 8192}}
    with pytest.raises(BadInput, match="more than 2 tiers of 64 ports hold"):
        machinery_of(build_spec(document | larger, "here"))


def test_two_processes_on_a_laptop_have_a_machine_too() -> None:
    found = machine_of(nodes=2, workers_per_node=1)
    assert (found.nodes, found.leaves, found.spines, found.cables) == (2, 1, 0, 2)
    assert faults(found, RATES, 1, DAY) == []


PAGE = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")


def test_the_page_has_every_cause_as_the_catalogue_has_it() -> None:
    rates = failure_rates("llama3")
    said = {row[0]: row[1:] for row in table(PAGE, 8) if len(row) == 8}
    assert list(said) == [cause.name for cause in rates.causes + rates.others]
    for cause in rates.causes + rates.others:
        component, effect, per, count, shape, lasts, every = said[cause.name]
        assert (component, effect, per) == (cause.component, cause.effect, cause.per)
        assert (float(count), float(shape)) == (cause.count, cause.shape), cause.name
        if cause.effect in ("crash", "hang", "job"):
            assert lasts == "-"
        else:
            assert quantity(lasts, "s") == (cause.lasts or FailuresSpec().repair_hours * 3600), cause.name
        number, unit = every.split()
        days = float(number) * {"days": 1, "years": 365.25}[unit]
        assert days == pytest.approx(1 / rates.per_day(cause), rel=5e-3), cause.name


def test_the_page_explains_every_effect_and_unit() -> None:
    named = {word for row in table(PAGE, 1) for word in row[0].replace("`", "").split(", ")}
    assert set(get_args(Effect)) | set(get_args(Unit)) <= named


def test_the_pages_example_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    exec(files(PAGE)["faults.py"], {})
    assert f"```text\n{capsys.readouterr().out}```\n" in PAGE
