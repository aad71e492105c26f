# ruff: noqa: T201 (a script talks by printing)
"""
MFU on one GPU: `PYTHONPATH=src python benchmarks/gpu.py [--only dense|experts] [--steps N] [--json]`.

    dense      1.4 billion parameters, 24 layers                                             aim >= 50%
    experts    2.1 billion parameters, 0.9 active: 16 layers, 8 experts of which a token meets 2   aim >= 40%

bfloat16 on float32 weights, AdamW, compiled blocks, vocabulary 131,072, 4,096 tokens a sequence, 8,192 in a
micro-batch, 65,536 in a step: whole steps as `colossi train` does them, but for reading data and writing the
ledger. MFU counts model FLOPs (colossi.spec.size) against the dense peak of the data sheet. Weights,
gradients and optimizer take 16 bytes a parameter, 22 and 33 GB. Without a GPU it ends with exit code 2.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from train import random_batch

from colossi.spec.size import count_parameters, flops_per_token
from colossi.spec.spec import Spec
from colossi.train.mesh import World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import DTYPES, build_model
from colossi.train.peak import world_peak
from colossi.train.step import forward_backward

WIDE = {"hidden": 2048, "heads": 16, "kv_heads": 8, "vocabulary": 131072}
MODELS: dict[str, dict[str, Any]] = {
    "dense": WIDE | {"layers": 24, "ffn_hidden": 5632},
    "experts": WIDE | {"layers": 16, "ffn_hidden": 2048, "experts": 8, "experts_per_token": 2},
}
TRAINING: dict[str, Any] = {"sequence_length": 4096, "global_batch": 16, "steps": 100_000, "compile": True}
MICRO_BATCH = 2
AIMS = {"dense": 0.5, "experts": 0.4}
WARM_UP = 3  # steps; the first one compiles


@dataclass(frozen=True)
class Speed:
    """Of one model on one device."""

    device: str
    parameters: int
    active_parameters: int
    step_seconds: float  # median
    tokens_per_second: float
    mfu: float
    memory_gib: float  # the most that was allocated


def measure(
    model: dict[str, Any], training: dict[str, Any], micro_batch: int, steps: int, device: torch.device
) -> Speed:
    """Train on one random batch again and again."""
    precision = next(name for name, dtype in DTYPES.items() if dtype == torch.bfloat16)
    run = training | {"precision": precision}
    spec = Spec.model_validate(
        {"name": "gpu", "model": model, "training": run, "layout": {"micro_batch": micro_batch}}
    )
    assert spec.training is not None
    world = World.make(spec.layout, device, 1)
    parts = build_model(spec, world)
    optimizer, batch = Optimizer(parts, spec.training, world), random_batch(spec)
    seconds = []
    for step in range(1, WARM_UP + steps + 1):
        start = time.perf_counter()
        found = forward_backward(parts, batch, spec, world)
        optimizer.step(step, min(1.0, 1.0 / found.gradient_norm))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    median, tokens = statistics.median(seconds[WARM_UP:]), spec.training.tokens_per_step
    flops = tokens * flops_per_token(spec.model, spec.training.sequence_length)
    parameters = count_parameters(spec.model)
    return Speed(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        parameters=parameters.total,
        active_parameters=parameters.active,
        step_seconds=median,
        tokens_per_second=tokens / median,
        mfu=flops / median / world_peak(device, torch.bfloat16, 1),
        memory_gib=torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0,
    )


def main(words: Sequence[str] | None = None) -> int:
    """Measure the models that were asked for, and print them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=MODELS, help="one of them")
    parser.add_argument("--steps", type=int, default=20, help="that count, after 3 that do not")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args(words)
    if not torch.cuda.is_available():
        print("error: PyTorch sees no GPU here, and MFU on one is what this measures", file=sys.stderr)
        print("hint: benchmarks/train.py measures CPU cores", file=sys.stderr)
        return 2
    found = {}
    for name in [arguments.only] if arguments.only else MODELS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        torch.cuda.reset_peak_memory_stats()
        found[name] = measure(MODELS[name], TRAINING, MICRO_BATCH, arguments.steps, torch.device("cuda", 0))
    if arguments.json:
        print(json.dumps({name: asdict(speed) for name, speed in found.items()}, indent=1))
        return 0
    print(f"{'model':<8} {'parameters':>14} {'step [s]':>9} {'tokens/s':>9} {'MFU':>6} {'aim':>6} {'GiB':>6}")
    for name, speed in found.items():
        print(
            f"{name:<8} {speed.parameters:>14,} {speed.step_seconds:>9.3f} {speed.tokens_per_second:>9,.0f} "
            f"{speed.mfu:>6.1%} {AIMS[name]:>6.0%} {speed.memory_gib:>6.1f}  {speed.device}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
