"""
Grok: embedding, blocks with four norms, output; exactly xai-org/grok-1's model.py, trainable.

Read in this order: matrix, attention, experts, then this file. It knows tokens and weights; nothing of
batches, optimizers or how it is cut over ranks, beyond the groups that its own collectives need.

Shapes: B batch, T tokens, S cached positions, E width, V vocabulary, X experts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colossi.model.attention import Attention, CachedRows, LayerCache, Rope
from colossi.model.collectives import Groups, copy_to, reduce_from
from colossi.model.context import positions
from colossi.model.experts import MixtureOfExperts, RouterStats
from colossi.model.loss import Output, cross_entropy_sum, gather_vocabulary
from colossi.model.matrix import Matrix, Norm, local
from colossi.model.weights import read_folder, write_folder
from colossi.spec.model import ModelSpec
from colossi.spec.stages import Part

PAD = 0  # the token that is never attended to


@dataclass(slots=True)
class Cache:
    """What generation remembers: keys and values by layer, and which positions of each row hold a token."""

    layers: list[LayerCache]
    filled_BS: Tensor  # bool

    @classmethod
    def empty(cls, model: ModelSpec, batch: int, positions: int, dtype: torch.dtype = torch.float32) -> Self:
        """Room for `positions` tokens in each of `batch` rows."""
        shape = (batch, model.kv_heads, positions, model.head_dim)
        layers = [
            LayerCache(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype))
            for _ in range(model.layers)
        ]
        return cls(layers, torch.zeros(batch, positions, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums over one pass; the trainer divides by what the whole batch has of each."""

    cross_entropy: Tensor  # over the targets that count
    balance: Tensor  # over sequences and layers
    z: Tensor  # over tokens and layers
    load_LX: Tensor  # tokens by layer and expert
    router_max: Tensor  # largest |router logit|


class Block(nn.Module):
    """h + N1(attention(N0(h))), then h + N3(experts(N2(h))): the "sandwich"."""

    def __init__(self, model: ModelSpec, groups: Groups) -> None:
        super().__init__()
        self.pre_attention, self.post_attention = (Norm(model.hidden, model.norm_eps) for _ in range(2))
        self.pre_moe, self.post_moe = (Norm(model.hidden, model.norm_eps) for _ in range(2))
        self.attention = Attention(model, groups)
        self.moe = MixtureOfExperts(model, groups)

    def forward(
        self,
        h_BTE: Tensor,
        rope: Rope,
        counted_BT: Tensor,
        visible_BTS: Tensor | None = None,
        cached: CachedRows | None = None,
        first_BT: Tensor | None = None,
    ) -> tuple[Tensor, RouterStats | None]:
        attended = self.attention(self.pre_attention(h_BTE), rope, visible_BTS, cached, first_BT)
        h = h_BTE + self.post_attention(attended)
        y, stats = self.moe(self.pre_moe(h), counted_BT)
        return h + self.post_moe(y), stats


class Embedding(nn.Module):
    """One table [V, E]; under tensor parallel this rank has rows of it."""

    def __init__(self, rows: int, width: int, groups: Groups) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(rows, width))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        table = local(self.weight)
        if self.groups.tensor is None:
            return nn.functional.embedding(tokens_BT, table)
        here = tokens_BT - self.groups.tensor.rank() * table.shape[0]
        mine = (here >= 0) & (here < table.shape[0])
        rows = nn.functional.embedding(here * mine, table) * mine.unsqueeze(-1)
        return reduce_from(rows, self.groups.tensor)


