"""
Sizes of a Grok-class model, for Hugging Face transformers.

Copied into an exported folder by `colossi export`; `auto_map` in its config.json names it. The keys are those
of xai-org/grok-2's config.json.
"""

from transformers import PreTrainedConfig


class GrokConfig(PreTrainedConfig):
    """
    Every size comes from config.json; the defaults are Grok-1's.

    A cap of 0 or null is none. `residual_moe` puts a dense FFN of `intermediate_size` beside the experts,
    which are `moe_intermediate_size` wide. `num_local_experts` 1 is a dense model without a router.
    """

    model_type = "git"  # as xai-org/grok-2 has it

    vocab_size: int = 131072
    hidden_size: int = 6144
    intermediate_size: int = 32768
    moe_intermediate_size: int = 32768
    num_hidden_layers: int = 64
    num_attention_heads: int = 48
    num_key_value_heads: int = 8
    head_dim: int = 128
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    residual_moe: bool = False
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    attn_output_multiplier: float = 0.08838834764831845
    embedding_multiplier_scale: float = 78.38367176906169
    output_multiplier_scale: float = 0.5773502691896257
    attn_logit_softcapping: float = 30.0
    router_logit_softcapping: float = 0.0
    final_logit_softcapping: float | None = None
    use_cache: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
