"""Failure rates of the catalogue, and what a spec may say of failures."""

import pytest

from colossi.errors import SpecError
from colossi.spec import build_spec
from colossi.spec.entries import entry_names
from colossi.spec.failures import DAY, FailuresSpec, failure_rates


def test_llama3_stops_as_often_as_it_did() -> None:
    """16,384 GPUs for 54 days: 419 unplanned stops, one in 3.09 h, 3.79e-3 in a node-day (8 GPUs)."""
    rates = failure_rates("llama3")
    assert sum(cause.count for cause in rates.causes) == 419
    assert rates.of_job(16_384) * 54 * DAY == pytest.approx(419)
    assert 1 / rates.of_job(16_384) / 3600 == pytest.approx(3.09, abs=0.005)
    assert rates.of_job(8) * DAY == pytest.approx(3.79e-3, rel=1e-3)
    assert rates.planned_per_second * 54 * DAY == pytest.approx(47)


def test_causes_of_gpus_go_with_gpus() -> None:
    """268 of the 419 are the GPUs' own; the other 151 are of 2,048 servers."""
    rates = failure_rates("llama3")
    assert rates.per_gpu_day == pytest.approx(268 / (16_384 * 54))
    assert rates.per_node_day == pytest.approx(151 / (2_048 * 54))
    four_to_a_node = rates.of_job(16_384, gpus_per_node=4)  # as many GPUs, twice the servers
    assert four_to_a_node * 54 * DAY == pytest.approx(268 + 2 * 151)
    assert rates.repaired_share == pytest.approx((419 - 54 - 7 - 2) / 419)


@pytest.mark.parametrize(("name", "per_thousand"), [("rsc-1", 6.50), ("rsc-2", 2.34)])
def test_rsc_rates_are_those_printed(name: str, per_thousand: float) -> None:
    assert failure_rates(name).of_job(8) * DAY * 1000 == pytest.approx(per_thousand)


def test_the_description_has_all_of_the_catalogue() -> None:
    about = FailuresSpec.model_fields["rates"].description or ""
    assert [name for name in entry_names("failures") if name not in about] == []


def test_another_fleet_is_refused_with_those_there_are() -> None:
    document = {"name": "x", "model": {"preset": "laptop"}, "failures": {"rates": "llama4"}}
    with pytest.raises(
        SpecError, match=r"failures.rates = \"llama4\" is not in the catalogue: .*llama3, rsc-1"
    ):
        build_spec(document, "here")


def test_a_spec_keeps_its_failures() -> None:
    document = {"name": "x", "model": {"preset": "laptop"}, "failures": {"restart_seconds": 60}}
    spec = build_spec(document, "here")
    assert spec.failures == FailuresSpec(restart_seconds=60)
    assert build_spec({"name": "x", "model": {"preset": "laptop"}}, "here").failures is None
