"""What is made of a trace: facts, tables, and a file for Perfetto."""

import json
from pathlib import Path

from rich.console import Console

from colossi.spec import Spec
from colossi.terminal.perfetto import save
from colossi.terminal.step import describe, render
from colossi.train.account import Collective, Event, Op, Trace

MODEL = {"layers": 1, "hidden": 8, "heads": 2, "kv_heads": 1, "ffn_hidden": 8, "vocabulary": 16}
SPEC = Spec.model_validate({"name": "two", "model": MODEL, "cluster": {"workers_per_node": 2}})
EVENTS: list[Event] = [
    Op("aten::mm", "matrices", 600, 40, 20, 1000),
    Collective("all_reduce", "replicate", 2, 64, 1100),
    Op("aten::add", "other", 0, 16, 8, 900),
    Collective("all_reduce", "replicate", 2, 36, 900),
    Op("aten::mm", "matrices", 400, 10, 5, 800),
]
PLACE = {"replicate": 1, "pipeline": 0, "shard": 0, "context": 0, "expert": 0, "tensor": 0}
TRACE = Trace(1, PLACE, EVENTS, {"weights": 300, "activations": 800})


def test_facts_add_up() -> None:
    facts = describe(SPEC, [TRACE])
    assert (facts["name"], facts["ranks"], facts["layout"]["replicate"]) == ("two", 2, 2)
    (trace,) = facts["traces"]
    assert trace["flops"] == 1000
    assert trace["operations"]["matrices"] == {
        "count": 2,
        "flops": 1000,
        "read_bytes": 50,
        "written_bytes": 25,
    }
    assert trace["operations"]["attention"]["count"] == 0
    (sums,) = trace["collectives"]
    assert sums == {"kind": "all_reduce", "axis": "replicate", "ranks": 2, "count": 2, "bytes": 100}
    assert trace["memory_bytes"] == {
        "weights": 300,
        "gradients": 0,
        "optimizer": 0,
        "activations": 800,
        "buffers": 0,
        "peak": 1100,
    }
    assert json.loads(json.dumps(facts)) == facts


def test_tables_name_the_rank_by_the_axes_that_there_are() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(render(describe(SPEC, [TRACE])))
    text = shown.get()
    assert text.startswith("rank 1 of 2: replicate 1\n")
    assert "all_reduce" in text and "1.00K" in text and "1.10 kB" in text


def test_perfetto_has_two_tracks_and_the_memory(tmp_path: Path) -> None:
    save([TRACE], tmp_path / "step.json", seconds=lambda event: 2e-6)
    events = json.loads((tmp_path / "step.json").read_text())["traceEvents"]
    bars = [event for event in events if event["ph"] == "X"]
    assert [(bar["name"], bar["tid"], bar["ts"], bar["dur"]) for bar in bars] == [
        ("aten::mm", 0, 0.0, 2.0),
        ("all_reduce replicate", 1, 2.0, 2.0),
        ("aten::add", 0, 4.0, 2.0),
        ("all_reduce replicate", 1, 6.0, 2.0),
        ("aten::mm", 0, 8.0, 2.0),
    ]
    assert [event["args"]["bytes"] for event in events if event["ph"] == "C"] == [1000, 1100, 900, 900, 800]
    assert {event["pid"] for event in events} == {1}
