"""
Context parallel: which tokens of a sequence each rank has, and how they attend to those of the others.

Under the causal mask a late token costs more than an early one. So a sequence is cut into 2C chunks for C
ranks, and rank r has the chunks r and 2C - 1 - r: every rank computes the same number of products [1].

gather   all keys and values are gathered; going back, the sums of their gradients return to their ranks [1].
ring     blocks of keys and values go round the ranks while each computes with the one that it has, and the
         parts are merged by their log-sum-exps; their gradients go round with them [2].

Shapes: B batch, H query heads, K key-value heads, D head size, C ranks, n tokens of a chunk; a rank has 2n.

[1] A. Dubey et al., "The Llama 3 Herd of Models", 2024, section 3.3.2.
[2] H. Liu et al., "Ring Attention with Blockwise Transformers for Near-Infinite Context", 2023.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from colossi.model.kernel import attend_range, attend_range_backward


def positions(rank: int, ranks: int, length: int) -> Tensor:
    """The positions in the sequence of a rank's tokens, in order, int64 [length / ranks]."""
    chunks = torch.arange(length).chunk(2 * ranks)
    return torch.cat((chunks[rank], chunks[2 * ranks - 1 - rank])) if ranks > 1 else torch.arange(length)


def attend_across(
    q_BHTD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    multiplier: float,
    cap: float,
    first_BT: Tensor | None,
    group: ProcessGroup,
    method: str,
) -> Tensor:
    """Causal attention of this rank's tokens to those of all ranks of the group. [B, H, T, D]

    `first` is the position in the sequence where a token's document begins, None where there is one only.
    """
    if method == "ring":
        return _Ring.apply(q_BHTD, k_BKTD, v_BKTD, multiplier, cap, first_BT, group)  # type: ignore[no-untyped-call]
    rank, ranks, n = group.rank(), group.size(), q_BHTD.shape[2] // 2
    k, v = _in_order(_Gather.apply(torch.stack((k_BKTD, v_BKTD)), group))  # type: ignore[no-untyped-call]
    outs = []
    for chunk, rows in ((rank, slice(0, n)), (2 * ranks - 1 - rank, slice(n, 2 * n))):
        first = None if first_BT is None else first_BT[:, rows]
        before = slice(0, (chunk + 1) * n)
        q, past = q_BHTD[:, :, rows], chunk * n
        outs.append(attend_range(q, k[:, :, before], v[:, :, before], multiplier, cap, past, first)[0])
    return torch.cat(outs, dim=2)


class _Gather(torch.autograd.Function):
    """Every rank's x by rank [C, ...]; going back, each rank gets the sum of the gradients by its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        out = x.new_empty(group.size() * x.shape[0], *x.shape[1:])
        dist.all_gather_single(out, x.contiguous(), group=group)
        return out.unflatten(0, (group.size(), -1))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        own = grad.new_empty(grad.shape[1:])
        dist.reduce_scatter_single(own, grad.flatten(0, 1).contiguous(), group=ctx.group)
        return own, None


def _in_order(x_CzBKTD: Tensor) -> Tensor:
    """What came by rank, by position: the ranks' first chunks, then their second from the last rank on."""
    early, late = x_CzBKTD.chunk(2, dim=4)
    chunks = torch.cat((early, late.flip(0)))
    return torch.cat(chunks.unbind(0), dim=3)


