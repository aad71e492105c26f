"""
Makes dashboard.png: `PYTHONPATH=src python docs/images/pages.py`, in a minute; needs Chromium.

What is shown is a simulated run of examples/colossus.toml, as of the middle of its third day.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")


@contextmanager
def started(*command: str) -> Iterator[str]:
    """A server of colossi's; its address is the first word that it says."""
    with subprocess.Popen(
        [sys.executable, "-m", "colossi.cli", *command, "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[0]
        finally:
            process.terminate()


def dashboard(browser: Browser, folder: Path) -> None:
    run = folder / "colossus"
    command = ["simulate", str(ROOT / "examples" / "colossus.toml"), "--days", "30", "--seeds", "1"]
    subprocess.run([sys.executable, "-m", "colossi.cli", *command, "--run", str(run)], check=True)
    with started("dashboard", str(run)) as address:
        page = browser.new_page(viewport={"width": 1400, "height": 1250})
        page.goto(address)
        page.wait_for_function("page.ready && data.power")
        page.evaluate("go(data.now.began + 2.5 * 86400, false)")
        lost = "map.states.indexOf(data.states.indexOf('failed'))"
        x, y = page.evaluate(f"map.pageOf({lost})")
        page.mouse.click(x, y)
        page.wait_for_selector("#history ol")
        page.wait_for_timeout(500)
        page.screenshot(path=HERE / "dashboard.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=SWITCHES)
        dashboard(browser, Path(folder))
        browser.close()


if __name__ == "__main__":
    main()
