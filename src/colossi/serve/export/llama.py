"""
What llama.cpp's Grok is: names of tensors and keys, and which of our models it computes alike.

From llama.cpp's src/models/grok.cpp (the graph, read 2026-11) and the GGUF specification; the keys' names
are those of the `gguf` library. It computes the block of Grok-1, but that it scales the chosen
experts' probabilities to sum to one, caps no router logits and lets heads * head_dim be hidden only.
"""

from colossi.spec.model import ModelSpec

ARCHITECTURE = "grok"
PRE_TOKENIZER = "tekken"  # the splitting pattern of data/tokenizer.py, with ignore_merges
MODEL_KEY = "colossi.model"  # our sizes as JSON, since GGUF's own keys are float32
TOKENIZER_KEY = "tokenizer.huggingface.json"  # a key of the GGUF specification: tokenizer.json as it is
NO_CAP = (
    1e6  # llama.cpp always caps attention logits, and divides by the cap; tanh(x / 1e6) * 1e6 is x in float32
)
QUANTIZED_ROW = 32  # numbers that q8_0 takes together

TABLE_NAMES = {
    "embedding.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "head.weight": "output.weight",
}
BLOCK_NAMES = {
    "pre_attention.weight": "attn_norm.weight",
    "post_attention.weight": "attn_output_norm.weight",
    "pre_moe.weight": "ffn_norm.weight",
    "post_moe.weight": "layer_output_norm.weight",
    "attention.q.weight": "attn_q.weight",
    "attention.k.weight": "attn_k.weight",
    "attention.v.weight": "attn_v.weight",
    "attention.o.weight": "attn_output.weight",
    "moe.router.weight": "ffn_gate_inp.weight",
    "moe.experts.gate": "ffn_gate_exps.weight",
    "moe.experts.value": "ffn_up_exps.weight",
    "moe.experts.down": "ffn_down_exps.weight",
    "moe.shared.gate.weight": "ffn_gate.weight",
    "moe.shared.value.weight": "ffn_up.weight",
    "moe.shared.down.weight": "ffn_down.weight",
}
DENSE_NAMES = {f"moe.ffn.{name}.weight": f"moe.experts.{name}" for name in ("gate", "value", "down")}

# Our key -> theirs, all float32; one that is missing would be Grok-1's in llama.cpp, whatever the width.
FLOAT_KEYS = {
    "norm_eps": "grok.attention.layer_norm_rms_epsilon",
    "rope_base": "grok.rope.freq_base",
    "attention_multiplier": "grok.attention.output_scale",
    "embedding_multiplier": "grok.embedding_scale",
    "output_multiplier": "grok.logit_scale",
    "attention_cap": "grok.attn_logit_softcapping",
    "router_cap": "grok.router_logit_softcapping",
    "final_cap": "grok.final_logit_softcapping",
}
SIZE_KEYS = {
    "layers": "grok.block_count",
    "hidden": "grok.embedding_length",
    "heads": "grok.attention.head_count",
    "kv_heads": "grok.attention.head_count_kv",
    "head_dim": "grok.attention.key_length",
    "ffn_hidden": "grok.expert_feed_forward_length",
    "vocabulary": "grok.vocab_size",
    "experts": "grok.expert_count",
    "experts_per_token": "grok.expert_used_count",
    "max_positions": "grok.context_length",
}


def refusal(model: ModelSpec, type_: str) -> tuple[str, str] | None:
    """Why llama.cpp would compute something else than we do, and what to do; None where it does not."""
    if model.heads * model.head_dim != model.hidden:
        return (
            f"llama.cpp's Grok has heads * head_dim = hidden, here {model.heads} * {model.head_dim} "
            f"is not {model.hidden}",
            "--format hf can express it",
        )
    if model.router_cap and model.experts > 1:
        return (
            f"llama.cpp's Grok does not cap router logits, and router_cap is {model.router_cap:g}",
            "--format hf can express it",
        )
    if model.shared_expert_ffn and model.experts_per_token < model.experts:
        return (
            "llama.cpp's Grok makes the chosen experts' weights sum to one, "
            "which beside a shared expert is another function",
            "--format hf can express it",
        )
    widths = {"hidden": model.hidden, "ffn_hidden": model.ffn_hidden}
    if model.shared_expert_ffn:
        widths["shared_expert_ffn"] = model.shared_expert_ffn
    for key, width in widths.items():
        if type_ == "q8_0" and width % QUANTIZED_ROW:
            return (
                f"q8_0 takes rows of a multiple of {QUANTIZED_ROW}, and {key} is {width}",
                "use --type f16",
            )
    return None
