"""
Causal attention with Grok's tanh cap, for training on CPU cores.

softmax(cap * tanh(s * q.k / cap)) v, forward and backward, in tiles that stay in a core's cache; above the
diagonal nothing is computed and no [T, T] matrix is kept: going back, a tile's scores are computed again [1].
PyTorch's fused attention has no cap, and FlexAttention has no backward on CPU.

The cap is computed as cap * tanh(x) = 2 cap * sigmoid(2x) - cap, as PyTorch's sigmoid is six times as fast as
its tanh.

Shapes: B batch, H query heads, K key-value heads, T sequence, D head size, G = H / K.

[1] T. Dao et al., "FlashAttention", 2022, section 3.1.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TILE_FLOATS = 1 << 17  # scores held at once for each thread: 512 KiB, half of a usual level-2 cache
ROWS = 64  # query rows in a tile: small enough that little is computed above the diagonal


@torch.library.custom_op("colossi::softcap_attention", mutates_args=())
def softcap_attention(
    q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, multiplier: float, cap: float
) -> Tensor:
    """Causal softmax(cap * tanh(multiplier * q.k / cap)) v [B, H, T, D]; a cap of 0 is none.

    Query head h reads key-value head h // G.
    """
    out = torch.empty_like(q_BHTD, memory_format=torch.contiguous_format)
    q, k, v = _by_head(q_BHTD * _factor(multiplier, cap), k_BKTD, v_BKTD)
    flat = out.view_as(q)
    for heads, rows, seen in _tiles(q.shape[0], q.shape[1]):
        _, p = _probabilities(q[heads, rows], k[heads, :seen], cap, rows)
        flat[heads, rows] = p @ v[heads, :seen]
    return out


@softcap_attention.register_fake
def _(q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, multiplier: float, cap: float) -> Tensor:
    return torch.empty_like(q_BHTD, memory_format=torch.contiguous_format)


@torch.library.custom_op("colossi::softcap_attention_backward", mutates_args=())
def softcap_attention_backward(
    grad_BHTD: Tensor, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, multiplier: float, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by q, k and v. d/dz 2 cap sigmoid(z) = 2 cap * sigmoid(z) * (1 - sigmoid(z))."""
    factor, slope = _factor(multiplier, cap), 2 * cap if cap else 1.0
    q, k, v = _by_head(q_BHTD * factor, k_BKTD, v_BKTD)
    dout = grad_BHTD.reshape(q.shape)
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(q), torch.zeros_like(q)
    for heads, rows, seen in _tiles(q.shape[0], q.shape[1]):
        queries, keys, grad = q[heads, rows], k[heads, :seen], dout[heads, rows]
        sigmoid, p = _probabilities(queries, keys, cap, rows)
        dv[heads, :seen] += p.transpose(1, 2) @ grad
        dp = grad @ v[heads, :seen].transpose(1, 2)
        dz = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
        if cap:
            dz = torch.ops.aten.sigmoid_backward(dz, sigmoid)
        dq[heads, rows] = dz @ keys
        dk[heads, :seen] += dz.transpose(1, 2) @ queries
    shared = (*k_BKTD.shape[:2], -1, *k_BKTD.shape[2:])
    return (
        dq.mul_(slope * factor).view(q_BHTD.shape),
        dk.mul_(slope).view(shared).sum(2),
        dv.view(shared).sum(2),
    )


@softcap_attention_backward.register_fake
def _(
    grad_BHTD: Tensor, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, multiplier: float, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    def like(x: Tensor) -> Tensor:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    return like(q_BHTD), like(k_BKTD), like(v_BKTD)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, ctx.multiplier, ctx.cap = inputs
    ctx.save_for_backward(q, k, v)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    return *softcap_attention_backward(grad, *ctx.saved_tensors, ctx.multiplier, ctx.cap), None, None


softcap_attention.register_autograd(_backward, setup_context=_save)


def _factor(multiplier: float, cap: float) -> float:
    """What q is multiplied by, so that q.k is the argument of the sigmoid; without a cap it is the score."""
    return 2 * multiplier / cap if cap else multiplier


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


def _probabilities(q: Tensor, k: Tensor, cap: float, rows: slice) -> tuple[Tensor, Tensor]:
    """sigmoid(q.k) (q.k without a cap), and each row's softmax over the keys that it may see."""
    sigmoid = q @ k.transpose(1, 2)
    scores = torch.add(q.new_tensor(-cap), sigmoid.sigmoid_(), alpha=2 * cap) if cap else sigmoid
    length = rows.stop - rows.start
    above = torch.full((length, length), -math.inf, dtype=scores.dtype).triu_(1)
    scores[:, :, rows] += above  # only the last square of keys has any that a row must not see
    return sigmoid, scores.softmax(-1)
