"""
Grok's forward pass for serving: rows of many sequences at once, keys and values in pages.

The weights are prepared once: q, k and v are one matrix, and so are an expert's gate and value; the scale of
a norm is in the matrix that follows it; the factor on attention logits is in q's rows; the dimensions of q
and k are ordered so that RoPE's pairs stand together and turn as complex numbers. So rounding differs from
the plain model's in the last bits, which engine.py reckons with.

Shapes: N rows (tokens), E width, H query heads, K key-value heads, D head size, X experts, F expert width,
V vocabulary, P positions of the cache, B sequences with one new token, S positions of the longest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from colossi.model.experts import Experts, GatedFFN, MixtureOfExperts
from colossi.model.grok import Block, Grok
from colossi.model.softcap import softcap_attention
from colossi.serve.batch import Piece
from colossi.spec.model import ModelSpec

# Two experts whose router logits differ by less may be chosen the other way round by another order of
# rounding. They were measured to differ from the plain model's by at most 3e-6 in the trained laptop model,
# 2e-5 in a random one whose router logits are ten times as large.
NEAR_EXPERTS = 5e-5
LONG = 1 << 30  # the rank of pieces of several tokens: behind all others


@dataclass(frozen=True, slots=True)
class FFN:
    """down(gelu(gate x) * (value x)) of each expert: [X, 2F, E] and [X, E, F]."""

    gate_value: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One block's matrices."""

    qkv: Tensor  # [(H + 2K) D, E]
    o: Tensor  # [E, H D]
    post_attention: Tensor  # [E]
    router: Tensor | None  # [X, E]; a dense model has none
    experts: FFN
    shared: FFN | None
    post_moe: Tensor  # [E]


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's matrices, and the angles [P, D / 2] of all positions as complex numbers."""

    model: ModelSpec
    embedding: Tensor  # [V, E], multiplied
    layers: tuple[Layer, ...]
    output: Tensor  # [V, E], multiplied
    angles: Tensor
    eps: float  # of the sum, not the mean, of squares

    @classmethod
    @torch.no_grad()
    def prepare(cls, grok: Grok, positions: int) -> "Weights":
        """From the plain model, whose own weights stay as they are."""
        model = grok.model
        assert grok.embedding is not None and grok.norm is not None
        table = grok.embedding.weight if grok.head is None else grok.head.weight
        root = model.hidden**0.5  # rms_norm(x) = x sqrt(E) / sqrt(sum x^2 + E eps)
        exponent = torch.arange(0, model.head_dim, 2, dtype=torch.float32) / model.head_dim
        angle = torch.arange(positions)[:, None].float() * model.rope_base**-exponent
        return cls(
            model,
            grok.embedding.weight * model.embedding_multiplier,
            tuple(_layer(block, model) for block in grok.blocks.values() if isinstance(block, Block)),
            table * (grok.norm.weight * (root * model.output_multiplier)),
            torch.polar(torch.ones_like(angle), angle),
            model.norm_eps * model.hidden,
        )


def _layer(block: Block, model: ModelSpec) -> Layer:
    root = model.hidden**0.5
    scale = block.pre_attention.weight * root
    attention, moe = block.attention, block.moe
    factor = model.attention_multiplier * (2 / model.attention_cap if model.attention_cap else 1)
    q = _pairs(attention.q.weight * factor, model.head_dim)
    k = _pairs(attention.k.weight, model.head_dim)
    inner = block.pre_moe.weight * root
    return Layer(
        qkv=torch.cat((q, k, attention.v.weight)) * scale,
        o=attention.o.weight.detach().clone(),
        post_attention=block.post_attention.weight * root,
        router=moe.router.weight * inner if isinstance(moe, MixtureOfExperts) and not moe.dense else None,
        experts=_ffn(moe.ffn if moe.dense else moe.experts, inner),
        shared=_ffn(moe.shared, inner) if moe.shared is not None else None,
        post_moe=block.post_moe.weight * root,
    )


