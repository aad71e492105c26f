"""A trace against closed forms, true runs of the same step, and PyTorch's own account of memory."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from colossi.spec.ranks import Share, shares
from colossi.spec.size import flops_per_token
from colossi.spec.spec import Spec
from colossi.spec.stages import parts_of
from colossi.train.account import Collective, Event, Trace
from colossi.train.mesh import World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import build_model
from colossi.train.record import Memory, Recorder
from colossi.train.step import forward_backward
from colossi.train.trace import batch_of, record_step, trace_rank

from .ranks import run_ranks, spec_of
from .test_layouts import name, size

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"micro_batch": 2},
    {"replicate": 2},
    {"shard": 2, "tensor": 2},
    {"expert": 2, "shard": 2},
    {"context": 2, "tensor": 2},
    {"context": 4, "context_method": "ring"},
    {"pipeline": 2, "expert": 2, "micro_batch": 2},
    {"pipeline": 2, "shard": 2, "micro_batch": 1, "schedule": "zero-bubble-v", "interleave": 2},
]
WIDE_BATCH = {"global_batch": 12}  # a pipeline in a V wants more micro-batches than there are else
DENSE = {"experts": 1, "experts_per_token": 1}
GROK_2 = {"shared_expert_ffn": 64, "router_cap": 30.0, "final_cap": 50.0, "tied_embeddings": False}


def traced(layout: dict[str, Any], training: Any = None, model: Any = None, rank: int = 0) -> Trace:
    return traced_once(spec_of(layout, size(layout), training, model).model_dump_json(), rank)


@cache
def traced_once(spec: str, rank: int) -> Trace:
    """Several tests look at the same trace."""
    return trace_rank(Spec.model_validate_json(spec), rank)


def share_of(spec: Spec, rank: int) -> Share:
    return list(shares(spec))[rank]


def flops(trace: Trace) -> dict[str, int]:
    found: Counter[str] = Counter()
    for op in trace.ops:
        found[op.kind] += op.flops
    return {kind: number for kind, number in found.items() if number}


def expected_flops(spec: Spec, rank: int) -> dict[str, int]:
    """Of a rank's products, forward and twice that going back, by what it holds; without recomputation.

    Attention goes back with 5 products where it went forward with 2. The router is on every tensor rank.
    """
    model, training, layout, share = spec.model, spec.training, spec.layout, share_of(spec, rank)
    assert training is not None and share.sequences is not None
    length, blocks = training.sequence_length, len(share.blocks)
    tokens = len(share.sequences) * length // layout.context
    attention = model.hidden * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    dense_ffn = 3 * model.hidden * (model.shared_expert_ffn if model.experts > 1 else model.ffn_hidden)
    router = model.hidden * model.experts if model.experts > 1 else 0
    head = model.vocabulary * model.hidden // layout.tensor if share.output else 0
    expert = 3 * model.hidden * model.ffn_hidden // layout.tensor if model.experts > 1 else 0
    pairs = len(share.sequences) * length * (length + 1) // 2 // layout.context
    dense = 6 * blocks * ((attention + dense_ffn) // layout.tensor + router)
    if layout.schedule != "1f1b":
        # It goes back twice, for activations and for weights, in all stages but the first. A float32 product
        # of our own does not know which it is asked for, and gives both each time.
        parts = parts_of(model, layout.stages)
        again = sum(len(parts[stage].blocks) for stage in share.stages if stage > 0)
        dense += 4 * again * (attention + router)
    found = {
        "matrices": tokens * (dense + 6 * head),
        "experts": 6 * tokens * blocks * model.experts_per_token * expert,
        "attention": (2 + 5) * 2 * blocks * model.heads // layout.tensor * model.head_dim * pairs,
    }
    return {kind: number for kind, number in found.items() if number}


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_flops_of_the_first_and_the_last_rank(layout: dict[str, Any]) -> None:
    spec = spec_of(layout, size(layout), WIDE_BATCH)
    for rank in {0, size(layout) - 1}:
        assert flops(traced(layout, WIDE_BATCH, rank=rank)) == expected_flops(spec, rank)


@pytest.mark.parametrize("model", [{}, DENSE, GROK_2, {"attention_cap": 0.0}], ids=str)
def test_flops_of_a_whole_model_are_those_of_its_size(model: dict[str, Any]) -> None:
    spec = spec_of(model=model)
    assert spec.training is not None
    found = flops(traced({}, model=model))
    # The size counts attention's products once; a kernel that keeps no scores computes 2 of 12 again.
    again = found["attention"] * 2 // 14
    tokens = spec.training.tokens_per_step
    assert sum(found.values()) - again == flops_per_token(spec.model, 16) * tokens


def test_recomputation_costs_the_blocks_once_more() -> None:
    once, twice = (flops(traced({"recompute": recompute})) for recompute in ("none", "full"))
    assert twice["attention"] * 7 == once["attention"] * 9  # 2 of 2 + 5 once more
    assert twice["experts"] * 3 == once["experts"] * 4


def test_muon_multiplies_in_the_optimizer_only() -> None:
    muon, adam = (flops(traced({}, {"optimizer": optimizer})) for optimizer in ("muon", "adamw"))
    # 5 iterations, each 2 products of the small side squared with the large one and one of its cube.
    sides = [(32, 32)] * 2 + [(16, 32)] * 2 + [(32, 48)] * 12
    assert muon.pop("optimizer") == 4 * 5 * 2 * sum(2 * s * s * large + s**3 for s, large in sides)
    assert muon == adam


# What each axis alone moves on 2 ranks, in the order: sequences B, tokens T of the rank; width E, layers L,
# experts X of which k; bytes of float32. Weights [B]: of blocks, of experts in them, of the rest.
B, T, E, L, X, K = 8, 16, 32, 4, 4, 2
BTE = 4 * B * T * E
BLOCKS = 4 * L * (3 * 32 * 32 + X * (3 * 32 * 48) + X * 32 + 4 * 32)
EXPERTS, REST = 4 * L * X * 3 * 32 * 48, 4 * (64 * 32 + 32)
KEYS_VALUES = 4 * 2 * B * T * 2 * 8  # of all ranks: 2 heads of 8
AGREEMENT = 8 * 3 + 8 * (3 + X + 3 + 2) + 4  # counts, losses with load, wishes and seconds; the largest logit
NORM = 4

MOVED: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "replicate": ({"replicate": 2}, {"all_reduce": BLOCKS + REST + AGREEMENT + 16}),  # 16: fingerprints
    "shard: blocks are gathered forward and back, the rest once": (
        {"shard": 2},
        {
            "all_gather": 2 * BLOCKS + REST,
            "reduce_scatter": BLOCKS + REST,
            "all_reduce": AGREEMENT + NORM,
        },
    ),
    "tensor: two sums a block each way, with that of the routing weights; the embedding, the output": (
        {"tensor": 2},
        {
            "all_reduce": (2 + 4 * L) * BTE
            + L * 4 * B * T * K
            + 3 * 4 * B * T  # of the loss: the largest logit, the sum, the target's
            + AGREEMENT
            + NORM
        },
    ),
    "expert: rows there and back, twice; how many; weights that are not experts' are sharded": (
        {"expert": 2},
        {
            "all_to_all": L * (4 * K * BTE // 2 + 8 * X),
            "all_gather": 2 * (BLOCKS - EXPERTS) + REST,
            "reduce_scatter": BLOCKS - EXPERTS + REST,
            "all_reduce": AGREEMENT + NORM,
        },
    ),
    "context: keys and values of all ranks, and the sums of their gradients; weights are sharded": (
        {"context": 2},
        {
            "all_gather": 2 * BLOCKS + REST + L * KEYS_VALUES,
            "reduce_scatter": BLOCKS + REST + L * KEYS_VALUES,
            "all_reduce": L * 4 * B * (X + 1) + AGREEMENT + NORM,  # load of experts in each sequence
        },
    ),
    "a ring: a block of keys and values once each way, its gradient all the way home": (
        {"context": 2, "context_method": "ring"},
        {
            "all_gather": 2 * BLOCKS + REST,
            "reduce_scatter": BLOCKS + REST,
            "send": L * 4 * KEYS_VALUES // 2,
            "recv": L * 4 * KEYS_VALUES // 2,
            "all_reduce": L * 4 * B * (X + 1) + AGREEMENT + NORM,
        },
    ),
    "pipeline: activations, their gradients, the tied table; a vote of 4 bytes in the first step": (
        {"pipeline": 2, "micro_batch": 2},
        {"send": BTE + 4 * 64 * 32 + 4, "recv": BTE + 4 * 64 * 32 + 4, "all_reduce": AGREEMENT + NORM},
    ),
    "Muon: whole gradients of matrices to all, and all updates": (
        {"shard": 2, "micro_batch": 4},
        {
            "all_gather": 2 * BLOCKS + REST + BLOCKS - 4 * L * (X * 32 + 4 * 32),
            "reduce_scatter": BLOCKS + REST,
            "all_reduce": BLOCKS - 4 * L * (X * 32 + 4 * 32) + AGREEMENT + NORM,
        },
    ),
}


@pytest.mark.parametrize(("layout", "moved"), MOVED.values(), ids=MOVED.keys())
def test_what_an_axis_moves(layout: dict[str, Any], moved: dict[str, int]) -> None:
    trace = traced(layout, {"optimizer": "muon"} if layout.get("micro_batch") == 4 else {})
    found: Counter[str] = Counter()
    for each in trace.collectives:
        found[each.kind] += each.nbytes
        assert each.axis in layout and each.ranks == 2
    assert found == moved


def test_ranks_traced_one_after_the_other_do_not_mix() -> None:
    """DTensor keeps meshes of worlds that are gone: gathering Muon's gradients would ask their groups."""
    spec = spec_of({"shard": 2, "tensor": 2}, 4, {"optimizer": "muon"})
    both = [trace_rank(spec, rank) for rank in (0, 3)]
    assert exchanges(both[0].events) == exchanges(both[1].events)
    assert {each.axis for each in both[1].collectives} == {"shard", "tensor", "shard*tensor"}


