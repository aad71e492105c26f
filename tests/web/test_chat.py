"""The page to talk to a model, in a real Chromium, before a stand-in that says what a test wants."""

import json
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from .browser import PATIENCE
from .standin import StandIn, app_of, listening

LONG = "word " * 400


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def chat(tab: Page, stand_in: StandIn) -> Iterator[Page]:
    with listening(app_of(stand_in)) as address:
        tab.goto(address)
        expect(tab.locator("#model, #notice:not([hidden])").first).not_to_be_empty()
        yield tab


def ask(page: Page, text: str) -> None:
    """With the keyboard alone."""
    page.locator("#text").focus()
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def answered(page: Page) -> None:
    expect(page.locator("#send")).to_be_visible(timeout=PATIENCE)


def test_an_answer_is_streamed_and_rendered(chat: Page, stand_in: StandIn) -> None:
    stand_in.answer = "It is **four**:\n\n```python\nprint(2 + 2)\n```\n\n- so"
    stand_in.pause = 0.05
    ask(chat, "What is 2 + 2?")
    expect(chat.locator(".message.assistant.going .body")).to_contain_text("It is", timeout=PATIENCE)
    answered(chat)
    body = chat.locator(".message.assistant .body")
    expect(body.locator("strong")).to_have_text("four")
    expect(body.locator("pre code.language-python")).to_have_text("print(2 + 2)\n")
    expect(body.locator("li")).to_have_text("so")
    expect(chat.locator(".message.user .body")).to_have_text("What is 2 + 2?")
    assert stand_in.asked[0]["messages"] == [{"role": "user", "content": "What is 2 + 2?"}]
    assert stand_in.asked[0]["stream"] is True


def test_what_was_said_goes_along(chat: Page, stand_in: StandIn) -> None:
    for text in ("one", "two"):
        ask(chat, text)
        answered(chat)
    roles = [(each["role"], each["content"]) for each in stand_in.asked[1]["messages"]]
    assert roles == [("user", "one"), ("assistant", "Hello."), ("user", "two")]


def test_stop_ends_the_answer_and_keeps_what_there_is(chat: Page, stand_in: StandIn) -> None:
    stand_in.answer, stand_in.pause = LONG, 0.02
    ask(chat, "Go on")
    expect(chat.locator(".message.assistant .body")).to_contain_text("word word", timeout=PATIENCE)
    chat.keyboard.press("Escape")
    answered(chat)
    said = chat.locator(".message.assistant .body").inner_text()
    assert 0 < len(said) < len(LONG)
    expect(chat.locator(".message.assistant .under")).to_contain_text("stopped")
    chat.wait_for_timeout(300)
    assert chat.locator(".message.assistant .body").inner_text() == said
    assert stand_in.gone == 1  # the server has noticed


def test_regenerate_asks_again_for_the_last_answer(chat: Page, stand_in: StandIn) -> None:
    ask(chat, "Hi")
    answered(chat)
    stand_in.answer = "Better."
    chat.get_by_role("button", name="Regenerate").click()
    expect(chat.locator(".message.assistant .body")).to_have_text("Better.", timeout=PATIENCE)
    answered(chat)
    assert stand_in.asked[0]["messages"] == stand_in.asked[1]["messages"]
    assert chat.locator(".message").count() == 2


def test_conversations_stay_in_the_browser(chat: Page, stand_in: StandIn) -> None:
    ask(chat, "first question")
    answered(chat)
    chat.keyboard.press("Alt+n")
    ask(chat, "second question")
    answered(chat)
    chat.reload()
    expect(chat.locator("#list .name")).to_have_text(["second question", "first question"])
    chat.locator("#list .name").nth(1).click()
    expect(chat.locator(".message.user .body")).to_have_text("first question")
    chat.locator("#list .delete").nth(1).click()
    expect(chat.locator("#list .name")).to_have_text(["second question"])


def test_settings_are_sent_and_kept(chat: Page, stand_in: StandIn) -> None:
    chat.locator("#open-settings").click()
    chat.locator("#system").fill("Be brief.")
    chat.locator("#temperature").fill("0")
    chat.locator("#tokens").fill("33")
    chat.locator("#close").click()
    chat.reload()
    ask(chat, "Hi")
    answered(chat)
    asked = stand_in.asked[0]
    assert (asked["temperature"], asked["max_tokens"]) == (0, 33)
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_key_is_asked_for_and_not_kept_on_the_disk(tab: Page) -> None:
    stand_in = StandIn(key="sk-1")
    with listening(app_of(stand_in)) as address:
        tab.goto(address)
        expect(tab.locator("#notice")).to_contain_text("a key is needed Give a key in the settings.")
        tab.locator("#open-settings").click()
        tab.locator("#key").fill("sk-1")
        tab.locator("#close").click()
        expect(tab.locator("#model")).to_have_text("stand-in")
        expect(tab.locator("#notice")).to_be_hidden()
        ask(tab, "Hi")
        answered(tab)
        assert len(stand_in.asked) == 1
        assert "sk-1" not in json.dumps(tab.evaluate("({...localStorage})"))


def test_a_server_that_goes_away_is_said(chat: Page, stand_in: StandIn) -> None:
    stand_in.answer, stand_in.breaks_after = "one two three four", 2
    ask(chat, "Hi")
    answered(chat)
    expect(chat.locator("#notice")).to_have_text("The connection ended before the answer did.")
    expect(chat.locator(".message.assistant .body")).to_have_text("one two")


def test_nothing_in_an_answer_or_a_question_can_run(chat: Page, stand_in: StandIn) -> None:
    evil = "<img src=x onerror='window.ran=1'><script>window.ran=1</script>[x](javascript:window.ran=1)"
    stand_in.answer = evil
    ask(chat, evil)
    answered(chat)
    chat.reload()  # and also not from what is kept
    expect(chat.locator(".message.assistant .body")).to_contain_text("<img src=x")
    assert chat.evaluate("window.ran") is None
    assert chat.locator(".message img, .message script, .message a, #list img").count() == 0


def test_the_browser_is_told_to_run_nothing_else(stand_in: StandIn) -> None:
    with listening(app_of(stand_in)) as address, urllib.request.urlopen(address, timeout=10) as answer:
        policy = answer.headers["Content-Security-Policy"]
        page = answer.read().decode()
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "http://" not in page and "https://" not in page  # nothing from elsewhere


def test_it_fits_a_phone(browser: Browser, stand_in: StandIn) -> None:
    stand_in.answer = "| a | b |\n|---|---|\n| " + "wide " * 60 + "| 2 |\n\n```\n" + "x" * 300 + "\n```"
    with listening(app_of(stand_in)) as address:
        page = browser.new_page(viewport={"width": 360, "height": 640})
        page.goto(address)
        ask(page, "w" * 200)
        answered(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        expect(page.locator("#drawer")).not_to_be_visible()
        page.locator("#menu").click()
        expect(page.locator("#new")).to_be_focused()
        page.locator("#new").click()
        expect(page.locator("#drawer")).not_to_be_visible()
        box = page.locator("#send").bounding_box()
        assert box is not None and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 640
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_is(browser: Browser, stand_in: StandIn, scheme: str) -> None:
    with listening(app_of(stand_in)) as address:
        page = browser.new_page(color_scheme=scheme)
        page.goto(address)
        expect(page.locator("html")).to_have_attribute("data-theme", scheme)
        page.evaluate("settings()")
        page.locator("#theme").select_option("light")
        page.locator("#close").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        page.close()
