"""
One layer, one micro-batch, one GPU: its kernels and its collectives, forward and backward.

A rank has N = micro_batch * sequence / context tokens, which its tensor-parallel group shares.
"""

from dataclasses import dataclass

import numpy as np

from colossi.plan.case import Case, Number
from colossi.plan.collectives import all_to_all, gather, reduce
from colossi.plan.efficiency import Efficiency
from colossi.plan.kernels import (
    Products,
    attention_flops,
    fused_attention,
    moved,
)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a layer (or of some layers), forward and backward; collectives without overlap."""

    forward: Number
    backward: Number
    tensor: Number = 0.0  # of one forward pass; as many again going back
    context: Number = 0.0  # forward; going back twice as many
    expert: Number = 0.0  # forward; as many again going back
    attention: Number = 0.0  # the part of `forward` under which context's messages can hide
    scores: Number = 0.0  # the part of `forward` that selective recomputation does again


def products(case: Case, e: Efficiency, share: Number = 1.0) -> Products:
    """Of this run's number format, at a share of what plain ones reach."""
    eight, numbers = case.training.eight_bit > 0, case.training.number_bytes
    peak = case.machine.peak * case.machine.product_share * np.where(eight, e.product_8bit, 1.0)
    peak = peak * np.where(case.training.four_bit > 0, e.product_4bit, 1.0)
    return Products(case.machine, e, peak * share, np.where(eight, 1.0, numbers), numbers)


def grouped_products(case: Case, e: Efficiency, rows: Number) -> Products:
    """The same of products launched as one, `rows` rows of a group each."""
    eight = np.where(case.training.eight_bit > 0, e.grouped_8bit, 1.0)
    return products(case, e, eight * e.product_grouped * rows / (rows + e.grouped_rows))


def tokens(case: Case) -> Number:
    """N: of a micro-batch, on the ranks of a tensor-parallel group."""
    return case.layout.micro_batch * case.training.sequence / case.layout.context


def expert_shard(case: Case) -> Number:
    """Ranks over which the weights of the same experts are sharded."""
    layout = case.layout
    per_expert = layout.expert * layout.expert_tensor / (layout.tensor * layout.context)
    return np.maximum(layout.shard / np.maximum(per_expert, 1.0), 1.0)


def value_size(case: Case) -> Number:
    """Of a head's values."""
    model = case.model
    return np.where(model.value_dim > 0, model.value_dim, model.head_dim)


def attention_keys(case: Case) -> Number:
    """Keys that a token's query meets on average; fused kernels skip most of what is masked."""
    model, training = case.model, case.training
    causal = np.where(training.causal_skip * training.fused_attention > 0, 0.5, 1.0)
    return np.minimum(training.sequence * causal, model.window)


def attention_times(case: Case, e: Efficiency) -> Times:
    """Projections, attention itself, and what stands around them."""
    model, machine, layout, training = case.model, case.machine, case.layout, case.training
    n, tp, run = tokens(case), layout.tensor, products(case, e)
    heads, kv, value = model.heads / tp, np.maximum(model.kv_heads / tp, 1.0), value_size(case)
    size = model.head_dim + model.rope_dim

    def both(n_: Number, k: Number, where: Number = 1.0) -> tuple[Number, Number]:
        forward, back = run.both(n, n_, k)
        return np.where(where, forward, 0.0), np.where(where, back, 0.0)

    latent = model.kv_rank > 0
    plain = both((heads + 2 * kv) * model.head_dim, model.hidden, ~latent)
    q_down = both(model.q_rank, model.hidden, latent & (model.q_rank > 0))
    q_up = both(heads * size, np.where(model.q_rank > 0, model.q_rank, model.hidden), latent)
    kv_down = both(model.kv_rank + model.rope_dim, model.hidden, latent)
    kv_up = both(heads * (model.head_dim + value), model.kv_rank, latent)
    out = both(model.hidden, heads * value)
    projections = [plain, q_down, q_up, kv_down, kv_up, out]
    forward, backward = (sum(each[i] for each in projections) for i in (0, 1))

    keys = attention_keys(case)
    flops = attention_flops(n, keys, heads, size + value)
    fused = fused_attention(flops, training.sequence / layout.context, machine, e)
    beside = e.score_seconds * n * keys * heads
    fused = fused[0] + beside, fused[1] + 2 * beside
    scores = n * training.sequence * heads
    old = run.both(training.sequence, training.sequence, model.head_dim, n * heads / training.sequence)
    passes = moved(training.number_bytes * e.score_passes * scores, machine, e)
    is_fused = training.fused_attention > 0
    attend = np.where(is_fused, fused[0], 2 * old[0] + passes)
    attend_back = np.where(is_fused, fused[1], 2 * old[1] + 1.5 * passes)

    rows = np.where(layout.sequence_parallel > 0, n / tp, n)
    around = elementwise(case, e, 7.0 * rows * model.hidden + 4.0 * n * (heads + kv) * size)
    cast = cast_times(case, e, n * (model.hidden + heads * value))
    tensor = tensor_exchange(case, e, n)
    # Latent keys and values travel as they are used: a head of each for every query head.
    own = training.number_bytes * n * np.where(latent, heads, kv) * (size + value)
    context = gather(own * layout.context, layout.context, tp, machine, e)
    return Times(
        forward + attend + around + cast,
        backward + attend_back + 2 * around + 2 * cast,
        tensor=tensor,
        context=context,
        attention=attend,
        scores=attend,
    )


