"""
The trainer's own step, of one rank of a run of any size, without its numbers and without its peers.

The step is not described again: the mesh, the model, the losses, the collectives and the optimizer are those
of a true run, and what PyTorch is asked to do is written down. It takes the path of CPU cores without
torch.compile: a kernel that fuses several operations is seen as these.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from colossi.data.corpus import Batch
from colossi.model.matrix import local
from colossi.spec.layout import AXES
from colossi.spec.spec import Spec, data_parallel
from colossi.train.account import Collective, Event, Trace
from colossi.train.mesh import JOINED, World
from colossi.train.optimizer import Optimizer, clipping
from colossi.train.parallel import Parts, build_model
from colossi.train.record import Memory, Recorder
from colossi.train.step import forward_backward
from colossi.train.unreal import unreal_numbers, unreal_ranks

Say = Callable[[str, float, float | None], None]  # how far a piece of work is: label, done, of how much


def trace_ranks(spec: Spec, ranks: list[int], say: Say) -> list[Trace]:
    """A step of each of these ranks, one after the other."""
    traces = []
    for done, rank in enumerate(ranks):
        say("ranks", done, len(ranks))
        traces.append(trace_rank(spec, rank))
    say("ranks", len(ranks), len(ranks))
    return traces


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
        events = record_step(parts, optimizer, batch_of(spec), spec, world, memory)
        at = {axis: world.coordinate(axis) for axis in AXES}
        return Trace(rank, at, _by_axis(events, world), memory.at_peak())


def record_step(
    parts: Parts, optimizer: Optimizer, batch: Batch, spec: Spec, world: World, memory: Memory
) -> list[Event]:
    """One step, written down; of true tensors just as of fake ones. Collectives' axes are names of groups."""
    assert spec.training is not None
    memory.name(map(local, parts.parameters()), "weights")
    memory.name(_state_of(optimizer), "optimizer")
    memory.forget_history()
    with Recorder(memory, lambda: memory.name(_whole_gradients(parts), "gradients")) as before:
        found = forward_backward(parts, batch, spec, world)
    memory.name((local(p.grad) for p in parts.parameters() if p.grad is not None), "gradients")
    with Recorder(memory, kind="optimizer") as after:
        optimizer.step(1, clipping(found.gradient_norm, spec.training.clip))
    return before.events + after.events


def batch_of(spec: Spec) -> Batch:
    """A rank's rows of a batch in which every token counts; where documents are masked, a row is one."""
    assert spec.training is not None
    shape = (spec.training.global_batch // data_parallel(spec.layout), spec.training.sequence_length)
    tokens = np.ones(shape, dtype=np.int64)
    first = np.zeros(shape, dtype=np.int32) if spec.training.document_mask else None
    return Batch(tokens, tokens, np.ones(shape, dtype=np.bool_), first)


def _state_of(optimizer: Optimizer) -> Iterator[Tensor]:
    """What AdamW and Muon hold from step to step."""
    for each in (optimizer.adamw, optimizer.muon):
        if each is not None:
            for values in each.state.values():
                yield from (value for value in values.values() if isinstance(value, Tensor))
    if optimizer.muon is not None:
        yield from (update for group in optimizer.muon.param_groups for update in group["params"])


def _whole_gradients(parts: Parts) -> Iterator[Tensor]:
    """Gradients of whole weights, that FSDP holds until the last micro-batch of a pipeline."""
    for module in parts.modules():
        if isinstance(module, FSDPModule):
            for group in module._get_fsdp_state()._fsdp_param_groups:
                for each in group.fsdp_params:
                    weight = getattr(each, "_unsharded_param", None)
                    for grad in (each.unsharded_accumulated_grad, None if weight is None else weight.grad):
                        if grad is not None:
                            yield local(grad)


def _by_axis(events: list[Event], world: World) -> list[Event]:
    """Collectives by the axes of their groups, in place of the groups' own names."""
    axes: dict[str, str] = {}
    for name in (*JOINED, *AXES):
        if (group := world.group(name)) is not None:
            wide = [axis for axis in JOINED.get(name, (name,)) if world.size(axis) > 1]
            axes[group.group_name] = "*".join(wide)
    return [e.on(axes.get(e.axis, "world")) if isinstance(e, Collective) else e for e in events]
