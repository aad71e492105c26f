"""The forecast's activations on CPU cores, beside what the trainer's real step holds there at its peak."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from colossi.plan.case import Case, Machine
from colossi.plan.memory import memory
from colossi.plan.translate import layout_of, model_of, training_of
from colossi.spec import Spec, build_spec
from colossi.train.trace import trace_rank

CORES = Machine(
    gpus=1,
    peak=1e11,
    peak_16=1e11,
    memory=1e10,
    memory_rate=1e10,
    domain=64,
    link=1e9,
    nic=1e9,
    product_share=1.0,
    attention_share=1.0,
    tiles=1,
    own_host=1,
)
SIZES = {"layers": 4, "hidden": 256, "heads": 8, "kv_heads": 4, "head_dim": 32, "ffn_hidden": 1024}
DENSE = SIZES | {"vocabulary": 1024, "max_positions": 4096, "experts": 1, "experts_per_token": 1}
MIXTURE = DENSE | {"ffn_hidden": 512, "experts": 8, "experts_per_token": 2}
GROK_2 = MIXTURE | {"shared_expert_ffn": 1024}
WORDY = DENSE | {"vocabulary": 32768, "layers": 2}
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"recompute": "full"},
    {"tensor": 2},
    {"tensor": 4, "recompute": "full"},
    {"context": 2},
    {"context": 4},
    {"context": 2, "recompute": "full"},
    {"pipeline": 2, "micro_batch": 1},
    {"pipeline": 4, "micro_batch": 1},
    {"pipeline": 2, "interleave": 2, "micro_batch": 1},
    {"pipeline": 2, "recompute": "full", "micro_batch": 1},
    {"shard": 2},
    {"shard": 2, "tensor": 2, "pipeline": 2, "micro_batch": 1},
]
MODELS = {"dense": DENSE, "mixture": MIXTURE, "Grok-2": GROK_2, "wordy": WORDY}
CASES = [("dense", x) for x in LAYOUTS]
CASES += [("mixture", x) for x in [*LAYOUTS, {"expert": 2}, {"expert": 4, "recompute": "full"}]]
CASES += [("Grok-2", x) for x in LAYOUTS[:3]] + [("wordy", x) for x in LAYOUTS[:3]]


def run(model: dict[str, Any], layout: dict[str, Any], precision: str) -> Spec:
    ranks = int(np.prod([layout.get(x, 1) for x in ("tensor", "context", "pipeline", "shard", "expert")]))
    return build_spec(
        {
            "name": "run",
            "model": model,
            "training": {"sequence_length": 1024, "global_batch": 16, "steps": 10, "precision": precision},
            "layout": {"micro_batch": 4} | layout,
            "cluster": {"workers_per_node": ranks},
        },
        "run",
    )


def forecast(spec: Spec) -> float:
    assert spec.training is not None
    machine = replace(CORES, gpus=spec.cluster.workers)
    model, training = model_of(spec.model, spec.training), training_of(spec.training, measured=True)
    return float(memory(Case(model, machine, layout_of(spec), training)).activations)


IN_BF16 = [("dense", {}), ("dense", {"tensor": 2}), ("dense", {"shard": 2}), ("wordy", {"tensor": 2})]


def error(model: str, layout: dict[str, Any], precision: str) -> float:
    spec = run(MODELS[model], layout, precision)
    return forecast(spec) / trace_rank(spec, 0).memory["activations"] - 1


@pytest.mark.parametrize(("model", "layout"), CASES, ids=[f"{m} {x}" for m, x in CASES])
def test_activations_are_within_five_percent(model: str, layout: dict[str, Any]) -> None:
    assert abs(error(model, layout, "fp32")) < 0.05


@pytest.mark.parametrize(("model", "layout"), IN_BF16, ids=[f"{m} {x}" for m, x in IN_BF16])
def test_in_bfloat16_where_nothing_is_computed_again(model: str, layout: dict[str, Any]) -> None:
    assert abs(error(model, layout, "bf16")) < 0.05
