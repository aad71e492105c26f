"""The page before the real server, with a small random model: what the page shows is what the API says."""

import json
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from ..serve.served import model_folder, server
from .browser import PATIENCE, need_chromium

STOP_AT_ONCE = """() => {
  const draws = drawLast;
  drawLast = () => { draws(); stop(); };  // when the first token is drawn
  state.settings.tokens = 400;
  return send("the lazy dog");
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of its API."""
    need_chromium()
    with server(model_folder(tmp_path_factory.mktemp("model") / "small")) as (url, _):
        yield url


def test_the_page_shows_what_the_api_says(tab: Page, served: str) -> None:
    question = {"role": "user", "content": "the quick brown"}
    body = {"model": "small", "messages": [question], "temperature": 0, "max_tokens": 24}
    request = urllib.request.Request(
        f"{served}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        choice = json.load(answer)["choices"][0]
    tab.goto(served.removesuffix("v1"))
    expect(tab.locator("#model")).to_have_text("small")
    tab.evaluate("state.settings.temperature = 0; state.settings.tokens = 24")
    tab.locator("#text").fill("the quick brown")
    tab.keyboard.press("Enter")
    expect(tab.locator(".message.assistant .regenerate")).to_be_visible(timeout=PATIENCE)
    assert tab.evaluate("conversation().messages[1].content") == choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    expect(tab.locator(".message.assistant .under")).to_contain_text("cut off")


def test_stop_frees_the_server(tab: Page, served: str) -> None:
    tab.goto(served.removesuffix("v1"))
    tab.evaluate(STOP_AT_ONCE)
    expect(tab.locator(".message.assistant .under")).to_contain_text("stopped")
    assert 0 < len(tab.evaluate("conversation().messages[1].content")) < 100
    metrics = f"{served.removesuffix('v1')}metrics"
    for _ in range(100):
        with urllib.request.urlopen(metrics, timeout=10) as answer:
            if "colossi_running 0.0" in answer.read().decode():
                return
        tab.wait_for_timeout(100)
    raise AssertionError("the answer is still being computed")
