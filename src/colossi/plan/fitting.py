"""
From what `colossi calibrate` timed to the numbers that the planner's formulas take.

Each kind of kernel is fitted by itself, by least squares of relative errors with no number below zero; what
whole blocks take beyond their kernels is what stands between them. So a formula that is a little off where a
small machine is concerned still gives the trainer's time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from colossi.plan.case import Case, Layout, Model, Training
from colossi.plan.efficiency import Efficiency
from colossi.plan.kernels import Products, moved
from colossi.plan.layer import head_times, layer_times
from colossi.plan.profile import Measured
from colossi.plan.step import iterations, step

Array = NDArray[np.float64]
Rows = Sequence[Sequence[float]]  # a shape, and the seconds of it

# Those of a worker that is its own host and overlaps nothing; the others are measured.
PLAIN = Efficiency(
    product_wave=0.0,
    product_grouped=1.0,
    grouped_rows=0.0,
    memory_share=1.0,
    link_share=1.0,
    nic_share=1.0,
    hop_delay=0.0,
    tensor_exposed=1.0,
    expert_exposed=1.0,
    pipeline_exposed=1.0,
    data_exposed=1.0,
    overlap_slowdown=0.0,
    jitter=0.0,
    host_layer=0.0,
    host_experts=0.0,
    host_step=0.0,
)


def least_squares(columns: Array, seconds: Array) -> Array:
    """x >= 0 with columns x near `seconds`, by relative error; what would be below zero is left out."""
    scaled = columns / seconds[:, None]
    size = np.linalg.norm(scaled, axis=0)
    used = size > 0
    while True:
        x = np.zeros(columns.shape[1])
        kept = np.flatnonzero(used)
        solved = np.linalg.lstsq(scaled[:, kept] / size[kept], np.ones(len(seconds)), rcond=None)[0]
        x[kept] = solved / size[kept]
        if (x >= 0).all():
            return x
        used[np.argmin(x * size)] = False


def fit(workers: int, returned: bool, memory: float, timed: Mapping[str, Rows]) -> Measured:
    """One world's numbers; `memory` [bytes] is a worker's share of the machine's."""
    found = Measured(workers, returned, 1.0, memory, timed["memory"][0][0], 1.0, 1.0, PLAIN)
    found = _products(found, timed["product"])
    found = _attention(found, timed["attention"])
    found = _grouped(found, timed["grouped"])
    found = _blocks(found, timed["block"])
    found = _head(found, timed["head"])
    found = _optimizers(found, timed["adamw"], timed["muon"])
    return _sharded(_collectives(found, timed), timed["sharded"]) if workers > 1 else found


def _with(found: Measured, **efficiency: float) -> Measured:
    values = {key: float(value) for key, value in efficiency.items()}
    return replace(found, efficiency=replace(found.efficiency, **values))


def _products(found: Measured, rows: Rows) -> Measured:
    """2 m n k / peak (1 + depth / k + width / n + rows / m), and what each call costs."""

    def columns(m: Array, n: Array, k: Array) -> Array:
        flops = 2 * m * n * k
        return np.stack([flops, flops / k, flops / n, flops / m, np.ones_like(m)], 1)

    m, n, k, forward, back = np.array(rows).T
    both = columns(m, k, n) + columns(k, n, m)
    x = least_squares(np.concatenate([columns(m, n, k), both]), np.concatenate([forward, back]))
    each = x[0] or (forward / (2 * m * n * k)).min()  # where calls are all that was seen, the best rate
    losses = x[1:4] / each
    found = replace(found, peak=float(1 / each))
    return _with(found, product_depth=losses[0], product_width=losses[1], product_rows=losses[2])


def _attention(found: Measured, rows: Rows) -> Measured:
    """flops / peak (1 + length / keys), and the scores' own time; backward 2.5 and 2 times, over a share."""
    batch, heads, _, length, size, forward, back = np.array(rows).T
    scores = batch * heads * length * length / 2
    flops = 4 * scores * size
    x = least_squares(np.stack([flops, flops / length, scores], 1), forward)
    fused = flops * (x[0] + x[1] / length)
    beside = 2 * scores * x[2]
    backward = np.median(2.5 * fused / np.maximum(back - beside, 0.2 * back)) if x[0] > 0 else 1.0
    share = 1 / (found.peak * x[0]) if x[0] > 0 else 1.0
    return _with(
        replace(found, attention_share=float(share)),
        attention_length=x[1] / x[0] if x[0] > 0 else 0.0,
        score_seconds=x[2],
        attention_backward=max(float(backward), 0.05),
    )


def _grouped(found: Measured, rows: Rows) -> Measured:
    """A grouped product's share of a plain one's speed, by the rows of a group."""
    total, groups, n, k, forward, back = np.array(rows).T
    run = Products(found.machine(), found.efficiency, found.peak, 4.0, 4.0)
    there, again = run.both(total / groups, n, k, groups)
    plain, taken = np.concatenate([there, again]), np.concatenate([forward, back])
    each = np.tile(total / groups, 2)
    x = least_squares(np.stack([plain, plain / each], 1), taken)
    share = 1 / x[0] if x[0] > 0 else 1.0
    return _with(found, product_grouped=share, grouped_rows=x[1] * share)


