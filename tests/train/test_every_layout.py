"""
Every two and every three axes together: the single process's losses, kills, checkpoints under one another.

The whole matrix takes a quarter of an hour (`make test-all`); the ones without the marker are a sample of it.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from colossi.spec.layout import AXES
from colossi.spec.spec import Spec
from colossi.train.checkpoint import load_into, write_checkpoint
from colossi.train.mesh import World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import build_model
from colossi.train.step import forward_backward

from .ranks import run_ranks, spec_of
from .runs import colossi, events_of, report_of, spec_file
from .test_layouts import TOLERANCE, batch_of, name, size, train

STEPS = 10
TRIPLES = [dict.fromkeys(axes, 2) for axes in itertools.combinations(AXES, 3)]
PAIRS = [dict.fromkeys(axes, 2) for axes in itertools.combinations(AXES, 2)]
SAMPLE = [
    {"pipeline": 2, "shard": 2, "tensor": 2},
    {"pipeline": 2, "context": 2, "expert": 2},
    {"replicate": 2, "shard": 2, "context": 2},
]
KILLED = [{"pipeline": 2, "shard": 2}, {"context": 2, "expert": 2}]  # a sample too


def workable(layout: dict[str, Any]) -> dict[str, Any]:
    """With micro-batches small enough for a pipeline."""
    return layout | ({"micro_batch": 1} if "pipeline" in layout else {})


def marked(layouts: list[dict[str, Any]], sample: list[dict[str, Any]]) -> list[Any]:
    """All of them, those outside the sample with the marker."""
    return [
        pytest.param(each, id=name(each), marks=[] if each in sample else pytest.mark.all) for each in layouts
    ]


@pytest.fixture(scope="module")
def alone() -> tuple[list[float], dict[str, Any], list[Any]]:
    return train(0, 1, spec_of(), STEPS)


@pytest.mark.parametrize("layout", marked(TRIPLES, SAMPLE))
def test_three_axes_train_the_single_process_model(
    layout: dict[str, Any], alone: tuple[list[float], dict[str, Any], list[Any]], tmp_path: Path
) -> None:
    spec = spec_of(workable(layout), size(layout))
    losses, gradients, figures = run_ranks(size(layout), train, spec, STEPS, folder=tmp_path)
    np.testing.assert_allclose(losses, alone[0], rtol=TOLERANCE)
    np.testing.assert_allclose(figures, alone[2], rtol=TOLERANCE)
    for key, gradient in alone[1].items():
        assert (gradients[key] - gradient).norm() <= TOLERANCE * gradient.norm(), key


def go_on(
    rank: int, ranks: int, spec: Spec, start: int, steps: int, old: Path | None, new: Path
) -> list[float]:
    """Losses of so many steps after `start`, from a checkpoint if there is one, to another."""
    assert spec.training is not None
    world = World.make(spec.layout, torch.device("cpu"), ranks)
    parts = build_model(spec, world, with_values=old is None)
    optimizer = Optimizer(parts, spec.training, world)
    state = {f"model.{key}": p.detach() for key, p in parts.kept().items()} | optimizer.state()
    if old is not None:
        load_into(old, state)
        parts.copy_tied()
        optimizer.load(state, start)
    losses = []
    for step in range(start + 1, start + steps + 1):
        found = forward_backward(parts, batch_of(spec, world, step), spec, world)
        optimizer.step(step, min(1.0, 1.0 / found.gradient_norm))
        losses.append(found.loss)
    state = {f"model.{key}": p.detach() for key, p in parts.kept().items()} | optimizer.state()
    write_checkpoint(new, state, dist.new_group(backend="gloo") if ranks > 1 else None)
    return losses


CHAIN = [  # each goes on from the checkpoint of the one before
    {},
    {"pipeline": 2, "shard": 2},
    {"pipeline": 4},
    {"pipeline": 2, "schedule": "zero-bubble-v", "interleave": 2},
    {"tensor": 2, "expert": 2},
    {"pipeline": 3},
    {"context": 2, "shard": 2},
    {"replicate": 2, "pipeline": 2, "interleave": 2},
    {},
]


def test_checkpoints_go_on_under_other_layouts(tmp_path: Path) -> None:
    expected, _, _ = train(0, 1, spec_of(), 2 * len(CHAIN))
    losses: list[float] = []
    old = None
    for number, layout in enumerate(CHAIN):
        new, folder = tmp_path / f"step-{2 * number + 2:08d}", tmp_path / str(number)
        folder.mkdir()
        spec = spec_of(workable(layout), size(layout))
        losses += run_ranks(size(layout), go_on, spec, 2 * number, 2, old, new, folder=folder)
        old = new
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)


@pytest.mark.parametrize("layout", marked(PAIRS, KILLED))
def test_workers_die_under_any_layout_and_the_curve_is_the_same(
    layout: dict[str, Any], tmp_path: Path
) -> None:
    faults = "kill worker 1 at step 8; kill worker 2 at step 14; raise worker 3 at step 20"
    losses = []
    for folder, chaos in ((tmp_path / "quiet", []), (tmp_path / "hurt", ["--chaos", faults])):
        folder.mkdir()
        spec = spec_file(folder, 26, workers=2, nodes=2, **workable(layout))
        done = colossi("train", spec, "--run", folder / "run", *chaos)
        assert done.returncode == 0, done.stderr
        losses.append(report_of(folder / "run").losses)
    assert losses[0] == losses[1]
    assert [e.text("source") for e in events_of(tmp_path / "hurt" / "run", "restored")] == ["memory"] * 3
