"""
How large a model is and what a token costs: exact counts from the sizes alone.

Knows parameters, FLOPs and bytes per parameter; knows nothing of machines or layouts.

[PaLM]  A. Chowdhery et al., "PaLM", 2022, appendix B: 6 FLOPs per matrix parameter and token for forward and
        backward; the embedding look-up does none.
"""

from dataclasses import dataclass

from colossi.spec.model import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Counts of numbers [1], by where they are."""

    embedding: int  # the table, and the output table where it is another one
    attention: int
    experts: int  # all of them, with the shared one
    router: int
    norms: int
    active: int  # that one token meets; the embedding table counts, being the output matrix too

    @property
    def total(self) -> int:
        """All parameters [1]."""
        return self.embedding + self.attention + self.experts + self.router + self.norms


def count_parameters(model: ModelSpec) -> Parameters:
    """Numbers in the weights [1]; equal to the trainer's own tensors, which a test holds."""
    width, layers = model.hidden, model.layers
    table = model.vocabulary * width
    attention = layers * attention_parameters(model)
    matrices, moe = 2 + model.gated_ffn, model.moe_layers
    expert = matrices * width * model.ffn_hidden
    shared = matrices * width * model.shared_expert_ffn
    dense = (layers - moe) * matrices * width * (model.dense_ffn or model.ffn_hidden)
    router = moe * width * model.experts
    norms = (4 * layers + 1) * width
    embedding = table if model.tied_embeddings else 2 * table
    idle = moe * (model.experts - model.experts_per_token) * expert
    experts = moe * model.experts * expert + dense + (moe or layers) * shared
    return Parameters(
        embedding=embedding,
        attention=attention,
        experts=experts,
        router=router,
        norms=norms,
        active=embedding + attention + experts + router + norms - idle,
    )


def attention_parameters(model: ModelSpec) -> int:
    """Numbers in the matrices of one block's attention [1]; latent as in DeepSeek-V2, 2024, section 2.1."""
    if not model.kv_lora_rank:
        return model.hidden * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    size, value = model.head_dim + model.rope_head_dim, model.value_head_dim or model.head_dim
    queries = (model.hidden + model.heads * size) * model.q_lora_rank or model.hidden * model.heads * size
    keys = model.hidden * (model.kv_lora_rank + model.rope_head_dim)
    values = model.kv_lora_rank * model.heads * (model.head_dim + value)
    return queries + keys + values + model.heads * value * model.hidden


def block_parameters(model: ModelSpec) -> int:
    """Numbers in the matrices of one block that a token meets [1]."""
    attention = attention_parameters(model)
    router = model.hidden * model.experts if model.experts > 1 else 0
    experts = (
        (2 + model.gated_ffn)
        * model.hidden
        * (model.experts_per_token * model.ffn_hidden + model.shared_expert_ffn)
    )
    return attention + router + experts


def flops_per_token(model: ModelSpec, sequence_length: int) -> float:
    """FLOP of forward and backward for one token [FLOP], no recomputation counted.

    6 * (matrix parameters that the token meets) [PaLM], plus attention: q.k and p.v are 2 * 2 * H * D FLOP
    for each key seen, (T + 1) / 2 keys on average under the causal mask (not T, as [PaLM] counts), three
    times for forward and backward.
    """
    counts = count_parameters(model)
    look_up = 0 if model.tied_embeddings else model.vocabulary * model.hidden
    matrices = counts.active - counts.norms - look_up
    keys = (sequence_length + 1) / 2
    seen = (model.layers - model.window_layers) * keys + model.window_layers * min(keys, model.window)
    sizes = model.head_dim + model.rope_head_dim + (model.value_head_dim or model.head_dim)
    attention = 3 * 2 * model.heads * sizes * seen
    return 6 * matrices + attention


def state_bytes_per_parameter(optimizer: str) -> dict[str, int]:
    """Bytes that training holds for one parameter [B]: float32 master weights, gradients and optimizer state.

    Muon keeps one momentum where AdamW keeps two moments; the few parameters that Muon leaves to AdamW are
    counted as matrices here. In bfloat16 a cast copy of the weights is made as they are used and not held.
    """
    return {"weights": 4, "gradients": 4, "optimizer": 4 if optimizer == "muon" else 8}
