"""
Causal attention with Grok's tanh cap, for training on CPU cores.

softmax(cap * tanh(s * q.k / cap)) v, forward and backward, in tiles that stay in a core's cache; where a
query sees nothing, nothing is computed, and no [T, S] matrix is kept: going back, a tile's scores are
computed again and made probabilities by the log-sum-exp of their rows [1]. PyTorch's fused attention has no
cap, and FlexAttention has no backward on CPU.

The cap is computed as cap * tanh(x) = 2 cap * sigmoid(2x) - cap, as PyTorch's sigmoid is six times as fast as
its tanh.

A query sees a range of keys: query t sees key s if first[t] <= s <= t + past. So the queries may be the last
of a sequence (past = S - T), or come after all the keys (past >= S); `first` is where a query's document
begins. A query that sees no key gets 0, and a log-sum-exp of -inf.

Shapes: B batch, H query heads, K key-value heads, T queries, S keys, D head size, G = H / K, N = B * K.

[1] T. Dao, "FlashAttention-2", 2023, algorithms 1 and 2.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TILE_FLOATS = 1 << 17  # scores held at once for each thread: 512 KiB, half of a usual level-2 cache
ROWS = 64  # queries in a tile: small enough that little is computed above the diagonal


def softcap_attention(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    multiplier: float,
    cap: float,
    first_BT: Tensor | None = None,
) -> Tensor:
    """Causal softmax(cap * tanh(multiplier * q.k / cap)) v [B, H, T, D]; a cap of 0 is none.

    The queries are the last T of S positions. Query head h reads key-value head h // G.
    """
    past = k_BKSD.shape[2] - q_BHTD.shape[2]
    return softcap_forward(q_BHTD, k_BKSD, v_BKSD, multiplier, cap, past, first_BT)[0]


@torch.library.custom_op("colossi::softcap_attention", mutates_args=())
def softcap_forward(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    multiplier: float,
    cap: float,
    past: int,
    first_BT: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Attention [B, H, T, D], and the log of each query's sum of exp(score) [B, H, T]."""
    factor = _factor(multiplier, cap)
    q, k, v = _by_kv_head(q_BHTD, k_BKSD, v_BKSD)
    out = torch.zeros_like(q_BHTD, memory_format=torch.contiguous_format)
    lse = q.new_full(q_BHTD.shape[:3], -math.inf)
    out_NGTD, lse_NGT = out.view(q.shape), lse.view(q.shape[:3])
    for heads, rows, seen, first in _tiles(q, k, past, first_BT):
        scores = (q[heads, :, rows] * factor).flatten(1, 2) @ k[heads, seen].transpose(1, 2)
        if cap:
            scores = torch.add(scores.new_tensor(-cap), scores.sigmoid_(), alpha=2 * cap)
        _hide(scores, rows, seen, past, first)
        p, log_sum = _softmax(scores, first is not None)
        lse_NGT[heads, :, rows] = log_sum.unflatten(1, (q.shape[1], -1)).squeeze(-1)
        out_NGTD[heads, :, rows] = (p @ v[heads, seen]).unflatten(1, (q.shape[1], -1))
    return out, lse


