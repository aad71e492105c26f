"""The page in a real browser: a click on a rack, a search for a cable, a device, a rack, nothing."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from colossi.site.drawing.page import page
from colossi.site.exports.labels import label_table
from colossi.site.naming import Names

from ..exports.small import large, names, rows, small

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """A window that fails the test on any error of the script, and reaches no network."""
    if not CHROMIUM.exists():
        if os.environ.get("COLOSSI_NEEDS_BROWSER"):
            pytest.fail(f"{CHROMIUM} not found")
        pytest.skip(f"{CHROMIUM} not found")
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        window = chromium.new_page(viewport={"width": 1400, "height": 1000})
        faults: list[str] = []
        window.on("pageerror", lambda error: faults.append(str(error)))
        window.on("request", lambda asked: faults.append(asked.url) if asked.url[:5] != "file:" else None)
        yield window
        chromium.close()
        assert faults == []


def opened(window: Page, folder: Path, text: str) -> None:
    (folder / "index.html").write_text(text, encoding="utf-8")
    window.goto(f"file://{folder}/index.html")
    expect(window.locator("#search")).to_be_enabled(timeout=60_000)


def asked(window: Page, text: str) -> str:
    window.fill("#search", text)
    window.press("#search", "Enter")
    window.wait_for_timeout(50)
    return window.inner_text("#answer")


def test_a_person_at_a_rack_finds_where_a_cable_goes(browser: Page, tmp_path: Path) -> None:
    opened(browser, tmp_path, page(small(), names()))
    table = rows(label_table(small(), names()))
    for at in (3, 700, 1100, len(table) - 1):  # of each network: both ends as the printed labels have them
        row = table[at]
        said = asked(browser, row["label"].lower())
        assert f"{row['network']}, {row['metres']} m, {row['medium']}" in said
        for side in "ab":
            place = f"hall {row[f'{side}_hall']}, row {row[f'{side}_row']}, rack {row[f'{side}_rack']}"
            port = f"{row[f'{side}_device']}\t{row[f'{side}_port']}"
            assert f"{port}\t{place}, unit {row[f'{side}_unit']}" in said
        marked = browser.locator(".floor .found").count()
        assert marked == len({row["a_rack"], row["b_rack"]})


def test_a_device_shows_all_its_cables_and_its_rack(browser: Page, tmp_path: Path) -> None:
    opened(browser, tmp_path, page(small(), names()))
    said = asked(browser, "node-42")  # without the zeros too
    table = [row for row in rows(label_table(small(), names())) if row["a_device"] == "node-00042"]
    assert "node-00042" in said and f"{len(table)} cables" in said
    for row in table:
        assert re.search(rf"{row['a_port']}\t{row['label']}\t.*{row['b_device']}\t{row['b_port']}\t", said)
    assert table[0]["a_rack"] in browser.inner_text("#rack")
    browser.click("#answer a:text-is('leaf-00008')")
    expect(browser.locator("#answer b").first).to_have_text("leaf-00008")
    assert "mgmt0" in browser.inner_text("#answer")


def test_a_click_on_a_rack_shows_what_is_in_it(browser: Page, tmp_path: Path) -> None:
    opened(browser, tmp_path, page(small(), names()))
    rack = 5
    browser.click(f"#r{rack}")
    expect(browser.locator("#rack b")).to_have_text(names().racks[rack])
    inside = [names().devices[row] for row in (small().devices.rack == rack).nonzero()[0]]
    shown = browser.locator("#rack g[data-go]")
    assert sorted(shown.nth(n).get_attribute("data-go") or "" for n in range(shown.count())) == sorted(inside)
    shown.first.click()
    expect(browser.locator("#answer b").first).to_have_text(re.compile("|".join(inside)))
    # The wheel zooms.
    before = browser.locator(".floor").first.get_attribute("viewBox")
    browser.hover(f"#r{rack}")
    browser.mouse.wheel(0, -300)
    browser.wait_for_timeout(50)
    assert browser.locator(".floor").first.get_attribute("viewBox") != before
    assert asked(browser, names().racks[0]) == ""
    expect(browser.locator("#rack b")).to_have_text(names().racks[0])


@pytest.mark.parametrize("text", ["C999999", "S000000", "node-00064", "h1-r99-99", "<b>"])
def test_what_is_not_there_is_said(browser: Page, tmp_path: Path, text: str) -> None:
    opened(browser, tmp_path, page(small(), names()))
    assert asked(browser, text) == f"nothing is called {text}"


def test_a_link_to_a_device_opens_it(browser: Page, tmp_path: Path) -> None:
    opened(browser, tmp_path, page(small(), names()))
    browser.goto("about:blank")
    browser.goto(f"file://{tmp_path}/index.html#leaf-00003")
    expect(browser.locator("#answer b").first).to_have_text("leaf-00003")


def test_the_page_of_200_000_gpus_is_one_file_that_can_be_used(browser: Page, tmp_path: Path) -> None:
    design = large()
    text = page(design, Names(design))
    assert len(text) < 10e6  # bytes; three quarters of a million rows of JSON would be ten times as much
    opened(browser, tmp_path, text)
    last = len(design.cables) - 1
    upper = design.device_name(int(design.cables.upper[last]))
    assert upper in asked(browser, f"m{last}")
    assert "10 cables" in asked(browser, "node-24999")
