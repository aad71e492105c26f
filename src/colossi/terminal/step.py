"""What `colossi trace` says of a step: FLOPs, collectives and memory of each rank that was traced."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.spec import Spec
from colossi.spec.layout import AXES
from colossi.terminal.numerals import count, size
from colossi.train.account import PARTS, Trace, by_axis, by_kind


def describe(spec: Spec, traces: list[Trace]) -> dict[str, Any]:
    """The facts by name, in base units."""
    layout = {axis: getattr(spec.layout, axis) for axis in AXES}
    described = [_describe(trace) for trace in traces]
    return {"name": spec.name, "ranks": spec.cluster.workers, "layout": layout, "traces": described}


def _describe(trace: Trace) -> dict[str, Any]:
    kinds = by_kind(trace.ops)
    return {
        "rank": trace.rank,
        "coordinates": trace.coordinates,
        "flops": sum(total.flops for total in kinds.values()),
        "operations": {
            kind: {"count": t.count, "flops": t.flops, "read_bytes": t.read, "written_bytes": t.written}
            for kind, t in kinds.items()
        },
        "collectives": [
            {"kind": e.kind, "axis": e.axis, "ranks": e.ranks, "count": e.count, "bytes": e.nbytes}
            for e in by_axis(trace.collectives)
        ],
        "memory_bytes": {part: trace.memory.get(part, 0) for part in PARTS}
        | {"peak": sum(trace.memory.values())},
    }


def render(facts: dict[str, Any]) -> RenderableType:
    """The same as tables for people."""
    shown: list[RenderableType] = []
    for trace in facts["traces"]:
        axes = [f"{axis} {at}" for axis, at in trace["coordinates"].items() if facts["layout"][axis] > 1]
        title = f"rank {trace['rank']:,} of {facts['ranks']:,}" + (f": {', '.join(axes)}" if axes else "")
        shown += [Text()] * bool(shown) + [Text(title, style="bold"), _operations(trace)]
        shown += [_collectives(trace)] if trace["collectives"] else []
        shown += [_memory(trace)]
    return Group(*shown)


def _operations(trace: dict[str, Any]) -> Table:
    table = _table("operations", "number", "FLOPs", "read", "written")
    for kind, each in trace["operations"].items():
        table.add_row(
            f"  {kind}",
            f"{each['count']:,}",
            count(each["flops"]),
            size(each["read_bytes"]),
            size(each["written_bytes"]),
        )
    return table


def _collectives(trace: dict[str, Any]) -> Table:
    table = _table("collectives", "number", "bytes", "ranks")
    table.add_column("axis")
    for each in trace["collectives"]:
        table.add_row(
            f"  {each['kind']}",
            f"{each['count']:,}",
            size(each["bytes"]),
            f"{each['ranks']:,}",
            each["axis"],
        )
    return table


def _memory(trace: dict[str, Any]) -> Table:
    table = _table("memory at its peak", "bytes", "share")
    peak = trace["memory_bytes"]["peak"]
    for part, nbytes in trace["memory_bytes"].items():
        table.add_row(f"  {part}", size(nbytes), f"{nbytes / peak:.0%}")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, min_width=20)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
