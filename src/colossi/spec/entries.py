"""What the catalogue has of a kind (`gpus`, `nodes`, `failures`): its names, and one entry as a document."""

import difflib
import tomllib
from importlib import resources
from typing import Any

from colossi.errors import SpecError
from colossi.spec.words import as_toml


def entry_names(kind: str) -> list[str]:
    """Names of the entries of a kind, in order."""
    folder = resources.files("colossi.spec") / "catalogue" / kind
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())


def read_entry(kind: str, name: str, called: str) -> dict[str, Any]:
    """The document of one entry. SpecError with the nearest names if there is none; `called` is its noun."""
    names = entry_names(kind)
    if name not in names:
        raise SpecError(
            f"{called} {as_toml(name)} is not in the catalogue: use {' or '.join(_nearest(name, names))}",
            f"the catalogue has {', '.join(names)}",
        )
    text = (resources.files("colossi.spec") / "catalogue" / kind / f"{name}.toml").read_text()
    return tomllib.loads(text)


def _nearest(name: str, names: list[str]) -> list[str]:
    """Up to three names like `name`, whatever their case: "h100" is meant for H100-SXM or H100-PCIe."""
    lower = {each.lower(): each for each in names}
    begins = [each for key, each in lower.items() if key.startswith(name.lower())] if name else []
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    return (begins or [lower[key] for key in near] or names)[:3]
