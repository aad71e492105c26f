"""
What a GPU holds: weights, gradients, optimizer, activations, buffers, on the pipeline stage that has most.

[1] V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, section 4:
    activations of a layer by what its operations keep for their backward pass.
[2] D. Narayanan et al., 2021, section 2.2: micro-batches in flight under 1F1B and its interleaved form.
"""

from dataclasses import dataclass

import numpy as np

from colossi.plan.activations import peak
from colossi.plan.case import Case, Number
from colossi.plan.layer import expert_shard, tokens, value_size


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers of one rank, on the stage that has most of them, before any sharding."""

    dense: Number  # in layers, experts aside
    experts: Number
    table: Number  # embedding, or output


@dataclass(frozen=True, slots=True)
class Memory:
    """[bytes] of one GPU."""

    weights: Number
    gradients: Number
    optimizer: Number
    activations: Number
    buffers: Number

    @property
    def total(self) -> Number:
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers


def layers_of_stage(case: Case) -> Number:
    """Layers of the fullest pipeline rank: dealt out evenly over all stages.

    Where layers do not divide but two more would, embedding and output take the place of a layer each, as
    Megatron-LM's account_for_embedding_in_pipeline_split has it.
    """
    stages = case.layout.pipeline * case.layout.interleave
    return np.ceil((case.model.layers + 2 * ends_are_layers(case)) / stages) * case.layout.interleave


def ends_are_layers(case: Case) -> Number:
    """Whether embedding and output each take the place of a layer in their stages."""
    layers, stages = case.model.layers, case.layout.pipeline * case.layout.interleave
    return ((layers % stages) > 0) & (((layers + 2) % stages) == 0)


def moe_of_stage(case: Case) -> Number:
    """Layers with experts, of the pipeline rank that has most of those."""
    return np.minimum(case.model.moe_layers, np.ceil(layers_of_stage(case) / case.model.moe_every))


def attention_parameters(case: Case) -> Number:
    """Of a layer's attention, over the tensor-parallel ranks that share it."""
    m, value = case.model, value_size(case)
    plain = m.hidden * (m.heads + 2 * m.kv_heads) * m.head_dim
    size = m.head_dim + m.rope_dim
    queries = np.where(
        m.q_rank > 0, m.hidden * m.q_rank + m.q_rank * m.heads * size, m.hidden * m.heads * size
    )
    latent = queries + m.hidden * (m.kv_rank + m.rope_dim) + m.kv_rank * m.heads * (m.head_dim + value)
    return np.where(m.kv_rank > 0, latent, plain) + m.heads * value * m.hidden


def parameters(case: Case) -> Parameters:
    """Of the fullest rank."""
    m, layout = case.model, case.layout
    per_width, layers = (2 + m.gated) * m.hidden, layers_of_stage(case)
    moe = moe_of_stage(case) / layers
    dense = attention_parameters(case) + per_width * ((1 - moe) * m.ffn_hidden + moe * m.shared_ffn)
    router = moe * m.experts * m.hidden
    experts = moe * m.experts / layout.expert * per_width * m.expert_ffn / layout.expert_tensor
    tables = np.where((layout.pipeline > 1) | (m.tied > 0), 1.0, 2.0)
    return Parameters(
        dense=layers * (dense / layout.tensor + router + 2 * m.hidden),
        experts=layers * experts,
        table=tables * m.vocabulary * m.hidden / layout.tensor,
    )


def expert_data(case: Case) -> Number:
    """Ranks that hold the same experts."""
    return case.machine.gpus / (case.layout.pipeline * case.layout.expert * case.layout.expert_tensor)


def held(case: Case) -> tuple[Number, Number, Number]:
    """Numbers of weights, gradients and optimizer that a rank keeps."""
    p, layout = parameters(case), case.layout
    dense = p.dense + p.table
    shard_experts = expert_shard(case)
    weights = dense / layout.shard + p.experts / shard_experts
    whole = np.where(layout.keep_gathered > 0, dense + p.experts, weights)
    gradients = np.where(layout.gather_once > 0, dense + p.experts, weights)
    split = np.maximum(layout.optimizer_shard, layout.shard)
    split_experts = np.maximum(np.minimum(split, expert_data(case)), shard_experts)
    optimizer = dense / split + p.experts / split_experts
    return whole, gradients, optimizer


