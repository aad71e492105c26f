"""
What a rank restores from, as its agent finds it for an order to start.

Its own snapshot as a rule: it is in the node's memory, or in another node's, from where it is fetched. In a
world of another size than the snapshots were taken in, every old rank may have something that it needs.
"""

import os
from collections.abc import Callable
from functools import partial

from colossi.channel import Message
from colossi.engines.memory import Memory, Region, Whole
from colossi.engines.peers import fetch_snapshot

Sources = tuple[list[Message], list[int]]  # manifest, sums, offset and which file; the files' descriptors
Fetch = Callable[[str, int, int], Whole | None]  # address, rank, step


def sources_of(order: Message, rank: int, memory: Memory, token: bytes, here: str) -> Sources:
    """Nothing where the state comes from disk, or where a snapshot is gone: the worker then says so.

    `here` is where others find the memory of this node.
    """
    if order["restore"] < 0:
        return [], []
    from_agent = partial(_fetched, token)
    if order["sources"] is not None:
        return _in_files(of_another_world(order, rank, memory, here, from_agent))
    found = of_this_world(order, rank, memory, from_agent)
    if found is None:
        return [], []
    region, number = found
    offset = number * region.manifest["total"]
    sums = region.slots[number].sums
    return [{"manifest": region.manifest, "sums": sums, "offset": offset, "file": 0}], [region.descriptor]


def of_this_world(order: Message, rank: int, memory: Memory, fetch: Fetch) -> tuple[Region, int] | None:
    """Where the rank's own snapshot stands, which is fetched first if the order says so; None if it is gone.

    What is here of a step that is to be fetched is another try of it, and would pass for the right one.
    """
    step, holders = order["restore"], order["fetch"]
    if str(rank) in holders:
        while memory.local(rank, step) is not None:
            memory.discard(rank, step)
        found = fetch(holders[str(rank)], rank, step)
        if found is not None:
            memory.put(rank, step, found)
    return memory.local(rank, step)


def of_another_world(order: Message, rank: int, memory: Memory, here: str, fetch: Fetch) -> list[Whole]:
    """The snapshots of all old ranks that can be had, those with the same part of the model first.

    Only from where the order says: this node may have another try of the same step in its memory.
    """
    step, copy_ranks, holders = order["restore"], order["copy_ranks"], order["sources"]
    found = [
        memory.get(old, step) if holders[str(old)] == here else fetch(holders[str(old)], old, step)
        for old in sorted(map(int, holders), key=lambda old: ((old - rank) % copy_ranks != 0, old))
    ]
    return [whole for whole in found if whole is not None]


def _fetched(token: bytes, address: str, rank: int, step: int) -> Whole | None:
    return fetch_snapshot(address, token, rank, step)


def _in_files(found: list[Whole]) -> Sources:
    """A tensor is taken from the first that has it."""
    sources: list[Message] = []
    files: list[int] = []
    for whole in found:
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