class Grok(nn.Module):
    """
    A Grok-class decoder, or some of its blocks: a stage of a pipeline.

    Weights are float32; activations are `dtype`, with Grok's float32 islands. Weights have the same names in
    every part, but that a last stage which is not the first has a copy of tied embeddings of its own, `head`.
    """

    def __init__(
        self,
        model: ModelSpec,
        groups: Groups | None = None,
        dtype: torch.dtype = torch.float32,
        part: Part | None = None,
    ) -> None:
        super().__init__()
        groups, part = groups or Groups(), part or Part.whole(model)
        self.model, self.groups, self.dtype, self.part = model, groups, dtype, part
        self.recompute = False
        self.embedding = Embedding(model.vocabulary, model.hidden, groups) if part.first else None
        self.blocks = nn.ModuleDict({str(number): Block(model, groups) for number in part.blocks})
        self.norm = Norm(model.hidden, model.norm_eps) if part.last else None
        own_table = part.last and not (part.first and model.tied_embeddings)
        self.head = Matrix(model.vocabulary, model.hidden) if own_table else None

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Self:
        """Read a Hugging Face folder (config.json and safetensors) in Grok-2's naming."""
        model, state = read_folder(Path(folder))
        with torch.device("meta"):
            grok = cls(model, dtype=dtype)
        grok.load_state_dict(state, assign=True)
        return grok

    def save_pretrained(self, folder: str | Path) -> None:
        """Write such a folder; `from_pretrained` gives the same model back."""
        write_folder(Path(folder), self.model, self.state_dict())

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        is_target_BT: Tensor | None = None,
        first_BT: Tensor | None = None,
    ) -> Tensor | Losses:
        """Logits float32 [B, T, V]; with targets the sums of the losses instead.

        `first` is the position that each token's document begins at: it attends to none before that.

        Padding (token 0) is never attended to. With targets it may stand only at the end of a row, where no
        other token could see it: windows are built so.
        """
        visible = None
        if targets_BT is None and first_BT is None and not bool((tokens_BT != PAD).all()):
            visible = torch.ones(tokens_BT.shape[1], tokens_BT.shape[1], dtype=torch.bool).tril()
            visible = visible.to(tokens_BT.device)[None] & (tokens_BT != PAD)[:, None, :]
        h, stats = self.through_blocks(self.embed(tokens_BT), tokens_BT, visible, first_BT)
        if targets_BT is None or is_target_BT is None:
            return gather_vocabulary(self._logits(h), self.groups.tensor)
        return self.losses(h, targets_BT, is_target_BT, stats)

    def through_blocks(
        self,
        h_BTE: Tensor,
        tokens_BT: Tensor,
        visible_BTS: Tensor | None = None,
        first_BT: Tensor | None = None,
    ) -> tuple[Tensor, list[RouterStats]]:
        """The blocks that are here, in training: these tokens' activations, and what the routers report."""
        rope, counted, h = self._rope(self._positions(tokens_BT)), tokens_BT != PAD, h_BTE
        all_stats = []
        for block in self.blocks.values():
            if self.recompute:
                h, stats = checkpoint(
                    block, h, rope, counted, visible_BTS, None, first_BT, use_reentrant=False
                )
            else:
                h, stats = block(h, rope, counted, visible_BTS, None, first_BT)
            all_stats += [stats] if stats is not None else []
        return h, all_stats

    def losses(
        self, h_BTE: Tensor, targets_BT: Tensor, is_target_BT: Tensor, stats: list[RouterStats]
    ) -> Losses:
        """What the last block's activations are worth; a part without the output knows its routers' only."""
        if self.part.last:
            h, table = self._before_output(h_BTE)
            output = Output(self.model.output_multiplier, self.model.final_cap, self.groups.tensor)
            cross_entropy = cross_entropy_sum(h, table, targets_BT, is_target_BT, output)
        else:
            cross_entropy = torch.zeros((), device=h_BTE.device)
        return _losses(cross_entropy, stats)

    @torch.no_grad()
    def extend(self, tokens_BT: Tensor, cache: Cache, rows_B: Tensor, start_B: Tensor) -> Tensor:
        """Logits [B, T, V] of T new tokens for the cache's rows, each row going on from its own position."""
        length = tokens_BT.shape[1]
        at_BT = start_B[:, None] + torch.arange(length)
        cache.filled_BS[rows_B[:, None], at_BT] = tokens_BT != PAD
        reach = int(at_BT.max()) + 1
        behind = torch.arange(reach)[None, None, :] <= at_BT[:, :, None]
        visible = behind & cache.filled_BS[rows_B][:, None, :reach]
        rope, counted, h = self._rope(at_BT), tokens_BT != PAD, self.embed(tokens_BT)
        for block, layer in zip(self.blocks.values(), cache.layers, strict=True):
            window = LayerCache(layer.k[:, :, :reach], layer.v[:, :, :reach])
            h, _ = block(h, rope, counted, visible, CachedRows(window, rows_B, at_BT))
        return gather_vocabulary(self._logits(h), self.groups.tensor)

    def _rope(self, positions_BT: Tensor) -> Rope:
        return Rope.at(positions_BT, self.model.head_dim, self.model.rope_base)

    def _positions(self, tokens_BT: Tensor) -> Tensor:
        """Of this rank's tokens in their sequences [1, T]."""
        group, length = self.groups.context, tokens_BT.shape[1]
        rank, ranks = (group.rank(), group.size()) if group is not None else (0, 1)
        return positions(rank, ranks, ranks * length)[None].to(tokens_BT.device)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Activations [B, T, E] of tokens, where the embedding is here."""
        assert self.embedding is not None
        return self.embedding(tokens_BT).to(self.dtype) * self.model.embedding_multiplier

    def _logits(self, h_BTE: Tensor) -> Tensor:
        """This rank's part of the vocabulary, float32 [B, T, V / tensor], for generation."""
        h, table = self._before_output(h_BTE)
        logits = nn.functional.linear(h, table.to(h.dtype)) * self.model.output_multiplier
        logits = logits.float()
        cap = self.model.final_cap
        return cap * torch.tanh(logits / cap) if cap else logits

    def _before_output(self, h_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """What the output multiplies: normed activations [B, T, E], this rank's part of the table [V, E]."""
        owner = self.embedding if self.head is None else self.head
        assert self.norm is not None and owner is not None
        return copy_to(self.norm(h_BTE), self.groups.tensor), local(owner.weight)


def _losses(cross_entropy: Tensor, stats: list[RouterStats]) -> Losses:
    """Add up what the blocks report; a dense model reports nothing."""
    if not stats:
        zero = cross_entropy.detach() * 0
        return Losses(cross_entropy, zero, zero, zero.new_zeros(0, 1), zero)
    return Losses(
        cross_entropy,
        balance=torch.stack([s.balance for s in stats]).sum(),
        z=torch.stack([s.z for s in stats]).sum(),
        load_LX=torch.stack([s.load_X for s in stats]),
        router_max=torch.stack([s.largest for s in stats]).amax(),
    )