def test_axes_together_have_their_own_names() -> None:
    trace = traced({"replicate": 2, "shard": 2, "expert": 2, "tensor": 2})
    found = {(each.kind, each.axis, each.ranks) for each in trace.collectives}
    assert {
        ("all_reduce", "replicate*shard*expert*tensor", 16),
        ("all_gather", "shard*expert", 4),
        ("reduce_scatter", "shard", 2),
        ("all_to_all", "expert", 2),
        ("all_reduce", "tensor", 2),
        ("all_reduce", "replicate", 2),
    } <= found


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_weights_gradients_and_optimizer_in_memory(layout: dict[str, Any]) -> None:
    spec = spec_of(layout, size(layout), WIDE_BATCH)
    weights = 4 * share_of(spec, 0).parameters
    found = traced(layout, WIDE_BATCH).memory
    assert found["weights"] == weights
    assert 0 <= found["optimizer"] - 2 * weights < 8 * 60  # and a count of steps for each weight
    if layout.get("pipeline") == 2:  # at the end of its micro-batches, before sharded ones are reduced
        experts = 4 * 2 * X * 3 * 32 * 48 // layout.get("expert", 1)
        dense = weights * layout.get("shard", 1) * layout.get("expert", 1) - experts * layout.get("expert", 1)
        assert found["gradients"] == dense + experts


