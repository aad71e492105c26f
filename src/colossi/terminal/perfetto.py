"""
A trace as a file for Perfetto (https://ui.perfetto.dev) or Chrome: a process for each rank, with a track of
what it computes, one of what it exchanges, and its memory.

How long something takes its caller knows (durations.py has the planner's answer). Everything stands in the
order in which it was begun, nothing beside anything else: what would overlap in a true run is not known here.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colossi.files import write_whole
from colossi.train.account import Event, Op, Trace

COMPUTE, COMMUNICATION = 0, 1  # numbers of the tracks


def save(traces: list[Trace], path: Path, seconds: Callable[[Event], float]) -> None:
    """Write the file in Chrome's trace event format, that Perfetto reads too."""
    events = [entry for trace in traces for entry in _entries(trace, seconds)]
    write_whole(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))


def _entries(trace: Trace, seconds: Callable[[Event], float]) -> Iterator[dict[str, Any]]:
    where = {"pid": trace.rank, "ph": "M"}
    yield where | {"name": "process_name", "args": {"name": f"rank {trace.rank}"}}
    for track, name in ((COMPUTE, "compute"), (COMMUNICATION, "communication")):
        yield where | {"name": "thread_name", "tid": track, "args": {"name": name}}
    now = 0.0  # [µs], the format's unit
    for event in trace.events:
        lasts = seconds(event) * 1e6
        yield {"ph": "X", "pid": trace.rank, "ts": now, "dur": lasts} | _bar(event)
        now += lasts
        yield {"ph": "C", "pid": trace.rank, "ts": now, "name": "memory", "args": {"bytes": event.live}}


def _bar(event: Event) -> dict[str, Any]:
    if isinstance(event, Op):
        numbers = {"flops": event.flops, "read_bytes": event.read, "written_bytes": event.written}
        return {"tid": COMPUTE, "name": event.name, "cat": event.kind, "args": numbers}
    numbers = {"bytes": event.nbytes, "ranks": event.ranks}
    return {"tid": COMMUNICATION, "name": f"{event.kind} {event.axis}", "cat": event.axis, "args": numbers}
