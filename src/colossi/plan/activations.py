"""
What the activations of colossi's own step take on CPU cores, at their peak. [bytes]

The formulas of memory.py describe programs of GPUs, whose kernels fuse; this is the trainer as it runs on a
machine that is its own host, each operation by itself, with Grok's float32 islands. The tracer records that
step (train/trace.py), and a test holds this account to the record.

Of each token a block keeps for its way back: the inputs of four norms in float32 and what two of them give;
queries, keys, values and what attention gives, in float32, and that once more as its product takes it; of an
FFN what its first two products give, the GELU, and the product of both. E is the width, s a number's bytes.
"""

from dataclasses import dataclass

import numpy as np

from colossi.plan.case import Case, Number
from colossi.plan.layer import expert_shard, tokens

FLOAT = 4.0  # [bytes]
INDEX = 8.0  # [bytes]
CHUNK, LEAST = 2.0**20, 256.0  # logits that are held at a time, but of so many tokens: model/loss.py


@dataclass(frozen=True, slots=True)
class Kept:
    """By one block, of one token of a rank. [bytes]"""

    attention: Number
    dense: Number  # FFN, or the one beside the experts
    experts: Number

    @property
    def block(self) -> Number:
        return self.attention + self.dense + self.experts


def kept(case: Case) -> Kept:
    """On average over the blocks. Keys and values are those of all context ranks, gathered."""
    m, layout, s = case.model, case.layout, case.training.number_bytes
    queries, keys = m.heads * m.head_dim / layout.tensor, m.kv_heads * m.head_dim / layout.tensor
    moe = m.moe_layers / m.layers
    norms = (4 * FLOAT + 2 * s) * m.hidden
    around = FLOAT * (4 + m.heads / layout.tensor)  # of norms and of attention's sums
    attention = (2 * FLOAT + s) * queries + 2 * FLOAT * layout.context * keys
    width = (1 - moe) * m.ffn_hidden + moe * m.shared_ffn
    copies = m.experts_per_token
    router = 3 * FLOAT * m.experts + copies * (3 * INDEX + 2 * FLOAT)
    routed = s * copies * (2 * m.hidden + 4 * m.expert_ffn / layout.tensor)
    return Kept(norms + around + attention, 4 * s * width / layout.tensor, moe * (router + routed))


def peak(case: Case, layers: Number, in_flight: Number, dense: Number, experts: Number) -> Number:
    """Of a rank with so many layers, so many micro-batches under way in each, and so many weights.

    Most is live when the last block's FFN has begun to go back; or, without a pipeline, in the output.
    """
    m, layout, s = case.model, case.layout, case.training.number_bytes
    n, each = tokens(case), kept(case)
    recomputed = layout.recompute > 0
    inputs = FLOAT * m.hidden
    blocks = n * layers * in_flight * np.where(recomputed, inputs, each.block)
    # Two more of an FFN's inner width: their gradients, that of the output in the output's place.
    back = np.maximum(n * each.dense / 2, moe_back(case, experts / layers) - n * each.dense) + n * inputs
    back = back + np.where(recomputed, n * (each.block - inputs), 0.0)
    # A tied table's gradient waits for that of the embedding.
    waits = (m.tied > 0) & (layout.pipeline == 1) & (layout.shard == 1)
    back = back + np.where(waits, FLOAT * m.vocabulary * m.hidden / layout.tensor, 0.0)
    cast = np.where(s < FLOAT, s, 0.0)  # weights are cast anew where they are not gathered
    weights = np.where(layout.shard > 1, 0.0, dense) + np.where(expert_shard(case) > 1, 0.0, experts)
    # What stages gave, until it is used; room for each gradient, and each activation, that will come.
    stages = layout.interleave
    between = n * inputs * (stages * in_flight + (2 * stages - 1) * case.micro_batches - 1)
    # Where weights are gathered, so are the block's then, and are not in the output.
    gathered = np.where(layout.shard > 1, s * (dense + experts) / layers, 0.0)
    first = output(case, cast)
    worst = np.where(back + gathered > first, back, first)
    return blocks + cast * weights + np.where(layout.pipeline > 1, back + between, worst)


def output(case: Case, cast: Number) -> Number:
    """Beside the blocks': activations before the output, normed, and their gradient; the table's; logits."""
    m, s = case.model, case.training.number_bytes
    n, columns = tokens(case), case.model.vocabulary / case.layout.tensor
    table, logits = columns * m.hidden, n * columns
    chunk = np.minimum(np.maximum(CHUNK, LEAST * columns), logits)
    # Logits and their slopes, of which those of the last chunk go when the next ones have come.
    chunks = chunk * (2 * FLOAT + cast + np.where(logits > chunk, s, 0.0))
    return (
        (FLOAT + 2 * s + cast) * m.hidden * n
        + cast * table
        + FLOAT * table
        + np.maximum(chunks, FLOAT * table)
    )


def moe_back(case: Case, weights: Number) -> Number:
    """The same of experts, with so many weights in a block; an FFN beside them went back before.

    Gradients of two inner widths and of a third of the weights, what they gave being gone; or, where they
    are narrow, two gradients of what they gave.
    """
    m, s = case.model, case.training.number_bytes
    gave = s * m.experts_per_token * m.hidden
    inner = 2 * s * m.experts_per_token * m.expert_ffn / case.layout.tensor
    whole = np.where(expert_shard(case) > 1, 0.0, s * weights / 3)  # else they count as buffers
    back = np.maximum(tokens(case) * (inner - gave) + whole, tokens(case) * 2 * gave)
    return np.where(m.moe_layers > 0, back, 0.0)