def _pairs(w: Tensor, size: int) -> Tensor:
    """Rows i and i + D/2 of each head, which RoPE turns together, beside each other."""
    return w.unflatten(0, (-1, 2, size // 2)).transpose(1, 2).flatten(0, 2)


def _ffn(module: torch.nn.Module, scale: Tensor) -> FFN:
    if isinstance(module, Experts):
        gate, value, down = module.gate, module.value, module.down
        return FFN(torch.cat((gate, value), dim=1) * scale, down.detach().clone())
    assert isinstance(module, GatedFFN)
    both = torch.cat((module.gate.weight, module.value.weight)) * scale
    return FFN(both[None], module.down.weight.detach().clone()[None])


@dataclass(frozen=True, slots=True)
class Pass:
    """What a forward pass gives."""

    logits: Tensor  # [pieces, V]: what follows each piece's last token
    doubtful: list[bool]  # of each piece: experts were so near each other that rounding may have chosen


class Paged:
    """The model with its cache [layers][2, K, P, D] of `pages` pages."""

    def __init__(self, grok: Grok, pages: int, size: int) -> None:
        model = grok.model
        self.model, self.size = model, size
        self.weights = Weights.prepare(grok, min(model.max_positions, pages * size))
        shape = (2, model.kv_heads, pages * size, model.head_dim)
        # Written once, so that the memory is had now or not at all.
        self.cache = [torch.empty(shape).fill_(0.0) for _ in self.weights.layers]
        self._in_page = torch.arange(size)

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece]) -> Pass:
        """Compute the pieces, those that are one token first in the rows, and remember them in the cache."""
        order = sorted(range(len(pieces)), key=lambda at: _rank(pieces[at]))
        step = _Step.plan([pieces[at] for at in order], self.size, self._in_page)
        weights, h = self.weights, F.embedding(step.tokens, self.weights.embedding)
        turns = _turns(weights.angles[step.positions], self.model)
        near = torch.zeros(len(h), dtype=torch.bool)
        for layer, kv in zip(weights.layers, self.cache, strict=True):
            a = self._attention(layer, kv, h, turns, step)
            h = torch.addcmul(h, _unit(a, weights.eps), layer.post_attention)
            y = self._experts(layer, _unit(h, weights.eps), near)
            h = torch.addcmul(h, _unit(y, weights.eps), layer.post_moe)
        last = _unit(h[step.last], weights.eps)
        logits, cap = F.linear(last, weights.output), self.model.final_cap
        logits = cap * torch.tanh(logits / cap) if cap else logits
        back = sorted(range(len(order)), key=order.__getitem__)
        parts: list[bool] = [bool(part.any()) for part in near.split(step.lengths)] if near.any() else []
        doubtful = [parts[at] for at in back] if parts else [False] * len(back)
        return Pass(logits[back] if back != list(range(len(back))) else logits, doubtful)

    def _attention(self, layer: Layer, kv: Tensor, h: Tensor, turns: Tensor, step: "_Step") -> Tensor:
        model = self.model
        heads, kv_heads, size = model.heads, model.kv_heads, model.head_dim
        x = F.linear(_unit(h, self.weights.eps), layer.qkv).view(len(h), -1, size // 2, 2)
        x = torch.view_as_real(torch.view_as_complex(x) * turns).view(len(h), -1, size)
        kv.index_copy_(2, step.slots, x[:, heads:].view(-1, 2, kv_heads, size).permute(1, 2, 0, 3))
        q, out, at = x[:, :heads], [], 0
        for group in step.groups:
            out.append(self._one_token_each(q[at : at + group.count], kv, group))
            at += group.count
        for slots, length in step.long:
            k, v = kv.index_select(2, slots)[:, None]
            queries = q[at : at + length].transpose(0, 1)[None]
            multiplier = model.attention_cap / 2 if model.attention_cap else 1.0  # the rest is in q
            attended = softcap_attention(queries, k, v, multiplier, model.attention_cap)
            out.append(attended[0].transpose(0, 1).flatten(1))
            at += length
        return F.linear(torch.cat(out) if len(out) > 1 else out[0], layer.o)

    def _one_token_each(self, q_BHD: Tensor, kv: Tensor, group: "_Group") -> Tensor:
        """softmax(cap tanh(s / cap)): cap tanh(x) is 2 cap sigmoid(2x) less what softmax does not see."""
        model, count = self.model, group.count
        kv_heads, size, cap = model.kv_heads, model.head_dim, model.attention_cap
        k, v = kv.index_select(2, group.slots).view(2, kv_heads * count, -1, size)
        q = q_BHD.view(count, kv_heads, -1, size).transpose(0, 1).reshape(kv_heads * count, -1, size)
        scores = torch.bmm(q, k.transpose(1, 2))
        scores = scores.sigmoid_().mul_(2 * cap) if cap else scores
        by_row = scores.view(kv_heads, count, -1, scores.shape[-1])
        by_row += group.hidden
        out = torch.bmm(scores.softmax(-1), v).view(kv_heads, count, -1, size)
        return out.transpose(0, 1).reshape(count, -1)

    def _experts(self, layer: Layer, x: Tensor, near: Tensor) -> Tensor:
        model = self.model
        if layer.router is None:
            y = _through(x, layer.experts, 0)
        else:
            logits = F.linear(x, layer.router)
            if model.router_cap:
                logits = model.router_cap * torch.tanh(logits / model.router_cap)
            y = _routed(x, logits.softmax(-1), layer.experts, model.experts_per_token, near)
        if layer.shared is not None:
            y = (y + _through(x, layer.shared, 0)) * 0.5**0.5
        return y


def _routed(x: Tensor, probabilities: Tensor, experts: FFN, k: int, near: Tensor) -> Tensor:
    """Each row's k likeliest experts, weighted; `near` notes rows whose next one was as likely."""
    total = probabilities.shape[-1]
    weights, chosen = probabilities.topk(min(k + 1, total), dim=-1)
    if total > k:
        near |= weights[:, k] > weights[:, k - 1] * (1 - NEAR_EXPERTS)
        weights, chosen = weights[:, :k], chosen[:, :k]
    by_expert = chosen.flatten()
    order = by_expert.argsort()
    rows = x[order // k]
    out = torch.empty_like(rows)
    start = 0
    for expert, count in enumerate(torch.bincount(by_expert, minlength=total).tolist()):
        if count:
            part = slice(start, start + count)
            torch.mm(_inner(rows[part], experts, expert), experts.down[expert].t(), out=out[part])
            start += count
    back = torch.empty_like(out)
    back[order] = out
    return torch.bmm(weights.unsqueeze(1), back.view(len(x), k, -1)).squeeze(1)


def _through(x: Tensor, ffn: FFN, expert: int) -> Tensor:
    return F.linear(_inner(x, ffn, expert), ffn.down[expert])


def _inner(x: Tensor, ffn: FFN, expert: int) -> Tensor:
    gate, value = F.linear(x, ffn.gate_value[expert]).chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh").mul_(value)


def _unit(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(sum x^2 + E eps); sqrt(E) and the scale are in the weights."""
    return x * torch.linalg.vecdot(x, x).add_(eps).rsqrt_().unsqueeze(-1)


def _turns(angles_ND: Tensor, model: ModelSpec) -> Tensor:
    """What each head of q, k and v is multiplied by [N, H + 2K, D / 2]: 1 for v."""
    turned = angles_ND[:, None].expand(-1, model.heads + model.kv_heads, -1)
    return torch.cat((turned, torch.ones_like(turned[:, :1]).expand(-1, model.kv_heads, -1)), dim=1)


@dataclass(frozen=True, slots=True)
class _Group:
    """Sequences with one new token and about as many positions."""

    count: int
    slots: Tensor  # [B S] places in the cache; behind a sequence's end any
    hidden: Tensor  # [B, 1, S]: 0, and -inf behind a sequence's end


@dataclass(frozen=True, slots=True)
class _Step:
    """A pass's rows: first the groups', then those of each longer piece."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor  # where each row's key and value go
    lengths: list[int]
    last: Tensor  # the last row of each piece
    groups: list[_Group]
    long: list[tuple[Tensor, int]]  # a sequence's places up to its piece's end, and the piece's length

    @classmethod
    def plan(cls, pieces: Sequence[Piece], size: int, in_page: Tensor) -> "_Step":
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        groups: dict[int, list[Piece]] = {}
        long = []
        for piece in pieces:
            sequence, span = piece.sequence, range(piece.start, piece.stop)
            tokens += sequence.tokens[piece.start : piece.stop]
            positions += span
            slots += [sequence.pages[at // size] * size + at % size for at in span]
            if len(span) == 1:
                groups.setdefault(_rank(piece), []).append(piece)
            else:
                long.append((_places(sequence.pages, size, in_page)[: piece.stop], len(span)))
        lengths = [piece.stop - piece.start for piece in pieces]
        last = torch.tensor(lengths).cumsum(0) - 1
        grouped = [_group(groups[rank], size, in_page) for rank in sorted(groups)]
        row, position, slot = (torch.tensor(x) for x in (tokens, positions, slots))
        return cls(row, position, slot, lengths, last, grouped, long)


def _rank(piece: Piece) -> int:
    """Sequences of up to 64, 128, 256, ... positions stand together, so that few are padded to much more."""
    return max(6, (piece.stop - 1).bit_length()) if piece.stop - piece.start == 1 else LONG


def _places(pages: Sequence[int], size: int, in_page: Tensor) -> Tensor:
    return (torch.tensor(pages)[:, None] * size + in_page).flatten()


def _group(pieces: Sequence[Piece], size: int, in_page: Tensor) -> _Group:
    longest = max(-(-piece.stop // size) for piece in pieces)
    pages = []
    for piece in pieces:
        own = piece.sequence.pages[:longest]
        pages += own + [own[-1]] * (longest - len(own))
    ends = torch.tensor([piece.stop for piece in pieces])
    behind = torch.arange(longest * size) >= ends[:, None]
    hidden = torch.zeros(behind.shape).masked_fill_(behind, -torch.inf)
    return _Group(len(pieces), _places(pages, size, in_page), hidden[:, None])