def test_a_block_more_costs_its_input_when_it_is_recomputed() -> None:
    recomputed, batch = {"recompute": "full"}, {"global_batch": 8 * B}  # so many that the loss is the peak
    four, six = (sum(traced(recomputed, batch, {"layers": n}).memory.values()) for n in (4, 6))
    state = 3 * BLOCKS // L  # weights and AdamW's moments of a block
    assert six - four == pytest.approx(2 * (state + 8 * BTE), rel=0.01)  # and what the router reports


def real_step(rank: int, ranks: int, spec: Spec) -> tuple[list[Event], int]:
    """The same of true tensors and true groups."""
    assert spec.training is not None
    world = World.make(spec.layout, torch.device("cpu"), ranks)
    memory = Memory()
    with memory.listening():
        with Recorder(memory):
            parts = build_model(spec, world)
            optimizer = Optimizer(parts, spec.training, world)
            optimizer.load(optimizer.state(), 0)
        events = record_step(parts, optimizer, batch_of(spec), spec, world, memory)
    return events, sum(memory.at_peak().values())


REAL: list[dict[str, Any]] = [
    {"replicate": 2},
    {"shard": 2, "micro_batch": 2},
    {"tensor": 2},
    {"expert": 2},
    {"context": 2},
    {"context": 2, "context_method": "ring"},
    {"pipeline": 2, "micro_batch": 2},
]


def exchanges(events: list[Event]) -> list[tuple[str, int | None]]:
    """Kinds and bytes in order; how many rows go to an expert's rank depends on the router's numbers."""
    collectives = [event for event in events if isinstance(event, Collective)]
    return [(e.kind, None if e.kind == "all_to_all" else e.nbytes) for e in collectives]


