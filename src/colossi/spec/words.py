"""What a key takes, in words: errors offer it, and docs/spec.md is made of it."""

import datetime
import json
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

BASES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotes",
    datetime.date: "a date, as 2024-05-03",
}
LIMITS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "pattern": "matching {}",
}


def wanted(field: FieldInfo) -> str:
    """What may be written for a key, as "a whole number, at least 1"."""
    return _wanted(field.annotation, field.metadata)


def _wanted(annotation: Any, limits: Sequence[Any]) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _wanted(inner[0], [*limits, *inner[1:]])
    if origin in (Union, types.UnionType):
        return " or ".join(_wanted(choice, limits) for choice in inner if choice is not types.NoneType)
    if origin is Literal:
        return " or ".join(json.dumps(choice) for choice in inner)
    if origin is tuple and get_origin(inner[0]) is Literal:
        return f"a list of {_wanted(inner[0], ())}"
    if origin is tuple and inner[0] in BASES:
        number = "" if inner[-1] is Ellipsis else f"{len(inner)} values, each "
        return f"a list of {number}{_wanted(inner[0], ())}"
    if origin is tuple:
        return "a list of tables, at least one"
    if origin is dict or issubclass(annotation, BaseModel):
        return "a table"
    return ", ".join([BASES[annotation], *([" and ".join(words)] if (words := _limits(limits)) else [])])


def _limits(limits: Sequence[Any]) -> list[str]:
    """The bounds among a field's metadata; an empty text is the only length that is ever refused."""
    words = [
        form.format(bound)
        for limit in limits
        for name, form in LIMITS.items()
        if (bound := getattr(limit, name, None)) is not None
    ]
    return words + ["not empty" for limit in limits if getattr(limit, "min_length", None)]


def as_toml(value: Any) -> str:
    """A value as it would stand in a document, shortened."""
    text = _as_toml(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _as_toml(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_as_toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        return str(value)
    return (
        json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool | int | float) else str(value)
    )
