"""
The snapshots that an agent keeps: its own workers', and copies of those of the node whose buddy it is.

A worker writes into a region that is the agent's (an anonymous file in memory, handed over as a descriptor),
so what it wrote outlives it. A region has two slots; what is being written is never served. Knows bytes,
manifests and steps; what a tensor is is not known here.
"""

import mmap
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Manifest = Mapping[str, Any]  # parts: [key, offset, bytes]; unique, total: bytes


Origin = tuple[int, int]  # the incarnation that a snapshot was taken in, and the ranks of its world


@dataclass(slots=True)
class Slot:
    """One snapshot's place; `step` is None while it is empty or being written."""

    step: int | None = None
    sums: tuple[int, int] = (0, 0)
    origin: Origin = (0, 0)


@dataclass(slots=True)
class Region:
    """Two slots of a rank, in memory that both the agent and the worker see."""

    descriptor: int
    manifest: Manifest
    memory: mmap.mmap
    slots: tuple[Slot, Slot] = field(default_factory=lambda: (Slot(), Slot()))

    @classmethod
    def make(cls, manifest: Manifest) -> "Region":
        """Empty, of the size that the manifest needs."""
        size = max(1, 2 * manifest["total"])
        descriptor = os.memfd_create("colossi-snapshots")
        os.ftruncate(descriptor, size)
        return cls(descriptor, manifest, mmap.mmap(descriptor, size))

    def find(self, step: int) -> int | None:
        """The slot that holds a step, if one does."""
        return next((number for number, slot in enumerate(self.slots) if slot.step == step), None)

    def view(self, number: int) -> memoryview:
        """The bytes of a slot."""
        total = self.manifest["total"]
        return memoryview(self.memory)[number * total : (number + 1) * total]

    def to_overwrite(self) -> int:
        """The slot that is empty, else the one with the older step."""
        first, second = (-1 if slot.step is None else slot.step for slot in self.slots)
        return 0 if first <= second else 1

    def close(self) -> None:
        """The worker's own mapping stays."""
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Copy:
    """Of another node's rank: the part of its snapshot that no other rank has."""

    manifest: Manifest
    sums: tuple[int, int]
    origin: Origin
    unique: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Whole:
    """A snapshot on its way to who asked for it."""

    manifest: Manifest
    sums: tuple[int, int]
    origin: Origin
    pieces: tuple[memoryview | bytes | bytearray, ...]  # in order


KEEP = 2  # steps of each rank


