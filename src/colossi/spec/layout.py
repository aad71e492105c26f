"""
`[layout]`: how the model and the batch are divided over the workers.

A worker is one place on a grid whose axes are, outermost first, replicate, pipeline, shard, context, expert
and tensor. Neighbours on the last axis have neighbouring ranks: those who talk most stand on one node.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from colossi.spec.fit import divisors_near
from colossi.spec.table import Table

AXES = ("replicate", "pipeline", "shard", "context", "expert", "tensor")


class LayoutSpec(Table):
    """The axes, outermost first, and what goes with them."""

    replicate: int | None = Field(
        default=None, ge=1, description="full copies of the model; left out: whatever fills the workers"
    )
    pipeline: int = Field(default=1, ge=1, description="workers that the blocks are dealt out to, in order")
    shard: int = Field(default=1, ge=1, description="workers that share one copy of the weights (FSDP)")
    context: int = Field(default=1, ge=1, description="workers that share each sequence")
    expert: int = Field(default=1, ge=1, description="workers that the experts are dealt out to")
    tensor: int = Field(
        default=1, ge=1, description="workers that share each matrix (heads, FFN width, vocabulary)"
    )
    schedule: Literal["1f1b", "zero-bubble", "zero-bubble-v"] = Field(
        default="1f1b",
        description="of a pipeline; zero-bubble: the gradients of weights fill the gaps; "
        "-v: each worker has one stage on the way there and one on the way back",
    )
    interleave: int = Field(
        default=1, ge=1, description="stages on each worker of a pipeline; zero-bubble-v has 2"
    )
    context_method: Literal["gather", "ring"] = Field(
        default="gather",
        description="gather: every worker of a sequence has all keys and values; ring: they travel round",
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="sequences in one forward pass of a worker; left out: all of its share",
    )
    recompute: Literal["none", "selective", "full"] = Field(
        default="none",
        description="full: keep only the inputs of blocks and compute the rest again going back; "
        "selective: keep all but what attention makes within itself",
    )
    zero: Literal[1, 2, 3] = Field(
        default=3,
        description="what `shard` shards: 1 the optimizer's state, 2 gradients too, 3 weights too (FSDP)",
    )
    gathers: Literal["block", "tensor"] = Field(
        default="block", description="zero = 3: one collective for all weights of a block, or for each"
    )
    expert_tensor: int | None = Field(
        default=None,
        ge=1,
        description="workers that share each expert's matrices; left out: `tensor`. If given, `expert` is no "
        "axis of its own: its workers are taken from replicate * shard * context * tensor",
    )
    sequence_parallel: bool = Field(
        default=False, description="between sliced matrices each of the `tensor` workers has some tokens only"
    )
    overlap: tuple[Literal["data", "tensor", "expert", "pipeline"], ...] = Field(
        default=("data", "tensor", "expert", "pipeline"),
        description="planning: which axes' messages travel while something is computed",
    )

    @model_validator(mode="after")
    def _folded_experts(self) -> Self:
        if self.expert_tensor is not None and self.replicate is not None:
            ranks, each = self.replicate * self.copy_ranks // self.pipeline, self.expert * self.expert_tensor
            if ranks % each:
                raise ValueError(
                    f"expert * expert_tensor = {each} does not divide replicate * shard * context * tensor = "
                    f"{ranks}: use {divisors_near(ranks, each)}"
                )
        return self

    @model_validator(mode="after")
    def _of_a_pipeline(self) -> Self:
        if self.pipeline == 1 and (self.interleave > 1 or self.schedule != "1f1b"):
            key = "interleave" if self.interleave > 1 else "schedule"
            raise ValueError(
                f"{key} = {self.model_dump()[key]!r} is for a pipeline: give pipeline = 2 or more, "
                f"or leave {key} out"
            )
        if self.schedule == "zero-bubble-v" and self.interleave != 2:
            raise ValueError(
                f"interleave = {self.interleave} with schedule = 'zero-bubble-v', which puts two stages on "
                "each worker: use interleave = 2"
            )
        return self

    @property
    def copy_ranks(self) -> int:
        """Workers that hold one copy of the model together."""
        own = self.expert if self.expert_tensor is None else 1
        return self.pipeline * self.shard * self.context * own * self.tensor

    @property
    def stages(self) -> int:
        """Parts that a pipeline cuts the blocks into."""
        return self.pipeline * self.interleave

    def stages_of(self, place: int) -> list[int]:
        """The stages of the worker at this place of a pipeline: s, s + P, ...; in a V s and 2P - 1 - s."""
        if self.schedule == "zero-bubble-v":
            return [place, self.stages - 1 - place]
        return list(range(place, self.stages, self.pipeline))