@pytest.mark.parametrize("layout", REAL, ids=name)
def test_two_processes_do_what_the_trace_says(layout: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_of(layout, 2)
    events, peak = run_ranks(2, real_step, spec, folder=tmp_path)
    trace = traced(layout)
    assert exchanges(events) == exchanges(trace.events)
    if "expert" not in layout:
        assert flops(Trace(0, {}, events, {})) == flops(trace)
    assert peak > 0.98 * sum(trace.memory.values())  # gloo's threads let go of tensors when they like


MEASURED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "micro-batches": ({"micro_batch": 2}, {"sequence_length": 128}, {"vocabulary": 512}),
    "recomputed": ({"recompute": "full"}, {"sequence_length": 128}, {"layers": 6}),
    "wide, Muon": ({"micro_batch": 1}, {"optimizer": "muon"}, {"hidden": 128, "ffn_hidden": 512}),
}


@pytest.mark.parametrize(("layout", "training", "model"), MEASURED.values(), ids=MEASURED.keys())
def test_peak_is_what_pytorchs_allocator_gives_out(
    layout: dict[str, Any], training: dict[str, Any], model: dict[str, Any]
) -> None:
    """Its profiler sees each block of memory that kernels take, for themselves too."""
    spec = spec_of(layout, 1, training, model)
    peak = allocated(spec)
    assert peak == pytest.approx(sum(trace_rank(spec, 0).memory.values()), rel=0.02)


def allocated(spec: Spec) -> int:
    """Peak of a true step in this process [B]."""
    assert spec.training is not None
    world = World.make(spec.layout, torch.device("cpu"), 1)
    parts = build_model(spec, world)
    optimizer = Optimizer(parts, spec.training, world)
    optimizer.load(optimizer.state(), 0)
    kept: list[torch.Tensor] = list(parts.parameters())
    for each in (optimizer.adamw, optimizer.muon):
        if each is not None:
            kept += [x for values in each.state.values() for x in values.values()]
    if optimizer.muon is not None:
        kept += [update for group in optimizer.muon.param_groups for update in group["params"]]
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        forward_backward(parts, batch_of(spec), spec, world)
        optimizer.step(1, 1.0)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    return highest + sum(x.nbytes for x in kept)


def largest_written(trace: Trace) -> int:
    """By any one operation of the forward and the backward pass [B]."""
    return max(op.written for op in trace.ops if op.kind != "optimizer")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", [{}, {"tensor": 2}, {"pipeline": 2, "micro_batch": 4}], ids=name)
def test_no_tensor_of_tokens_times_vocabulary(layout: dict[str, Any], precision: str) -> None:
    training = {"sequence_length": 1024, "precision": precision}
    trace = traced(layout, training, {"vocabulary": 16384}, rank=size(layout) - 1)
    tokens = 1024 * layout.get("micro_batch", 8)
    smallest = 2 * tokens * 16384 // layout.get("tensor", 1)  # of the numbers that there are, in bfloat16
    assert largest_written(trace) < smallest / 3


LONG = {"max_positions": 131072, "layers": 2, "hidden": 2048, "heads": 16, "ffn_hidden": 4096}


@pytest.mark.parametrize("method", ["gather", "ring"])
def test_a_sequence_of_131072_tokens_over_16_ranks(method: str) -> None:
    layout = {"context": 16, "context_method": method, "recompute": "full"}
    training = {"sequence_length": 131072, "global_batch": 1, "precision": "bf16"}
    spec = spec_of(layout, 16, training, LONG | {"vocabulary": 131072})
    trace = trace_rank(spec, 15)
    ways = flops(trace)
    pairs = 131072 * 131073 // 2 // 16
    assert ways["attention"] == (2 * 2 + 5) * 2 * 2 * 2048 * pairs
    # Of its 8,192 tokens a rank holds the inputs of two blocks; gathered, 131,072 keys and values of one.
    assert sum(trace.memory.values()) < 8e9


GROK_1 = {
    "layers": 64,
    "hidden": 6144,
    "heads": 48,
    "kv_heads": 8,
    "head_dim": 128,
    "ffn_hidden": 32768,
    "vocabulary": 131072,
    "experts": 8,
}


@pytest.mark.long
def test_grok_1_on_204_800_ranks() -> None:
    layout = {"pipeline": 4, "shard": 4, "expert": 8, "tensor": 8, "micro_batch": 1, "recompute": "full"}
    training = {"sequence_length": 8192, "global_batch": 25600, "precision": "bf16"}
    spec = spec_of(layout, 204_800, training, GROK_1)
    trace = trace_rank(spec, 204_799)
    memory = trace.memory
    assert memory["weights"] == 4 * next(s for s in shares(spec) if s.rank == 3 * 256).parameters
    assert 10e9 < sum(memory.values()) < 80e9
    assert ("all_reduce", "replicate", 200) in {(c.kind, c.axis, c.ranks) for c in trace.collectives}
