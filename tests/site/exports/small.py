"""Designs that the tests of all formats share, and how they are read back."""

import csv
import io
from functools import cache
from pathlib import Path

from colossi.site.cluster import design
from colossi.site.design import Design
from colossi.site.naming import Names
from colossi.spec import read_spec

EXAMPLES = Path(__file__).parents[3] / "examples"


@cache
def small() -> Design:
    """512 GPUs in 64 nodes, two pods, one hall: 1,234 cables."""
    return design(read_spec(EXAMPLES / "site.toml", [], needs=("site",)))


@cache
def large(gpus: int = 200_000) -> Design:
    """25,000 nodes in four halls."""
    return design(read_spec(EXAMPLES / "colossus.toml", [f"cluster.gpus={gpus}"], needs=("site",)))


@cache
def names() -> Names:
    """Of the small one."""
    return Names(small())


def rows(text: str) -> list[dict[str, str]]:
    """A CSV's rows by column."""
    return list(csv.DictReader(io.StringIO(text)))
