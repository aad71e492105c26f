"""How long the events of a trace are said to take, beside the planner's step of the same spec."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from colossi.plan.kernels import moved
from colossi.plan.step import step
from colossi.plan.translate import case_of, fitted_of
from colossi.spec import Spec, build_spec
from colossi.terminal.durations import durations, on_a_machine
from colossi.train.account import Collective, Op
from colossi.train.trace import trace_rank

from .ranks import spec_of

SIZES = {"layers": 4, "hidden": 2048, "heads": 16, "kv_heads": 4, "head_dim": 128, "ffn_hidden": 8192}
DENSE = SIZES | {"vocabulary": 1024, "max_positions": 2048, "experts": 1, "experts_per_token": 1}
MIXTURE = DENSE | {"ffn_hidden": 4096, "experts": 8, "experts_per_token": 2}
KERNELS = ("matrices", "experts", "attention")
BESIDE = ("host_layer", "host_experts", "host_step", "unfused_passes", "router_passes", "loss_passes")
LARGE = 2**20  # [B] the small exchanges of losses, counts and norms are in no formula of the planner

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "one GPU": (DENSE, {}, ""),
    "recomputed": (DENSE, {"recompute": "full"}, ""),
    "tensor": (DENSE, {"tensor": 2}, "tensor"),
    "context": (DENSE, {"context": 2}, "context"),
    "pipeline": (DENSE, {"pipeline": 2}, "pipeline"),
    "shard": (DENSE, {"shard": 2}, "shard"),
    "experts": (MIXTURE, {"expert": 2}, "expert"),
}


def on_h100s(model: dict[str, Any], layout: dict[str, Any]) -> Spec:
    gpus = 2 if set(layout) - {"recompute"} else 1
    return build_spec(
        {
            "name": "run",
            "model": model,
            "training": {"sequence_length": 2048, "global_batch": 8, "steps": 10, "precision": "bf16"},
            "layout": {"micro_batch": 4, "overlap": [], **layout},
            "cluster": {"gpu": "H100-SXM", "gpus": gpus},
        },
        "run",
    )


@pytest.mark.parametrize(("model", "layout", "axis"), CASES.values(), ids=CASES.keys())
def test_lanes_add_up_to_the_parts_of_the_planners_step(
    model: dict[str, Any], layout: dict[str, Any], axis: str
) -> None:
    """Products, the optimizer, what travels; the planner without what hosts launch and what it fuses."""
    spec = on_h100s(model, layout)
    fitted = fitted_of(spec)
    case = case_of(spec, fitted)
    case = replace(case, training=replace(case.training, fused_elementwise=0))
    found = step(case, replace(fitted.efficiency, **dict.fromkeys(BESIDE, 0.0)))
    lanes: Counter[str] = Counter()
    seconds = durations(spec)
    # The output is on the last rank of a pipeline, which the planner's compute is of.
    for event in trace_rank(spec, spec.cluster.workers - 1 if axis == "pipeline" else 0).events:
        if isinstance(event, Op):
            lanes[event.kind] += seconds(event)
        elif event.nbytes > LARGE:
            lanes[event.kind, event.axis] += seconds(event)
    # A rank sends what it receives, at the same time.
    travels = sum(n for kind, n in lanes.items() if kind[1:] == (axis,))
    assert sum(lanes[kind] for kind in KERNELS) == pytest.approx(found.compute + found.recompute, rel=0.06)
    assert lanes["optimizer"] == pytest.approx(found.optimizer, rel=0.1)
    parts = {
        "tensor": found.tensor,
        "context": found.context + found.data,  # weights are sharded over these ranks too
        "pipeline": found.pipeline,
        "shard": found.data,
        "expert": found.expert + found.data,
    }
    # The trainer's stages hand on float32 where the planner has bfloat16; all else travels as planned.
    assert travels == pytest.approx(parts.get(axis, 0.0), rel=0.4 if axis == "pipeline" else 0.15)


def test_what_is_no_product_takes_as_long_as_its_bytes() -> None:
    spec = on_h100s(DENSE, {})
    fitted = fitted_of(spec)
    taken = durations(spec)(Op("aten::add", "other", 0, 2 * 10**9, 10**9, 0))
    assert taken == pytest.approx(3e9 / (3.35e12 * fitted.efficiency.memory_share))
    assert taken == moved(3e9, case_of(spec, fitted).machine, fitted.efficiency)


def test_a_domain_of_nvlink_ends_at_eight() -> None:
    layout = {"replicate": 2, "shard": 2, "tensor": 8}
    cluster = {"gpu": "H100-SXM", "gpus": 32}
    alone = on_h100s(DENSE | {"kv_heads": 8}, {}).model_dump(exclude_unset=True)
    spec = build_spec(alone | {"layout": layout, "cluster": cluster}, "run")
    seconds = durations(spec)
    near = seconds(Collective("all_gather", "tensor", 8, 8 * 10**9, 0))
    far = seconds(Collective("all_gather", "shard", 2, 8 * 10**9, 0))
    assert near == pytest.approx(7 / 8 * 8e9 / 450e9, rel=0.1)
    assert far == pytest.approx(1 / 2 * 8e9 / 50e9, rel=0.1)


def test_a_spec_without_machines_is_taken_on_h100s() -> None:
    spec = spec_of({"shard": 2}, 2)
    assert on_a_machine(spec).cluster.gpu == "H100-SXM"
    assert all(durations(spec)(event) >= 0 for event in trace_rank(spec, 0).events)
