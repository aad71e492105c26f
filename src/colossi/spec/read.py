"""
From a file to a Spec: TOML, presets, `--set` overrides, and errors in one line.

The door between documents and the program. It names the file, the key, the value and the nearest right key.
"""

import difflib
import tomllib
import typing
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from colossi.errors import SpecError
from colossi.spec.spec import Spec


def read_spec(path: Path, overrides: list[str] | None = None) -> Spec:
    """Read `path`, apply `table.key=value` overrides in order, fill in the preset and check everything."""
    document = read_toml(path)
    for override in overrides or []:
        apply_override(document, override)
    return build_spec(document, str(path))


def build_spec(document: dict[str, Any], where: str) -> Spec:
    """Check a document and make it a Spec; `where` names it in errors."""
    try:
        return Spec.model_validate(fill_preset(document, where), strict=False)
    except ValidationError as error:
        raise explain(error, where) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The document as it stands."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        hint = f"in that folder: {', '.join(beside)}" if beside else "give the path of a TOML file"
        raise SpecError(f"{path}: no such file", hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as text ({error})", "give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: not valid TOML: {error}", "see https://toml.io for the format") from None


def apply_override(document: dict[str, Any], override: str) -> None:
    """`training.steps=200`; the value is read as TOML, and as a string where that fails."""
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise SpecError(f"--set {override}: not of the form table.key=value", "--set training.steps=200")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table: Any = document
    for name in path[:-1]:
        table = _descend(table, name, override)
    if isinstance(table, list):
        table[_index(table, path[-1], override)] = value
    else:
        table[path[-1]] = value


def _descend(table: Any, name: str, override: str) -> Any:
    if isinstance(table, list):
        return table[_index(table, name, override)]
    inner = table.setdefault(name, {})
    if not isinstance(inner, dict | list):
        raise SpecError(f"--set {override}: {name} = {inner!r} is a value, not a table", "name a key of a table")
    return inner


def _index(table: list[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) >= len(table):
        raise SpecError(
            f"--set {override}: {name!r} is no place in a list of {len(table)}",
            f"give a number from 0 to {len(table) - 1}",
        )
    return int(name)


def preset_names() -> list[str]:
    """Models in the catalogue."""
    folder = resources.files("colossi.spec") / "catalogue" / "models"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())


def fill_preset(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Replace `model.preset` by the keys that it stands for; keys given beside it win."""
    model = document.get("model")
    if not isinstance(model, dict) or "preset" not in model:
        return document
    name, names = model["preset"], preset_names()
    if name not in names:
        raise SpecError(
            f"{where}: model.preset = {name!r} is not in the catalogue", f"use one of {', '.join(names)}"
        )
    text = (resources.files("colossi.spec") / "catalogue" / "models" / f"{name}.toml").read_text()
    own = {key: value for key, value in model.items() if key != "preset"}
    return {"name": name, **document, "model": tomllib.loads(text)["model"] | own}


def explain(error: ValidationError, where: str) -> SpecError:
    """The first thing that pydantic found, in one line with the key, the value and the fix."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(part for part in path if part not in SOURCE_KINDS) or "spec"
    kind, value = first["type"], first.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
        return SpecError(f"{where}: unknown key {key} = {_short(value)}", hint)
    if kind == "missing":
        return SpecError(f"{where}: {key} is missing", f"add it: {_wanted(path)}")
    if kind == "value_error":
        message = str(first["ctx"]["error"])
        said, _, fix = message.rpartition(": ")
        if len(path) > 1 and not isinstance(value, dict | BaseModel):
            said = f"{key} = {_short(value)}: {said}" if said else f"{key} = {_short(value)}"
        elif path:
            said = f"[{key}] {said}"
        return SpecError(f"{where}: {said or message}", fix)
    return SpecError(f"{where}: {key} = {_short(value)}: {first['msg'].lower()}", _wanted(path))


SOURCE_KINDS = {"files", "python-stdlib", "reasoning", "huggingface"}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _wanted(path: list[str]) -> str:
    """What the key is, from its description."""
    table = _table_at(path[:-1])
    field = table.model_fields.get(path[-1]) if table else None
    return f"{path[-1]}: {field.description}" if field and field.description else f"see docs/spec.md on {path[-1]}"


def _known_keys(path: list[str]) -> list[str]:
    table = _table_at(path)
    return [*table.model_fields, *(["preset"] if path == ["model"] else [])] if table else []


def _table_at(path: list[str]) -> type[BaseModel] | None:
    """The table that the keys of `path` lead to, through optional tables, lists and unions of sources."""
    here: Any = Spec
    for part in path:
        if part.isdecimal():
            continue
        tables = _tables_in(here.model_fields[part].annotation) if _is_field(here, part) else _with_kind(tables, part)
        if not tables:
            return None
        here = tables[0]
    return here  # type: ignore[no-any-return]


def _is_field(table: type[BaseModel], name: str) -> bool:
    return name in table.model_fields


def _with_kind(tables: list[type[BaseModel]], kind: str) -> list[type[BaseModel]]:
    return [t for t in tables if "kind" in t.model_fields and kind in typing.get_args(t.model_fields["kind"].annotation)]


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for inner in typing.get_args(annotation) for table in _tables_in(inner)]
