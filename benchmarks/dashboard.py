# ruff: noqa: T201 (a script talks by printing)
"""
The dashboard in a real Chromium: `PYTHONPATH=src python benchmarks/dashboard.py [--gpus N] [--days N]`.

It simulates a machine for months, opens its dashboard in headless Chromium without a GPU, and measures

- the first view: from asking for the page until fleet, numbers and timeline are drawn (aim: under 2 s), and
  until the charts are drawn too;
- frames: from one to the next while it is replayed at ten days a second, and while the map is zoomed, and how
  long the drawing of the map takes (aim: 60 a second, so 16.7 ms from one to the next);
- updates: from the append to a ledger until the page has drawn it (aim: under 1 s).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from colossi.ledger.events import Event
from colossi.ledger.run import begin_run
from colossi.spec import read_spec

ROOT = Path(__file__).parents[1]
SWITCHES = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
SWITCHES += "--disable-component-update --disable-sync"
SIZE: Any = {"width": 1500, "height": 1250}
VIEWS, UPDATES = 5, 30
GAPS = """count => new Promise(done => {
  const gaps = [], box = map.canvas.getBoundingClientRect();
  let last = performance.now();
  const frame = (now) => {
    gaps.push(now - last);
    last = now;
    const factor = gaps.length % 60 < 30 ? 1.08 : 1 / 1.08;
    if (window.zooming) map.zoomBy(factor, box.left + box.width / 2, box.top + box.height / 2);
    if (gaps.length <= count) requestAnimationFrame(frame); else done(gaps.slice(1));
  };
  requestAnimationFrame(frame);
})"""


@contextmanager
def dashboard(run: Path) -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-m", "colossi.cli", "dashboard", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[0]
        finally:
            process.terminate()


def opened(browser: Browser, address: str) -> Page:
    page = browser.new_page(viewport=SIZE)
    page.goto(address)
    page.wait_for_function("page.ready")
    return page


def shares(values: Sequence[float]) -> str:
    """Median, 95th and 99th percentile, worst."""
    ordered = sorted(values)
    at = [ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.95, 0.99, 1.0)]
    return "median {:.1f}, p95 {:.1f}, p99 {:.1f}, worst {:.1f} ms".format(*at)


def views(browser: Browser, address: str) -> None:
    shown, charted = [], []
    for _ in range(VIEWS):
        page = opened(browser, address)
        shown.append(page.evaluate("page.shown"))
        charted.append(page.evaluate("page.charted"))
        page.close()
    print(f"first view of {VIEWS}   {shares(shown)}")
    print(f"with charts        {shares(charted)}")


def frames(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    page.wait_for_timeout(1000)
    nodes, last = page.evaluate("[map.states.length, data.now.heard - data.now.began]")
    lives = page.evaluate("data.lives.number.length")
    print(f"{nodes:,} nodes, {last / 86400:.1f} days, {lives:,} incarnations")
    page.evaluate("go(data.now.began, false); page.speed = 864000; map.frames.length = 0; setPlaying(true)")
    print(f"replay, 300 frames {shares(page.evaluate(GAPS, 300))}")
    print(f"  drawing the map  {shares(page.evaluate('map.frames'))}")
    page.evaluate("setPlaying(false); window.zooming = true; map.frames.length = 0")
    print(f"zoom, 300 frames   {shares(page.evaluate(GAPS, 300))}")
    print(f"  drawing the map  {shares(page.evaluate('map.frames'))}")
    page.close()


def updates(browser: Browser, folder: Path) -> None:
    run = begin_run(folder, read_spec(ROOT / "examples" / "laptop.toml"))
    with run.ledger() as ledger:
        ledger.append(Event(time=1.0, kind="incarnation_started", incarnation=1, data={"nodes": ["node-0"]}))
        with dashboard(folder) as address:
            page, delays = opened(browser, address), []
            for step in range(1, UPDATES + 1):
                page.wait_for_timeout(137 * (step % 4))
                seen = page.evaluate("page.updates.length")
                begun = time.time()
                data = {"loss": 1.0 / step, "tokens": 100, "seconds": 1.0}
                ledger.append(Event(time=1.0 + step, kind="step_done", incarnation=1, step=step, data=data))
                page.wait_for_function(f"page.updates.length > {seen}")
                delays.append(page.evaluate("page.updates.at(-1)") - 1000 * begun)
    print(f"updates, {UPDATES}        {shares(delays)}, mean {statistics.mean(delays):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--gpus", type=int, default=200_000)
    parser.add_argument("--days", type=float, default=122.0)
    asked = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = Path(folder) / "run"
        spec = ROOT / "examples" / "colossus.toml"
        settings = [f"cluster.gpus={asked.gpus}", "training.tokens=500_000_000_000_000"]
        command = [sys.executable, "-m", "colossi.cli", "simulate", str(spec), "--days", str(asked.days)]
        command += ["--seeds", "1", "--run", str(run)]
        for setting in settings:
            command += ["--set", setting]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=SWITCHES.split())
        with dashboard(run) as address:
            views(browser, address)
            frames(browser, address)
        updates(browser, Path(folder) / "live")
        browser.close()


if __name__ == "__main__":
    main()
