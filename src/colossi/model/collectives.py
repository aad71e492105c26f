"""
The few collectives inside the model, as differentiable functions of a tensor and a group.

`copy_to` and `reduce_from` are the pair f and g of Megatron-LM [1]: a region between them computes with
slices of its matrices on every rank. A group of None (one rank) makes each the identity.

[1] M. Shoeybi et al., "Megatron-LM", 2019, section 3.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


@dataclass(frozen=True, slots=True)
class Groups:
    """The ranks that share one forward pass: None where an axis has a single rank."""

    tensor: ProcessGroup | None = None
    expert: ProcessGroup | None = None
    context: ProcessGroup | None = None  # each of its ranks has some of every sequence's tokens
    context_method: str = "gather"  # how they see the others' keys and values; or "ring"


class _CopyTo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        total = grad.clone()  # not contiguous gradients of a view cannot be reduced in place
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _ReduceFrom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _all_to_all(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _all_to_all(grads[0], ctx.received, ctx.sent, ctx.group), None, None, None


def _all_to_all(rows: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> Tensor:
    out = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), received, sent, group=group)
    return out


def copy_to(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """Enter a region of sliced matrices: x as it is; its gradient is summed over the group."""
    return x if group is None else _CopyTo.apply(x, group)  # type: ignore[no-untyped-call]


def reduce_from(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """Leave it: x summed over the group; its gradient as it is."""
    return x if group is None else _ReduceFrom.apply(x, group)  # type: ignore[no-untyped-call]


def exchange(rows: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> Tensor:
    """All-to-all: the first sent[0] rows go to rank 0 and so on; rows come by sender. [rows, ...]"""
    return _Exchange.apply(rows, sent, received, group)  # type: ignore[no-untyped-call]
