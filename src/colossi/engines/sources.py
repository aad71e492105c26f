"""
What a rank restores from, as its agent finds it for an order to start.

Its own snapshot as a rule: it is in the node's memory, or in another node's, from where it is fetched. In a
world of another size than the snapshots were taken in, every old rank may have something that it needs.
"""

import os

from colossi.channel import Message
from colossi.engines.memory import Memory
from colossi.engines.peers import fetch_snapshot

Sources = tuple[list[Message], list[int]]  # manifest, sums, offset and which file; the files' descriptors


def sources_of(order: Message, rank: int, memory: Memory, token: bytes) -> Sources:
    """Nothing where the state comes from disk, or where a snapshot is gone: the worker then says so."""
    step, fetch = order["restore"], order["fetch"]
    if step < 0:
        return [], []
    if order["sources"] is not None:
        return _of_another_world(order, rank, memory, token)
    if str(rank) in fetch:
        found = fetch_snapshot(fetch[str(rank)], token, rank, step)
        if found is not None:
            memory.put(rank, step, found)
    return _own(rank, step, memory)


def _own(rank: int, step: int, memory: Memory) -> Sources:
    found = memory.local(rank, step)
    if found is None:
        return [], []
    region, number = found
    offset = number * region.manifest["total"]
    sums = region.slots[number].sums
    return [{"manifest": region.manifest, "sums": sums, "offset": offset, "file": 0}], [region.descriptor]


def _of_another_world(order: Message, rank: int, memory: Memory, token: bytes) -> Sources:
    """Those with the same part of the model first: a tensor is taken from the first that has it."""
    step, copy_ranks, holders = order["restore"], order["copy_ranks"], order["sources"]
    sources: list[Message] = []
    files: list[int] = []
    for old in sorted(map(int, holders), key=lambda old: ((old - rank) % copy_ranks != 0, old)):
        whole = memory.get(old, step) or fetch_snapshot(holders[str(old)], token, old, step)
        if whole is None:
            continue
        descriptor = os.memfd_create("colossi-source")
        for piece in whole.pieces:
            _write(descriptor, piece)
        sources.append({"manifest": whole.manifest, "sums": whole.sums, "offset": 0, "file": len(files)})
        files.append(descriptor)
    return sources, files


def _write(descriptor: int, piece: memoryview | bytes | bytearray) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]
