"""Training is right: the laptop model against a plain reference, a batch learnt by heart, sums in float32."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colossi.data.corpus import Batch, Corpus
from colossi.engines.train import begin
from colossi.ledger.run import Run
from colossi.spec import Spec, read_spec
from colossi.train.__main__ import main
from colossi.train.mesh import World, mine
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import build_model
from colossi.train.step import _count, forward_backward, total_loss

from . import plain
from .ranks import run_ranks, spec_of
from .runs import events_of
from .test_layouts import batch_of, whole

# Rows end in padding, and only the answers count.
LAPTOP = """
name = "laptop"
model.preset = "laptop"
training = { sequence_length = 64, global_batch = 8, steps = 16, learning_rate = 3e-3, warmup_steps = 4 }
layout.micro_batch = 4
checkpoint.every = 0
cluster.device = "cpu"
[data]
tokenizer = "words"
held_out = 0
[[data.sources]]
kind = "reasoning"
task = "spell_backward"
samples = 2000
options = { min_word_len = 3, max_word_len = 7 }
"""


def by_plain(run: Run) -> list[float]:
    """The losses of the reference, from the same initial weights on the same batches."""
    spec = run.spec()
    assert spec.training is not None
    corpus, world = Corpus.open(run.corpus_folder()), World.make(spec.layout, torch.device("cpu"), 1)
    weights = {n: p.detach().clone().requires_grad_() for n, p in build_model(spec, world).weights().items()}
    optimizer, losses, rows = plain.AdamW(weights, spec.training), [], spec.training.global_batch
    for step in range(spec.training.total_steps):
        batch = corpus.batch(step, rows, slice(rows))
        arrays = (torch.from_numpy(x) for x in (batch.inputs, batch.targets, batch.is_target))
        loss, total = plain.loss(weights, *arrays, spec.model, spec.training)
        optimizer.step(dict(zip(weights, torch.autograd.grad(total, list(weights.values())), strict=True)))
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_laptop_model_trains_like_a_plain_reference(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From the same weights on the same batches losses agree to 1e-6 (the most that three seeds were off in 25
    # steps: 8e-7), far within what seeds differ by.
    (tmp_path / "laptop.toml").write_text(LAPTOP)
    spec = read_spec(tmp_path / "laptop.toml", [f"training.seed={seed}"])
    run, _ = begin(tmp_path / "run", spec, lambda *_: None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(os.cpu_count()))  # one thread: so small, more are slower
    assert main([str(run.folder)]) == 0
    losses = [event.number("loss") for event in events_of(run.folder, "step_done")]
    expected = by_plain(run)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert expected[-1] < 0.6 * expected[0]  # it did learn


@pytest.mark.parametrize("training", [{}, {"precision": "bf16"}], ids=str)
def test_a_tiny_model_learns_a_batch_by_heart(training: dict[str, Any]) -> None:
    # 8 rows of 16 tokens drawn at random, each beginning with another one: all can be known, nothing guessed.
    spec = spec_of(
        training={"steps": 100, "learning_rate": 0.01, "balance_loss": 0.0, "z_loss": 0.0} | training
    )
    assert spec.training is not None
    world = World.make(spec.layout, torch.device("cpu"), 1)
    parts = build_model(spec, world)
    optimizer = Optimizer(parts, spec.training, world)
    tokens = np.random.default_rng(0).integers(1, 64, (8, 17))
    tokens[:, 0] = range(1, 9)
    batch = Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), np.ones((8, 16), dtype=bool))
    losses = []
    for step in range(1, spec.training.total_steps + 1):
        found = forward_backward(parts, batch, spec, world)
        optimizer.step(step, min(1.0, 1.0 / found.gradient_norm))
        losses.append(found.loss)
    assert losses[0] > 3.5  # log(64) = 4.16 knows nothing
    assert losses[-1] < 0.02


def accumulated(rank: int, ranks: int, spec: Spec) -> dict[str, tuple[float, float]]:
    """By weight: how far its gradient is from the float64 sum of each micro-batch's, and one in bfloat16."""
    assert spec.layout.micro_batch is not None
    world = World.make(spec.layout, torch.device("cpu"), ranks)
    parts, batch = build_model(spec, world), batch_of(spec, world, 1)
    forward_backward(parts, batch, spec, world)
    weights = parts.weights()
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in weights.values())
    together = {name: whole(p.grad).clone() for name, p in weights.items()}
    inputs, targets, is_target = (mine(x, world) for x in (batch.inputs, batch.targets, batch.is_target))
    counts, (grok,) = _count(inputs, is_target, world), parts.stages()
    exact: dict[str, Any] = dict.fromkeys(weights, 0.0)
    coarse: dict[str, Any] = dict.fromkeys(weights, 0.0)
    for row in range(len(inputs)):
        for parameter in weights.values():
            parameter.grad = None
        losses = grok(inputs[row : row + 1], targets[row : row + 1], is_target[row : row + 1])
        total_loss(losses, counts, spec).backward()
        for name, parameter in weights.items():
            exact[name] = exact[name] + whole(parameter.grad).double()
            coarse[name] = coarse[name] + whole(parameter.grad).bfloat16()
    return {
        name: tuple(
            float((g - exact[name]).norm() / exact[name].norm()) for g in (together[name], coarse[name])
        )
        for name in weights
    }


@pytest.mark.parametrize("layout", [{}, {"shard": 2}, {"shard": 2, "expert": 2}], ids=str)
def test_gradients_of_bfloat16_add_up_in_float32(layout: dict[str, int], tmp_path: Path) -> None:
    ranks = int(np.prod(list(layout.values()))) if layout else 1
    spec = spec_of({"micro_batch": 1, **layout}, ranks, {"precision": "bf16", "global_batch": 16 * ranks})
    for name, (ours, coarse) in run_ranks(ranks, accumulated, spec, folder=tmp_path).items():
        assert ours < 2e-6, name  # 16 sums in float32
        assert coarse > 1e-3, name  # 16 in bfloat16: what the first line would not let pass
