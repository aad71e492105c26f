"""
What one rank does in a step, as it happens: every operation, every collective, and the memory that is live.

It listens to what PyTorch dispatches, whether the tensors are real or fake; it decides nothing.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.utils._python_dispatch import TorchDispatchMode

from colossi.train.account import Collective, Event, Op
from colossi.train.flops import bytes_of, flops_of, sides_of, tensors_in

# Collectives by the operators' names.
COLLECTIVES = {
    "c10d::allreduce_": "all_reduce",
    "c10d::_allgather_base_": "all_gather",
    "c10d::allgather_": "all_gather",
    "c10d::_reduce_scatter_base_": "reduce_scatter",
    "c10d::alltoall_base_": "all_to_all",
    "c10d::broadcast_": "broadcast",
    "c10d::send": "send",
    "c10d::recv_": "recv",
    "_c10d_functional::all_gather_into_tensor": "all_gather",
}


UNNAMED = "activations"  # what is neither weights, gradients, optimizer state nor a buffer


class Block:
    """A piece of memory, and what it is for; found out as a rule after it is gone."""

    __slots__ = ("nbytes", "part")

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.part = nbytes, UNNAMED


class Memory:
    """The blocks that tensors of this rank hold, and the history of how they came and went."""

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._blocks: dict[int, tuple[weakref.ref[Any], Block]] = {}  # by the id of their storage
        self._history: list[tuple[Block, int]] = []  # and the bytes that it grew by
        self._peak_at = 0

    def see(self, x: Tensor) -> Block | None:
        """The block of a tensor; None for one on the meta device, which has none."""
        if x.device.type == "meta":
            return None
        return self._block_of(x.untyped_storage())

    def name(self, tensors: Iterable[Tensor], part: str, unless_named: bool = False) -> None:
        """Say what the blocks of tensors are for."""
        for x in tensors:
            block = self.see(x)
            if block is not None and not (unless_named and block.part != UNNAMED):
                block.part = part

    def _block_of(self, storage: Any) -> Block:
        key = id(storage)
        if key not in self._blocks:
            block = Block(0)
            self._blocks[key] = weakref.ref(storage, lambda _: self._gone(key)), block
        block = self._blocks[key][1]
        self._resize(block, storage.nbytes())
        return block

    def _resize(self, block: Block, nbytes: int) -> None:
        if nbytes != block.nbytes:
            self._history.append((block, nbytes - block.nbytes))
            self.live += nbytes - block.nbytes
            block.nbytes = nbytes
            if self.live > self.peak:
                self.peak, self._peak_at = self.live, len(self._history)

    def _gone(self, key: int) -> None:
        self._resize(self._blocks.pop(key)[1], 0)

    def at_peak(self) -> dict[str, int]:
        """Bytes by part at the moment when most was live."""
        parts: dict[str, int] = {}
        for block, grown in self._history[: self._peak_at]:
            parts[block.part] = parts.get(block.part, 0) + grown
        return parts

    def forget_history(self) -> None:
        """Begin anew with what is live."""
        self._history = [(block, block.nbytes) for _, block in self._blocks.values()]
        self.peak, self._peak_at = self.live, len(self._history)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """FSDP frees and regains gathered weights by resizing their storage, which is not dispatched."""
        cls: Any = torch.UntypedStorage
        resize = cls.resize_

        def resized(storage: Any, size: int) -> Any:
            done = resize(storage, size)
            self._block_of(storage).part = "buffers"
            return done

        cls.resize_ = resized
        try:
            yield
        finally:
            cls.resize_ = resize


class Recorder(TorchDispatchMode):
    """Writes down what is dispatched while it is entered; `exchanging` is called before each collective.

    All operations are of the given `kind`; without one, each of its own.
    """

    def __init__(
        self, memory: Memory, exchanging: Callable[[], None] = lambda: None, kind: str | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory, self.exchanging, self.kind = memory, exchanging, kind
        self.events: list[Event] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = list(tensors_in((args, kwargs)))
        if any(hasattr(x, "_local_tensor") or hasattr(x, "elem") for x in inputs):
            return NotImplemented  # DTensors and the like take themselves apart first
        name = func.name().partition(".")[0]
        if name in COLLECTIVES:
            self.exchanging()
        out = func(*args, **kwargs)
        outputs = list(tensors_in(out))
        for x in outputs:
            self.memory.see(x)
        if name.startswith("fsdp::"):  # its copies of gathered weights, and of gradients on their way
            self.memory.name([*inputs, *outputs], "buffers", unless_named=True)
        if name in COLLECTIVES:
            self.events.append(self._collective(COLLECTIVES[name], args, inputs, outputs))
        elif not name.startswith(("c10d::", "_c10d_functional::")) and _moves(func):
            kind, flops = flops_of(func, args, kwargs, out)
            written = _written(func, args, kwargs)
            fresh = [x for x in outputs if not any(x is each for each in written)]
            if written or fresh:
                bytes_ = bytes_of(inputs), bytes_of(written + fresh)
                sides = sides_of(func, args, out, kind, flops)
                self.events.append(Op(name, self.kind or kind, flops, *bytes_, self.memory.live, sides))
        return out

    def _collective(self, kind: str, args: Any, inputs: list[Tensor], outputs: list[Tensor]) -> Collective:
        group = next((ProcessGroup.unbox(x) for x in args if isinstance(x, torch.ScriptObject)), None)
        name, ranks = (args[-1], args[-2]) if group is None else (group.group_name, group.size())
        sizes = [x.numel() * x.element_size() for x in (*inputs, *outputs)]
        return Collective(kind, name, ranks, max(sizes), self.memory.live)


def _moves(func: Any) -> bool:
    """Whether an operation reads or writes numbers; views and fresh memory do not."""
    if "empty" in func.name():
        return False
    if not func._schema.returns:  # a fused optimizer step: what it does is in its arguments
        return any(x.alias_info is not None and x.alias_info.is_write for x in func._schema.arguments)
    returns = [each.alias_info for each in func._schema.returns]
    return not any(info is not None and not info.is_write for info in returns)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operation writes to."""
    found: list[Tensor] = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            found += tensors_in(value)
    return found
