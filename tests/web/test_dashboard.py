"""The dashboard in a real Chromium."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page

from colossi.ledger.events import Event
from colossi.ledger.report import report
from colossi.ledger.run import begin_run, open_run
from colossi.spec import read_spec
from colossi.web.fleet import Fleet
from colossi.web.watched import Watched

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


def test_it_can_be_replayed(tab: Page, address: str, simulated: Path) -> None:
    """At any time the map has the states that the events until then have made."""
    watched, history = Watched(open_run(simulated)), open_run(simulated).events()
    tab.goto(address)
    tab.wait_for_function("page.ready")
    for share in (0.9, 0.1, 0.5, 0.51, 0.0):  # also backwards
        at = history[0].time + share * (history[-1].time - history[0].time)
        fleet = Fleet.standing_by(watched.expected.nodes, history[0].time)
        for number, event in enumerate(history, 1):
            if event.time <= at:
                fleet.on(number, event)
        tab.evaluate("t => go(t, false)", at)
        assert tab.evaluate("[...map.states]") == fleet.states, share
    tab.evaluate("page.speed = 864000")
    tab.locator("#play").click()
    tab.wait_for_function("!page.playing && page.t === data.now.heard")  # it ends where the run does
    assert tab.evaluate("[...map.states]") == watched.fleet.states


def test_several_runs_beside_each_other(tab: Page, simulated: Path, tmp_path: Path) -> None:
    run = begin_run(tmp_path / "other", read_spec(ROOT / "examples" / "laptop.toml"))
    with run.ledger() as ledger:
        ledger.append(step(1, 3.5))
    with dashboard_of(simulated, run.folder) as address:
        tab.goto(address)
        tab.wait_for_function("page.ready")
        assert tab.locator("#runs button").count() == 2
        tab.locator("#runs button").nth(1).click()
        tab.wait_for_function("document.querySelector('.tile[data-name=loss] .value').innerText === '3.5'")
        assert tab.locator("#runs button").nth(1).get_attribute("aria-pressed") == "true"
        tab.locator("#runs button").nth(0).click()
        tab.wait_for_function("map.states.length > 1000")


def test_no_script_comes_from_elsewhere(tab: Page, address: str) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(address)
    tab.wait_for_function("page.ready")
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


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


def test_it_answers_prometheus_too(address: str) -> None:
    assert 'colossi_run_step{run="colossus"}' in httpx.get(f"{address}metrics", timeout=30).text


@pytest.mark.parametrize("path", ["runs/7/since/0", "runs/-1/layout", "runs/x/power"])
def test_what_there_is_not_is_said_so(address: str, path: str) -> None:
    assert httpx.get(f"{address}api/{path}", timeout=30).status_code in (404, 422)


def test_a_port_that_is_taken_is_bad_input(simulated: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "colossi.cli", "dashboard", str(simulated), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port}: ")
    assert "hint:" in done.stderr
