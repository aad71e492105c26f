"""
All layouts of a run, and which are best.

Layouts are columns of numbers, evaluated together; nothing is pruned by rule of thumb, only what divides
and what fits stays. The step time is that of `step`, the same as a forecast's.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from colossi.plan.case import Case, Layout
from colossi.plan.efficiency import Efficiency
from colossi.plan.memory import memory
from colossi.plan.step import step

BLOCK = 65536  # layouts evaluated at once: columns stay in the cache


@dataclass(frozen=True, slots=True)
class Found:
    """All layouts that divide: one entry each."""

    layouts: Layout  # columns
    seconds: NDArray[np.float64]
    memory: NDArray[np.float64]  # [bytes]
    fits: NDArray[np.bool_]

    def best(self, count: int) -> NDArray[np.int64]:
        """The fastest that fit, first."""
        order = np.argsort(np.where(self.fits, self.seconds, np.inf), kind="stable")[:count]
        return order[self.fits[order]]

    def front(self) -> NDArray[np.int64]:
        """Those that nothing beats in both time and memory, fastest first."""
        order = np.lexsort((self.memory, self.seconds))
        lowest = np.minimum.accumulate(self.memory[order])
        new = np.concatenate(([True], lowest[1:] < lowest[:-1]))
        return order[new]


def search(case: Case, e: Efficiency) -> Found:
    """Every layout of `case`'s model, machine and batch; what its own layout says of overlap is kept."""
    columns = layouts(case)
    count = len(columns.tensor)
    seconds, bytes_ = np.empty(count), np.empty(count)
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        part = replace(case, layout=Case(case.model, case.machine, columns, case.training).take(rows).layout)
        seconds[rows], bytes_[rows] = step(part, e).seconds, memory(part).total
    return Found(columns, seconds, bytes_, bytes_ <= case.machine.memory)


def layouts(case: Case) -> Layout:
    """All that divide, as columns."""
    m, machine, training = case.model, case.machine, case.training
    gpus, batch, experts = int(machine.gpus), int(training.global_batch), int(m.experts)
    heads, layers, kv = int(m.heads), int(m.layers), int(m.kv_heads)
    tensors = [
        t for t in divisors(heads) if t <= machine.domain and gpus % t == 0 and (kv % t == 0 or t % kv == 0)
    ]
    contexts = [c for c in powers(gpus) if c == 1 or training.sequence / (2 * c) >= 1024]
    rows = []
    for tensor, context in product(tensors, contexts):
        for pipeline in [p for p in range(1, layers + 1) if gpus % (tensor * context * p) == 0]:
            data = gpus // (tensor * context * pipeline)
            if batch % data:
                continue
            rows += _of_grid(tensor, context, pipeline, data, batch // data, layers, experts)
    table = np.array(rows, float).reshape(-1, 9).T
    t, c, p, v, x, micro, recompute, zero, d = table
    return replace(
        case.layout,
        tensor=t,
        context=c,
        pipeline=p,
        interleave=v,
        expert=x,
        expert_tensor=np.ones_like(t),
        micro_batch=micro,
        recompute=np.where(recompute == 2, 1.0, 0.0),
        recompute_attention=np.where(recompute == 1, 1.0, 0.0),
        shard=np.where(zero == 3, d * c, 1.0),
        keep_gathered=np.where(p > 1, 1.0, 0.0),
        gather_once=np.where(p > 1, 1.0, 0.0),
        optimizer_shard=d * c,
        sequence_parallel=np.where(t > 1, 1.0, 0.0),
    )


def _of_grid(
    tensor: int, context: int, pipeline: int, data: int, share: int, layers: int, experts: int
) -> list[tuple[int, ...]]:
    """The rest of a layout, where tensor, context, pipeline and data are given."""
    stages = [v for v in divisors(-(-layers // pipeline)) if v * pipeline <= layers] if pipeline > 1 else [1]
    spread = [x for x in divisors(experts) if (data * context * tensor) % x == 0]
    found: list[tuple[int, ...]] = []
    for micro in divisors(share):
        count = share // micro
        for interleave in stages:
            if interleave > 1 and count % pipeline:
                continue
            for expert, recompute in product(spread, (0, 1, 2)):
                for zero in (1, 3) if data * context > 1 else (1,):
                    found.append(
                        (tensor, context, pipeline, interleave, expert, micro, recompute, zero, data)
                    )
    return found


def divisors(n: int) -> list[int]:
    """All of them, ascending."""
    return (
        [d for d in range(1, n + 1) if n % d == 0]
        if n < 4096
        else sorted({x for d in range(1, int(n**0.5) + 1) if n % d == 0 for x in (d, n // d)})
    )


def powers(n: int) -> list[int]:
    """Powers of two that divide n, up to 64."""
    return [2**k for k in range(7) if n % 2**k == 0]
