"""
The trainer's own step, of one rank of a run of any size, without its numbers and without its peers.

The step is not described again: the mesh, the model, the losses, the collectives and the optimizer are those of
a true run, and what PyTorch is asked to do is written down. It takes the path of CPU cores without
torch.compile: a kernel that fuses several operations is seen as these.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from colossi.data.corpus import Batch
from colossi.model.matrix import local
from colossi.spec.layout import AXES
from colossi.spec.spec import Spec, data_parallel
from colossi.train.mesh import JOINED, World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import build_model
from colossi.train.record import Collective, Memory, Op, Recorder
from colossi.train.step import forward_backward
from colossi.train.unreal import unreal_numbers, unreal_ranks

Say = Callable[[str, float, float | None], None]


@dataclass(frozen=True, slots=True)
class Trace:
    """One step of one rank, in the order in which things are begun."""

    rank: int
    coordinates: dict[str, int]  # by axis
    events: list[Op | Collective]
    memory: dict[str, int]  # by part, at the moment when most was live [B]
    peak: int  # [B]


def trace_rank(spec: Spec, rank: int) -> Trace:
    """A step after the first: the optimizer has its state."""
    assert spec.training is not None
    training = spec.training.model_copy(update={"compile": False})
    spec = spec.model_copy(update={"training": training})
    with ExitStack() as stack:
        if spec.cluster.workers > 1:
            stack.enter_context(unreal_ranks(rank, spec.cluster.workers))
        world = World.make(spec.layout, torch.device("cpu"), spec.cluster.workers)
        memory = Memory()
        stack.enter_context(memory.listening())
        stack.enter_context(unreal_numbers())
        with Recorder(memory):
            parts = build_model(spec, world, with_values=False)
            optimizer = Optimizer(parts, training, world)
            optimizer.load(optimizer.state(), 0)
        _name(memory, [local(p) for p in parts.parameters()], "weights")
        _name(memory, list(map(local, optimizer.state().values())), "optimizer")
        memory.forget_history()
        with Recorder(memory) as recorder:
            found = forward_backward(parts, batch_of(spec), spec, world)
            _name(memory, [local(p.grad) for p in parts.parameters() if p.grad is not None], "gradients")
            optimizer.step(1, min(1.0, training.clip / found.gradient_norm) if training.clip else 1.0)
        return Trace(
            rank,
            {axis: world.coordinate(axis) for axis in AXES},
            _with_axes(recorder.events, world),
            memory.at_peak(),
            memory.peak,
        )


def batch_of(spec: Spec) -> Batch:
    """A rank's rows of a batch in which every token counts; where documents are masked, a row is one."""
    assert spec.training is not None
    shape = (spec.training.global_batch // data_parallel(spec.layout), spec.training.sequence_length)
    tokens = np.ones(shape, dtype=np.int64)
    first = np.zeros(shape, dtype=np.int32) if spec.training.document_mask else None
    return Batch(tokens, tokens, np.ones(shape, dtype=np.bool_), first)


def _name(memory: Memory, tensors: list[torch.Tensor], part: str) -> None:
    for x in tensors:
        if (block := memory.see(x)) is not None:
            block.part = part


def _with_axes(events: list[Op | Collective], world: World) -> list[Op | Collective]:
    """Collectives by the axes of their groups, in place of the groups' own names."""
    names = {}
    for axis in (*JOINED, *AXES):
        if (group := world.group(axis)) is not None:
            names[group.group_name] = axis
    return [e.on(names.get(e.group, "world")) if isinstance(e, Collective) else e for e in events]
