"""
Output and cross-entropy in one, a chunk of tokens at a time: training never holds all logits.

For one chunk after another the logits are computed, their loss is added up, and what they add to the
gradients of the activations and of the table is taken at once; then the next chunk's are written over them.
The backward pass only scales both gradients. Refused: computing the logits a second time there. It is a third
more products, for no gain where backward follows forward at once; a pipeline's last stage would save a
gradient of the size of its table for each micro-batch that waits, where it held logits before.

The vocabulary may be dealt out over the tensor-parallel ranks: each has the logits of its own part, and only
two numbers a token travel (M. Shoeybi et al., "Megatron-LM", 2019, section 3). Generation gathers the logits.

Shapes: B batch, T tokens of a sequence, N tokens, E width, V this rank's part of the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

# Logits of a chunk: on CPU cores 4 MiB, which stay in the cache; on GPUs 1 GiB, 2,048 tokens of a vocabulary
# of 131,072. With few tokens, to add to the table's gradient takes longer than the product that is added.
CHUNK_CPU, CHUNK_GPU, LEAST_TOKENS = 1 << 20, 1 << 28, 256


@dataclass(frozen=True, slots=True)
class Output:
    """How activations become logits: multiplier * h . table, then cap * tanh(logit / cap) with a cap."""

    multiplier: float
    cap: float
    group: ProcessGroup | None  # the ranks that have the other parts of the vocabulary


def cross_entropy_sum(
    h_BTE: Tensor, table_VE: Tensor, targets_BT: Tensor, is_target_BT: Tensor, output: Output
) -> Tensor:
    """Sum over the tokens that count of -log p(target) [nats]; divide by their number for the mean.

    Logits are float32 (float64 if the activations are). The table is cast to the type of the activations.
    """
    h, targets, counted = h_BTE.flatten(0, 1), targets_BT.flatten(), is_target_BT.flatten()
    if h.device.type == "cpu" and not bool(counted.all()):  # a GPU would have to wait for their number
        h, targets, counted = h[counted], targets[counted], counted[counted]
    return _ChunkedCrossEntropy.apply(h, table_VE, targets, counted, output)  # type: ignore[no-untyped-call]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """With x the logits: sum of logsumexp(x) - x[target], whose slope is softmax(x), less 1 at the target."""

    @staticmethod
    def forward(
        ctx: Any, h_NE: Tensor, table_VE: Tensor, targets_N: Tensor, counted_N: Tensor, output: Output
    ) -> Tensor:
        table, size = table_VE.to(h_NE.dtype), table_VE.shape[0]
        precise = torch.promote_types(h_NE.dtype, torch.float32)
        scores, slopes = _kernels(h_NE.device.type)
        first = output.group.rank() * size if output.group is not None else 0
        at_N = (targets_N - first).clamp(0, size - 1)  # of the target in this part, if it is there
        mine_N = at_N == targets_N - first
        length = max(LEAST_TOKENS, (CHUNK_CPU if h_NE.device.type == "cpu" else CHUNK_GPU) // size)
        room = h_NE.new_empty(min(length, len(h_NE)), size, dtype=precise)
        total = h_NE.new_zeros((), dtype=precise)
        by_h, by_table = torch.empty_like(h_NE), torch.zeros_like(table, dtype=precise)
        wanted = any(ctx.needs_input_grad)
        chunks = zip(*(x.split(length) for x in (h_NE, at_N, mine_N, counted_N, by_h)), strict=True)
        for h, at, mine, counted, into in chunks:
            logits = room[: len(h)]
            _multiply(h, table.t(), output.multiplier, logits, keep=False)
            lse, found = scores(logits, at, mine, output.cap)
            if output.group is not None:
                lse, found = _of_all_parts(lse, found, output.group)
            total += ((lse - found) * counted).sum()
            if wanted:
                weight = counted.to(precise) * output.multiplier
                slope = slopes(logits, lse, at, mine, weight, output.cap, h.dtype)
                torch.mm(slope, table, out=into)
                _multiply(slope.t(), h, 1.0, by_table, keep=True)
        if wanted:
            ctx.save_for_backward(by_h, by_table.to(table_VE.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        by_h, by_table = ctx.saved_tensors
        # Not in place: zero-bubble pipelines come here twice, for the activations and for the table.
        return by_h * grads[0], by_table * grads[0], None, None, None


def _multiply(a: Tensor, b: Tensor, factor: float, out: Tensor, keep: bool) -> None:
    """out = factor * a b, added to what is there if `keep`; sums are rounded to the type of out only."""
    if a.dtype == out.dtype:
        torch.addmm(out, a, b, beta=float(keep), alpha=factor, out=out)
    elif a.device.type == "cuda":
        torch.addmm(out, a, b, out_dtype=out.dtype, beta=float(keep), alpha=factor, out=out)
    elif keep:  # other devices multiply to the type of a only
        out.add_(a @ b, alpha=factor)
    else:
        torch.mul((a @ b).to(out.dtype), factor, out=out)


def _scores(logits_NV: Tensor, at_N: Tensor, mine_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """This part's log-sum-exp, and the target's logit or 0 if it is in another part; caps logits in place."""
    if cap:
        logits_NV.div_(cap).tanh_().mul_(cap)
    return logits_NV.logsumexp(-1), logits_NV.gather(-1, at_N.unsqueeze(-1)).squeeze(-1) * mine_N


def _slopes(
    logits_NV: Tensor,
    lse_N: Tensor,
    at_N: Tensor,
    mine_N: Tensor,
    weight_N: Tensor,
    cap: float,
    dtype: torch.dtype,
) -> Tensor:
    """d(weight * loss) / d(logit before the cap), as `dtype`; one pass, and one number a token afterwards."""
    at_N1, weight_N1 = at_N.unsqueeze(-1), weight_N.unsqueeze(-1)
    slopes, less = (logits_NV - lse_N.unsqueeze(-1)).exp_().mul_(weight_N1), mine_N.unsqueeze(-1) * weight_N1
    if cap:
        slopes.addcmul_(slopes, (logits_NV / cap).square_(), value=-1)
        less = less * (1 - (logits_NV.gather(-1, at_N1) / cap).square())
    at_target = slopes.gather(-1, at_N1) - less  # subtracted before it is rounded to `dtype`
    return slopes.to(dtype).scatter_(-1, at_N1, at_target.to(dtype))


def _of_all_parts(lse_N: Tensor, found_N: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """The same of the whole vocabulary."""
    top = lse_N.clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
    both = torch.stack(((lse_N - top).exp(), found_N))
    dist.all_reduce(both, group=group)
    return top + both[0].log(), both[1]


@cache
def _kernels(device: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two passes over a chunk; on GPUs compiled, as each would be many passes over memory there."""
    if device == "cpu":
        return _scores, _slopes
    return torch.compile(_scores, dynamic=False), torch.compile(_slopes, dynamic=False)


def gather_vocabulary(logits_BTV: Tensor, group: ProcessGroup | None) -> Tensor:
    """The whole vocabulary's logits on every rank of the group; not differentiable."""
    if group is None:
        return logits_BTV
    parts = [torch.empty_like(logits_BTV) for _ in range(group.size())]
    dist.all_gather(parts, logits_BTV.detach().contiguous(), group=group)
    return torch.cat(parts, -1)
