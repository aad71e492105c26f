"""
The account of one step on one rank: what was computed, what was exchanged, what was held in memory.

Plain numbers, without torch: the tracer writes an account, whoever shows or checks it reads it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

# Of operations: three kinds of products ("experts" are grouped ones), what the optimizer does, and the rest.
KINDS = ("matrices", "experts", "attention", "other", "optimizer")
PARTS = ("weights", "gradients", "optimizer", "activations", "buffers")  # of memory


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on this rank. Views, which move nothing, are none."""

    name: str  # PyTorch's
    kind: str  # one of KINDS
    flops: int  # of products; a multiplication and an addition count two
    read: int  # [B]
    written: int  # [B]
    live: int  # memory after it [B]
    sides: tuple[int, int, int, int] | None = None  # of products: rows, columns, inner, how many such at once


@dataclass(frozen=True, slots=True)
class Collective:
    """One exchange with other ranks."""

    kind: str
    axis: str  # of the mesh, or a name of several joined ones; "world" for all ranks
    ranks: int
    nbytes: int  # on this rank the larger side: what is gathered, or scattered [B]
    live: int  # memory after it [B]

    def on(self, axis: str) -> "Collective":
        """The same on another axis."""
        return replace(self, axis=axis)


Event = Op | Collective


@dataclass(frozen=True, slots=True)
class Trace:
    """One step of one rank, in the order in which things are begun."""

    rank: int
    coordinates: dict[str, int]  # by axis
    events: list[Event]
    memory: dict[str, int]  # by part, at the moment when most was live [B]

    @property
    def ops(self) -> list[Op]:
        """All operations."""
        return [event for event in self.events if isinstance(event, Op)]

    @property
    def collectives(self) -> list[Collective]:
        """All exchanges."""
        return [event for event in self.events if isinstance(event, Collective)]


@dataclass(slots=True)
class Total:
    """Of many operations of one kind."""

    count: int = 0
    flops: int = 0
    read: int = 0
    written: int = 0


@dataclass(slots=True)
class Exchanged:
    """By many collectives of one kind on one axis."""

    kind: str
    axis: str
    ranks: int
    count: int = 0
    nbytes: int = 0


def by_kind(ops: Iterable[Op]) -> dict[str, Total]:
    """What the operations of each kind add up to; all kinds are there."""
    totals = {kind: Total() for kind in KINDS}
    for op in ops:
        total = totals[op.kind]
        total.count += 1
        total.flops += op.flops
        total.read += op.read
        total.written += op.written
    return totals


def by_axis(collectives: Iterable[Collective]) -> list[Exchanged]:
    """What the collectives of each kind and axis add up to, in the order in which they first came."""
    found: dict[tuple[str, str], Exchanged] = {}
    for each in collectives:
        exchanged = found.setdefault((each.kind, each.axis), Exchanged(each.kind, each.axis, each.ranks))
        exchanged.count += 1
        exchanged.nbytes += each.nbytes
    return list(found.values())
