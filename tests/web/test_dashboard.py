"""The dashboard in a real Chromium."""

from pathlib import Path

from playwright.sync_api import Page

from colossi.ledger.events import Event
from colossi.ledger.report import report
from colossi.ledger.run import begin_run, open_run
from colossi.spec import read_spec

from .browser import dashboard_of

ROOT = Path(__file__).parents[2]


def test_it_shows_what_the_report_says(tab: Page, address: str, simulated: Path) -> None:
    told = report(open_run(simulated).events())
    tab.goto(address)
    tab.wait_for_function("page.ready")
    assert told.goodput is not None
    assert tab.locator(".tile[data-name=goodput] .value").inner_text() == f"{100 * told.goodput:.1f}%"
    nodes = tab.evaluate("map.layout.names.length")
    assert f"{nodes:,} nodes" in tab.locator("#arranged").inner_text()
    assert tab.evaluate("charts.step.getOption().series[0].data.length") > 5


def test_a_click_on_a_node_tells_its_history(tab: Page, address: str, simulated: Path) -> None:
    fault = next(e for e in open_run(simulated).events() if e.kind == "node_lost")
    tab.goto(address)
    tab.wait_for_function("page.ready")
    node = fault.text("node")
    x, y = tab.evaluate("name => map.pageOf(map.layout.names.indexOf(name))", node)
    tab.mouse.click(x, y)
    tab.wait_for_selector("#history h3")
    assert tab.locator("#history h3").inner_text() == node
    assert "node lost" in tab.locator("#history ol").inner_text()


def test_what_is_written_to_the_ledger_comes_by_itself(tab: Page, tmp_path: Path) -> None:
    run = begin_run(tmp_path / "run", read_spec(ROOT / "examples" / "laptop.toml"))
    with run.ledger() as ledger:
        start = {"nodes": ["node-0", "node-1"], "workers": 2, "spares": 0, "missing": 0}
        ledger.append(
            Event(time=1000.0, kind="node_joined", incarnation=0, data={"node": "node-0"}),
            Event(time=1000.0, kind="node_joined", incarnation=0, data={"node": "node-1"}),
            Event(time=1001.0, kind="incarnation_started", incarnation=1, data=start),
            step(1, 5.0),
        )
        with dashboard_of(run.folder) as address:
            tab.goto(address)
            tab.wait_for_function("page.ready")
            assert tab.locator(".tile[data-name=loss] .value").inner_text() == "5"
            lost = {"node": "node-1", "why": "gone"}
            ledger.append(step(2, 4.25), Event(time=1003.5, kind="node_lost", incarnation=1, data=lost))
            tab.wait_for_function(
                "document.querySelector('.tile[data-name=loss] .value').innerText === '4.25'"
            )
            assert "failed 1" in tab.locator("#legend").inner_text()


def step(number: int, loss: float) -> Event:
    data = {"loss": loss, "tokens": 100, "seconds": 1.0}
    return Event(time=1001.0 + number, kind="step_done", incarnation=1, step=number, data=data)
