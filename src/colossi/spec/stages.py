"""
Which blocks of a model each stage of a pipeline has.

The embedding stands before the first block and the output after the last; the output costs as much as some
blocks do, so the last stage gets fewer. Knows FLOPs, not ranks.
"""

from dataclasses import dataclass

from colossi.spec.model import ModelSpec
from colossi.spec.size import block_parameters


@dataclass(frozen=True, slots=True)
class Part:
    """A run of blocks, with the embedding before it or the output after it where it is the first or last."""

    blocks: range
    first: bool = True
    last: bool = True

    @classmethod
    def whole(cls, model: ModelSpec) -> "Part":
        """All of a model."""
        return cls(range(model.layers))


def parts_of(model: ModelSpec, stages: int) -> list[Part]:
    """The stages in order: every one has a block, and the costliest costs as little as can be.

    The cost is that of matrix products per token (attention's own products, alike in all blocks, are left
    out); all blocks cost the same, so the best is to give each to the stage that has least so far.
    """
    head, block = model.vocabulary * model.hidden, block_parameters(model)
    if stages == model.layers + 2:  # embedding and output have a stage each
        ends = (Part(range(0), True, False), Part(range(model.layers, model.layers), False, True))
        return [ends[0], *(Part(range(b, b + 1), False, False) for b in range(model.layers)), ends[1]]
    blocks = [1] * stages
    cost = [block] * stages
    cost[-1] += head
    for _ in range(model.layers - stages):
        stage = min(range(stages), key=lambda s: (cost[s], s))
        blocks[stage] += 1
        cost[stage] += block
    parts, start = [], 0
    for stage, count in enumerate(blocks):
        parts.append(Part(range(start, start + count), stage == 0, stage == stages - 1))
        start += count
    return parts
