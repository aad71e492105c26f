"""What a page is told: the same as the report says, and piece by piece the same as at once."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from colossi.ledger.clock import PARTS, account
from colossi.ledger.events import Event
from colossi.ledger.report import report
from colossi.ledger.run import begin_run, open_run
from colossi.simulation.outcome import power_of_run
from colossi.spec import read_spec
from colossi.web import series
from colossi.web.expected import power_curve
from colossi.web.series import Point, Series
from colossi.web.watched import Watched

ROOT = Path(__file__).parents[2]
TABLES = ("points", "changes", "marks", "spans", "lives", "saves")


@pytest.fixture
def story(simulated: Path) -> list[Event]:
    return open_run(simulated).events()


def test_it_says_what_the_report_says(simulated: Path, story: list[Event]) -> None:
    told, now = report(story), Watched(open_run(simulated)).since(0)["now"]
    assert now["goodput"] == pytest.approx(told.goodput)
    assert now["mfu"] == pytest.approx(told.mfu)
    assert now["tokens"] == told.tokens
    assert now["parts"] == pytest.approx([told.time[part] for part in PARTS], abs=1e-3)
    assert now["interruptions"] == len(told.interruptions)
    assert now["point"]["step"] == told.steps


def test_the_power_is_that_of_the_report(simulated: Path, story: list[Event]) -> None:
    watched = Watched(open_run(simulated))
    spent, found = account(story), watched.expected
    curve = power_curve(found, watched.spent.account())
    assert curve is not None and found.forecast is not None
    power = power_of_run(found.spec, found.forecast, spent)
    assert power is not None
    assert curve["energy_mwh"] == pytest.approx(power.energy / 3.6e9)
    assert curve["peak_mw"] == pytest.approx(power.peak / 1e6)
    hours = spent.wall / 3600
    assert sum(curve["mw"]) / len(curve["mw"]) * hours == pytest.approx(power.energy / 3.6e9)


def test_piece_by_piece_it_is_the_same_as_at_once(tmp_path: Path, story: list[Event]) -> None:
    run = begin_run(tmp_path / "run", read_spec(ROOT / "examples" / "laptop.toml"))
    page: dict[str, dict[str, list[Any]]] = {table: {} for table in TABLES}
    newest = 0
    with run.ledger() as ledger:
        ledger.append(story[0])
        watched = Watched(run)
        for piece in _pieces(story[1:], 37):
            ledger.append(*piece)
            more = watched.since(newest)
            newest = more["newest"]
            for table in TABLES:
                _append(page[table], more[table])
        assert watched.since(newest) == {"name": "run", "newest": newest}
        watched.close()
    whole = Watched(run).since(0)
    for table in TABLES:
        once: dict[str, list[Any]] = {}
        _append(once, whole[table])
        assert page[table] == once, table


def test_points_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MOST", 10)
    kept = Series()
    for number in range(1, 101):
        kept.add(Point(number, 0.0, number, None, None, None, None, ()))
        assert len(kept.points) <= 10
    steps = [point.step for point in kept.points]
    assert len({after - before for before, after in itertools.pairwise(steps)}) == 1
    assert kept.newest is not None and kept.newest.step == 100
    assert [point.id for point in kept.after(steps[-2])] == [steps[-1]]


def test_a_loss_that_is_no_number_is_null(tmp_path: Path) -> None:
    run = begin_run(tmp_path / "run", read_spec(ROOT / "examples" / "laptop.toml"))
    with run.ledger() as ledger:
        ledger.append(Event(time=1.0, kind="step_done", incarnation=1, step=1, data={"loss": float("nan")}))
    assert Watched(run).since(0)["points"]["loss"] == [None]


def _pieces(events: list[Event], size: int) -> list[list[Event]]:
    return [events[first : first + size] for first in range(0, len(events), size)]


def _append(table: dict[str, list[Any]], more: dict[str, Any]) -> None:
    """As the page does it: cut off what is sent again, then put the new rows behind."""
    for key, column in more.items():
        if key == "from":
            continue
        rows = table.setdefault(key, [])
        del rows[more.get("from", len(rows)) :]
        rows += [column["words"][at] for at in column["of"]] if isinstance(column, dict) else column
