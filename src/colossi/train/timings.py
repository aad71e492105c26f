"""
How long the trainer's own kernels, blocks and collectives take on this device, by shape. [seconds]

Every worker of the local group measures the same at the same time, as they compute together in training: they
share the memory and perhaps the cores. What other programs take of the machine meanwhile is no part of it: a
worker of one thread is timed by its CPU seconds, times the workers that share a core; of others, and of
collectives, the best of several means counts.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from colossi.data.corpus import Batch
from colossi.model.attention import attend_causal
from colossi.model.grok import Grok
from colossi.model.matrix import linear
from colossi.spec.layout import LayoutSpec
from colossi.spec.model import ModelSpec
from colossi.spec.spec import Spec
from colossi.spec.training import TrainingSpec
from colossi.train.mesh import World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import Parts, build_model, gradient_norm, initialise
from colossi.train.step import forward_backward

CHUNKS = 2  # means of which the best counts
CHUNK_SECONDS = 0.03

# (tokens, out, in): the matrices of small models, for few and for many tokens
PRODUCTS = (
    (512, 192, 64),
    (512, 64, 192),
    (2048, 128, 128),
    (768, 256, 192),
    (256, 512, 512),
    (1024, 512, 256),
    (1024, 256, 1024),
    (768, 768, 768),
)
GROUPED = ((1024, 4, 256, 192), (4096, 4, 128, 128), (2048, 8, 256, 256), (512, 8, 128, 256))
# (batch, heads, key-value heads, tokens, head size)
ATTENTION = (
    (8, 4, 2, 64, 32),
    (12, 3, 1, 96, 64),
    (8, 4, 4, 128, 32),
    (4, 4, 2, 256, 64),
    (2, 8, 2, 512, 64),
)
# hidden, FFN, heads, key-value heads, head size, experts, a token's, batch, tokens
BLOCKS = (
    (64, 64, 2, 1, 32, 1, 1, 1, 8),
    (64, 192, 2, 2, 32, 1, 1, 8, 64),
    (192, 512, 3, 1, 64, 1, 1, 8, 96),
    (256, 768, 8, 4, 32, 1, 1, 4, 128),
    (384, 768, 6, 6, 64, 1, 1, 2, 256),
    (64, 64, 2, 1, 32, 4, 2, 1, 8),
    (192, 256, 3, 1, 64, 4, 2, 12, 96),
    (192, 256, 3, 1, 64, 4, 2, 4, 96),
    (256, 256, 4, 2, 64, 8, 2, 4, 128),
    (128, 128, 4, 2, 32, 8, 2, 8, 128),
)
# hidden, FFN, heads, experts, a token's: two layers whose weights are sharded over all workers
SHARDED = ((64, 128, 2, 1, 1), (256, 768, 4, 1, 1), (192, 256, 3, 4, 2))
SHARDED_BATCH, SHARDED_TOKENS = 2, 64  # of a worker
HEADS = ((64, 256, 8, 64), (192, 512, 12, 96), (256, 2048, 4, 128))  # hidden, vocabulary, batch, tokens
OPTIMIZED = ((64, 64, 2), (192, 256, 3), (384, 512, 6))  # hidden, FFN, heads of a block
SIZES = (1 << 12, 1 << 16, 1 << 19, 1 << 22)  # [bytes] of a collective

Timings = dict[str, list[list[float]]]  # kind -> shape and seconds of each


def pieces(ranks: int) -> Iterator[tuple[str, list[float]]]:
    """(kind, shape and seconds), one after another. Every rank of the default group calls this."""
    for tokens, out, inner in PRODUCTS:
        x, w = _leaf(tokens, inner), _leaf(out, inner)
        yield "product", [tokens, out, inner, *_there_and_back(partial(linear, x, w), ranks)]
    for rows, groups, out, inner in GROUPED:
        x, w = _leaf(rows, inner), _leaf(groups, out, inner)
        ends = torch.arange(1, groups + 1, dtype=torch.int32) * (rows // groups)
        call: Callable[[], Tensor] = partial(F.grouped_mm, x, w.transpose(1, 2), offs=ends)
        yield "grouped", [rows, groups, out, inner, *_there_and_back(call, ranks)]
    for batch, heads, kv, length, size in ATTENTION:
        q, k, v = (_leaf(batch, each, length, size) for each in (heads, kv, kv))
        call = partial(attend_causal, q, k, v, size**-0.5, 30.0)
        yield "attention", [batch, heads, kv, length, size, *_there_and_back(call, ranks)]
    for block in BLOCKS:
        yield "block", [*block, _block(*block, ranks=ranks)]
    for head in HEADS:
        yield "head", [*head, _head(*head, ranks=ranks)]
    for sizes in OPTIMIZED:
        for kind in ("adamw", "muon"):
            yield kind, [*sizes, _update(kind, *sizes, ranks=ranks)]
    yield "memory", [_memory_rate(ranks)]
    if ranks > 1:
        for size in SIZES:
            for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"):
                yield kind, [size, _collective(kind, size, ranks)]
        for sharded in SHARDED:
            yield "sharded", [*sharded, SHARDED_BATCH, SHARDED_TOKENS, _sharded(*sharded, ranks=ranks)]


def count(ranks: int) -> int:
    """How many `pieces` gives."""
    alone = sum(map(len, (PRODUCTS, GROUPED, ATTENTION, BLOCKS, HEADS))) + 2 * len(OPTIMIZED) + 1
    return alone + (5 * len(SIZES) + len(SHARDED) if ranks > 1 else 0)


def seconds(call: Callable[[], Any], ranks: int) -> float:
    """Of one call, while all ranks call it; the mean over ranks."""
    call()
    if ranks > 1:
        dist.barrier()
    means, alone = [], torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    for _ in range(CHUNKS):
        calls, start = 0, clock()
        while clock() < start + CHUNK_SECONDS:
            call()
            calls += 1
        means.append((clock() - start) / calls)
    turns = max(1.0, ranks / len(os.sched_getaffinity(0))) if alone else 1.0
    return _mean(min(means) * turns, ranks)


def _mean(own: float, ranks: int) -> float:
    if ranks == 1:
        return own
    total = torch.tensor(own, dtype=torch.float64)
    dist.all_reduce(total)
    return float(total) / ranks


def _leaf(*shape: int) -> Tensor:
    return torch.randn(shape).mul_(0.1).requires_grad_()


def _there_and_back(call: Callable[[], Tensor], ranks: int) -> tuple[float, float]:
    """Seconds of the forward pass, and of the backward pass."""
    forward = seconds(call, ranks)
    grad = torch.ones_like(call())
    both = seconds(lambda: call().backward(grad), ranks)
    return forward, max(both - forward, 0.0)


def _model(
    hidden: int, ffn: int, heads: int, kv: int, size: int, experts: int, k: int, vocabulary: int = 64
) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "layers": 1,
            "hidden": hidden,
            "heads": heads,
            "kv_heads": kv,
            "head_dim": size,
            "ffn_hidden": ffn,
            "vocabulary": vocabulary,
            "experts": experts,
            "experts_per_token": k,
        }
    )


def _block(*sizes: int, ranks: int) -> float:
    """One block, forward and backward."""
    *model, batch, length = sizes
    grok = _grok(_model(*model))
    x, tokens = torch.randn(batch, length, sizes[0]), torch.ones(batch, length, dtype=torch.int64)

    def call() -> None:
        h, stats = grok.through_blocks(x.requires_grad_(), tokens)
        loss = h.sum() + sum(s.balance + s.z for s in stats)
        loss.backward()

    return seconds(call, ranks)


def _grok(model: ModelSpec) -> Grok:
    grok = Grok(model)
    initialise(grok, 0)
    return grok


def _head(hidden: int, vocabulary: int, batch: int, length: int, ranks: int) -> float:
    """Embedding, last norm, output and loss, forward and backward."""
    grok = _grok(_model(hidden, 64, 2, 1, 32, 1, 1, vocabulary))
    tokens = torch.randint(1, vocabulary, (batch, length))
    counted = torch.ones(batch, length, dtype=torch.bool)
    return seconds(
        lambda: grok.losses(grok.embed(tokens), tokens, counted, []).cross_entropy.backward(), ranks
    )


def _update(kind: str, hidden: int, ffn: int, heads: int, ranks: int) -> float:
    """Norm of the gradients of one block, and the optimizer's step on one worker."""
    parts = Parts([_grok(_model(hidden, ffn, heads, heads, hidden // heads, 1, 1, 8))])
    world = World(LayoutSpec(replicate=1), torch.device("cpu"), None)
    training = TrainingSpec.model_validate(
        {"sequence_length": 8, "global_batch": 1, "steps": 2, "optimizer": kind}
    )
    optimizer = Optimizer(parts, training, world)
    for parameter in parts.parameters():
        parameter.grad = torch.randn_like(parameter)
    grads = [parameter.grad for parameter in parts.parameters()]

    def call() -> None:
        for parameter, grad in zip(parts.parameters(), grads, strict=True):
            parameter.grad = grad
        gradient_norm(parts, world)
        optimizer.step(1, 1.0)

    return seconds(call, ranks)


def _sharded(hidden: int, ffn: int, heads: int, experts: int, k: int, ranks: int) -> float:
    """Forward and backward of a small model under FSDP; a worker of one thread by its CPU seconds."""
    model = _model(hidden, ffn, heads, heads, hidden // heads, experts, k).model_copy(update={"layers": 2})
    spec = Spec.model_validate(
        {
            "name": "sharded",
            "model": model.model_dump(),
            "training": {
                "sequence_length": SHARDED_TOKENS,
                "global_batch": SHARDED_BATCH * ranks,
                "steps": 1,
            },
            "layout": {"shard": ranks},
            "cluster": {"workers_per_node": ranks},
        }
    )
    world = World.make(spec.layout, torch.device("cpu"), ranks)
    parts = build_model(spec, world)
    rows = np.ones((SHARDED_BATCH, SHARDED_TOKENS), np.int64)
    batch = Batch(rows, rows, rows > 0, None)
    alone, calls, means = torch.get_num_threads() == 1, 4, []
    clock = time.process_time if alone else time.perf_counter
    for _ in range(CHUNKS + 1):
        start = clock()
        for _ in range(calls):
            forward_backward(parts, batch, spec, world)
            parts.zero_grad()
        means.append((clock() - start) / calls)
    turns = max(1.0, ranks / len(os.sched_getaffinity(0))) if alone else 1.0
    return _mean(min(means[1:]) * turns, ranks)


def _memory_rate(ranks: int) -> float:
    """Bytes a second that a worker reads and writes of 32 MiB, more than caches hold for it."""
    a, b = torch.zeros(1 << 23), torch.zeros(1 << 23)
    return 2 * 4 * a.numel() / seconds(lambda: b.copy_(a), ranks)


def _collective(kind: str, size: int, ranks: int) -> float:
    """Among all ranks; `size` bytes is what a rank has in all, for gathers afterwards."""
    whole, other = torch.zeros(size // 4), torch.zeros(size // 4)
    part = torch.zeros(size // 4 // ranks)
    rank = dist.get_rank()

    def call() -> None:
        if kind == "all_reduce":
            dist.all_reduce(whole)
        elif kind == "all_gather":
            dist.all_gather_single(whole, part)
        elif kind == "reduce_scatter":
            dist.reduce_scatter_single(part, whole)
        elif kind == "all_to_all":
            dist.all_to_all_single(other, whole)
        elif rank % 2 == 0:
            dist.send(whole, rank + 1)
        else:
            dist.recv(whole, rank - 1)

    call()
    dist.barrier()
    start = time.perf_counter()
    for _ in range(3):
        call()
    once = _mean((time.perf_counter() - start) / 3, ranks)
    means, calls = [], max(1, min(200, int(CHUNK_SECONDS / once)))
    for _ in range(CHUNKS):
        dist.barrier()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        means.append(_mean((time.perf_counter() - start) / calls, ranks))
    return min(means)
