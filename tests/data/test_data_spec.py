"""The `[data]` table: what it takes and what it refuses, in sentences."""

from typing import Any

import pytest
from pydantic import ValidationError

from colossi.spec.data import DataSpec

FILES = {"kind": "files", "path": "x.txt"}
TASK = {"kind": "reasoning", "task": "gcd", "samples": 10}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no source": ({"sources": []}, "at least 1"),
    "an unknown kind": ({"sources": [{"kind": "web"}]}, "does not match any of the expected tags"),
    "an unknown key": ({"sources": [FILES | {"colunm": "a"}]}, "Extra inputs"),
    "a weight of nothing": ({"sources": [FILES | {"weight": 0}]}, "greater than 0"),
    "the seed hidden in the options": ({"sources": [TASK | {"options": {"seed": 3}}]}, "own key seed"),
    "a tokenizer that is neither": ({"sources": [FILES], "tokenizer": "chars"}, "is no tokenizer"),
}


@pytest.mark.parametrize(("table", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DataSpec.model_validate(table)


def test_what_is_not_said() -> None:
    data = DataSpec.model_validate({"sources": [FILES, TASK]})
    assert (data.tokenizer, data.held_out, data.loss_on) == ("subwords", 200, "answers")
    assert [source.weight for source in data.sources] == [1.0, 1.0]


def test_round_trip() -> None:
    data = DataSpec.model_validate({"sources": [FILES, TASK, {"kind": "python-stdlib"}]})
    assert DataSpec.model_validate_json(data.model_dump_json()) == data
