"""
What pydantic found wrong with a document, in one line of ours: the key, the value and what to write instead.

Knows the tables of a Spec and pydantic's kinds of error; not where the document came from.
"""

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from colossi.errors import SpecError
from colossi.spec.model import ModelSpec
from colossi.spec.spec import Spec
from colossi.spec.words import as_toml, wanted

Loc = tuple[int | str, ...]  # a place in a document, as pydantic says it


def explain(error: ValidationError, where: str) -> SpecError:
    """The first thing that pydantic found, in one line with the key, the value and what to write instead.

    Unknown keys come before all else: a key that is missing is as a rule one of them, misspelt.
    """
    found = error.errors()
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    loc, kind, value = first["loc"], first["type"], first["input"]
    key = _dotted(loc)
    if kind == "extra_forbidden":
        message, hint = _unknown(loc, value)
    elif kind == "missing":
        message, hint = f"{key} is missing: give {_wanted(loc)}", _described(loc)
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        message, hint = _no_kind(loc, value)
    elif kind == "value_error":
        message, hint = _against_a_rule(loc, value, str(first["ctx"]["error"])), ""
    else:
        message, hint = f"{key} = {as_toml(value)}: give {_wanted(loc)}", _described(loc)
    return SpecError(f"{where}: {message}", hint)


def _unknown(loc: Loc, value: Any) -> tuple[str, str]:
    """The nearest key of the same table, or the table that does have the key."""
    name, tables = str(loc[-1]), _tables_at(loc[:-1])
    known = [key for table in tables for key in table.model_fields]
    known += ["preset"] if tables == [ModelSpec] else []
    what = (
        f"unknown table [{_dotted(loc)}]"
        if isinstance(value, dict)
        else f"unknown key {_dotted(loc)} = {as_toml(value)}"
    )
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        described = _described((*loc[:-1], near[0]))
        return f"{what}: did you mean {f'[{near[0]}]' if isinstance(value, dict) else near[0]}?", described
    homes = [table for table, field in Spec.model_fields.items() if name in _keys_in(field.annotation)]
    if homes:
        return f"{what}: {name} is a key of [{homes[0]}]", _described((homes[0], name))
    owner = f"[{_dotted(loc[:-1])}]" if loc[:-1] else "the spec"
    return f"{what}: remove it, or use a key of {owner}", f"the keys of {owner} are {', '.join(known)}"


def _no_kind(loc: Loc, source: dict[str, Any]) -> tuple[str, str]:
    """A source of data whose kind is wrong, misspelt or missing."""
    kinds = [kind for table in _tables_at(loc) for kind in _kinds(table)]
    offer, key = " or ".join(map(as_toml, kinds)), _dotted(loc)
    if "kind" in source:
        near = difflib.get_close_matches(str(source["kind"]), kinds, n=1, cutoff=0.6)
        hint = f"did you mean {as_toml(near[0])}?" if near else ""
        return f"{key}.kind = {as_toml(source['kind'])}: give {offer}", hint
    near = difflib.get_close_matches("kind", source, n=1, cutoff=0.6)
    if near:
        return f"unknown key {key}.{near[0]} = {as_toml(source[near[0]])}: did you mean kind?", ""
    return f"{key}.kind is missing: give {offer}", "what sort of source it is"


def _against_a_rule(loc: Loc, value: Any, rule: str) -> str:
    """A rule of ours: of one key (said with its value), of a table (begins with its key) or of the spec."""
    if not loc:
        return rule
    if _tables_at(loc):
        return f"{_dotted(loc)}.{rule}"
    said = rule.removeprefix(repr(value))
    return f"{_dotted(loc)} = {as_toml(value)}{said if said != rule else f': {rule}'}"


def _path(loc: Loc) -> list[str]:
    """The keys of a place, without the kind that pydantic puts after the number of a source."""
    return [
        str(part)
        for at, part in enumerate(loc)
        if at == 0 or isinstance(part, int) or isinstance(loc[at - 1], str)
    ]


def _dotted(loc: Loc) -> str:
    """As `--set` writes it: data.sources.0.path."""
    return ".".join(_path(loc))


def _described(loc: Loc) -> str:
    field = _field_at(loc)
    return f"{loc[-1]}: {field.description}" if field and field.description else ""


def _wanted(loc: Loc) -> str:
    field = _field_at(loc)
    if len(loc) == 1 and _tables_at(loc):
        return f"the table [{loc[0]}]"
    return wanted(field) if field else "a table"


def _field_at(loc: Loc) -> FieldInfo | None:
    return next(
        (t.model_fields[str(loc[-1])] for t in _tables_at(loc[:-1]) if loc[-1] in t.model_fields), None
    )


def _tables_at(loc: Loc) -> list[type[BaseModel]]:
    """The table that a place is, through optional tables and lists; several where its kind is not known."""
    here: list[type[BaseModel]] = [Spec]
    named = False  # tables by names of the user's: this part is one
    for at, part in enumerate(loc):
        if isinstance(part, int) or named:
            named = False
            continue
        if at and isinstance(loc[at - 1], int):
            here = [table for table in here if part in _kinds(table)]
        else:
            found = [t.model_fields[part].annotation for t in here if part in t.model_fields]
            named = any(typing.get_origin(each) is dict for each in found)
            here = [table for each in found for table in _tables_in(each)]
    return here


def _kinds(table: type[BaseModel]) -> tuple[str, ...]:
    return typing.get_args(table.model_fields["kind"].annotation)


def _keys_in(annotation: Any) -> set[str]:
    return {key for table in _tables_in(annotation) for key in table.model_fields}


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for inner in typing.get_args(annotation) for table in _tables_in(inner)]