class Memory:
    """All snapshots of a node. Any thread may call."""

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}
        self._copies: dict[int, dict[int, Copy]] = {}
        self._copy_ranks = 1  # in a copy of the model: ranks that differ by a multiple hold the same weights
        self._lock = threading.RLock()

    def begin(self, copy_ranks: int, restore: int) -> None:
        """A new incarnation goes on from a step (below 0: from disk): what is newer is no longer true."""
        with self._lock:
            self._copy_ranks = copy_ranks
            for region in self._regions.values():
                for slot in region.slots:
                    if slot.step is not None and slot.step > restore:
                        slot.step = None
            for copies in self._copies.values():
                for step in [step for step in copies if step > restore]:
                    del copies[step]

    def region(self, rank: int, manifest: Manifest) -> Region:
        """The region of a local rank: the one that there is, or an empty one if that is of another kind."""
        with self._lock:
            known = self._regions.get(rank)
            if known is None or dict(known.manifest) != dict(manifest):
                if known is not None:
                    known.close()
                self._regions[rank] = Region.make(manifest)
            return self._regions[rank]

    def writing(self, rank: int, slot: int) -> None:
        """From now on the slot holds nothing."""
        with self._lock:
            self._regions[rank].slots[slot].step = None

    def written(self, rank: int, slot: int, step: int, sums: tuple[int, int], origin: Origin) -> None:
        """The slot holds this step whole."""
        with self._lock:
            place = self._regions[rank].slots[slot]
            place.step, place.sums, place.origin = step, sums, origin

    def discard(self, rank: int, step: int) -> None:
        """It is not what was written."""
        with self._lock:
            if found := self.local(rank, step):
                region, number = found
                region.slots[number].step = None
            self._copies.get(rank, {}).pop(step, None)

    def put(self, rank: int, step: int, whole: Whole) -> None:
        """Make what came from another node the snapshot of a local rank."""
        with self._lock:
            region = self.region(rank, whole.manifest)
            number, at = region.to_overwrite(), 0
            self.writing(rank, number)
            view = region.view(number)
            for piece in whole.pieces:
                view[at : at + len(piece)] = piece
                at += len(piece)
            self.written(rank, number, step, whole.sums, whole.origin)

    def keep(self, rank: int, step: int, copy: Copy) -> None:
        """As the buddy of another node."""
        with self._lock:
            copies = self._copies.setdefault(rank, {})
            copies[step] = copy
            for old in sorted(copies)[:-KEEP]:
                del copies[old]

    def local(self, rank: int, step: int) -> tuple[Region, int] | None:
        """Where a local rank's snapshot stands."""
        with self._lock:
            region = self._regions.get(rank)
            number = region.find(step) if region else None
            return (region, number) if region is not None and number is not None else None

    def get(self, rank: int, step: int) -> Whole | None:
        """A snapshot from what is here: the rank's own, or the copy with what a rank here has alike."""
        with self._lock:
            if found := self.local(rank, step):
                region, number = found
                slot = region.slots[number]
                return Whole(region.manifest, slot.sums, slot.origin, (region.view(number),))
            copy = self._copies.get(rank, {}).get(step)
            if copy is None:
                return None
            unique, total = copy.manifest["unique"], copy.manifest["total"]
            if unique == total:
                return Whole(copy.manifest, copy.sums, copy.origin, (copy.unique,))
            shared = self._alike(rank, step, copy, total - unique)
            if shared is None:
                return None
            return Whole(copy.manifest, copy.sums, copy.origin, (copy.unique, shared))

    def held(self) -> list[tuple[int, int, int, int, int]]:
        """(incarnation, ranks of its world, rank, step, ranks from there on) of all that `get` would find."""
        with self._lock:
            own = {(rank, s.step) for rank, region in self._regions.items() for s in region.slots}
            copies = {(rank, step) for rank, steps in self._copies.items() for step in steps} - own
            return self._blocks(own) + self._blocks(copies)  # apart, as what is one's own need not be fetched

    def _blocks(self, known: Iterable[tuple[int, int | None]]) -> list[tuple[int, int, int, int, int]]:
        found = sorted(
            (*whole.origin, step, rank)
            for rank, step in known
            if step is not None and (whole := self.get(rank, step)) is not None
        )
        blocks: list[tuple[int, int, int, int, int]] = []
        for incarnation, world, step, rank in found:
            if blocks:
                *alike, ranks = blocks[-1]
                if alike == [incarnation, world, rank - ranks, step]:
                    blocks[-1] = (incarnation, world, rank - ranks, step, ranks + 1)
                    continue
            blocks.append((incarnation, world, rank, step, 1))
        return blocks

    def keep_only(self, ranks: Iterable[int]) -> None:
        """The regions of ranks that this node has no more may go: nobody needs them to restore from now."""
        with self._lock:
            for rank in self._regions.keys() - set(ranks):
                self._regions.pop(rank).close()

    def _alike(self, rank: int, step: int, copy: Copy, size: int) -> memoryview | None:
        """The part that all copies of the model have alike, from a rank here that holds the very same."""
        for mate, region in self._regions.items():
            number = region.find(step)
            if mate % self._copy_ranks != rank % self._copy_ranks or number is None:
                continue
            unique, total = region.manifest["unique"], region.manifest["total"]
            if total - unique == size and region.slots[number].sums[1] == copy.sums[1]:
                return region.view(number)[unique:]
        return None
