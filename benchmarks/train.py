# ruff: noqa: T201 (a script talks by printing)
"""
Speed of training, in ratios: `PYTHONPATH=src python benchmarks/train.py [--only PART] [--quick] [--busy]`.

    dense        a 384-wide character model against a plain PyTorch GPT of the same FLOPs    aim >= 1.0
    experts      a mixture-of-experts step against a dense one of equal active FLOPs         aim >= 0.7
    peak         share of the measured matrix-multiply peak                                  reported
    checkpoint   throughput lost to an asynchronous save every 20 steps                      aim < 5%

docs/benchmarks.md has figures, and says what is equal in each pair and what is not.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Clock, MatrixProducts, take_turns
from plain_gpt import PlainGPT, plain_step

from colossi.data.corpus import Batch
from colossi.spec.size import count_parameters, flops_per_token
from colossi.spec.spec import Spec
from colossi.train.checkpoint import Saver
from colossi.train.mesh import World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import Parts, build_model
from colossi.train.step import forward_backward

CHARACTERS = {"layers": 6, "hidden": 384, "heads": 6, "kv_heads": 6, "vocabulary": 65}
LAPTOP = {"layers": 4, "hidden": 192, "heads": 3, "kv_heads": 1, "vocabulary": 512}
GATED_LIKE_GPT = 8 * 384 // 3  # the FFN's width F with 3 E F = 8 E E, the GPT's two matrices of 4 E
SAVE_EVERY = 20


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    batch: int
    rounds: int
    steps_between_saves: int
    compile: bool
    clock: Clock


@dataclass(frozen=True)
class Row:
    """One line of the table: `value` is a ratio, `aim` what it should be."""

    part: str
    name: str
    value: float
    aim: str = ""
    tokens_per_second: float | None = None


@dataclass
class Trainee:
    """A Grok and all that its steps need, trained as `colossi train` does, on one batch again and again."""

    spec: Spec
    batch: Batch
    parts: Parts
    optimizer: Optimizer
    world: World
    done: int = 0

    @classmethod
    def make(cls, model: dict[str, Any], length: int, batch: int, compiled: bool = False) -> "Trainee":
        """Ready for its first step."""
        training = {"sequence_length": length, "global_batch": batch, "steps": 100_000, "compile": compiled}
        spec = Spec.model_validate({"name": "benchmark", "model": model, "training": training})
        assert spec.training is not None
        world = World.make(spec.layout, torch.device("cpu"), 1)
        parts = build_model(spec, world)
        return cls(spec, random_batch(spec), parts, Optimizer(parts, spec.training, world), world)

    def step(self) -> None:
        """What the training loop does in a step, but for reading data and writing to the ledger."""
        self.done += 1
        found = forward_backward(self.parts, self.batch, self.spec, self.world)
        self.optimizer.step(self.done, min(1.0, 1.0 / found.gradient_norm))

    def state(self) -> dict[str, Any]:
        """What a checkpoint of it holds."""
        weights = {f"model.{name}": p.detach() for name, p in self.parts.weights().items()}
        return weights | self.optimizer.state()

    @property
    def tokens(self) -> int:
        """In a step."""
        return self.batch.inputs.size

    @property
    def flops(self) -> float:
        """Of a step [FLOP], as MFU counts them."""
        return self.tokens * flops_per_token(self.spec.model, self.batch.inputs.shape[1])


def random_batch(spec: Spec) -> Batch:
    """Tokens from a fixed seed, none of them padding."""
    assert spec.training is not None
    shape = (spec.training.global_batch, spec.training.sequence_length + 1)
    tokens = np.random.default_rng(0).integers(1, spec.model.vocabulary, shape).astype(np.int64)
    return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), np.ones((shape[0], shape[1] - 1), dtype=bool))


def dense(effort: Effort) -> Iterator[Row]:
    """Ours built dense, without a cap (the same work) and with it, against the plain GPT."""
    length = 256
    ways = {"eager": False} | ({"compiled": True} if effort.compile else {})
    model = CHARACTERS | {"ffn_hidden": GATED_LIKE_GPT}
    steps: dict[str, Callable[[], object]] = {}
    for way, compiled in ways.items():
        plain = Trainee.make(model | {"attention_cap": 0.0}, length, effort.batch, compiled)
        capped = Trainee.make(model | {"attention_cap": 30.0}, length, effort.batch, compiled)
        torch.manual_seed(0)
        gpt = PlainGPT(65, length, 384, heads=6, layers=6)
        inputs, targets = torch.from_numpy(plain.batch.inputs), torch.from_numpy(plain.batch.targets)
        steps[f"plain GPT, {way}"] = plain_step(gpt, inputs, targets, compiled)
        steps[f"Grok, no cap, {way}"] = plain.step
        steps[f"Grok, cap 30, {way}"] = capped.step
    times = take_turns(steps, effort.rounds, effort.clock)
    theirs = times.best_of("plain GPT, eager", "plain GPT, compiled")
    tokens = effort.batch * length
    for name in steps:
        yield Row("dense", name, times.speed_ratio(name, theirs), "", tokens / times.median(name))
    for kind in ("no cap", "cap 30"):
        ours = times.best_of(f"Grok, {kind}, eager", f"Grok, {kind}, compiled")
        aim = ">= 1.0" if kind == "no cap" else ""
        yield Row("dense", f"best Grok, {kind} / best GPT", times.speed_ratio(ours, theirs), aim)


def experts(effort: Effort) -> Iterator[Row]:
    """8 experts of which each token meets 2, against a dense FFN twice as wide as one expert."""
    for name, base, width, length, batch in (
        ("laptop, 192 wide", LAPTOP, 256, 128, 4 * effort.batch),
        ("384 wide", CHARACTERS, 512, 256, effort.batch),
    ):
        routed = Trainee.make(
            base | {"ffn_hidden": width, "experts": 8, "experts_per_token": 2}, length, batch
        )
        plain = Trainee.make(base | {"ffn_hidden": 2 * width}, length, batch)
        times = take_turns({"experts": routed.step, "dense": plain.step}, effort.rounds, effort.clock)
        ratio = times.speed_ratio("experts", "dense")
        yield Row(
            "experts", f"{name}: experts / dense", ratio, ">= 0.7", routed.tokens / times.median("experts")
        )


def peak(effort: Effort) -> Iterator[Row]:
    """Model FLOP/s against square products, in turns."""
    dense_model = CHARACTERS | {"ffn_hidden": GATED_LIKE_GPT}
    routed = CHARACTERS | {"ffn_hidden": GATED_LIKE_GPT // 2, "experts": 8, "experts_per_token": 2}
    trainees = {
        "dense, 384 wide": Trainee.make(dense_model, 256, effort.batch),
        "experts, 384 wide": Trainee.make(routed, 256, effort.batch),
        "laptop preset": Trainee.make(
            LAPTOP | {"ffn_hidden": 256, "experts": 4, "experts_per_token": 2}, 128, 32
        ),
    }
    products = MatrixProducts()
    times = take_turns(
        {"peak": products} | {n: t.step for n, t in trainees.items()}, effort.rounds, effort.clock
    )
    for name, trainee in trainees.items():
        share = times.speed_ratio(name, "peak") * trainee.flops / products.flops
        yield Row("peak", f"{name}: share of peak", share, "", trainee.tokens / times.median(name))


def checkpoint(effort: Effort) -> Iterator[Row]:
    """Blocks of steps that begin with an asynchronous save, between blocks that do not."""
    model = LAPTOP | {"ffn_hidden": 256, "experts": 4, "experts_per_token": 2}
    small = max(1, effort.batch // 2)
    for name, trainee in (
        ("laptop preset", Trainee.make(model, 128, 4 * small)),
        ("dense, 384 wide", Trainee.make(CHARACTERS | {"ffn_hidden": GATED_LIKE_GPT}, 256, small)),
    ):
        megabytes = 12 * count_parameters(trainee.spec.model).total / 1e6
        with tempfile.TemporaryDirectory() as folder:
            saver = Saver(Path(folder), keep=2, group=None)
            block_of_steps(trainee, 1, saver)
            blocks = {
                "with": partial(block_of_steps, trainee, effort.steps_between_saves, saver),
                "without": partial(block_of_steps, trainee, effort.steps_between_saves, None),
                "save alone": partial(block_of_steps, trainee, 0, saver),
            }
            times = take_turns(blocks, max(2, effort.rounds // 2), effort.clock, warm_up=0)
            failed = [saved.why for saved in saver.ended() if saved.why]
        assert not failed, failed
        lost = 1 - times.speed_ratio("with", "without")
        alone = times.median("save alone") / times.median("without")
        yield Row("checkpoint", f"{name}, {megabytes:.0f} MB: throughput lost", lost, "< 0.05")
        yield Row("checkpoint", f"{name}: a save alone / {effort.steps_between_saves} steps", alone, "< 0.05")


def block_of_steps(trainee: Trainee, steps: int, saver: Saver | None) -> None:
    """Save, train on while it is written, and wait for what is left of it."""
    if saver is not None:
        saver.begin(trainee.done, trainee.state())
    for _ in range(steps):
        trainee.step()
    if saver is not None:
        saver.wait()


PARTS = {"dense": dense, "experts": experts, "peak": peak, "checkpoint": checkpoint}


def main() -> None:
    """Measure the parts that were asked for, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--quick", action="store_true", help="see that it runs; the figures mean little")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--busy", action="store_true", help="one thread, by the process's own CPU seconds")
    arguments = parser.parse_args()
    threads = 1 if arguments.busy else os.cpu_count() or 1
    torch.set_num_threads(threads)
    clock = time.process_time if arguments.busy else time.perf_counter
    effort = Effort(1, 2, 2, False, clock) if arguments.quick else Effort(8, 7, SAVE_EVERY, True, clock)
    chosen = [arguments.only] if arguments.only else list(PARTS)
    rows = []
    for part in chosen:
        with contextlib.redirect_stdout(sys.stderr):
            print(f"measuring {part} ...", flush=True)
            rows += list(PARTS[part](effort))
    if arguments.json:
        print(
            json.dumps(
                {"threads": threads, "busy": arguments.busy, "rows": [vars(row) for row in rows]}, indent=1
            )
        )
    else:
        print_table(rows)


def print_table(rows: list[Row]) -> None:
    """One line a row."""
    print(f"{'part':<11} {'what':<44} {'ratio':>7}  {'aim':<8} {'tokens/s':>9}")
    for row in rows:
        speed = "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}"
        print(f"{row.part:<11} {row.name:<44} {row.value:>7.3f}  {row.aim:<8} {speed:>9}")


if __name__ == "__main__":
    main()
