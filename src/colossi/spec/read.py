"""
From a file to a Spec: TOML, presets, `--set` overrides, and errors in one line.

The door between documents and the program. It names the file, the key, the value and the nearest right key.
"""

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from colossi.errors import SpecError
from colossi.spec.explain import explain
from colossi.spec.spec import Spec
from colossi.spec.trainable import check_trainable
from colossi.spec.words import as_toml


def read_spec(path: Path, overrides: list[str] | None = None, needs: tuple[str, ...] = ()) -> Spec:
    """Read `path`, apply `table.key=value` overrides in order, fill in the preset and check everything.

    `needs` are the tables that the command cannot do without: [model] too, unless it only builds a [site]
    or looks at a [cluster].
    """
    document = read_toml(path)
    for override in overrides or []:
        apply_override(document, override)
    said = "".join(f" --set {override}" for override in overrides or [])
    spec = build_spec(document, f"{path}, with{said}" if said else str(path))
    for table in needs if {"site", "cluster"} & {*needs} else ("model", *needs):
        if getattr(spec, table) is None:
            raise SpecError(f"{path}: table [{table}] is missing", f"add it: see [{table}] in docs/spec.md")
    if "data" in needs:
        try:
            check_trainable(spec)
        except ValueError as error:
            raise SpecError(f"{path}, with{said}: {error}" if said else f"{path}: {error}") from None
    return spec


def build_spec(document: dict[str, Any], where: str) -> Spec:
    """Check a document and make it a Spec; `where` names it in errors."""
    try:
        return Spec.model_validate(fill_preset(document, where))
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
    except IsADirectoryError:
        raise SpecError(f"{path}: is a folder", "give the path of a TOML file") from None
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
    value, table = _value(text), document
    for name in path[:-1]:
        table = _descend(table, name, override)
    if isinstance(table, list):
        table[_index(table, path[-1], override)] = value
    else:
        table[path[-1]] = value


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    return read["value"] if read.keys() == {"value"} else text.strip()


def _descend(table: Any, name: str, override: str) -> Any:
    if isinstance(table, list):
        return table[_index(table, name, override)]
    inner = table.setdefault(name, {})
    if not isinstance(inner, dict | list):
        raise SpecError(
            f"--set {override}: {name} = {as_toml(inner)} is a value, not a table", "name a key of a table"
        )
    return inner


def _index(table: list[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) >= len(table):
        places = f"give a number from 0 to {len(table) - 1}" if table else "add to it in the file"
        raise SpecError(f"--set {override}: {name!r} is no place in a list of {len(table)}", places)
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
        near = difflib.get_close_matches(str(name), names, n=len(names), cutoff=0.5) or names
        raise SpecError(
            f"{where}: model.preset = {as_toml(name)} is not in the catalogue: use {' or '.join(near)}",
            f"the catalogue has {', '.join(names)}",
        )
    text = (resources.files("colossi.spec") / "catalogue" / "models" / f"{name}.toml").read_text()
    own = {key: value for key, value in model.items() if key != "preset"}
    return {"name": name, **document, "model": tomllib.loads(text)["model"] | own}
