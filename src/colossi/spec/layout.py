"""
`[layout]`: how the run is cut over its workers.

The number of workers is the product of the axes. Each sequence of a batch belongs to one coordinate of
(replicate, shard, expert); the workers along `tensor` share it. Weights that are not experts are sharded over
shard x expert; the experts are dealt out over `expert`, and each is sharded over `shard`.
"""

from typing import Literal

from pydantic import Field

from colossi.spec.table import Table


class LayoutSpec(Table):
    """The axes, outermost first. Pipeline and context parallel will stand between replicate and shard."""

    replicate: int | None = Field(
        default=None, ge=1, description="full copies of the model; left out: whatever fills the workers"
    )
    shard: int = Field(default=1, ge=1, description="workers that share one copy of the weights (FSDP)")
    expert: int = Field(default=1, ge=1, description="workers that the experts are dealt out to")
    tensor: int = Field(
        default=1, ge=1, description="workers that share each matrix (heads, FFN width, vocabulary)"
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="sequences in one forward pass of a worker; left out: all of its share",
    )
    recompute: Literal["none", "full"] = Field(
        default="none",
        description="full: keep only the inputs of blocks and compute the rest again going back",
    )
