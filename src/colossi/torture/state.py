"""The state of a model as the storms have it: one number, in 16 bytes of a snapshot."""

import struct
from typing import Any

from colossi.engines.memory import Copy, Memory, Origin, Region, Whole

NUMBER = struct.Struct("<qq")  # a rank's own part, and the part that all copies of the model have alike
Manifest = dict[str, Any]


def manifest_of(alike_nearby: bool) -> Manifest:
    """Of every rank; a buddy keeps what is a rank's own, or all where a copy spans nodes."""
    unique = NUMBER.size // 2 if alike_nearby else NUMBER.size
    return {"unique": unique, "total": NUMBER.size}


def copy_to(memory: Memory, rank: int, step: int, content: int, manifest: Manifest, origin: Origin) -> None:
    """As a worker writes its snapshot into the memory of its agent."""
    region = memory.region(rank, manifest)
    slot = region.to_overwrite()
    memory.writing(rank, slot)
    region.view(slot)[:] = NUMBER.pack(content, content)
    memory.written(rank, slot, step, (content, content), origin)


def replicate(memory: Memory, buddy: Memory, rank: int, step: int) -> None:
    """As an agent brings a snapshot to the buddy of its node."""
    if found := memory.local(rank, step):
        region, number = found
        slot = region.slots[number]
        unique = bytes(region.view(number)[: region.manifest["unique"]])
        buddy.keep(rank, step, Copy(region.manifest, slot.sums, slot.origin, unique))


def take(whole: Whole) -> int:
    """What is in a snapshot; an AssertionError if its parts do not fit."""
    own, alike = NUMBER.unpack(b"".join(bytes(piece) for piece in whole.pieces))
    assert own == alike == whole.sums[0], "a snapshot of two parts that do not fit"
    return int(own)


def take_from(region: Region, number: int) -> int:
    """The same, of a rank's own."""
    return int(NUMBER.unpack(region.view(number))[0])
