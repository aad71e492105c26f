"""The planner's exact account of our own step, beside the trace of that step: number for number."""

import itertools
from collections import Counter
from typing import Any

import pytest

from colossi.plan.program import program_of
from colossi.spec.layout import AXES

from .ranks import spec_of
from .test_layouts import name, size
from .test_trace import DENSE, GROK_2, flops, traced

ALONE: list[dict[str, Any]] = [
    {},
    {"micro_batch": 2},
    {"recompute": "full"},
    {"context": 4},
    {"context": 4, "context_method": "ring"},
    {"context": 2, "context_method": "ring", "recompute": "full"},
    {"pipeline": 2, "interleave": 2, "micro_batch": 1},
    {"pipeline": 2, "shard": 2, "micro_batch": 1, "schedule": "zero-bubble-v", "interleave": 2},
    {"pipeline": 2, "expert": 2, "micro_batch": 1, "schedule": "zero-bubble"},
    {"shard": 2, "micro_batch": 2, "recompute": "full"},
]
PAIRS = [{a: 2, b: 2, "micro_batch": 1} for a, b in itertools.combinations(AXES, 2)]
TRIPLES = [{a: 2, b: 2, c: 2, "micro_batch": 1} for a, b, c in itertools.combinations(AXES, 3)]
BATCH = {"global_batch": 24}  # enough micro-batches for every schedule


def check(layout: dict[str, Any], model: dict[str, Any] | None = None) -> None:
    spec = spec_of(layout, size(layout), BATCH, model)
    for rank in sorted({0, size(layout) - 1}):
        trace, program = traced(layout, BATCH, model, rank), program_of(spec, rank)
        moved: Counter[str] = Counter()
        for each in trace.collectives:
            moved[each.kind] += each.nbytes
        assert flops(trace) == program.flops
        assert dict(moved) == program.moved
        assert trace.memory["weights"] == program.weights
        assert (
            0 <= trace.memory["optimizer"] - program.optimizer < 8 * 60
        )  # and a count of steps for each weight


@pytest.mark.parametrize("layout", ALONE + PAIRS, ids=name)
def test_one_axis_and_every_two(layout: dict[str, Any]) -> None:
    check(layout)


@pytest.mark.parametrize(
    "layout",
    [pytest.param(x, id=name(x), marks=[] if i % 5 == 0 else pytest.mark.all) for i, x in enumerate(TRIPLES)],
)
def test_every_three(layout: dict[str, Any]) -> None:
    check(layout)


@pytest.mark.parametrize("model", [DENSE, GROK_2], ids=["dense", "Grok-2"])
@pytest.mark.parametrize(
    "layout", [{}, {"shard": 2, "tensor": 2}, {"pipeline": 2, "micro_batch": 1}], ids=name
)
def test_other_models(layout: dict[str, Any], model: dict[str, Any]) -> None:
    check(layout, model)
