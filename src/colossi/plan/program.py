"""
What colossi's own training step computes, exchanges and keeps on one rank, counted exactly.

The formulas of the other files describe programs of many makers; this one is ours, in float32 with AdamW, and
the tracer (train/trace.py) records it: a test holds this account to that record, number for number.

Shapes: a rank has N tokens of its micro-batches together, T of each sequence, E width, X experts, k a token.
"""

from dataclasses import dataclass

from colossi.spec.ranks import Share, shares
from colossi.spec.spec import Spec
from colossi.spec.stages import parts_of

FLOAT = 4  # [bytes]
VOTE = 4  # [bytes] that neighbouring stages exchange in the first step, whether shapes are known


@dataclass(frozen=True, slots=True)
class Weights:
    """Numbers of a rank's weights, after tensor and expert parallel, before sharding."""

    blocks: int  # experts aside
    experts: int
    ends: int  # embedding, output and its norm


@dataclass(frozen=True, slots=True)
class Program:
    """One step of one rank."""

    flops: dict[str, int]  # products: "matrices", "experts", "attention"
    moved: dict[str, int]  # [bytes] by kind of collective
    weights: int  # [bytes]
    optimizer: int  # [bytes]


def program_of(spec: Spec, rank: int) -> Program:
    """Of a spec with a layout that colossi trains."""
    share = next(each for each in shares(spec) if each.rank == rank)
    return Program(
        flops=flops(spec, share),
        moved={kind: n for kind, n in moved(spec, share).items() if n},
        weights=FLOAT * share.parameters,
        optimizer=2 * FLOAT * share.parameters,
    )


def tokens(spec: Spec, share: Share) -> int:
    """N."""
    assert spec.training is not None and share.sequences is not None
    return len(share.sequences) * spec.training.sequence_length // spec.layout.context


def flops(spec: Spec, share: Share) -> dict[str, int]:
    """Products, forward and twice that going back; attention with 2 and 5, as its scores are made again.

    The router is computed on every tensor-parallel rank. With recomputation blocks are computed once more,
    but for the last product of each if it is a plain one, which nothing going back needs. A backward pass in
    two parts (zero-bubble, all stages but the first) does a plain product's two gradients in both: it cannot
    know which is asked for.
    """
    model, training, layout = spec.model, spec.training, spec.layout
    assert training is not None and share.sequences is not None
    n, blocks, cut = tokens(spec, share), len(share.blocks), layout.tensor
    mixture = model.experts > 1
    attention = model.hidden * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    dense = 3 * model.hidden * (model.shared_expert_ffn if mixture else model.ffn_hidden)
    router = model.hidden * model.experts if mixture else 0
    expert = 3 * model.hidden * model.ffn_hidden // cut if mixture else 0
    length = training.sequence_length
    pairs = len(share.sequences) * length * (length + 1) // 2 // layout.context
    again = layout.recompute == "full"
    last = model.hidden * (
        0 if mixture and not model.shared_expert_ffn else dense // 3 // model.hidden // cut
    )
    ways = 6 + 2 * again
    parts = parts_of(model, layout.stages)
    twice = sum(len(parts[s].blocks) for s in share.stages if s > 0) if layout.schedule != "1f1b" else 0
    in_blocks = (attention + dense) // cut + router
    head = model.vocabulary * model.hidden // cut if share.output else 0
    found = {
        "matrices": n * (blocks * (ways * in_blocks - 2 * again * last) + 4 * twice * in_blocks + 6 * head),
        "experts": n * blocks * model.experts_per_token * (6 + 2 * again) * expert,
        "attention": (2 + 5 + 2 * again) * 2 * blocks * model.heads // cut * model.head_dim * pairs,
    }
    return {kind: number for kind, number in found.items() if number}


def weights_of(spec: Spec, share: Share) -> Weights:
    """By where they are."""
    model, layout = spec.model, spec.layout
    mixture, cut = model.experts > 1, layout.tensor
    attention = model.hidden * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    dense = 3 * model.hidden * (model.shared_expert_ffn if mixture else model.ffn_hidden)
    router = model.hidden * model.experts if mixture else 0
    block = (attention + dense) // cut + router + 4 * model.hidden
    experts = model.experts // layout.expert * 3 * model.hidden * model.ffn_hidden // cut if mixture else 0
    table = model.vocabulary * model.hidden // cut
    # The stages of a pipeline have a copy each of tied embeddings, even on one rank.
    own_output = share.output and not (layout.pipeline == 1 and model.tied_embeddings)
    ends = table * (share.embedding + own_output) + model.hidden * share.output
    return Weights(len(share.blocks) * block, len(share.blocks) * experts, ends)


