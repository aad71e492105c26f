"""Markdown in the page, beside markdown-it-py: the same nodes, and nothing that could run."""

import re

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Page

from colossi.web.chat import FILES

SAMPLES = [
    "plain",
    "two\nlines",
    "two\n\nparagraphs",
    "# One\n## Two ##\n### Three `code`",
    "*a* **b** ***c*** _d_ __e__ ~~f~~",
    "snake_case_name and 2*3*4",
    "a * b * c",
    "**bold with *nested* inside**",
    "unclosed *star and **two",
    "`code` and ``co`de`` and `a\nb`",
    "`*not emphasis*` and *a `*` b*",
    "***a** b* and ***c* d**",
    "**a** **b** *c*, **d**. (*e*)",
    r"\*escaped\* \`also\` \# and \q",
    "hard  \nbreak and\\\nanother",
    "- a\n- b\n- c",
    "* a\n\n* b",
    "1. one\n2. two\n3. three",
    "4) four\n5) five",
    "- a\n  - b\n    - c\n- d",
    "- a\n\n  second paragraph\n- b",
    "1. a\n   ```py\n   x = 1\n   ```\n2. b",
    "text\n- item\n- item\n\nafter",
    "> quote\n> goes on\nlazy\n\nafter",
    "> - a\n> - b",
    "```python\nif x < 1:\n    print('<b>')  # a & b\n```",
    "~~~\n``` inside\n~~~",
    "```\nnever closed\n",
    "````md\n```\ninner\n```\n````",
    "---\n***\n- - -",
    "| a | b |\n|---|:-:|\n| 1 | `x` |\n| 2 | *y* |",
    "a | b\n--- | ---\n1 | 2\n\nafter",
    "| a |\n| - |\n| x \\| y |",
    "[link](https://example.org/a_(b)) and <https://example.org/?a=1&b=2>",
    '[titled](https://example.org "title") and [mail](mailto:a@example.org)',
    "[*emphasis* in link](http://example.org)",
    "math: 1 < 2 & 3 > 2, &amp stays",
    "emoji 🙂 und Umlaute äöü",
    "",
    "   leading spaces",
    "para\n# heading\npara\n> quote",
    "1986\\. A great year",
    "- [ ] not a task list",
    "+ plus\n+ list",
    "It: **42**.\n\nSteps:\n\n1. *First*, add `2 + 2`.\n2. Then **stop**.\n\n```js\na = ''; // y\n```\nEnd.",
]
EVIL = [
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    "[x](javascript:window.ran=1)",
    "[x](JaVaScRiPt:window.ran=1)",
    "[x](data:text/html,<script>window.ran=1</script>)",
    "![x](https://example.org/x.png)",
    "<https://example.org/'onmouseover='window.ran=1>",
    '[x](https://example.org/"onmouseover="window.ran=1)',
    "```html\n<script>window.ran = 1</script>\n```",
    '```"><script>window.ran=1</script>\nx\n```',
    "| <b>a</b> |\n|---|\n| <svg onload=window.ran=1> |",
    "<a href='javascript:window.ran=1'>x</a>",
    "# <iframe srcdoc='<script>parent.ran=1</script>'>",
    "`<img src=x onerror=window.ran=1>`",
]
ALLOWED = set(
    [
        "P",
        "H1",
        "H2",
        "H3",
        "H4",
        "H5",
        "H6",
        "UL",
        "OL",
        "LI",
        "PRE",
        "CODE",
        "SPAN",
        "EM",
        "STRONG",
        "S",
        "A",
        "BR",
        "HR",
        "BLOCKQUOTE",
        "BUTTON",
    ]
)
ALLOWED |= set(["TABLE", "THEAD", "TBODY", "TR", "TH", "TD"])
DRAW = "text => { const box = document.createElement('div'); box.append(markdown(text)); "
DRAW += "document.body.replaceChildren(box); "
HTML = DRAW + "box.querySelectorAll('.copy').forEach(one => one.remove()); return box.innerHTML; }"


@pytest.fixture
def reader(tab: Page) -> Page:
    tab.set_content("<!doctype html><body></body>")
    tab.add_script_tag(path=FILES / "markdown.js")
    return tab


def test_it_agrees_with_markdown_it(reader: Page) -> None:
    library = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    different = {}
    for sample in SAMPLES:
        ours, theirs = plain(reader.evaluate(HTML, sample)), plain(library.render(sample))
        if ours != theirs:
            different[sample] = (ours, theirs)
    assert different == {}


def test_nothing_in_an_answer_can_run(reader: Page) -> None:
    for sample in EVIL:
        reader.evaluate(HTML, sample)
        names = set(reader.evaluate("[...document.body.querySelectorAll('div *')].map(one => one.tagName)"))
        assert names <= ALLOWED, sample
        attributes = "[...document.body.querySelectorAll('div *')].flatMap(one => one.getAttributeNames())"
        assert set(reader.evaluate(attributes)) <= {
            "class",
            "href",
            "rel",
            "target",
            "type",
            "style",
            "start",
        }, sample
        links = reader.evaluate("[...document.querySelectorAll('a')].map(one => one.protocol)")
        assert set(links) <= {"https:", "http:", "mailto:"}, sample
        for link in reader.query_selector_all("a"):
            link.hover()
    reader.wait_for_timeout(50)
    assert reader.evaluate("window.ran") is None


def test_whatever_comes_half_way_can_be_drawn(reader: Page) -> None:
    """An answer is drawn while it grows; all of its text is there, whatever it may become."""
    whole = "\n\n".join(SAMPLES)
    reader.evaluate(
        "whole => { for (let end = 0; end < whole.length; end += 3) markdown(whole.slice(0, end)); }", whole
    )


def test_a_long_answer_takes_no_longer_than_it_should(reader: Page) -> None:
    """Nothing in it is worse than quadratic: a run of signs that never close comes back at all."""
    for sign in ("*", "_", "`", "[", "**a ", "[a](", "> ", "- ", "~~a"):
        reader.evaluate("text => { markdown(text); }", sign * 2000)


def test_code_is_coloured(reader: Page) -> None:
    drawn = reader.evaluate(HTML, "```python\nfor x in 'abc':  # say\n    return 12\n```")
    for kind, text in (("keyword", "for"), ("string", "'abc'"), ("comment", "# say"), ("number", "12")):
        assert f'<span class="{kind}">{text}</span>' in drawn
    assert "comment" not in reader.evaluate(HTML, "```js\nthis.#secret\n```")


def plain(html: str) -> str:
    """Without what may differ: spaces between blocks, colours of code, attributes but where links go."""
    html = re.sub(r"</?span[^>]*>", "", html)
    html = re.sub(r'<a href="([^"]*)"[^>]*>', r'<a href="\1">', html)
    html = re.sub(r"<(?!a |ol)(\w+)[^>]*>", r"<\1>", html)
    html = html.replace("&quot;", '"').replace("<br />", "<br>").replace("&nbsp;", "\u00a0")
    html = (
        re.sub(r"\s*\n\s*(?=<)|(?<=>)\s*\n\s*", "", html)
        if "<pre>" not in html
        else re.sub(r"\n(?=<)|(?<=>)\n", "", html)
    )
    return html.strip()
