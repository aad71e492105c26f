"""
Snapshots: this rank's part of the state after a step, in memory that its agent owns.

A region has two slots, so that one is whole while the other is written. The copy runs in a thread beside the
next step's forward and backward, which change no weight; `settle` waits for it before the last collective of
that step. So when any rank begins to overwrite a slot, every rank has the step of the other one whole.

A slot begins with what no other rank has (Muon's momentum; without copies of the model all of it), then comes
what every copy of the model has alike. The sum of the 64-bit words of that second part is the
fingerprint of a rank's weights: one flipped bit changes it, and copies must have the same one.
"""

import mmap
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from colossi.model.matrix import local
from colossi.train.link import Link

ALIGN = 64  # [B] so that any type can stand at any part's beginning
SHARED = ("model.", "adamw.")  # keys that copies of the model have alike
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Damaged(Exception):
    """A snapshot in memory is not what was written. The next attempt is from disk."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Where each tensor stands in a slot: (key, offset, bytes)."""

    parts: tuple[tuple[str, int, int], ...]
    border: int  # before it stands what no other rank has alike
    unique: int  # so many bytes a buddy must keep: to the border, or all of them
    total: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], copies: int, alike_nearby: bool) -> Self:
        """Of a state that `copies` ranks have alike, but for Muon's momentum.

        `alike_nearby`: the buddy's own workers hold this part of the model too, so it need not be sent there.
        """
        shared = [key for key in state if copies > 1 and key.startswith(SHARED)]
        alone = [key for key in state if key not in set(shared)]
        parts, end, border = [], 0, 0
        for key in [*alone, *shared]:
            nbytes = local(state[key]).nbytes
            parts.append((key, end, nbytes))
            end += -(-nbytes // ALIGN) * ALIGN
            border = end if len(parts) == len(alone) else border
        return cls(tuple(parts), border, border if shared and alike_nearby else end, end)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        parts = tuple((str(key), int(offset), int(nbytes)) for key, offset, nbytes in value["parts"])
        return cls(parts, value["border"], value["unique"], value["total"])

    def as_json(self) -> dict[str, Any]:
        parts = [list(part) for part in self.parts]
        return {"parts": parts, "border": self.border, "unique": self.unique, "total": self.total}


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot to restore from: its bytes, what stands where, and the sums that they had when written."""

    data: Bytes
    manifest: Manifest
    sums: tuple[int, int]

    def check(self) -> None:
        """Memory is damaged now and then too."""
        if sums_of(self.data, self.manifest) != self.sums:
            raise Damaged("a snapshot in memory is not what was written")


def sums_of(data: Bytes, manifest: Manifest) -> tuple[int, int]:
    """The sums of the 64-bit words of both parts, modulo 2^64, as signed numbers."""
    words = data[: manifest.total].view(np.int64)
    border = manifest.border // 8
    return int(words[:border].sum()), int(words[border:].sum())


def restore(state: Mapping[str, Tensor], sources: Iterable[Source]) -> None:
    """Fill the state in place; each tensor from the first source that has one of its name and size."""
    found: dict[str, tuple[Source, int]] = {}
    for source in sources:
        source.check()
        for key, offset, nbytes in source.manifest.parts:
            if key in state and key not in found and local(state[key]).nbytes == nbytes:
                found[key] = (source, offset)
    missing = state.keys() - found.keys()
    if missing:
        raise Damaged(f"no snapshot has {min(missing)}")
    for key, (source, offset) in found.items():
        part = local(state[key]).detach()
        part.copy_(_like(source.data, offset, part))


def _like(data: Bytes, offset: int, part: Tensor) -> Tensor:
    """The bytes at an offset as a tensor of the same type and shape."""
    return torch.from_numpy(data[offset : offset + part.nbytes]).view(part.dtype).view(part.shape)


def map_region(descriptor: int) -> Bytes:
    """The memory behind an agent's descriptor, which is closed; the mapping stays."""
    mapped = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    return np.frombuffer(mapped, dtype=np.uint8)


@dataclass(slots=True)
class Snapshots:
    """Copies of one rank's state, taken beside its training."""

    link: Link
    manifest: Manifest
    region: Bytes  # two slots
    every: int  # steps between snapshots
    next_slot: int = 0
    step: int = 0  # of the newest one begun
    fingerprint: int | None = None  # of the weights in the newest one that is whole
    gradient: int = 0  # the fingerprint of this rank's gradient that led to them
    waited: float = 0.0  # [s] in the last settle
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "snapshot"))
    _copying: Future[tuple[int, int]] | None = None

    def begin(self, step: int, state: Mapping[str, Tensor], gradient: int) -> None:
        """Start to copy the state after a step, to which this gradient (its fingerprint) led."""
        if step % self.every:
            return
        self.link.say("writing", slot=self.next_slot, step=step)
        start = self.next_slot * self.manifest.total
        data = self.region[start : start + self.manifest.total]
        parts = {key: local(state[key]).detach() for key, _, _ in self.manifest.parts}
        ready = torch.cuda.current_stream().record_event() if _on_gpu(parts) else None
        self.step, self.gradient = step, gradient
        self._copying = self._thread.submit(self._copy, data, parts, ready, self.next_slot, step, gradient)
        self.next_slot = 1 - self.next_slot

    def settle(self) -> None:
        """Until the newest snapshot is whole, here and with the buddy."""
        start = time.monotonic()
        if self._copying is not None:
            self.fingerprint = self._copying.result()[1]
            self._copying = None
            self.link.wait_for_replica(self.step)
        self.waited = time.monotonic() - start

    def close(self) -> None:
        """No thread writes into the region any more."""
        self._thread.shutdown(wait=True)

    def _copy(
        self,
        data: Bytes,
        parts: Mapping[str, Tensor],
        ready: torch.cuda.Event | None,
        slot: int,
        step: int,
        gradient: int,
    ) -> tuple[int, int]:
        if ready is not None:
            _copy_from_gpu(data, self.manifest, parts, ready)
        else:
            for key, offset, nbytes in self.manifest.parts:
                # NumPy's copy, not torch's: it takes one thread, and leaves the others to the training
                there = data[offset : offset + nbytes].view(_numpy(parts[key]).dtype)
                np.copyto(there.reshape(parts[key].shape), _numpy(parts[key]))
        sums = sums_of(data, self.manifest)
        self.link.say("snapshot", slot=slot, step=step, sums=sums, fingerprint=(gradient, sums[1]))
        return sums


def _numpy(part: Tensor) -> np.ndarray[Any, Any]:
    """A tensor on the CPU as NumPy sees it; bfloat16, which NumPy has not, as 16-bit integers."""
    return (part.view(torch.int16) if part.dtype == torch.bfloat16 else part).numpy()


def _on_gpu(parts: Mapping[str, Tensor]) -> bool:
    return any(part.device.type == "cuda" for part in parts.values())


def _copy_from_gpu(
    data: Bytes, manifest: Manifest, parts: Mapping[str, Tensor], ready: torch.cuda.Event
) -> None:
    """On a stream of its own, beside the training's."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        stream.wait_event(ready)
        for key, offset, _ in manifest.parts:
            _like(data, offset, parts[key]).copy_(parts[key], non_blocking=True)
    stream.synchronize()