def moved(spec: Spec, share: Share) -> dict[str, int]:
    """Bytes of each kind of collective, of each the larger side; all axes together."""
    model, training, layout = spec.model, spec.training, spec.layout
    assert training is not None and layout.micro_batch is not None and share.sequences is not None
    n, blocks = tokens(spec, share), len(share.blocks)
    micro = len(share.sequences) // layout.micro_batch
    rows = FLOAT * n * model.hidden  # activations of all micro-batches
    w, mixture, k = weights_of(spec, share), model.experts > 1, model.experts_per_token
    passes = 3 if layout.recompute == "full" else 2
    found = dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send", "recv"), 0)

    # Sharding: blocks are gathered for each pass, the rest once; a pipeline keeps all until it is through.
    wide, narrow = layout.shard * layout.context * layout.expert, layout.shard * layout.context
    gathered = (w.blocks if wide > 1 else 0) + (w.experts if narrow > 1 else 0)
    ends = w.ends if wide > 1 else 0
    times, scattered = (micro, micro) if layout.pipeline == 1 else (1, 1)
    each = 2 * gathered if layout.pipeline == 1 else gathered
    found["all_gather"] += FLOAT * times * (each + ends)
    found["reduce_scatter"] += FLOAT * scattered * (gathered + ends)

    if layout.replicate and layout.replicate > 1:  # one sum of all that this rank keeps; two fingerprints
        found["all_reduce"] += FLOAT * share.parameters + 16
    if layout.tensor > 1:
        # Of attention, of the FFN, and of the one beside the experts.
        regions = 3 if mixture and model.shared_expert_ffn else 2
        found["all_reduce"] += rows * (share.embedding + share.output + regions * passes * blocks)
        found["all_reduce"] += blocks * mixture * FLOAT * n * k  # gradients of the routing weights
        found["all_reduce"] += share.output * 3 * FLOAT * n  # of the loss: largest logit, sum, the target's
    if layout.expert > 1:
        copies = k * rows // layout.tensor * layout.tensor
        counts = 8 * model.experts * micro
        found["all_to_all"] += blocks * (2 * passes * copies + (passes - 1) * counts)
    if layout.context > 1:
        _context(found, spec, n, blocks, passes, len(share.sequences))
    if layout.pipeline > 1:
        _pipeline(found, spec, share, rows)
    _agreement(found, spec)
    return found


def _context(found: dict[str, int], spec: Spec, n: int, blocks: int, passes: int, sequences: int) -> None:
    """Keys and values of the other ranks, gathered or round a ring; loads of experts in whole sequences."""
    model, layout = spec.model, spec.layout
    own = FLOAT * 2 * n * model.kv_heads // layout.tensor * model.head_dim
    if layout.context_method == "gather":
        found["all_gather"] += blocks * (passes - 1) * own * layout.context
        found["reduce_scatter"] += blocks * own * layout.context
    else:
        # Forward n - 1 times; going back the block again n - 1 times and its gradient n times.
        hops = (layout.context - 1) * passes + layout.context
        found["send"] += blocks * hops * own
        found["recv"] += blocks * hops * own
    if model.experts > 1:
        found["all_reduce"] += blocks * (passes - 1) * FLOAT * sequences * (model.experts + 1)


def _pipeline(found: dict[str, int], spec: Spec, share: Share, rows: int) -> None:
    """Activations to the next stage and gradients back, stage by stage; the tied table's gradient."""
    model, layout = spec.model, spec.layout
    place = {stage: rank for rank in range(layout.pipeline) for stage in layout.stages_of(rank)}
    for stage in share.stages:
        for other in (stage - 1, stage + 1):
            if 0 <= other < layout.stages and place[other] != place[stage]:
                found["send"] += rows + VOTE
                found["recv"] += rows + VOTE
    ends = {place[0], place[layout.stages - 1]}
    here = share.coordinates["pipeline"]
    if model.tied_embeddings and len(ends) == 2 and here in ends:
        wide = layout.shard * layout.context * layout.expert
        table = FLOAT * model.vocabulary * model.hidden // layout.tensor // wide
        found["send"] += table
        found["recv"] += table


def _agreement(found: dict[str, int], spec: Spec) -> None:
    """What the ranks tell each other: counts, losses, loads, wishes, seconds; the gradient's norm."""
    layout = spec.layout
    ranks = spec.cluster.workers
    if ranks == 1:
        return
    axes = (layout.pipeline, layout.shard, layout.context, layout.expert, layout.tensor)
    found["all_reduce"] += 8 * 3 + 8 * (3 + spec.model.experts + 3 + ranks) + FLOAT
    found["all_reduce"] += FLOAT * sum(size > 1 for size in axes)