def in_flight(case: Case) -> Number:
    """Micro-batches whose activations the first stage holds at once, in stages' shares of a rank [2]."""
    p, v = case.layout.pipeline, case.layout.interleave
    plain = np.minimum(p, case.micro_batches)
    interleaved = np.minimum(p * (1 + (p - 1) / (p * v)), case.micro_batches * 1.0)
    return np.where(v > 1, interleaved, plain)


def activation_bytes(case: Case) -> Number:
    """Of one layer and one micro-batch, without recomputation [1], flash attention as told."""
    m, layout, training = case.model, case.layout, case.training
    n, tp = tokens(case), layout.tensor
    rows = np.where(layout.sequence_parallel > 0, n / tp, n)
    size, value = m.head_dim + m.rope_dim, value_size(case)
    kv = np.where(m.kv_rank > 0, m.heads, m.kv_heads)
    heads = n * (m.heads * size + kv * (size + value) + m.heads * value) / tp
    latent = np.where(m.kv_rank > 0, n * (m.q_rank + m.kv_rank), 0.0)
    # Selective recomputation, where kernels fuse, does norms and activations again, from what products gave.
    again = layout.recompute_attention * training.fused_attention
    streams = (4.0 - 2.0 * again) * rows * m.hidden  # inputs of two norms and what the norms give
    scores = np.where(training.fused_attention > 0, 0.0, 2.5 * n * training.sequence * m.heads / tp)
    scores = scores * (1 - layout.recompute_attention)
    moe = m.moe_layers / m.layers
    inner = n * (1 + 2 * m.gated - again) * ((1 - moe) * m.ffn_hidden + moe * m.shared_ffn) / tp
    inner = inner + np.where(m.gated > 0, 0.0, inner)
    copies = n / tp * m.experts_per_token * layout.expert_tensor
    routed = moe * copies * (2 * m.hidden + (2 + m.gated) * m.expert_ffn / layout.expert_tensor)
    return training.number_bytes * (streams + heads + latent + scores + inner + routed)


def memory(case: Case) -> Memory:
    """Of the first stage, whose activations are in flight the longest."""
    m, layout, training = case.model, case.layout, case.training
    weights, gradients, optimizer = held(case)
    layers = layers_of_stage(case)
    n, tp = tokens(case), layout.tensor
    rows = np.where(layout.sequence_parallel > 0, n / tp, n)
    kept = (
        training.number_bytes * rows * m.hidden
    )  # the input of a layer, which full recomputation starts from
    layer = activation_bytes(case)
    per_layer = np.where(layout.recompute > 0, kept, layer)
    working = np.where(layout.recompute > 0, layer, 0.0)
    # Of a logit about nine bytes: in 16 bits, in float32, and its gradient; not all at once.
    # A pipeline's last stage has them, and fewer micro-batches in flight.
    logits = np.where(layout.pipeline > 1, 0.0, 9.0 * n * m.vocabulary / tp)
    working = working + 4.0 * n * (1 + m.gated) * np.maximum(m.ffn_hidden, m.shared_ffn) / tp
    gathered = np.where(
        layout.shard > 1, 2.0 * 2.0 * (parameters(case).dense + parameters(case).experts) / layers, 0.0
    )
    activations = per_layer * layers * in_flight(case) + working + logits
    taken: Number = 1.0e9  # by the driver and by libraries
    own = case.machine.own_host > 0
    if np.any(own):  # colossi's trainer on CPU cores
        p = parameters(case)
        activations = np.where(own, peak(case, layers, in_flight(case), p.dense, p.experts), activations)
        taken = np.where(own, 0.0, taken)
    return Memory(
        weights=training.number_bytes * weights,
        gradients=training.gradient_bytes * gradients,
        # Two moments, and a float32 copy of weights that are used in fewer bits.
        optimizer=np.where(training.number_bytes < 4, 12.0, 8.0) * optimizer,
        activations=activations,
        buffers=gathered + taken,
    )
