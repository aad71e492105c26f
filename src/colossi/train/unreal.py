"""
A world that is not there: one rank of a run of any size computes its step without numbers or peers.

Floating point tensors are fake: they have a shape and a type, and no memory. What steers the step is real:
tokens, masks, counts, and where each row goes are whole numbers, computed as in a true step. So the step's
own code runs as it is, asks its own questions and gets answers; only what would come from numbers that are
not there is decided here:

* the router deals the tokens out to the experts evenly, in turn;
* the numbers of rows that other ranks send are those that this rank sends to them, and the stages of a
  pipeline vote, as true ones do, that they know each other's shapes (1);
* a floating point number that is read by the host is 1 (losses, norms), a fingerprint of numbers 0.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed import fake_pg  # registers the backend "fake"
from torch.utils._python_dispatch import TorchDispatchMode

from colossi.train.flops import tensors_in

aten: Any = torch.ops.aten
c10d: Any = torch.ops.c10d


@contextmanager
def unreal_ranks(rank: int, ranks: int) -> Iterator[None]:
    """Process groups of a world in which only this rank is there; collectives return at once."""
    dist.init_process_group("fake", store=fake_pg.FakeStore(), rank=rank, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()
        # DTensor keeps meshes, and would take one of this world, with its place in it, for one of the next.
        _clear_sharding_prop_cache()


@contextmanager
def unreal_numbers() -> Iterator[None]:
    """Within it every floating point tensor that is made has no memory."""
    with _Unreal(), _read_whole():
        yield


class _Unreal(TorchDispatchMode):
    """Operations on real tensors alone are carried out, all others on fake ones."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(tensors_in((args, kwargs)))
        if any(type(x) not in (Tensor, torch.nn.Parameter, FakeTensor) for x in tensors):
            return NotImplemented  # DTensors and the like take themselves apart first
        if func is aten._local_scalar_dense.default and not _is_real(args[0]):
            return 1.0 if args[0].is_floating_point() else 0
        if all(_is_real(x) for x in tensors) if tensors else _makes_real(func, args, kwargs):
            out = func(*args, **kwargs)
            if func is c10d.alltoall_base_.default:
                args[0].copy_(args[1])
            elif func is c10d.recv_.default:
                args[0][0].fill_(1)
            return out
        if func in (aten.index.Tensor, aten.index_put.default, aten._index_put_impl_.default):
            args = (args[0], _numbered(args[1]), *args[2:])
        with self.fake:
            out = _grouped(*args) if func is aten._grouped_mm.default else func(*args, **kwargs)
        if func is aten.topk.default:
            return out[0], _in_turn(out[1].shape, args[0].shape[-1])
        return out


@contextmanager
def _read_whole() -> Iterator[None]:
    """What the host reads of a fake tensor: PyTorch asks number by number, and knows no arrays of them."""
    cls: Any = FakeTensor
    tolist = cls.tolist

    def numpy(x: Tensor) -> Any:
        return np.broadcast_to(np.float64(1.0) if x.is_floating_point() else np.int64(0), x.shape)

    cls.tolist, cls.numpy = lambda x: numpy(x).tolist(), numpy
    try:
        yield
    finally:
        cls.tolist = tolist
        del cls.numpy


def _is_real(x: Tensor) -> bool:
    return not isinstance(x, FakeTensor) and x.device.type != "meta"


def _makes_real(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Of an operation that makes a tensor from none: whole numbers, and those that are never filled in."""
    dtype, device = kwargs.get("dtype"), kwargs.get("device")
    if device is not None and torch.device(device).type == "meta":
        return True
    if dtype is None:
        return func._overloadpacket is aten.arange and all(isinstance(x, int) for x in args)
    return not dtype.is_floating_point


def _numbered(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Masks as the numbers of what they choose: how much that is, is known then."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and _is_real(index):
            found += index.nonzero().unbind(1)
        else:
            found.append(index)
    return found


def _grouped(x: Tensor, w: Tensor, ends: Tensor, *_: Any) -> Tensor:
    """What a grouped product gives; PyTorch's own description of it knows bfloat16 only."""
    shape = (x.shape[0], w.shape[-1])
    return x.new_empty(shape if w.dim() == 3 else (len(ends), *shape))


def _in_turn(shape: torch.Size, experts: int) -> Tensor:
    """Which experts each token goes to [N, k]: the next k in turn."""
    return (torch.arange(shape.numel()) % experts).view(shape)
