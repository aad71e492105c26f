"""
Grouped-query attention with half-split RoPE and Grok's tanh cap.

Shapes: B batch, T new tokens, S cached positions, E width, H query heads, K key-value heads, D head size.
Under tensor parallel H and K are this rank's heads. Everything here follows xai-org/grok-1, model.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colossi.model.collectives import Groups, copy_to, reduce_from
from colossi.model.context import attend_across
from colossi.model.kernel import attend_range
from colossi.model.matrix import Matrix
from colossi.spec.model import ModelSpec

MASKED = -1e30


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary factors for the positions of one pass, float32 [B or 1, 1, T, D]."""

    cos: Tensor  # [cos; cos]
    sin: Tensor  # [-sin; sin]

    @classmethod
    def at(cls, positions_BT: Tensor, head_dim: int, base: float) -> "Rope":
        """angle = position * base^(-2i/D)."""
        exponent = torch.arange(0, head_dim, 2, device=positions_BT.device, dtype=torch.float32) / head_dim
        angle = positions_BT[:, None, :, None].float() * base**-exponent
        cos, sin = angle.cos(), angle.sin()
        return cls(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))

    def turn(self, x_BHTD: Tensor) -> Tensor:
        """[a; b] halves become [a cos - b sin; b cos + a sin], in float32 and cast back."""
        x = x_BHTD.float()
        if (
            torch.compiler.is_compiling()
        ):  # the compiler fuses this form, and the other runs faster without it
            a, b = x.chunk(2, dim=-1)
            cos, sin = self.cos.chunk(2, dim=-1)[0], self.sin.chunk(2, dim=-1)[1]
            return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-2).flatten(-2).to(x_BHTD.dtype)
        swapped = x.roll(x.shape[-1] // 2, dims=-1)
        return torch.addcmul(x * self.cos, swapped, self.sin).to(x_BHTD.dtype)


@dataclass(slots=True)
class LayerCache:
    """Keys (after RoPE) and values of the positions seen so far, [B, K, S, D] each."""

    k: Tensor
    v: Tensor

    def write(self, rows_B: Tensor, positions_BT: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> None:
        """Put T new positions of each row in their places."""
        at = (rows_B[:, None], slice(None), positions_BT)
        self.k[at] = k_BKTD.transpose(1, 2).to(self.k.dtype)
        self.v[at] = v_BKTD.transpose(1, 2).to(self.v.dtype)


def attend(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible_BTS: Tensor, multiplier: float, cap: float
) -> Tensor:
    """The formula as written, for any mask: multiply, cap, mask, softmax in float32. [B, H, T, D]"""
    groups = q_BHTD.shape[1] // k_BKSD.shape[1]
    k, v = k_BKSD.repeat_interleave(groups, 1), v_BKSD.repeat_interleave(groups, 1)
    scores = (q_BHTD @ k.transpose(-1, -2)).float() * multiplier
    if cap:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~visible_BTS[:, None], MASKED)
    return scores.softmax(-1).to(v.dtype) @ v


def attend_causal(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    multiplier: float,
    cap: float,
    first_BT: Tensor | None = None,
) -> Tensor:
    """The same for the last T of S positions where every token sees all before it, back to the `first` of its
    document, by the fastest way that the device has. [B, H, T, D]
    """
    queries, keys = q_BHTD.shape[2], k_BKSD.shape[2]
    if not cap and queries == keys and first_BT is None:
        return F.scaled_dot_product_attention(
            q_BHTD, k_BKSD, v_BKSD, is_causal=True, scale=multiplier, enable_gqa=True
        )
    return attend_range(q_BHTD, k_BKSD, v_BKSD, multiplier, cap, keys - queries, first_BT)[0]


class Attention(nn.Module):
    """Wo(attention(Wq x, Wk x, Wv x)), no biases."""

    def __init__(self, model: ModelSpec, groups: Groups) -> None:
        super().__init__()
        width, size = model.hidden, model.head_dim
        self.head_dim, self.multiplier, self.cap = size, model.attention_multiplier, model.attention_cap
        self.groups = groups
        self.q = Matrix(model.heads * size, width)
        self.k = Matrix(model.kv_heads * size, width)
        self.v = Matrix(model.kv_heads * size, width)
        self.o = Matrix(width, model.heads * size)

    def forward(
        self,
        x_BTE: Tensor,
        rope: Rope,
        visible_BTS: Tensor | None = None,
        cached: "CachedRows | None" = None,
        first_BT: Tensor | None = None,
    ) -> Tensor:
        """`visible` None is causal, from `first` on; with a cache the S keys are the cache's.

        Under context parallel the tokens are this rank's, and what is seen is causal.
        """
        x = copy_to(x_BTE, self.groups.tensor)
        q, k, v = (self._heads(matrix(x)) for matrix in (self.q, self.k, self.v))
        q, k = rope.turn(q), rope.turn(k)
        if cached is not None:
            k, v = cached.extend(k, v)
        context = self.groups.context
        if visible_BTS is not None:
            out = attend(q, k, v, visible_BTS, self.multiplier, self.cap)
        elif context is None:
            out = attend_causal(q, k, v, self.multiplier, self.cap, first_BT)
        else:
            method = self.groups.context_method
            out = attend_across(q, k, v, self.multiplier, self.cap, first_BT, context, method)
        return reduce_from(self.o(out.transpose(1, 2).flatten(2)), self.groups.tensor)

    def _heads(self, x_BTN: Tensor) -> Tensor:
        """[B, T, heads * D] -> [B, heads, T, D]"""
        return x_BTN.unflatten(2, (-1, self.head_dim)).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class CachedRows:
    """One layer's cache, and where the new tokens of each row go."""

    layer: LayerCache
    rows_B: Tensor
    positions_BT: Tensor

    def extend(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values, and give all of these rows' [B, K, S, D]."""
        self.layer.write(self.rows_B, self.positions_BT, k_BKTD, v_BKTD)
        k, v = self.layer.k[self.rows_B], self.layer.v[self.rows_B]
        return k.to(k_BKTD.dtype), v.to(v_BKTD.dtype)
