"""
Checkpoints: sharded, written beside the training, whole or not at all.

    checkpoints/step-00000100/   __0_0.distcp ...  .metadata   COMPLETE

A save copies this rank's part of the state (the only moment that training waits), then a thread writes it
with torch.distributed.checkpoint over a process group of its own, hashes what it wrote, and the first rank
writes COMPLETE, with every file's size and hash, last. A folder without it, or that differs from it, is no
checkpoint.
"""

import hashlib
import json
import shutil
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from colossi.errors import CheckpointFailed
from colossi.files import write_whole
from colossi.ledger.run import MARKER, checkpoint_name, complete, step_of

FAILURES = (Exception, CheckpointException)  # the library's own is no Exception
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Saved:
    """How a save ended: `why` is empty if it is complete."""

    step: int
    seconds: float  # from the copy to the marker
    stall_seconds: float  # that training waited
    nbytes: int
    why: str = ""


@dataclass(slots=True)
class Saver:
    """Saves in the background, one at a time. Every rank calls the same methods at the same steps."""

    folder: Path
    keep: int
    group: ProcessGroup | None  # used by nothing else; None for a single process
    _thread: threading.Thread | None = None
    _ended: list[Saved] = field(default_factory=list)

    def begin(self, step: int, state: State) -> float:
        """Copy the state and write it in the background; returns the seconds that this call took."""
        start = time.monotonic()
        self.wait()
        copy = copy_state(state)
        stall = time.monotonic() - start
        arguments = (step, copy, start, stall)
        self._thread = threading.Thread(target=self._save, args=arguments, name=f"save-{step}")
        self._thread.start()
        return stall

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def ended(self) -> list[Saved]:
        """The saves that ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def _save(self, step: int, state: State, start: float, stall: float) -> None:
        why, nbytes = "", 0
        try:
            nbytes = write_checkpoint(self.folder / checkpoint_name(step), state, self.group)
            if _rank(self.group) == 0:
                prune(self.folder, self.keep)
        except FAILURES as error:  # the edge of a thread: whatever it was, the run goes on and says so
            why = one_line(error)
            if _rank(self.group) == 0:
                shutil.rmtree(self.folder / checkpoint_name(step), ignore_errors=True)
        self._ended.append(Saved(step, time.monotonic() - start, stall, nbytes, why))


def copy_state(state: State) -> State:
    """The same state in memory of its own, on the CPU."""
    return {key: _copy(value) for key, value in state.items()}


def _copy(value: Any) -> Any:
    if isinstance(value, DTensor):
        part = value.to_local().detach().to("cpu", copy=True)
        return DTensor.from_local(
            part,
            value.device_mesh,
            value.placements,
            run_check=False,
            shape=value.shape,
            stride=value.stride(),
        )
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def write_checkpoint(folder: Path, state: State, group: ProcessGroup | None) -> int:
    """Write a state, its marker last. All ranks of the group together; returns the bytes of all files."""
    rank = _rank(group)
    if rank == 0:
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left of this step
        folder.mkdir(parents=True)
    if group is not None:
        dist.barrier(group)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of its own deprecated calls
        dcp.save(state, checkpoint_id=folder, process_group=group, no_dist=group is None)
    files = _gather(hash_files(folder, rank), group)
    if rank == 0:
        marker = {"step": step_of(folder), "files": files}
        write_whole(folder / MARKER, json.dumps(marker, indent=1))
    if group is not None:
        dist.barrier(group)
    return sum(entry["bytes"] for entry in files.values())


def hash_files(folder: Path, rank: int) -> dict[str, dict[str, Any]]:
    """Size and hash of the files that a rank wrote; the first rank also wrote the metadata."""
    names = sorted(path.name for path in folder.glob(f"__{rank}_*"))
    names += [".metadata"] if rank == 0 else []
    return {
        name: {"bytes": (folder / name).stat().st_size, "blake2b": _hash(folder / name)} for name in names
    }


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _gather(mine: dict[str, Any], group: ProcessGroup | None) -> dict[str, Any]:
    if group is None:
        return mine
    all_: list[dict[str, Any]] = [{} for _ in range(group.size())]
    dist.all_gather_object(all_, mine, group=group)
    return {name: entry for each in all_ for name, entry in each.items()}


def _rank(group: ProcessGroup | None) -> int:
    return 0 if group is None else group.rank()


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep`, each marker first, so that no half of one looks whole."""
    for old in complete(folder)[keep:]:
        (old / MARKER).unlink()
        shutil.rmtree(old, ignore_errors=True)
    newest = complete(folder)[:1]
    for path in folder.glob("step-*"):
        if newest and path < newest[0] and not (path / MARKER).exists():
            shutil.rmtree(path, ignore_errors=True)


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint, in words; empty if every file is there and is what was written."""
    try:
        files = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
        for name, entry in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["bytes"]:
                return f"{name} has {path.stat().st_size} bytes, {entry['bytes']} were written"
            if _hash(path) != entry["blake2b"]:
                return f"{name} is not what was written (its hash differs)"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MARKER} cannot be read ({one_line(error)})"
    return ""


@dataclass(frozen=True, slots=True)
class Found:
    """The newest whole checkpoint, and the damaged ones that were passed over."""

    folder: Path | None
    damaged: tuple[tuple[str, str], ...] = ()  # name, what is wrong


def newest_whole(folder: Path) -> Found:
    """Look for the newest checkpoint that is complete and undamaged."""
    damaged: list[tuple[str, str]] = []
    for candidate in complete(folder):
        if not (why := damage(candidate)):
            return Found(candidate, tuple(damaged))
        damaged.append((candidate.name, why))
    return Found(None, tuple(damaged))


def load_into(folder: Path, state: State) -> None:
    """Fill the tensors of `state` in place, whatever layout the checkpoint was saved under."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(state, checkpoint_id=folder, no_dist=True)
    except FAILURES as error:
        raise CheckpointFailed(
            f"{folder}: cannot be loaded: {one_line(error)}",
            "is it of the same model? remove it to use the one before",
        ) from error


def one_line(error: BaseException) -> str:
    """An error in one line; of a distributed one the first rank's own words."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