class _Ring(torch.autograd.Function):
    """Beside a rank's own keys and values, it holds two blocks: one to compute with and one that arrives."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        multiplier: float,
        cap: float,
        first: Tensor | None,
        group: ProcessGroup,
    ) -> Tensor:
        ranks, block = group.size(), torch.stack((k, v))
        out = lse = torch.empty(0)
        for step in range(ranks):
            arriving = _Passing(block, group, tag=0) if step + 1 < ranks else None
            rows, keys, past, since = _seen(group, step, q.shape[2] // 2, first)
            there_k, there_v = block[:, :, :, keys]
            part, own = attend_range(q[:, :, rows], there_k, there_v, multiplier, cap, past, since)
            if step == 0:
                out, lse = part.to(own.dtype), own
            else:
                _merge(out[:, :, rows], lse[:, :, rows], part, own)
            block = arriving.wait() if arriving is not None else block
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse, first)
        ctx.rest, ctx.group = (multiplier, cap), group
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """A block's gradient follows it round the ring, each rank adding its own part, and so comes home."""
        (grad,), (q, k, v, out, lse, first), group = grads, ctx.saved_tensors, ctx.group
        (multiplier, cap), ranks, block = ctx.rest, group.size(), torch.stack((k, v))
        delta = (grad * out).to(lse.dtype).sum(-1)
        dq, following = torch.zeros_like(q, dtype=lse.dtype), None
        for step in range(ranks):
            arriving = _Passing(block, group, tag=0) if step + 1 < ranks else None
            rows, keys, past, since = _seen(group, step, q.shape[2] // 2, first)
            there_k, there_v = block[:, :, :, keys]
            out_by, queries, lse_here, delta_here = (x[:, :, rows] for x in (grad, q, lse, delta))
            by_q, by_k, by_v = attend_range_backward(
                out_by, queries, there_k, there_v, lse_here, delta_here, multiplier, cap, past, since
            )
            dq[:, :, rows] += by_q
            total = torch.zeros_like(block, dtype=lse.dtype) if following is None else following.wait()
            total[0][:, :, keys] += by_k
            total[1][:, :, keys] += by_v
            following = _Passing(total, group, tag=1)
            block = arriving.wait() if arriving is not None else block
        assert following is not None
        dk, dv = following.wait()
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None, None


class _Passing:
    """A tensor on its way to the next rank, and one like it from the rank before."""

    def __init__(self, x: Tensor, group: ProcessGroup, tag: int) -> None:
        rank, ranks = group.rank(), group.size()
        self._sent, self._arrived = x, torch.empty_like(x)
        to, by = (rank + 1) % ranks, (rank - 1) % ranks
        self._works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, x, group=group, group_peer=to, tag=tag),
                dist.P2POp(dist.irecv, self._arrived, group=group, group_peer=by, tag=tag),
            ]
        )

    def wait(self) -> Tensor:
        """What has come, once both are done."""
        for work in self._works:
            work.wait()
        return self._arrived


def _seen(
    group: ProcessGroup, step: int, n: int, first_BT: Tensor | None
) -> tuple[slice, slice, int, Tensor | None]:
    """Which of this rank's queries see which keys of the block at hand, and the two bounds of attend_range.

    The block is that of `step` ranks before. Of an earlier rank both chunks of queries see the first chunk of
    keys, as the second is the later of all four; of a later rank the second chunk of queries sees both.
    """
    rank, ranks = group.rank(), group.size()
    source = (rank - step) % ranks
    if source == rank:
        rows, keys, past = slice(0, 2 * n), slice(0, 2 * n), 0
    elif source < rank:
        rows, keys, past = slice(0, 2 * n), slice(0, n), n
    else:
        rows, keys, past = slice(n, 2 * n), slice(0, 2 * n), 2 * n
    if first_BT is None:
        return rows, keys, past, None
    starts = (source * n, (2 * ranks - 1 - source) * n)
    hidden = sum((first_BT[:, rows] - start).clamp(0, n) for start in starts)  # keys of the block before it
    assert isinstance(hidden, Tensor)
    return rows, keys, past, hidden


def _merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> None:
    """Attention to some keys, and to some more, in place: a mean weighted by exp of the log-sum-exps [2]."""
    both = torch.logaddexp(lse, more_lse)
    out.mul_((lse - both).exp().unsqueeze(-1)).add_(more * (more_lse - both).exp().unsqueeze(-1))
    lse.copy_(both)
