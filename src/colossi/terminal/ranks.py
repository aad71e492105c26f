"""`colossi info --ranks`: which worker holds what, as a table for people and as JSON."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.spec import Spec
from colossi.spec.layout import AXES
from colossi.spec.ranks import Share, shares
from colossi.terminal.numerals import count

ROWS = 64  # that anyone would read
COLUMNS = {  # and the axis that a column is about: without it, it is the same for all
    "rank": "",
    "node": "",
    "place": "",
    "blocks": "",
    "sequences": "",
    "positions": "context",
    "experts": "expert",
    "heads": "tensor",
    "weights": "",
}


def as_json(spec: Spec) -> list[dict[str, Any]]:
    """Every rank: its node, its coordinates and its share."""
    return [
        {
            "rank": share.rank,
            "node": share.node,
            **share.coordinates,
            "stages": share.stages,
            "blocks": share.blocks,
            "embedding": share.embedding,
            "output": share.output,
            "sequences": list(share.sequences) if share.sequences is not None else [],
            "positions": [[span.start, span.stop - 1] for span in share.positions],
            "experts": list(share.experts),
            "heads": list(share.heads),
            "parameters": share.parameters,
        }
        for share in shares(spec)
    ]


def draw(spec: Spec) -> RenderableType:
    """One line for each rank of the first copy of the model; of columns those that differ."""
    layout, whole = spec.layout, spec.layout.copy_ranks
    assert layout.replicate is not None
    table = Table(box=None, pad_edge=False, header_style="dim")
    wide = [axis for axis in AXES if getattr(layout, axis) > 1]
    columns = {column: axis for column, axis in COLUMNS.items() if not axis or axis in wide}
    for column in columns:
        table.add_column(column, justify="right" if column in ("rank", "node", "weights") else "left")
    for share in islice(shares(spec), min(whole, ROWS)):
        row = _row(share, wide)
        table.add_row(*(row[column] for column in columns))
    lines: list[RenderableType] = [Text(f"\nlayout: {_axes(spec)}"), table]
    if whole > ROWS:
        lines.append(Text(f"and {whole - ROWS:,} more workers in this copy of the model", style="dim"))
    if layout.replicate > 1:
        last, more = whole * layout.replicate - 1, layout.replicate - 1
        times = f"{more:,} times" if more > 1 else "once"
        line = f"ranks {whole:,} to {last:,}: the same {times} more, on other sequences"
        lines.append(Text(line, style="dim"))
    return Group(*lines)


def _axes(spec: Spec) -> str:
    sizes = [f"{axis} {getattr(spec.layout, axis)}" for axis in AXES if getattr(spec.layout, axis) > 1]
    return " x ".join(sizes) or "one worker"


def _row(share: Share, wide: list[str]) -> dict[str, str]:
    ends = ["embedding"] * share.embedding, ["output"] * share.output
    return {
        "rank": str(share.rank),
        "node": str(share.node),
        "place": ".".join(str(share.coordinates[axis]) for axis in wide),
        "blocks": ", ".join([*ends[0], _runs(share.blocks), *ends[1]]),
        "sequences": _span(share.sequences) if share.sequences is not None else "",
        "positions": " ".join(_span(span) for span in share.positions),
        "experts": _span(share.experts),
        "heads": _span(share.heads),
        "weights": count(share.parameters),
    }


def _runs(numbers: Iterable[int]) -> str:
    """0 1 2 5 6 as "0-2 5-6"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(_span(range(first, last + 1)) for first, last in runs)


def _span(numbers: range) -> str:
    return f"{numbers.start}-{numbers.stop - 1}" if len(numbers) > 1 else str(numbers.start)