@softcap_forward.register_fake
def _(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    multiplier: float,
    cap: float,
    past: int,
    first_BT: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return _empty_like(q_BHTD), q_BHTD.new_empty(q_BHTD.shape[:3])


@torch.library.custom_op("colossi::softcap_attention_backward", mutates_args=())
def softcap_backward(
    grad_BHTD: Tensor,
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    lse_BHT: Tensor,
    delta_BHT: Tensor,
    multiplier: float,
    cap: float,
    past: int,
    first_BT: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by q, k and v; the keys may be some of those that `lse` and `delta` = out . grad sum over.

    dscore = p (grad . v - delta); d/dz 2 cap sigmoid(z) = 2 cap * sigmoid(z) * (1 - sigmoid(z)).
    """
    factor, slope = _factor(multiplier, cap), 2 * cap if cap else 1.0
    q, k, v = _by_kv_head(q_BHTD, k_BKSD, v_BKSD)
    grads = grad_BHTD.reshape(q.shape)
    lse, delta = (x.reshape(*q.shape[:3], 1) for x in (lse_BHT, delta_BHT))
    dq, dk, dv = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    for heads, rows, seen, first in _tiles(q, k, past, first_BT):
        queries, grad = (q[heads, :, rows] * factor).flatten(1, 2), grads[heads, :, rows].flatten(1, 2)
        keys, values = k[heads, seen], v[heads, seen]
        sigmoid = queries @ keys.transpose(1, 2)
        log_sum, mean = lse[heads, :, rows].flatten(1, 2), delta[heads, :, rows].flatten(1, 2)
        p = torch.add(-cap - log_sum, sigmoid.sigmoid_(), alpha=2 * cap) if cap else sigmoid.sub_(log_sum)
        _hide(p, rows, seen, past, first)
        p.exp_()
        dv[heads, seen].baddbmm_(p.transpose(1, 2), grad)
        dz = torch.baddbmm(mean, grad, values.transpose(1, 2), beta=-1).mul_(p)
        if cap:
            dz = torch.ops.aten.sigmoid_backward(dz, sigmoid)
        dq[heads, :, rows] = (dz @ keys).unflatten(1, (q.shape[1], -1))
        dk[heads, seen].baddbmm_(dz.transpose(1, 2), queries)
    dq.mul_(slope * factor)
    return dq.view(q_BHTD.shape), dk.mul_(slope).view(k_BKSD.shape), dv.view(v_BKSD.shape)


@softcap_backward.register_fake
def _(
    grad_BHTD: Tensor,
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    lse_BHT: Tensor,
    delta_BHT: Tensor,
    multiplier: float,
    cap: float,
    past: int,
    first_BT: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_like(q_BHTD), _empty_like(k_BKSD), _empty_like(v_BKSD)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *ctx.rest, first = inputs
    ctx.save_for_backward(q, k, v, *output, first)


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Any, ...]:
    q, k, v, out, lse, first = ctx.saved_tensors
    delta = (grad * out).sum(-1) - grad_lse
    grads = softcap_backward(grad, q, k, v, lse, delta, *ctx.rest, first)
    return *grads, None, None, None, None


softcap_forward.register_autograd(_backward, setup_context=_save)


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _factor(multiplier: float, cap: float) -> float:
    """What q is multiplied by, so that q.k is the argument of the sigmoid; without a cap it is the score."""
    return 2 * multiplier / cap if cap else multiplier


def _by_kv_head(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q as [N, G, T, D], so that the query heads of a key-value head stand together; k and v as [N, S, D]."""
    batch, kv_heads, keys, size = k_BKSD.shape
    q = q_BHTD.reshape(batch * kv_heads, -1, *q_BHTD.shape[2:])
    return q, k_BKSD.reshape(-1, keys, size), v_BKSD.reshape(-1, keys, size)


Tile = tuple[slice, slice, slice, Tensor | None]


def _tiles(q_NGTD: Tensor, k_NSD: Tensor, past: int, first_BT: Tensor | None) -> Iterator[Tile]:
    """(which of N, which queries, which keys any of those may see, their first), always in the same order."""
    (count, groups, length, _), keys = q_NGTD.shape, k_NSD.shape[1]
    threads = torch.get_num_threads()
    step = ROWS if groups < 4 else ROWS // 2
    for start in range(0, length, step):
        rows = slice(start, min(start + step, length))
        last = min(rows.stop + past, keys)
        if first_BT is None:
            spans = [(0, count, 0)]
        else:
            each = count // len(first_BT)
            lowest = first_BT[:, rows].amin(1).tolist()
            spans = [(row * each, (row + 1) * each, low) for row, low in enumerate(lowest)]
        for row, (begin, end, low) in enumerate(spans):
            first = None if first_BT is None else first_BT[row, rows]
            if low >= last:
                continue  # keys of other documents only
            seen = slice(low, last)
            floats = groups * (rows.stop - start) * (last - low)
            width = max(threads, TILE_FLOATS * threads // floats)
            for head in range(begin, end, width):
                yield slice(head, min(head + width, end)), rows, seen, first


def _softmax(scores: Tensor, may_be_empty: bool) -> tuple[Tensor, Tensor]:
    """The softmax of each row and its log-sum-exp, from the largest score and what became of it."""
    top, p = scores.amax(-1, keepdim=True), scores.softmax(-1)
    log_sum = top - p.amax(-1, keepdim=True).log()
    if may_be_empty:
        empty = top == -math.inf
        p.masked_fill_(empty, 0.0)
        log_sum.masked_fill_(empty, -math.inf)
    return p, log_sum


def _hide(scores: Tensor, rows: slice, seen: slice, past: int, first: Tensor | None) -> None:
    """-inf where a query of the tile must not see a key of it. scores [n, G * rows, keys]"""
    length = rows.stop - rows.start
    by_row = scores.view(scores.shape[0], -1, length, scores.shape[2])
    if first is not None:
        key = torch.arange(seen.start, seen.stop)
        last = torch.arange(rows.start + past, rows.stop + past)
        by_row.masked_fill_((key < first[:, None]) | (key > last[:, None]), -math.inf)
    elif rows.start + past + 1 < seen.stop:  # only the last square of keys has any that a row must not see
        above = torch.full((length, seen.stop - rows.start - past), -math.inf, dtype=scores.dtype).triu_(1)
        by_row[..., rows.start + past :] += above