def _case(
    found: Measured,
    hidden: float,
    ffn: float,
    heads: float,
    kv: float,
    size: float,
    experts: float,
    k: float,
    batch: float,
    length: float,
    vocabulary: float = 64.0,
) -> Case:
    """One layer of the trainer on one worker."""
    moe = experts > 1
    model = Model(
        layers=1,
        hidden=hidden,
        heads=heads,
        kv_heads=kv,
        head_dim=size,
        ffn_hidden=ffn,
        gated=1,
        vocabulary=vocabulary,
        tied=1,
        moe_layers=int(moe),
        experts=experts,
        experts_per_token=k,
        expert_ffn=ffn if moe else 0,
    )
    training = Training(sequence=length, global_batch=batch, number_bytes=4, fused_elementwise=0)
    return Case(model, replace(found.machine(), gpus=1), Layout(micro_batch=batch), training)


def _blocks(found: Measured, rows: Rows) -> Measured:
    """What a block takes beside its products and its attention: first of dense ones, then of experts'."""
    for name, host in (("unfused_passes", "host_layer"), ("router_passes", "host_experts")):
        columns, left = [], []
        for *shape, taken in rows:
            if (shape[5] > 1) != (name == "router_passes"):
                continue
            case = _case(found, *shape)
            none, one = (
                layer_times(case, _with(found, **{name: passes}).efficiency) for passes in (0.0, 1.0)
            )
            base = float(none.forward + none.backward) + found.efficiency.host_layer
            columns.append(
                [float(one.forward + one.backward) - base + found.efficiency.host_layer, 1.0, taken]
            )
            left.append(taken - base)
        table = np.array(columns)
        # Relative to the whole block's time: rows are scaled so that `left` is fitted at that weight.
        x = _weighted(table[:, :2], np.array(left), table[:, 2])
        found = _with(found, **{name: x[0], host: x[1]})
    return found


def _weighted(columns: Array, seconds: Array, whole: Array) -> Array:
    """x >= 0 with columns x near `seconds`, by error relative to `whole`."""
    best = np.zeros(columns.shape[1])
    for used in ([0, 1], [0], [1]):
        x = np.zeros(columns.shape[1])
        x[used] = np.linalg.lstsq(columns[:, used] / whole[:, None], seconds / whole, rcond=None)[0]
        if (x >= 0).all():
            return x
    return best


def _head(found: Measured, rows: Rows) -> Measured:
    """Passes over logits beside the products, and a constant that goes with the step."""
    columns, left, whole = [], [], []
    for hidden, vocabulary, batch, length, taken in rows:
        case = _case(found, hidden, 64, 2, 1, 32, 1, 1, batch, length, vocabulary)
        none, one = (head_times(case, _with(found, loss_passes=passes).efficiency) for passes in (0.0, 1.0))
        base = float(none.forward + none.backward)
        columns.append([float(one.forward + one.backward) - base, 1.0])
        left.append(taken - base)
        whole.append(taken)
    x = _weighted(np.array(columns), np.array(left), np.array(whole))
    return _with(found, loss_passes=x[0], host_step=x[1])


def _optimizers(found: Measured, adamw: Rows, muon: Rows) -> Measured:
    """Adam by the bytes of its formula; Muon by its iterations, its numbers and its matrices."""
    hidden, ffn, _, seconds = np.array(adamw).T
    numbers = 4 * hidden * hidden + 3 * hidden * ffn
    x = least_squares(
        np.stack([moved(38.0 * numbers, found.machine(), found.efficiency), np.ones(len(adamw))], 1), seconds
    )
    hidden, ffn, _, again = np.array(muon).T
    flops = 4 * iterations(hidden, hidden) + 3 * iterations(hidden, ffn)
    passes = moved(4.0 * numbers, found.machine(), found.efficiency)
    y = least_squares(np.stack([flops / found.peak, passes, np.full(len(muon), 7.0)], 1), again)
    return _with(
        found,
        optimizer_passes=x[0],
        host_step=found.efficiency.host_step + x[1],
        muon_share=1 / y[0] if y[0] > 0 else 1e9,
        muon_passes=y[1],
        host_muon=y[2],
    )


def _collectives(found: Measured, timed: Mapping[str, Rows]) -> Measured:
    """Gathers by rate and delay; all-reduce as a multiple of those."""
    size, seconds = np.array([*timed["all_gather"], *timed["reduce_scatter"]]).T
    round_ = (found.workers - 1) / found.workers * size
    x = least_squares(np.stack([round_, np.ones_like(size)], 1), seconds)
    found = replace(found, link=float(1 / x[0]) if x[0] > 0 else 1e12)
    size, taken = np.array(timed["all_reduce"]).T
    gathers = (found.workers - 1) / found.workers * size * x[0] + x[1]
    return _with(found, link_delay=x[1], reduce_rounds=float(np.median(taken / gathers)))


def _sharded(found: Measured, rows: Rows) -> Measured:
    """What a layer under FSDP takes beside its kernels and collectives."""
    columns, left, whole = [], [], []
    for hidden, ffn, heads, experts, k, batch, length, taken in rows:
        one = _case(found, hidden, ffn, heads, heads, hidden / heads, experts, k, batch, length)
        case = replace(
            one,
            model=replace(one.model, layers=2, moe_layers=2 * one.model.moe_layers),
            machine=found.machine(),
            layout=Layout(micro_batch=batch, shard=found.workers, overlap_data=0),
            training=replace(one.training, global_batch=batch * found.workers),
        )
        base, passes = (
            step(case, _with(found, host_shard=0.0, shard_passes=number).efficiency) for number in (0.0, 1.0)
        )
        columns.append([2.0, float(passes.data - base.data)])
        left.append(taken - float(base.seconds - base.optimizer))
        whole.append(taken)
    x = _weighted(np.array(columns), np.array(left), np.array(whole))
    return _with(found, host_shard=x[0], shard_passes=x[1])
