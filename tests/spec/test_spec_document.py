"""The page about the spec says what the models say."""

import tomllib
from pathlib import Path

from colossi.spec import build_spec
from colossi.spec.document import EXAMPLES, TABLES, markdown

PAGE = Path(__file__).parents[2] / "docs" / "spec.md"
COMMAND = "python -m colossi.spec.document > docs/spec.md"


def test_the_page_on_disk_is_up_to_date() -> None:
    assert PAGE.is_file() and PAGE.read_text() == markdown(), f"make it again: {COMMAND}"


def test_the_examples_are_one_good_document() -> None:
    spec = build_spec(tomllib.loads("\n".join(EXAMPLES.values())), "the examples")
    assert spec.data and len(spec.data.sources) == 4
    assert (spec.layout.replicate, spec.layout.expert) == (1, 2)


def test_every_key_is_described() -> None:
    keys = [
        (title, key, field) for title, table in TABLES.items() for key, field in table.model_fields.items()
    ]
    assert [(title, key) for title, key, field in keys if not field.description] == []
    page = markdown()
    assert [key for _, key, _ in keys if f"| `{key}` |" not in page] == []
