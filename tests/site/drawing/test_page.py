"""The page of a design in a real browser: who stands at a rack finds where a cable goes."""

import csv
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from colossi.site.exports.folder import write_all

from ...web.browser import CHROMIUM, SWITCHES, need_chromium
from ..exports.small import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("handed") / "over"
    write_all(small(), path, 0, lambda *told: None)
    return path


def test_a_cable_a_device_and_a_rack_are_found(folder: Path) -> None:
    need_chromium()
    with (folder / "labels" / "cables.csv").open(newline="") as file:
        label = next(row for row in csv.DictReader(file) if row["a_device"] == "node-00042")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((folder / "index.html").as_uri())
        search, answer = page.locator("#search"), page.locator("#answer")
        page.wait_for_function("!document.getElementById('search').disabled")

        search.fill("node-00042")
        search.press("Enter")
        assert label["b_device"] in answer.inner_text() and "10 cables" in answer.inner_text()

        answer.get_by_text(label["b_device"], exact=True).first.click()  # the other end
        assert answer.inner_text().startswith(label["b_device"])

        search.fill("node-99999")
        search.press("Enter")
        assert page.locator("#answer .error").count() == 1
        browser.close()
    assert errors == []
