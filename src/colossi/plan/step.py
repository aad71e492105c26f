"""
A step: layers into stages, stages into a pipeline, gradients into weights.

What a collective costs is what overlap does not hide of it, and what the kernels above it lose. [seconds]

[1] D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
    2021, section 2.2: the bubble of 1F1B is (p - 1) / v of a micro-batch, v stages on each rank.
[2] P. Qi et al., "Zero Bubble Pipeline Parallelism", 2023, table 2: with the backward pass divided into
    gradients of inputs B and of weights W, (p - 1) (F + B - W), and (p - 1) (F + B - 2 W) for ZB-V.
[3] K. Jordan et al., "Muon", 2024.
"""

from dataclasses import dataclass

import numpy as np

from colossi.plan.case import Case, Number
from colossi.plan.collectives import gather, reduce, send
from colossi.plan.efficiency import Efficiency
from colossi.plan.kernels import moved
from colossi.plan.layer import Times, expert_shard, head_times, layer_times, tokens
from colossi.plan.memory import ends_are_layers, expert_data, held, layers_of_stage, parameters

# Shares of a computation under which messages can travel: at its ends nothing is there to send yet, or
# nothing is left to compute. Chosen so, not fitted.
UNDER_PASS = 0.9  # of the last backward pass, gradients; of the first forward pass, weights
UNDER_COPIES = 0.5  # of the last backward pass, gradients summed over copies, after their shards were
UNDER_ATTENTION = 0.8  # of attention, keys and values of the next rank
RING_ENDS = 0.1  # share of a ring's time that is always seen: the first block that comes


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one step, by what they go to."""

    compute: Number
    recompute: Number
    tensor: Number
    context: Number
    expert: Number
    pipeline: Number
    data: Number
    bubble: Number
    optimizer: Number
    jitter: Number

    @property
    def seconds(self) -> Number:
        return sum(getattr(self, name) for name in self.__dataclass_fields__)

    @property
    def parts(self) -> dict[str, Number]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def step(case: Case, e: Efficiency) -> Step:
    """The whole step, on the pipeline rank that takes longest."""
    layout, machine, micro = case.layout, case.machine, case.micro_batches
    layers = layers_of_stage(case)
    one = layer_times(case, e)
    head = head_times(case, e)

    again = layout.recompute * one.forward + np.where(
        layout.recompute > 0, 0.0, layout.recompute_attention * one.scores
    )
    passes = 2.0 + layout.recompute
    tensor = exposed(passes * one.tensor, layout.overlap_tensor, e.tensor_exposed)
    ring = 3.0 * np.maximum(one.context - UNDER_ATTENTION * one.attention, RING_ENDS * one.context)
    expert = exposed(passes * one.expert, layout.overlap_expert, e.expert_exposed)
    kernels = one.forward + one.backward
    host = e.host_layer + e.host_experts * case.model.moe_layers / case.model.layers
    launch = (kernels + again) * ((1 + (host / (kernels + again)) ** 4) ** 0.25 - 1)
    launch = np.where(machine.own_host > 0, host, launch)

    sharded = sharded_exchange(case, e, one, layers)
    per_micro = layers * (kernels + again + launch + tensor + ring + expert) + sharded
    # The last stage has the output, and by as much fewer layers where they were dealt out with it in mind.
    head_work = head.forward + head.backward
    deepest = per_micro + np.where(layout.pipeline > 1, 0.0, head_work)
    last = per_micro + head_work - np.where(ends_are_layers(case), per_micro / layers, 0.0)
    slowest = np.where(layout.pipeline > 1, np.maximum(deepest, last), deepest)
    extra = slowest - per_micro

    messages = message_times(case, e)
    # Half of the backward pass are gradients of weights. Equal parts F = B = W make [2]'s first bubble one F;
    # the schedule played out (tests/plan/schedule.py) gives the larger of F and B where they are not equal.
    half = layers * one.backward / 2
    forward = per_micro + messages - 2 * half
    round_ = np.where(
        layout.split_backward > 1,
        np.maximum(forward - half, 0.0),
        np.where(
            layout.split_backward > 0, np.maximum(forward, half), (per_micro + messages) / layout.interleave
        ),
    )
    waiting = (layout.pipeline - 1) * round_
    gradients = gradient_exchange(case, e, layers * one.forward, layers * one.backward)
    update = optimizer_time(case, e)
    whole = micro * (slowest + messages) + waiting + gradients + update + e.host_step
    doubling = np.log2(np.maximum(machine.gpus / machine.domain, 1.0))
    return Step(
        compute=micro * (layers * (kernels + launch) + extra) + e.host_step,
        recompute=micro * layers * again,
        tensor=micro * layers * tensor,
        context=micro * layers * ring,
        expert=micro * layers * expert,
        pipeline=micro * messages,
        data=gradients + micro * sharded,
        bubble=waiting,
        optimizer=update,
        jitter=whole * e.jitter * doubling,
    )


def exposed(seconds: Number, overlapped: Number, share: Number) -> Number:
    """What is seen of a collective: all of it, or the share that overlap does not hide."""
    return seconds * np.where(overlapped > 0, share, 1.0)


def message_times(case: Case, e: Efficiency) -> Number:
    """Activations to the next stage and gradients back, of one micro-batch, as far as seen."""
    layout = case.layout
    rows = tokens(case) / np.where(layout.sequence_parallel > 0, layout.tensor, 1.0)
    stride = case.machine.gpus / layout.pipeline
    there = send(case.training.number_bytes * rows * case.model.hidden, stride, case.machine, e)
    seen = exposed(2.0 * layout.interleave * there, layout.overlap_pipeline, e.pipeline_exposed)
    return np.where(layout.pipeline > 1, seen, 0.0)


def gradient_exchange(case: Case, e: Efficiency, forward: Number, backward: Number) -> Number:
    """Gradients summed, and weights gathered where the optimizer is sharded; once a step, as far as seen.

    Gradients can hide under the last backward pass, weights under the next first forward pass.
    """
    layout, machine, p = case.layout, case.machine, parameters(case)
    stride = layout.tensor * 1.0
    ranks = case.data * layout.context
    copies = ranks / layout.shard
    dense, experts = p.dense + p.table, p.experts
    apart = expert_data(case)
    stride_experts = layout.expert * layout.expert_tensor
    split = (layout.optimizer_shard > 1) & (layout.shard == 1)
    g = case.training.gradient_bytes
    sums = gather(g * dense, ranks, stride, machine, e) + gather(
        g * experts, apart, stride_experts, machine, e
    )
    weights = gather(case.training.number_bytes * dense, ranks, stride, machine, e) + gather(
        case.training.number_bytes * experts, apart, stride_experts, machine, e
    )
    # Else an all-reduce: so many rounds in all, each as long as the sums alone.
    weights = np.where(split, weights, (e.reduce_rounds - 1) * sums)
    once = np.where(layout.shard > 1, 0.0, sums + weights)
    hidden_sums = np.minimum(sums, UNDER_PASS * backward)
    hidden_weights = np.minimum(weights, UNDER_PASS * forward)
    hides = layout.overlap_data > 0
    hidden = np.where(hides, (hidden_sums + hidden_weights) * (1 - e.data_exposed), 0.0)
    hidden = np.where(layout.shard > 1, 0.0, hidden)
    between = reduce(g * (dense + experts) / layout.shard, copies, stride * layout.shard, machine, e)
    between = np.where((layout.shard > 1) & (copies > 1), between, 0.0)
    left = np.where(hides, np.maximum(between - UNDER_COPIES * backward, e.data_exposed * between), between)
    return once - hidden + e.overlap_slowdown * hidden + left


def sharded_exchange(case: Case, e: Efficiency, one: Times, layers: Number) -> Number:
    """Weights gathered layer by layer and gradients scattered, each micro-batch (ZeRO-3), as far as seen."""
    layout, machine, p = case.layout, case.machine, parameters(case)
    numbers = (p.dense + p.experts) / layers

    def over_shards(bytes_: Number) -> Number:
        """Of a layer's numbers; those of experts, so many bytes each, among the ranks that have the same."""
        each = bytes_ / layers / layout.gathers
        dense = gather(each * p.dense, layout.shard, layout.tensor * 1.0, machine, e)
        if not np.any(p.experts):
            return layout.gathers * dense
        stride = layout.expert * layout.expert_tensor * 1.0
        experts = gather(each * p.experts, expert_shard(case), stride, machine, e)
        return layout.gathers * (dense + np.where(p.experts > 0, experts, 0.0))

    there = over_shards(case.training.number_bytes)
    sums = over_shards(case.training.gradient_bytes)
    again = np.where(layout.keep_gathered > 0, 0.0, there)
    forward, backward = one.forward, one.backward + layout.recompute * one.forward
    seen = np.maximum(there - forward, e.data_exposed * there) + np.maximum(
        again + sums - backward, e.data_exposed * (again + sums)
    )
    total = 2 * there + sums
    slowed = e.overlap_slowdown * np.maximum(total - seen, 0.0)
    sequential = there + again + sums
    each = np.where(layout.overlap_data > 0, seen + slowed, sequential)
    times = np.where(layout.gather_once > 0, 1.0 / case.micro_batches, 1.0)
    around = e.host_shard + moved(4.0 * e.shard_passes * numbers, machine, e)
    return np.where(layout.shard > 1, layers * (each * times + around), 0.0)


