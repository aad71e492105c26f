"""
`[model]`: a Grok-class decoder, by its sizes.

The defaults are Grok-1's own constants (xai-org/grok-1, model.py and run.py). The keys marked "Grok-2"
describe the second model's published differences; at their defaults the block is Grok-1's.
"""

from typing import Any, Self, TypeGuard

from pydantic import Field, field_validator, model_validator

from colossi.spec.fit import divisors_near
from colossi.spec.table import Table

DERIVED = (
    "head_dim",
    "attention_multiplier",
    "embedding_multiplier",
)  # filled in from the others when left out


class ModelSpec(Table):
    """The architecture. `preset = "grok-1"` fills every key from the catalogue; keys beside it override."""

    layers: int = Field(ge=1, description="decoder blocks")
    hidden: int = Field(ge=1, description="width of the residual stream")
    heads: int = Field(ge=1, description="query heads")
    kv_heads: int = Field(ge=1, description="key-value heads; each serves heads / kv_heads query heads")
    head_dim: int = Field(ge=2, description="size of a head; hidden / heads when left out")
    ffn_hidden: int = Field(ge=1, description="width of one expert")
    vocabulary: int = Field(ge=8, description="rows of the embedding table")
    experts: int = Field(default=1, ge=1, description="experts in a block; 1 is a dense model")
    experts_per_token: int = Field(default=1, ge=1, description="experts that each token is routed to")
    shared_expert_ffn: int = Field(
        default=0,
        ge=0,
        description="width of a dense FFN beside the experts, y = (moe + ffn)/sqrt(2); Grok-2",
    )
    gated_ffn: bool = Field(
        default=True, description="an FFN is down(gelu(gate x) * (value x)); false: down(gelu(value x))"
    )
    moe_every: int = Field(default=1, ge=1, description="every so many blocks one has experts")
    dense_layers: int = Field(default=0, ge=0, description="first blocks, which have a dense FFN instead")
    dense_ffn: int = Field(
        default=0, ge=0, description="width of the FFN of blocks without experts; 0 is ffn_hidden"
    )
    q_lora_rank: int = Field(
        default=0,
        ge=0,
        description="latent attention (DeepSeek): width that queries are projected down to; 0: they are not",
    )
    kv_lora_rank: int = Field(
        default=0, ge=0, description="the same for keys and values; 0 is plain attention"
    )
    rope_head_dim: int = Field(
        default=0, ge=0, description="dimensions of a latent head that carry its position, beside head_dim"
    )
    value_head_dim: int = Field(default=0, ge=0, description="size of a head's values; 0 is head_dim")
    window: int = Field(default=0, ge=0, description="tokens that a query sees back to; 0 is all of them")
    window_every: int = Field(default=1, ge=1, description="every so many blocks one has the window")
    tied_embeddings: bool = Field(
        default=True, description="the output uses the embedding table; Grok-2: a table of its own"
    )
    max_positions: int = Field(default=8192, ge=1, description="longest sequence that the model is meant for")
    norm_eps: float = Field(default=1e-5, gt=0, description="epsilon of RMSNorm")
    rope_base: float = Field(default=10000.0, gt=1, description="base of the rotary angles")
    attention_cap: float = Field(
        default=30.0, ge=0, description="attention logits become cap*tanh(logit/cap); 0 is no cap"
    )
    router_cap: float = Field(
        default=0.0, ge=0, description="the same for router logits; 0 is none; Grok-2 has 30"
    )
    final_cap: float = Field(
        default=0.0, ge=0, description="the same for the output logits; 0 is none; Grok-2 has 50"
    )
    attention_multiplier: float = Field(gt=0, description="factor on q.k; head_dim**-0.5 when left out")
    embedding_multiplier: float = Field(gt=0, description="factor on embeddings; sqrt(hidden) when left out")
    output_multiplier: float = Field(
        default=0.5773502691896257, gt=0, description="factor on the output logits"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_derived(cls, keys: Any) -> Any:
        if not isinstance(keys, dict):
            return keys
        keys, hidden, heads = dict(keys), keys.get("hidden"), keys.get("heads")
        if _is_size(hidden):
            keys.setdefault("embedding_multiplier", hidden**0.5)
            if _is_size(heads) and hidden % heads == 0:
                keys.setdefault("head_dim", hidden // heads)
            elif _is_size(heads) and "head_dim" not in keys and keys.keys() <= cls.model_fields.keys():
                raise ValueError(
                    f"heads = {heads} does not divide hidden = {hidden}: use {divisors_near(hidden, heads)}, "
                    f"or give head_dim"
                )
        if _is_size(head_dim := keys.get("head_dim")):
            keys.setdefault("attention_multiplier", head_dim**-0.5)
        return keys

    @field_validator("head_dim")
    @classmethod
    def _head_dim_is_even(cls, head_dim: int) -> int:
        if head_dim % 2:
            raise ValueError("RoPE turns pairs of dimensions: give an even number")
        return head_dim

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"kv_heads = {self.kv_heads} does not divide heads = {self.heads}: "
                f"use {divisors_near(self.heads, self.kv_heads)}"
            )
        if self.experts_per_token > self.experts:
            raise ValueError(
                f"experts_per_token = {self.experts_per_token} is more than experts = {self.experts}: "
                f"use at most {self.experts}"
            )
        if self.dense_layers >= self.layers and self.experts > 1:
            raise ValueError(
                f"dense_layers = {self.dense_layers} leaves no block of layers = {self.layers} for experts: "
                f"use at most {self.layers - 1}, or experts = 1"
            )
        return self

    @property
    def moe_layers(self) -> int:
        """Blocks that have experts."""
        return -(-(self.layers - self.dense_layers) // self.moe_every) if self.experts > 1 else 0

    @property
    def window_layers(self) -> int:
        """Blocks that have the window."""
        return -(-self.layers // self.window_every) if self.window else 0


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and value > 0
