from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from colossi.simulation.outcome import simulate
from colossi.spec import read_spec

from .browser import CHROMIUM, PATIENCE, SWITCHES, dashboard_of, need_chromium

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of a machine of 12,500 nodes."""
    folder = tmp_path_factory.mktemp("runs") / "colossus"
    simulate(read_spec(ROOT / "examples" / "colossus.toml"), 2.0, 1, folder, lambda done, total: None)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    need_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A page on which no error may happen."""
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


@pytest.fixture(scope="session")
def address(simulated: Path) -> Iterator[str]:
    need_chromium()
    with dashboard_of(simulated) as address:
        yield address