def optimizer_time(case: Case, e: Efficiency) -> Number:
    """Adam on float32: gradient, weight and two moments read, three written, and the 16-bit weight."""
    _, gradients, optimizer = held(case)
    norm = case.training.gradient_bytes * 2.0 * gradients
    adam = moved(e.optimizer_passes * (30.0 * optimizer + norm), case.machine, e)
    return np.where(case.training.muon > 0, muon_time(case, e), adam)


def muon_time(case: Case, e: Efficiency) -> Number:
    """Muon as colossi's trainer has it: gradients whole, matrices dealt out, updates summed over their ranks.

    Five iterations, each of two products with the small side squared and one of its cube [3].
    """
    m, layout, machine, layers = case.model, case.layout, case.machine, layers_of_stage(case)
    ranks = machine.gpus / layout.pipeline
    moe = m.moe_layers / m.layers
    queries, keys = m.heads * m.head_dim, m.kv_heads * m.head_dim
    ffn = (1 - moe) * 3 * iterations(m.ffn_hidden, m.hidden) + moe * 3 * (
        m.experts * iterations(m.expert_ffn, m.hidden) + iterations(m.shared_ffn, m.hidden)
    )
    flops = layers * (2 * iterations(queries, m.hidden) + 2 * iterations(keys, m.hidden) + ffn)
    matrices = layers * (4 + 3 * ((1 - moe) + moe * (m.experts + (m.shared_ffn > 0))))
    p = parameters(case)
    numbers = p.dense * layout.tensor + p.experts * layout.expert * layout.expert_tensor
    work = flops / (machine.peak * e.muon_share) + matrices * e.host_muon
    split = layout.shard * layout.tensor
    wholes = gather(case.training.gradient_bytes * numbers, split, 1.0, machine, e)
    sums = reduce(4.0 * numbers, ranks, 1.0, machine, e)
    return work / ranks + moved(4.0 * e.muon_passes * numbers, machine, e) + wholes + sums


def iterations(a: Number, b: Number) -> Number:
    """FLOP of Muon's iterations on one matrix [a, b]."""
    small, large = np.minimum(a, b), np.maximum(a, b)
    return 5 * 2.0 * (2 * small * small * large + small**3)