def tensor_exchange(case: Case, e: Efficiency, n: Number) -> Number:
    """Around one region of sliced matrices, forward: all-reduce, or gather and scatter, of N tokens."""
    return reduce(
        case.training.number_bytes * n * case.model.hidden, case.layout.tensor, 1.0, case.machine, e
    )


def elementwise(case: Case, e: Efficiency, numbers: Number) -> Number:
    """Kernels that pass over so many numbers, forward."""
    passes = np.where(case.training.fused_elementwise > 0, 1.0, e.unfused_passes)
    return moved(case.training.number_bytes * numbers * passes, case.machine, e)


def cast_times(case: Case, e: Efficiency, numbers: Number) -> Number:
    """Casting operands of products to 8 bits, forward: read two bytes, write one as it is and one turned."""
    return np.where(
        case.training.eight_bit > 0,
        moved(case.training.cast_bytes * numbers * e.cast_passes, case.machine, e),
        0.0,
    )


def ffn_times(case: Case, e: Efficiency, width: Number) -> Times:
    """A dense FFN of the given width, sliced over the tensor-parallel ranks."""
    model, layout = case.model, case.layout
    n, tp, run = tokens(case), layout.tensor, products(case, e)
    up = run.both(n, (1 + model.gated) * width / tp, model.hidden)
    down = run.both(n, model.hidden, width / tp)
    rows = np.where(layout.sequence_parallel > 0, n / tp, n)
    around = elementwise(case, e, 5.0 * rows * model.hidden + (2 + model.gated) * n * width / tp)
    cast = cast_times(case, e, n * (model.hidden + width / tp))
    exists = np.where(width > 0, 1.0, 0.0)
    return Times(
        exists * (up[0] + down[0] + around + cast),
        exists * (up[1] + down[1] + 2 * around + 2 * cast),
        tensor=exists * tensor_exchange(case, e, n),
    )


def experts_times(case: Case, e: Efficiency) -> Times:
    """Routed experts: to their ranks, one grouped product after another, and back."""
    model, machine, layout, training = case.model, case.machine, case.layout, case.training
    here = tokens(case) / layout.tensor  # tokens that a rank brings: its group shares N
    copies = here * model.experts_per_token
    rows = copies * layout.expert_tensor * training.imbalance
    groups = model.experts / layout.expert
    width = model.expert_ffn / layout.expert_tensor
    run = grouped_products(case, e, rows / groups)
    up = run.both(rows / groups, (1 + model.gated) * width, model.hidden, groups)
    down = run.both(rows / groups, model.hidden, width, groups)
    around = elementwise(
        case,
        e,
        e.router_passes * copies * model.hidden
        + (2 + model.gated) * rows * width
        + 5.0 * here * model.hidden,
    )
    cast = cast_times(case, e, rows * (model.hidden + width))
    stride = layout.expert_tensor
    bytes_ = training.number_bytes * copies * model.hidden
    there_and_back = 2 * all_to_all(bytes_, layout.expert, stride, machine, e)
    sliced = 2 * gather(bytes_ * layout.expert_tensor, layout.expert_tensor, 1.0, machine, e)
    return Times(
        up[0] + down[0] + around + cast,
        up[1] + down[1] + 2 * around + 2 * cast,
        tensor=sliced,
        expert=there_and_back,
    )


def add(*parts: Times) -> Times:
    """One after another."""
    names = Times.__dataclass_fields__
    return Times(**{name: sum(getattr(part, name) for part in parts) for name in names})


def scale(part: Times, factor: Number) -> Times:
    """`factor` of it."""
    return Times(**{name: getattr(part, name) * factor for name in Times.__dataclass_fields__})


def layer_times(case: Case, e: Efficiency) -> Times:
    """An average layer: attention, and a dense FFN or experts as the model has of each."""
    model = case.model
    moe = model.moe_layers / model.layers
    mixture = add(experts_times(case, e), ffn_times(case, e, model.shared_ffn))
    return add(
        attention_times(case, e),
        scale(ffn_times(case, e, model.ffn_hidden), 1 - moe),
        scale(mixture, moe),
    )


def head_times(case: Case, e: Efficiency) -> Times:
    """Output products and loss of a micro-batch, on the last stage; in 16-bit formats always."""
    model, machine = case.model, case.machine
    n, columns = tokens(case), model.vocabulary / case.layout.tensor
    run = Products(machine, e, machine.peak_16 * machine.product_share, case.training.number_bytes)
    forward, back = run.both(n, columns, model.hidden)
    loss = moved(8.0 * e.loss_passes * n * columns, machine, e)  # float32 logits: written, read by softmax
    return Times(forward + loss, back + loss)
