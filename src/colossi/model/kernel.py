"""
Capped attention over ranges of keys, by the kernel of the device: tiles of our own on CPU cores,
FlexAttention on GPUs.

Query t of a pass sees key s if first[t] <= s <= t + past, as in softcap.py. Both give the log-sum-exp of the
scores too, so that parts of the keys can be computed apart and merged.

Shapes: B batch, H query heads, K key-value heads, T queries, S keys, D head size.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from colossi.model.softcap import softcap_backward, softcap_forward

BLOCK = 128  # queries and keys in a block of FlexAttention's mask; its own default

Mod = Callable[..., Tensor]


def attend_range(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    multiplier: float,
    cap: float,
    past: int,
    first_BT: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Attention [B, H, T, D] in the type of q, and each query's log-sum-exp of its scores [B, H, T]."""
    if q_BHTD.device.type != "cpu":
        flex: Any = flex_attention if torch.compiler.is_compiling() else _compiled()
        return flex_range(flex, q_BHTD, k_BKSD, v_BKSD, multiplier, cap, past, first_BT)
    q, k, v = (_at_least_float32(x) for x in (q_BHTD, k_BKSD, v_BKSD))
    out, lse = softcap_forward(q, k, v, multiplier, cap, past, first_BT)
    return out.to(q_BHTD.dtype), lse


def attend_range_backward(
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
) -> tuple[Tensor, ...]:
    """Gradients by q, k and v, where `lse` and `delta` = out . grad are those of more keys than these."""
    rest = multiplier, cap, past, first_BT
    if q_BHTD.device.type != "cpu":
        return backward_by_autograd(
            attend_range, grad_BHTD, q_BHTD, k_BKSD, v_BKSD, lse_BHT, delta_BHT, *rest
        )
    grad, q, k, v = (_at_least_float32(x) for x in (grad_BHTD, q_BHTD, k_BKSD, v_BKSD))
    return softcap_backward(grad, q, k, v, lse_BHT, delta_BHT, *rest)


def backward_by_autograd(
    attend: Callable[..., tuple[Tensor, Tensor]],
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    delta: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    """The same for any kernel that autograd knows, at the cost of its forward pass once more.

    These keys' part of the whole output is w out, w = exp(their lse - the whole lse); the whole's backward is
    theirs, given w grad for out and w (grad . out - delta) for their lse.
    """
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        out, own = attend(*leaves, *rest)
    weight = (own - lse).exp()
    by_lse = weight * ((grad.float() * out.float()).sum(-1) - delta)
    return torch.autograd.grad((out, own), leaves, ((weight.unsqueeze(-1) * grad).to(out.dtype), by_lse))


def _at_least_float32(x: Tensor) -> Tensor:
    """CPU cores without units for bfloat16 are faster so, and no copy is as large as the scores."""
    return x if x.dtype == torch.float64 else x.float()


@cache
def _compiled() -> Callable[..., Any]:
    """One for all layers; imported and compiled when a GPU first asks for it."""
    return torch.compile(flex_attention)


def flex_range(
    flex: Callable[..., Any],
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    multiplier: float,
    cap: float,
    past: int,
    first_BT: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The same by FlexAttention: a function caps scores, and a mask says which blocks are computed at all."""
    mask = block_mask(q_BHTD.shape[2], k_BKSD.shape[2], past, first_BT, q_BHTD.device)
    out, aux = flex(
        q_BHTD,
        k_BKSD,
        v_BKSD,
        score_mod=_capped(cap) if cap else None,
        block_mask=mask,
        scale=multiplier,
        enable_gqa=q_BHTD.shape[1] != k_BKSD.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    return out, aux.lse


def _capped(cap: float) -> Mod:
    def score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return score_mod


def block_mask(
    queries: int, keys: int, past: int, first_BT: Tensor | None, device: torch.device
) -> BlockMask:
    """Which blocks of keys a block of queries sees in part and which whole, without any [T, S] mask."""
    last_T = torch.arange(past, past + queries, device=device, dtype=torch.int32)
    first = torch.zeros_like(last_T)[None] if first_BT is None else first_BT

    def causal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k <= last_T[q]

    def in_document(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= last_T[q]) & (k >= first[b, q])

    rows = torch.arange(-(-queries // BLOCK) * BLOCK, device=device).clamp(max=queries - 1).view(-1, BLOCK)
    start = torch.arange(0, keys, BLOCK, device=device)
    stop = start + BLOCK
    first_BRQ, last_RQ = first[:, rows].unsqueeze(-1), last_T[rows].unsqueeze(-1)
    seen = (start <= last_RQ.amax(1)) & (stop > first_BRQ.amin(2))
    whole = (stop <= last_RQ.amin(1) + 1) & (start >= first_BRQ.amax(2))
    filled = torch.arange(1, len(rows) + 1, device=device)[:, None] * BLOCK <= queries
    whole = whole & filled & (stop <= keys)  # as PyTorch has it: a block over the edge is none
    return BlockMask.from_kv_blocks(
        *_ordered(seen & ~whole),
        *_ordered(seen & whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=causal if first_BT is None else in_document,
        seq_lengths=(queries, keys),
    )


def _ordered(blocks_BRC: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are set, and which those are, first. [B, 1, R], [B, 1, R, C]"""
    order = blocks_BRC.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks_BRC.sum(-1).int()[:, None], order.int()[:, None]
