"""
Which rank holds what: its blocks, its share of the batch, of each sequence, of the experts and of the heads.

The trainer's own mesh and tensors say the same, which a test holds. Exact counts, no machines.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from colossi.errors import BadInput
from colossi.spec.layout import AXES, LayoutSpec
from colossi.spec.model import ModelSpec
from colossi.spec.spec import Spec, data_parallel
from colossi.spec.stages import Part, parts_of


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank holds and computes."""

    rank: int
    node: int
    coordinates: dict[str, int]  # by axis
    stages: list[int]
    blocks: list[int]
    embedding: bool
    output: bool
    sequences: range | None  # of a batch; None without [training]
    positions: list[range]  # of each sequence; empty without [training]
    experts: range
    heads: range
    parameters: int  # numbers of weights that are kept here


def chosen_ranks(text: str, workers: int) -> list[int]:
    """The ranks of "0,7", each once and in order; nothing is the first and the last."""
    if not text:
        return sorted({0, workers - 1})
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not word.isdecimal() or int(word) >= workers]
    if wrong:
        raise BadInput(
            f"--ranks {text}: {wrong[0]!r} is no rank of this run", f"give numbers from 0 to {workers - 1}"
        )
    return sorted({int(word) for word in words})


def coordinates(layout: LayoutSpec, rank: int) -> dict[str, int]:
    """A rank's place on each axis; the last axis is the fastest."""
    found = {}
    for axis in reversed(AXES):
        rank, found[axis] = divmod(rank, getattr(layout, axis))
    return {axis: found[axis] for axis in AXES}


def shares(spec: Spec) -> Iterator[Share]:
    """All ranks in order."""
    layout, model, training = spec.layout, spec.model, spec.training
    parts = parts_of(model, layout.stages)
    for rank in range(spec.cluster.workers):
        at = coordinates(layout, rank)
        stages = layout.stages_of(at["pipeline"])
        mine = [parts[stage] for stage in stages]
        sequences, positions = None, []
        if training is not None:
            share = training.global_batch // data_parallel(layout)
            first = (at["replicate"] * layout.shard + at["shard"]) * layout.expert + at["expert"]
            sequences = range(first * share, (first + 1) * share)
            chunk = training.sequence_length // (2 * layout.context)
            ends = (at["context"], 2 * layout.context - 1 - at["context"])
            positions = [range(end * chunk, (end + 1) * chunk) for end in ends]
            if layout.context == 1:
                positions = [range(training.sequence_length)]
        experts, heads = model.experts // layout.expert, model.heads // layout.tensor
        yield Share(
            rank=rank,
            node=rank // spec.cluster.workers_per_node,
            coordinates=at,
            stages=stages,
            blocks=[block for part in mine for block in part.blocks],
            embedding=any(part.first for part in mine),
            output=any(part.last for part in mine),
            sequences=sequences,
            positions=positions,
            experts=range(at["expert"] * experts, (at["expert"] + 1) * experts),
            heads=range(at["tensor"] * heads, (at["tensor"] + 1) * heads),
            parameters=sum(kept(model, layout, part) for part in mine),
        )


def kept(model: ModelSpec, layout: LayoutSpec, part: Part) -> int:
    """Numbers of weights that each rank of a stage keeps [1]."""
    width, blocks, ends = model.hidden, len(part.blocks), 0
    attention = width * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    routed = model.experts > 1
    dense_ffn = 3 * width * (model.shared_expert_ffn + (0 if routed else model.ffn_hidden))
    experts = 3 * width * model.experts * model.ffn_hidden if routed else 0
    uncut = width * (4 + (model.experts if routed else 0))  # norms and router: every tensor rank has them
    if part.first:
        ends += model.vocabulary * width // layout.tensor
    if part.last:
        own_table = not (part.first and model.tied_embeddings)
        ends += width + (model.vocabulary * width // layout.tensor if own_table else 0)
    dense = blocks * ((attention + dense_ffn) // layout.tensor + uncut) + ends
    over = layout.shard * layout.context
    return dense // (over * layout.expert) + blocks * experts // (layout.expert * layout.tensor * over)
