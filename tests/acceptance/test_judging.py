"""Limits, and a node against its fleet."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.acceptance.judging import COMPARED, bound_of, by_limits, doubtful, judge
from colossi.acceptance.result import Result, reasons, verdict
from colossi.errors import SpecError
from colossi.spec.acceptance import Acceptance, Limit, acceptance, acceptance_of
from colossi.spec.entries import entry_names

NONE = Acceptance(name="none")


def fleet(check: str, *values: float) -> dict[str, list[Result]]:
    return {f"n{number}": [Result(check, value=value)] for number, value in enumerate(values)}


@pytest.mark.parametrize(
    ("check", "values", "failed"),
    [
        ("memory.copy", (10, 10.1, 9.9, 7), ["n3"]),  # below 0.75 of 9.95, far outside of the spread
        ("memory.copy", (10, 10.1, 9.9, 8), []),  # 0.80 of it: far outside too, but enough
        ("memory.copy", (10, 14, 7, 12, 9), []),  # 0.7 of 10, as wide as they all are: MAD 2, 10 - 10.4
        ("memory.copy", (10, 14, 7, 12, 4.9), ["n4"]),  # less than half of the median in any spread
        ("memory.copy", (10, 10, 1), []),  # three nodes do not say what is usual
        ("processor.product", (1.0, 1.0, 1.01, 1.5), ["n3"]),  # [s]: more is worse
        ("processor.product", (1.0, 1.0, 1.01, 0.1), []),
        ("gpu.count", (8, 8, 8, 8, 7), []),  # 0.875: the catalogue's limit is for this
        ("gpu.count", (8, 8, 8, 8, 4), ["n4"]),
        ("disk.free", (9, 9, 9, 1), []),  # what is not compared
    ],
)
def test_a_node_is_held_against_the_fleets_median(
    check: str, values: tuple[float, ...], failed: list[str]
) -> None:
    judged = judge(fleet(check, *values), NONE)
    assert [node for node, own in judged.items() if verdict(own) == "fail"] == failed
    assert sorted(doubtful(judged)) == failed  # and is measured once more


def test_a_slow_disk_is_a_warning() -> None:
    judged = judge(fleet("disk.write", 10, 10, 10, 1), NONE)
    assert verdict(judged["n3"]) == "warn" and "0.10 times the median of 4 nodes" in reasons(
        judged["n3"], "warn"
    )


@given(values=st.lists(st.floats(0.1, 1e12), min_size=4, max_size=50), bad=st.sampled_from(["low", "high"]))
def test_most_of_a_fleet_always_passes(values: list[float], bad: str) -> None:
    bound = bound_of(values, "low" if bad == "low" else "high")
    middle = statistics.median(values)
    assert bound <= middle if bad == "low" else bound >= middle
    inside = [value for value in values if (value >= bound if bad == "low" else value <= bound)]
    assert 2 * len(inside) >= len(values)


def test_a_limit_decides_before_the_fleet_does() -> None:
    limits = Acceptance(
        name="x", limits=(Limit(check="memory.copy", least=5.0, written="at least 5", source="test"),)
    )
    judged = judge(fleet("memory.copy", 10, 10, 10, 6, 4), limits)
    assert [verdict(own) for own in judged.values()] == ["pass", "pass", "pass", "pass", "fail"]
    assert reasons(judged["n4"]) == "memory.copy: 4, not at least 5"


def test_what_is_broken_or_was_skipped_stays_so() -> None:
    limits = acceptance_of("H100-SXM")
    broken = Result("gpu.count", "fail", 8.0, why="x")
    skipped = Result("gpu.count", "skipped", why="not here")
    assert by_limits(broken, limits) == broken and by_limits(skipped, limits) == skipped


@pytest.mark.parametrize(
    ("gpu", "check", "good", "bad"),
    [  # SITE.md section 6, from the files of azurehpc-health-checks
        ("H100-SXM", "gpu.host_to_device", 48e9, 47.9e9),
        ("H100-SXM", "gpu.peer", 335e9, 334e9),
        ("H100-SXM", "gpu.all_reduce", 460e9, 459e9),
        ("H100-SXM", "gpu.count", 8, 7),
        ("H200-SXM", "gpu.all_reduce", 431e9, 430e9),
        ("A100-SXM-80GB", "gpu.host_to_device", 21e9, 20e9),
        ("A100-SXM-80GB", "gpu.peer", 238e9, 237e9),
        ("A100-SXM-80GB", "gpu.all_reduce", 228e9, 227e9),
        ("H100-SXM", "infiniband.speed", 50e9, 25e9),
        ("H100-SXM", "gpu.ecc_uncorrected", 0, 1),
    ],
)
def test_the_catalogue_has_the_published_limits(gpu: str, check: str, good: float, bad: float) -> None:
    limits = acceptance_of(gpu)
    assert by_limits(Result(check, value=good), limits).status == "pass"
    assert by_limits(Result(check, value=bad), limits).status == "fail"


def test_limits_are_found_by_what_the_driver_calls_a_gpu() -> None:
    assert acceptance_of(device="NVIDIA H100 80GB HBM3").name == "H100-SXM"
    assert acceptance_of(device="something else").name == acceptance_of().name == "every-machine"
    with pytest.raises(SpecError, match="H100"):
        acceptance("H100")


@pytest.mark.parametrize("name", entry_names("acceptance"))
def test_every_limit_has_a_source_and_a_check_that_is_known(name: str) -> None:
    others = {
        "clock.offset",
        "clock.even",
        "disk.free",
        "nic.errors",
        "infiniband.errors",
        "gpu.retired_pages",
    }
    others |= {"gpu.ecc_uncorrected", "gpu.ecc_corrected", "gpu.remapped_rows"}
    for limit in acceptance(name).limits:
        assert limit.source and limit.check in {*COMPARED, *others}, limit.check
