"""
Grok for Hugging Face transformers: the released architecture in float32 islands, with a cache.

Copied into an exported folder by `colossi export`; `auto_map` in its config.json names it. It stands alone:
it needs torch and transformers 5, and configuration_grok.py beside it.

Shapes: B batch, T tokens, S keys, E width, H heads, K key-value heads, D head size, N tokens of a batch,
k experts per token, X experts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_grok import GrokConfig

# What transformers calls the cache of keys and values: until 5.23 it was past_key_values.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class GrokRMSNorm(nn.Module):
    """g x / sqrt(mean(x^2) + eps), in float32 and cast back."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight.float()).to(x.dtype)


def rotary(position_ids_BT: Tensor, size: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin of position * base^(-2i/D), float32 [B, 1, T, D/2]."""
    exponent = torch.arange(0, size, 2, device=position_ids_BT.device, dtype=torch.float32) / size
    angle = position_ids_BT[:, None, :, None].float() * base**-exponent
    return angle.cos(), angle.sin()


def turn(x_BHTD: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Halves [a; b] become [a cos - b sin; b cos + a sin], in float32 and cast back."""
    (a, b), (cos, sin) = x_BHTD.float().chunk(2, dim=-1), rope
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x_BHTD.dtype)


def capped(x: Tensor, cap: float | None) -> Tensor:
    """cap tanh(x / cap); no cap leaves x."""
    return cap * torch.tanh(x / cap) if cap else x


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Multiply, cap, mask, softmax in float32. [B, H, T, D] -> [B, T, H, D] and the weights."""
    B, H, T, D = query.shape
    grouped = query.reshape(
        B, key.shape[1], -1, D
    )  # the H / K query heads of a key-value head beside each other
    scores = (grouped @ key.transpose(-1, -2)).view(B, H, T, -1).float()
    scores = capped(scores * scaling, softcap)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1).to(value.dtype)
    out = (weights.view(B, key.shape[1], -1, key.shape[2]) @ value).view(B, H, T, D)
    return out.transpose(1, 2), weights


class GrokAttention(nn.Module):
    """Grouped-query attention without biases, its logits capped."""

    is_causal = True

    def __init__(self, config: GrokConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim, self.scaling = config.head_dim, config.attn_output_multiplier
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        queries, keys = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self, x_BTE: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any, **kwargs: Any
    ) -> Tensor:
        shape = (*x_BTE.shape[:-1], -1, self.head_dim)
        q, k, v = (p(x_BTE).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = turn(q, rope), turn(k, rope)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        # vLLM looks for this very call, to put its own attention in its place.
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        softcap = self.config.attn_logit_softcapping or None
        out, _ = attend(self, q, k, v, mask, scaling=self.scaling, softcap=softcap, dropout=0.0, **kwargs)
        return self.o_proj(out.reshape(*x_BTE.shape[:-1], -1))


class GrokFFN(nn.Module):
    """down(gelu(gate x) * (up x)), GELU by its tanh approximation."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class GrokExpert(nn.Module):
    """The same, with the names that experts have: w1 gate, w3 value, w2 down."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.gelu(self.w1(x), approximate="tanh") * self.w3(x))


class GrokExperts(nn.Module):
    """Experts named 0, 1, ...: no ModuleList, which vLLM would replace by its own with another activation."""

    def __init__(self, total: int, width: int, hidden: int) -> None:
        super().__init__()
        self.total = total
        for number in range(total):
            self.add_module(str(number), GrokExpert(width, hidden))

    def forward(self, x_NE: Tensor, weights_Nk: Tensor, chosen_Nk: Tensor) -> Tensor:
        out = torch.zeros_like(x_NE)
        for number in range(self.total):
            token, place = (chosen_Nk == number).nonzero(as_tuple=True)
            if len(token):
                y = getattr(self, str(number))(x_NE[token]) * weights_Nk[token, place, None].to(x_NE.dtype)
                out = out.index_add(0, token, y)
        return out


class GrokRouter(nn.Module):
    """Logits [N, X], always in float32: no nn.Linear, which programs replace by their own."""

    def __init__(self, width: int, total: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(total, width))

    def forward(self, x_NE: Tensor) -> Tensor:
        return F.linear(x_NE.float(), self.weight.float())


class GrokMoE(nn.Module):
    """The likeliest k experts of each token, weighted by their probabilities as they are."""

    def __init__(self, config: GrokConfig) -> None:
        super().__init__()
        self.k, self.cap = config.num_experts_per_tok, config.router_logit_softcapping
        total, width = config.num_local_experts, config.hidden_size
        self.gate = GrokRouter(width, total) if total > 1 else None
        self.experts = GrokExperts(total, width, config.moe_intermediate_size)

    def forward(self, x_BTE: Tensor) -> Tensor:
        if self.gate is None:
            return getattr(self.experts, "0")(x_BTE)
        x_NE = x_BTE.reshape(-1, x_BTE.shape[-1])
        logits = capped(self.gate(x_NE), self.cap)
        weights_Nk, chosen_Nk = logits.softmax(-1).topk(self.k, dim=-1)
        return self.experts(x_NE, weights_Nk, chosen_Nk).view_as(x_BTE)


class GrokDecoderLayer(nn.Module):
    """h + N1(attention(N0(h))), then h + N3(experts(N2(h)))."""

    def __init__(self, config: GrokConfig, layer_idx: int) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.pre_attn_norm, self.post_attn_norm = GrokRMSNorm(width, eps), GrokRMSNorm(width, eps)
        self.pre_moe_norm, self.post_moe_norm = GrokRMSNorm(width, eps), GrokRMSNorm(width, eps)
        self.self_attn = GrokAttention(config, layer_idx)
        self.block_sparse_moe = GrokMoE(config)
        self.mlp = GrokFFN(width, config.intermediate_size) if config.residual_moe else None

    def forward(
        self, h: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any, **kwargs: Any
    ) -> Tensor:
        h = h + self.post_attn_norm(self.self_attn(self.pre_attn_norm(h), rope, mask, cache, **kwargs))
        x = self.pre_moe_norm(h)
        y = self.block_sparse_moe(x)
        if self.mlp is not None:
            y = (y + self.mlp(x)) * 0.5**0.5
        return h + self.post_moe_norm(y)


class GrokPreTrainedModel(PreTrainedModel):
    """What transformers asks of a model."""

    config_class = GrokConfig
    base_model_prefix = "model"
    _no_split_modules = ["GrokDecoderLayer"]
    _skip_keys_device_placement = [CACHE]
    _supports_sdpa = False  # it knows no cap
    _supports_attention_backend = True


class GrokModel(GrokPreTrainedModel):
    """Embedding, blocks and the last norm."""

    def __init__(self, config: GrokConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(GrokDecoderLayer(config, n) for n in range(config.num_hidden_layers))
        self.norm = GrokRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Padding is never attended to: by `attention_mask`, or found in `input_ids` where none is given."""
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        cache = past_key_values if cache is None else cache
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache(config=self.config)
        past = cache.get_seq_length() if cache is not None else 0
        if attention_mask is None and input_ids is not None and isinstance(past, int) and past == 0:
            attention_mask = input_ids != self.config.pad_token_id
        if position_ids is None:
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None] + past
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **{CACHE: cache},
        )
        h = inputs_embeds * self.config.embedding_multiplier_scale
        rope = rotary(position_ids, self.config.head_dim, self.config.rope_theta)
        for layer in self.layers:
            h = layer(h, rope, mask, cache, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(h), **{CACHE: cache})


class Grok1ForCausalLM(GrokPreTrainedModel, GenerationMixin):
    """Logits: the output table times the normed activations, times the output multiplier; float32."""

    def __init__(self, config: GrokConfig) -> None:
        super().__init__(config)
        self.model = GrokModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the last `logits_to_keep` tokens, of all when it is 0; with labels the loss."""
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, keep]) * self.config.output_multiplier_scale
        logits = capped(logits.float(), self.config.final_logit_softcapping)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: out.get(CACHE)})
