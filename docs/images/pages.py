"""
Makes dashboard.png and chat.png: `PYTHONPATH=src python docs/images/pages.py`, in a minute; needs Chromium.

The dashboard shows a simulated run of examples/colossus.toml, in the middle of its third day. The chat page
stands before the stand-in server of the tests, which says what is written here: models that a laptop trains
in minutes have nothing to say that shows Markdown.
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
sys.path.insert(0, str(ROOT))

from tests.web.standin import StandIn, app_of, listening  # noqa: E402

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


ANSWER = """Sum the digits until one is left. Its remainder by **9** is that of the number itself:

```python
def digital_root(number: int) -> int:
    return 1 + (number - 1) % 9 if number else 0  # 10 = 1 (mod 9)
```

| number | by hand | `digital_root` |
|-------:|---------|:--------------:|
| 38 | 3 + 8 = 11, 1 + 1 = 2 | 2 |
| 99 | 9 + 9 = 18, 1 + 8 = 9 | 9 |

1. It takes *constant* time.
2. It needs no loop."""


def chat(browser: Browser) -> None:
    with listening(app_of(StandIn(answer=ANSWER))) as address:
        page = browser.new_page(viewport={"width": 1100, "height": 760}, color_scheme="dark")
        page.goto(address)
        for question in ("Which node failed most often?", "How do I get the digital root of a number?"):
            page.keyboard.press("Alt+n")
            page.fill("#text", question)
            page.keyboard.press("Enter")
            page.wait_for_selector(".message.assistant .regenerate")
        page.screenshot(path=HERE / "chat.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=SWITCHES)
        dashboard(browser, Path(folder))
        chat(browser)
        browser.close()


if __name__ == "__main__":
    main()
