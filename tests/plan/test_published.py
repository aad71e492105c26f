"""The scorecard: every published run is expressed, and the page's table is what the program prints."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "validation"))  # scripts, no package


@pytest.fixture(scope="module")
def scored():  # type: ignore[no-untyped-def]
    import runs

    from colossi.plan.efficiency import published
    from colossi.plan.step import step

    table = runs.Table.read(published())
    seconds = np.array(step(table.case, published().efficiency).seconds)
    return runs, table, seconds


def test_no_run_is_refused(scored) -> None:  # type: ignore[no-untyped-def]
    _, table, _ = scored
    assert len(table.seconds) == 756 and table.refused == []


def test_the_page_says_what_the_program_finds(scored) -> None:  # type: ignore[no-untyped-def]
    runs, table, seconds = scored
    page = (ROOT / "docs/validation.md").read_text()
    for group, found in runs.by_group(table, seconds).items():
        assert f"{group:18}{found['rows']:5.0f}{found['mean']:8.1%}" in page, (
            "run validation/runs.py, mend the page"
        )


def test_grok_1_and_llama_405b_are_within_three_percent(scored) -> None:  # type: ignore[no-untyped-def]
    _, table, seconds = scored
    for run, found, measured in zip(table.runs, seconds, table.seconds, strict=True):
        if run.row["id"] in ("dgxc-037", "dgxc-038", "dgxc-039", "dgxc-022", "dgxc-023", "dgxc-024"):
            assert found == pytest.approx(measured, rel=0.03)


def test_a_vector_of_constants_is_the_constants(scored) -> None:  # type: ignore[no-untyped-def]
    runs, table, seconds = scored
    from colossi.plan.efficiency import published

    np.testing.assert_allclose(
        table.forecast(runs.pack(published())), seconds, rtol=2e-3
    )  # printed to four digits
