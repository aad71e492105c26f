"""
Causal attention with Grok's tanh cap, for training on CPU cores.

softmax(cap * tanh(s * q.k / cap)) v, forward and backward, in tiles that stay in a core's cache; above the
diagonal nothing is computed and no [T, T] matrix is kept. PyTorch's fused attention has no cap, and
FlexAttention has no backward on CPU.

Shapes: B batch, H query heads, K key-value heads, T sequence, D head size, G = H / K.

[1] T. Dao, "FlashAttention-2", 2023, section 3: the backward pass from q, k, v, the output and the row's
    log-sum-exp. d/dx cap*tanh(x/cap) = 1 - tanh(x/cap)^2.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TILE_FLOATS = 1 << 17  # scores held at once for each thread: 512 KiB, half of a usual level-2 cache
ROWS = 64  # query rows in a tile: small enough that little is computed above the diagonal


@torch.library.custom_op("colossi::softcap_attention", mutates_args=())
def softcap_attention_with_lse(
    q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, multiplier: float, cap: float
) -> tuple[Tensor, Tensor]:
    """The output [B, H, T, D] and each row's log-sum-exp [B, H, T], in float32."""
    batch, heads, length, size = q_BHTD.shape
    out = torch.empty(batch, heads, length, size, dtype=q_BHTD.dtype)
    lse = torch.empty(batch, heads, length, dtype=q_BHTD.dtype)
    q, k, v = _by_head(q_BHTD, k_BKTD, v_BKTD)
    out_flat, lse_flat = out.view(-1, length, size), lse.view(-1, length)
    for heads_, rows, seen in _tiles(batch * heads, length):
        t, hidden = _scores(q[heads_, rows], k[heads_, :seen], multiplier, cap, rows)
        scores = t.mul_(cap) if cap else t
        scores.masked_fill_(hidden, -math.inf)
        top = scores.amax(-1, keepdim=True)
        p = scores.sub_(top).exp_()
        total = p.sum(-1, keepdim=True)
        torch.bmm(p, v[heads_, :seen], out=(tile := torch.empty(p.shape[0], p.shape[1], size, dtype=p.dtype)))
        out_flat[heads_, rows] = tile.div_(total)
        lse_flat[heads_, rows] = (top + total.log_()).squeeze(-1)
    return out, lse


@softcap_attention_with_lse.register_fake
def _(
    q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, multiplier: float, cap: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q_BHTD, memory_format=torch.contiguous_format), q_BHTD.new_empty(q_BHTD.shape[:3])


@torch.library.custom_op("colossi::softcap_attention_backward", mutates_args=())
def softcap_attention_backward(
    grad_BHTD: Tensor,
    q_BHTD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    out_BHTD: Tensor,
    lse_BHT: Tensor,
    multiplier: float,
    cap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by q, k and v."""
    batch, heads, length, size = q_BHTD.shape
    kv_heads = k_BKTD.shape[1]
    q, k, v = _by_head(q_BHTD, k_BKTD, v_BKTD)
    grad, lse = grad_BHTD.reshape(-1, length, size), lse_BHT.reshape(-1, length, 1)
    delta = (grad_BHTD * out_BHTD).sum(-1).view(-1, length, 1)
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(q), torch.zeros_like(q)
    for heads_, rows, seen in _tiles(batch * heads, length):
        keys, values, queries, dout = k[heads_, :seen], v[heads_, :seen], q[heads_, rows], grad[heads_, rows]
        t, hidden = _scores(queries, keys, multiplier, cap, rows)
        p = torch.mul(t, cap) if cap else t.clone()
        p = p.sub_(lse[heads_, rows]).exp_().masked_fill_(hidden, 0.0)
        dv[heads_, :seen].baddbmm_(p.transpose(1, 2), dout)
        ds = torch.bmm(dout, values.transpose(1, 2)).sub_(delta[heads_, rows]).mul_(p)
        if cap:
            ds.addcmul_(ds * t, t, value=-1.0)
        ds.mul_(multiplier)
        dq[heads_, rows] = torch.bmm(ds, keys)
        dk[heads_, :seen].baddbmm_(ds.transpose(1, 2), queries)
    shared = (batch, kv_heads, heads // kv_heads, length, size)
    return dq.view_as(out_BHTD), dk.view(shared).sum(2), dv.view(shared).sum(2)


@softcap_attention_backward.register_fake
def _(
    grad_BHTD: Tensor,
    q_BHTD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    out_BHTD: Tensor,
    lse_BHT: Tensor,
    multiplier: float,
    cap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    def like(x: Tensor) -> Tensor:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    return like(q_BHTD), like(k_BKTD), like(v_BKTD)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.multiplier, ctx.cap = inputs
    ctx.save_for_backward(q, k, v, *output)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    q, k, v, out, lse = ctx.saved_tensors
    return *softcap_attention_backward(grad, q, k, v, out, lse, ctx.multiplier, ctx.cap), None, None


softcap_attention_with_lse.register_autograd(_backward, setup_context=_save)


def softcap_attention(
    q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, multiplier: float, cap: float
) -> Tensor:
    """Causal softmax(cap * tanh(multiplier * q.k / cap)) v; query head h reads key-value head h // G. [B, H, T, D]"""
    return softcap_attention_with_lse(q_BHTD, k_BKTD, v_BKTD, multiplier, cap)[0]  # type: ignore[no-any-return]


def _by_head(q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three as [B*H, T, D]; key-value heads stand once for each query head that reads them."""
    batch, heads, length, size = q_BHTD.shape
    kv_heads = k_BKTD.shape[1]

    def spread(x: Tensor) -> Tensor:
        shape = (batch, kv_heads, heads // kv_heads, length, size)
        return x.unsqueeze(2).expand(shape).reshape(-1, length, size)

    return q_BHTD.reshape(-1, length, size), spread(k_BKTD), spread(v_BKTD)


def _tiles(heads: int, length: int) -> Iterator[tuple[slice, slice, int]]:
    """(which heads, which query rows, how many keys those rows can see), always in the same order."""
    for first in range(0, length, ROWS):
        last = min(first + ROWS, length)
        width = max(torch.get_num_threads(), TILE_FLOATS * torch.get_num_threads() // ((last - first) * last))
        for head in range(0, heads, width):
            yield slice(head, min(head + width, heads)), slice(first, last), last


def _scores(q: Tensor, k: Tensor, multiplier: float, cap: float, rows: slice) -> tuple[Tensor, Tensor]:
    """tanh(multiplier * q.k / cap) (the plain product without a cap), and which keys a row must not see."""
    scores = torch.bmm(q, k.transpose(1, 2)).mul_(multiplier / cap if cap else multiplier)
    if cap:
        scores.tanh_()
    row, key = torch.arange(rows.start, rows.stop), torch.arange(k.shape[1])
    return scores, key[None, :] > row[:, None]
