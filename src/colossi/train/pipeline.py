"""
Pipeline parallel: one batch through the stages of several ranks, by torch's own schedules.

Activations go from stage to stage, their gradients back; every rank reads the batch itself, so tokens do not
travel. The router losses of a stage enter the gradient where they are made: the rank of the last stage need
not know them.

[1] D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
    2021: 1F1B and interleaved 1F1B.
[2] P. Qi et al., "Zero Bubble Pipeline Parallelism", 2023: zero-bubble (ZB1P) and zero-bubble-v (ZB-V).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B
from torch.distributed.pipelining.schedules import ScheduleInterleavedZeroBubble, ScheduleZBVZeroBubble
from torch.distributed.pipelining.stage import _PipelineStageBase

from colossi.model.grok import Grok, Losses
from colossi.model.matrix import local
from colossi.spec.spec import Spec, data_parallel
from colossi.train.mesh import World

Found = Callable[["Grok", Losses], Tensor]  # takes what a pass of a stage has found; gives the loss of it


class Stage(Grok):
    """A part of the model that computes its part of a step."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        is_target_BT: Tensor,
        found: Found,
        first_BT: Tensor | None = None,
    ) -> Tensor:
        """Activations for the next stage [B, T, E]; from the last stage the loss."""
        h = self.embed(x) if self.part.first else x
        h, stats = self.through_blocks(h, tokens_BT, None, first_BT)
        losses = self.losses(h, targets_BT, is_target_BT, stats)
        loss = found(self, losses)
        if self.part.last:
            return loss
        return _Attach.apply(h, loss) if stats else h  # type: ignore[no-untyped-call]


class _Attach(torch.autograd.Function):
    """x as it is; going back, the loss gets a gradient of one, as if it had been added to the last one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        ctx.like = loss.detach()
        return x.clone()  # the schedules detach what a stage gives in place, and no view can be

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], torch.ones_like(ctx.like)


class Pipeline:
    """The stages of this rank with their schedule, for batches of one number of micro-batches."""

    def __init__(self, stages: list[Grok], world: World, micro_batch: int, length: int, count: int) -> None:
        layout, group = world.layout, world.group("pipeline")
        numbers = layout.stages_of(world.coordinate("pipeline"))
        self._wrapped: list[_PipelineStageBase] = [
            PipelineStage(
                stage,
                number,
                layout.stages,
                world.device,
                input_args=_passed_on(stage, micro_batch, length, stage.part.first, tokens=True),
                output_args=_passed_on(stage, micro_batch, length, stage.part.last, tokens=False),
                group=group,
            )
            for stage, number in zip(stages, numbers, strict=True)
        ]
        common: dict[str, Any] = {"n_microbatches": count, "loss_fn": _as_it_is, "scale_grads": False}
        if layout.schedule == "zero-bubble-v":
            self._schedule: Any = ScheduleZBVZeroBubble(self._wrapped, **common)
        elif layout.schedule == "zero-bubble":
            self._schedule = ScheduleInterleavedZeroBubble(self._wrapped, **common)
        elif layout.interleave > 1:
            self._schedule = ScheduleInterleaved1F1B(self._wrapped, **common)
        else:
            self._schedule = Schedule1F1B(self._wrapped[0], **common)

    def forward_backward(
        self, tokens: Tensor, targets: Tensor, is_target: Tensor, first: Tensor | None, found: Found
    ) -> None:
        """Leave this rank's part of the gradient on its weights."""
        inputs = (tokens,) if any(stage.is_first for stage in self._wrapped) else ()
        documents = {"first_BT": first} if first is not None else {}
        self._schedule.step(
            *inputs,
            target=targets,
            return_outputs=False,
            tokens_BT=tokens,
            targets_BT=targets,
            is_target_BT=is_target,
            found=found,
            **documents,
        )


def pipeline_of(stages: list[Grok], spec: Spec, world: World) -> Pipeline:
    """For the batches of a spec."""
    assert spec.training is not None and spec.layout.micro_batch is not None
    micro = spec.layout.micro_batch
    count = spec.training.global_batch // data_parallel(spec.layout) // micro
    return Pipeline(stages, world, micro, spec.training.sequence_length // spec.layout.context, count)


def _passed_on(stage: Grok, micro_batch: int, length: int, end: bool, tokens: bool) -> Tensor:
    """What goes into a stage or comes out: activations, at one end tokens, at the other a loss."""
    if not end:
        shape = (micro_batch, length, stage.model.hidden)
        return torch.empty(shape, dtype=stage.dtype, device="meta", requires_grad=True)
    if tokens:
        return torch.empty((micro_batch, length), dtype=torch.int64, device="meta")
    return torch.empty((), device="meta", requires_grad=True)


def _as_it_is(loss: Tensor, _: Tensor) -> Tensor:
    return loss


def sum_tied(first: nn.Parameter | None, last: nn.Parameter | None, world: World) -> None:
    """Add the gradients of both copies of tied embeddings, where a pipeline has two."""
    if first is not None and last is not None:
        assert first.grad is not None and last.grad is not None
        total = first.grad + last.grad
        first.grad, last.grad = total, total.clone()
    elif (mine := first if first is not None else last) is not None:
        assert mine.grad is not None
        group, part = world.group("pipeline"), local(mine.grad).contiguous()
        assert group is not None
        other = torch.empty_like(part)
        peer = group.size() - 1 if first is not None else 0
        works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, part, group=group, group_peer=peer),
                dist.P2POp(dist.irecv, other, group=group, group_peer=peer),
            ]
        )
        for work in works:
            work.wait()
        local(mine.grad).add_(other)
