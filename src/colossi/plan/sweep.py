"""The forecasts of a spec with one or two of its keys at several values each."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from colossi.errors import BadInput, SpecError
from colossi.plan.forecast import Forecast, forecast
from colossi.spec import read_spec


@dataclass(frozen=True, slots=True)
class Row:
    """One combination: the values as written, and its forecast or why there is none."""

    values: tuple[str, ...]
    forecast: Forecast | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sweep:
    """All combinations, the last key fastest."""

    keys: tuple[str, ...]
    rows: list[Row]

    def as_json(self) -> list[dict[str, Any]]:
        return [
            dict(zip(self.keys, row.values, strict=True))
            | (row.forecast.as_json() if row.forecast else {"error": row.why})
            for row in self.rows
        ]


def sweep_of(files: list[Path], overrides: list[str], axes: list[str]) -> Sweep:
    """Of one spec; BadInput if the axes are not one or two keys with values."""
    if len(files) != 1 or len(axes) > 2:
        raise BadInput("--sweep takes one spec and at most two keys", "call it once for each spec")
    keys, values = [], []
    for axis in axes:
        key, listed = axis_of(axis, "--sweep", "--sweep cluster.gpus=1024,2048")
        keys.append(key)
        values.append(listed)
    return Sweep(tuple(keys), [_row(files[0], overrides, keys, each) for each in product(*values)])


def axis_of(said: str, option: str, example: str) -> tuple[str, list[str]]:
    """ "table.key=a,b,c" as the key and its values."""
    key, equals, listed = said.partition("=")
    values = [part.strip() for part in listed.split(",")]
    if not equals or "." not in key or not all(values):
        raise BadInput(f"{option} {said}: not of the form table.key=a,b,c", example)
    return key.strip(), values


def _row(file: Path, overrides: list[str], keys: list[str], values: tuple[str, ...]) -> Row:
    changes = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
    try:
        return Row(values, forecast(read_spec(file, [*overrides, *changes], needs=("training",))))
    except SpecError as error:
        return Row(values, None, error.message.partition(": ")[2] or error.message)
