"""
Cross-entropy over a vocabulary that may be dealt out over the tensor-parallel ranks.

No rank ever holds more than its own slice of the logits in training; generation gathers them.
Shapes: B batch, T tokens, V this rank's part of the vocabulary.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup


class _SlicedCrossEntropy(torch.autograd.Function):
    """Sum over counted tokens of logsumexp(logits) - logits[target]; Megatron-LM's parallel form."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, counted: Tensor, group: ProcessGroup) -> Tensor:
        size = logits.shape[-1]
        top = logits.amax(-1, keepdim=True)
        dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
        exp = (logits - top).exp()
        total = exp.sum(-1, keepdim=True)
        here = targets - group.rank() * size
        mine = (here >= 0) & (here < size)
        at_target = (logits - top).gather(-1, (here * mine).unsqueeze(-1)) * mine.unsqueeze(-1)
        both = torch.cat((total, at_target), -1)
        dist.all_reduce(both, group=group)
        total, at_target = both.split(1, -1)
        ctx.save_for_backward(exp / total, here * mine, mine & counted, counted)
        return ((total.log() - at_target).squeeze(-1) * counted).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        probabilities, here, mine, counted = ctx.saved_tensors
        grad = probabilities * counted.unsqueeze(-1)
        grad.scatter_add_(-1, here.unsqueeze(-1), -mine.unsqueeze(-1).to(grad.dtype))
        return grad * grads[0], None, None, None


def cross_entropy_sum(
    logits_BTV: Tensor, targets_BT: Tensor, is_target_BT: Tensor, group: ProcessGroup | None
) -> Tensor:
    """Sum over the tokens that count of -log p(target) [nats]; divide by their number for the mean."""
    if group is not None:
        return _SlicedCrossEntropy.apply(logits_BTV, targets_BT, is_target_BT, group)  # type: ignore[no-untyped-call]
    chosen, targets = logits_BTV[is_target_BT], targets_BT[is_target_BT]
    return F.cross_entropy(chosen, targets, reduction="sum")


def gather_vocabulary(logits_BTV: Tensor, group: ProcessGroup | None) -> Tensor:
    """The whole vocabulary's logits on every rank of the group; not differentiable."""
    if group is None:
        return logits_BTV
    parts = [torch.empty_like(logits_BTV) for _ in range(group.size())]
    dist.all_gather(parts, logits_BTV.detach().contiguous(), group=group)
    return torch.cat(parts, -1)
