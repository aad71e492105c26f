"""
One optimizer step: forward, backward, and what the whole world found.

Losses are divided by what the whole batch has of each (targets, sequences, tokens), so gradients of
micro-batches and of ranks simply add up, and no layout changes the result beyond the order of sums.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from colossi.data.corpus import Batch
from colossi.model.grok import PAD, Grok, Losses
from colossi.spec.spec import Spec
from colossi.train.mesh import World, mine
from colossi.train.parallel import Parts, gradient_norm, sum_gradients


@dataclass(frozen=True, slots=True)
class StepResult:
    """Over the whole batch: means; and what any rank wishes or has seen."""

    loss: float
    balance_loss: float  # weighted
    z_loss: float  # weighted
    gradient_norm: float
    router_max: float
    expert_load: list[float]  # share of the tokens that each expert got, over all layers
    stop: bool
    checkpoint: bool
    corrupted: bool  # copies of the same weights had different fingerprints
    fingerprint: int  # of this rank's own gradient
    busy_seconds: list[float]  # by rank: from the beginning to its gradients, without waiting for others


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one rank brings to the agreement at the end of a step."""

    stop: bool = False
    checkpoint: bool = False
    fingerprint: int | None = None  # of its part of the weights before this step


@dataclass(frozen=True, slots=True)
class Counts:
    """What the whole batch has of each, to divide by. Float64 on the device: nothing waits for them."""

    targets: Tensor
    tokens: Tensor
    sequences: Tensor


def forward_backward(
    parts: Parts,
    batch: Batch,
    spec: Spec,
    world: World,
    wishes: Callable[[], Wishes] = Wishes,
    started: float | None = None,
) -> StepResult:
    """Leave the whole batch's gradient on the parameters, and say what was found.

    `wishes` is asked once, after backward and before the ranks agree: what must be done before any rank goes
    on to the next step is done in it. `started`: when the step began [monotonic s], if before this call.
    """
    assert spec.training is not None and spec.layout.micro_batch is not None
    start = time.monotonic() if started is None else started
    inputs, targets, is_target = (mine(x, world) for x in (batch.inputs, batch.targets, batch.is_target))
    first_key = mine(batch.first, world) if batch.first is not None else None
    before = time.monotonic() - start
    counts = _count(inputs, is_target, world)
    start = time.monotonic()  # whoever was waited for in counting was slow, not we
    found = _Sums(spec.model.experts, world.device)
    if parts.pipeline is not None:

        def found_by(stage: Grok, losses: Losses) -> Tensor:
            found.add(losses)
            return total_loss(losses, counts, spec)

        parts.pipeline.forward_backward(inputs, targets, is_target, first_key, found_by)
    else:
        (grok,) = parts.stages()
        micro = spec.layout.micro_batch
        # Each time sharded gradients are reduced: no rank ever holds them whole.
        for first in range(0, len(inputs), micro):
            rows = slice(first, first + micro)
            since = first_key[rows] if first_key is not None else None
            losses = grok(inputs[rows], targets[rows], is_target[rows], since)
            total_loss(losses, counts, spec).backward()
            found.add(losses)
    busy = before + time.monotonic() - start
    own = sum_gradients(parts, world)
    norm = gradient_norm(parts, world)
    return found.result(counts, spec, world, norm, wishes(), busy, own)


def total_loss(losses: Losses, counts: Counts, spec: Spec) -> Tensor:
    """Cross-entropy per target, plus the weighted router losses, each a mean over layers too."""
    assert spec.training is not None
    layers = spec.model.layers
    balance = spec.training.balance_loss * losses.balance / (counts.sequences.float() * layers)
    z = spec.training.z_loss * losses.z / (counts.tokens.float() * layers)
    return losses.cross_entropy / counts.targets.float() + balance + z


def _count(inputs: Tensor, is_target: Tensor, world: World) -> Counts:
    """Of the whole batch: ranks that see the same rows, or parts of the same ones, count them once."""
    mine = [is_target.sum(), (inputs != PAD).sum(), torch.tensor(len(inputs), device=inputs.device)]
    counted = _sum_over_world(torch.stack(mine).double(), world)
    targets, tokens, sequences = counted / (world.size("tensor") * world.size("pipeline"))
    return Counts(targets.clamp(min=1), tokens.clamp(min=1), sequences / world.size("context"))


class _Sums:
    """Adds up the losses of micro-batches."""

    def __init__(self, experts: int, device: torch.device) -> None:
        self.experts = experts
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.load = torch.zeros(experts, dtype=torch.float64, device=device)
        self.router_max = torch.zeros((), device=device)

    def add(self, losses: Losses) -> None:
        found = torch.stack([losses.cross_entropy.detach(), losses.balance.detach(), losses.z.detach()])
        self.sums += found.double()
        if self.experts > 1:
            self.load += losses.load_LX.sum(0)
        self.router_max = torch.maximum(self.router_max, losses.router_max)

    def result(
        self,
        counts: Counts,
        spec: Spec,
        world: World,
        norm: Tensor,
        wishes: Wishes,
        busy: float,
        fingerprint: int,
    ) -> StepResult:
        """Here alone a step waits for its device: loss and norm must be known before weights change."""
        assert spec.training is not None
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if world.mesh is not None else (0, 1)
        agreed = self.sums.new_tensor([wishes.stop, wishes.checkpoint, 0.0])
        agreed[2] = _copies_differ(wishes, world)
        by_rank = self.sums.new_zeros(ranks)
        by_rank[rank] = busy
        all_ = _sum_over_world(torch.cat([self.sums, self.load, agreed, by_rank]), world)
        if world.mesh is not None:
            dist.all_reduce(self.router_max, op=dist.ReduceOp.MAX)
        same = [counts.targets, counts.tokens, counts.sequences, norm, self.router_max]  # on all ranks
        known = torch.cat([all_, torch.stack([x.double() for x in same])]).tolist()
        once = [x / world.size("tensor") for x in known[: 3 + len(self.load)]]
        stop, checkpoint, corrupted, *seconds = known[len(once) : -5]
        targets, tokens, sequences, gradient, router_max = known[-5:]
        layers, sums, load = spec.model.layers, once[:3], once[3:]
        return StepResult(
            loss=sums[0] / targets,
            balance_loss=spec.training.balance_loss * sums[1] / (sequences * layers),
            z_loss=spec.training.z_loss * sums[2] / (tokens * layers),
            gradient_norm=gradient,
            router_max=router_max,
            expert_load=[x / max(sum(load), 1.0) for x in load] if self.experts > 1 else [],
            stop=stop > 0,
            checkpoint=checkpoint > 0,
            corrupted=corrupted > 0,
            fingerprint=fingerprint,
            busy_seconds=seconds,
        )


def _copies_differ(wishes: Wishes, world: World) -> Tensor:
    """1 if the ranks that hold copies of the same weights have different fingerprints, else 0."""
    group = world.group("replicate")
    if group is None:
        return torch.zeros((), device=world.device)
    mine = wishes.fingerprint if wishes.fingerprint is not None else 0
    extremes = torch.tensor([mine, ~mine], device=world.device)  # the largest, and the smallest upside down
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=group)
    return extremes[0] != ~extremes[1]


def _sum_over_world(values: Tensor, world: World) -> Tensor:
    if world.mesh is not None:
        dist.all_reduce(values)
    return values
