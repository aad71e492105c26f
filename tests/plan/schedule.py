"""
A pipeline schedule played out by its dependencies: when each rank does what, and when the last is done.

The step's formula for the bubble is held against this. Orders are those of the papers; a rank does its
operations in its order, each as soon as what it needs has come.

[1] D. Narayanan et al., 2021, section 2.2: 1F1B and its interleaved form.
[2] P. Qi et al., "Zero Bubble Pipeline Parallelism", 2023, sections 2.1 and 6: ZB-H1 and ZB-V.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["F", "B", "W"]  # forward; backward (for inputs, where W is apart); gradients of weights


@dataclass(frozen=True, slots=True)
class Operation:
    """One stage's part of one micro-batch."""

    kind: Kind
    stage: int
    micro: int


def order_1f1b(rank: int, ranks: int, stages_each: int, count: int) -> list[Operation]:
    """Megatron-LM's order: so many forwards first, then one forward and one backward in turn [1].

    Interleaved, micro-batches go through a rank's stages in rounds of `ranks`.
    """
    total = count * stages_each
    if stages_each == 1:
        warm = min(ranks - rank - 1, count)
    else:
        warm = min((ranks - rank - 1) * 2 + (stages_each - 1) * ranks, total)

    def nth(k: int, backward: bool) -> Operation:
        turn, place = divmod(k, ranks * stages_each)
        chunk, micro = place // ranks, turn * ranks + place % ranks
        if backward:
            chunk = stages_each - 1 - chunk
        if stages_each == 1:
            chunk, micro = 0, k
        return Operation("B" if backward else "F", chunk * ranks + rank, micro)

    order = [nth(k, False) for k in range(warm)]
    for k in range(total - warm):
        order += [nth(warm + k, False), nth(k, True)]
    return order + [nth(k, True) for k in range(total - warm, total)]


def makespan(
    ranks: int,
    stages_each: int,
    count: int,
    forward: list[float],
    backward: list[float],
    weights: list[float] | None = None,
    message: float = 0.0,
) -> float:
    """Seconds until all is done. `forward` and the others: seconds of each stage for a micro-batch.

    With `weights`, `backward` is the part for inputs only, and gradients of weights follow it, on rank r
    those of r micro-batches before: so much more does a later rank have left for the end [2].
    """
    stages = ranks * stages_each
    orders = [order_1f1b(rank, ranks, stages_each, count) for rank in range(ranks)]
    if weights is not None:
        orders = [_with_weights(order, rank) for rank, order in enumerate(orders)]
    done: dict[Operation, float] = {}
    free = [0.0] * ranks
    at = [0] * ranks
    seconds = {"F": forward, "B": backward, "W": weights or []}
    while any(at[rank] < len(orders[rank]) for rank in range(ranks)):
        moved = False
        for rank in range(ranks):
            while at[rank] < len(orders[rank]):
                operation = orders[rank][at[rank]]
                needed = _needs(operation, stages)
                if any(each not in done for each in needed):
                    break
                ready = max(
                    (done[n] + (message if n.stage % ranks != rank else 0.0) for n in needed), default=0.0
                )
                free[rank] = max(free[rank], ready) + seconds[operation.kind][operation.stage]
                done[operation] = free[rank]
                at[rank], moved = at[rank] + 1, True
        assert moved, "an order that waits for itself"
    return max(free)


def _with_weights(order: list[Operation], behind: int) -> list[Operation]:
    """After each backward pass the gradients of weights of so many before it; the rest at the end."""
    found: list[Operation] = []
    pending: list[Operation] = []
    for operation in order:
        found.append(operation)
        if operation.kind == "B":
            pending.append(Operation("W", operation.stage, operation.micro))
            if len(pending) > behind:
                found.append(pending.pop(0))
    return found + pending


def _needs(operation: Operation, stages: int) -> list[Operation]:
    kind, stage, micro = operation.kind, operation.stage, operation.micro
    if kind == "F":
        return [Operation("F", stage - 1, micro)] if stage else []
    if kind == "W":
        return [Operation("B", stage, micro)]
    later = [Operation("B", stage + 1, micro)] if stage + 1 < stages else []
    return [Operation("F", stage, micro), *later]
