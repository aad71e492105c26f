"""
What one rank does in a step, as it happens: every operation, every collective, and the memory that is live.

It listens to what PyTorch dispatches, whether the tensors are real or fake; it decides nothing.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from colossi.train.flops import bytes_of, flops_of

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


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on this rank. Views, which move nothing, are not recorded."""

    name: str
    kind: str  # "matrices", "experts", "attention" or "other"
    flops: int
    read: int  # [B]
    written: int  # [B]
    live: int  # memory after it [B]


@dataclass(frozen=True, slots=True)
class Collective:
    """One exchange with other ranks."""

    kind: str
    group: str  # the name of its process group
    ranks: int
    nbytes: int  # of the larger side on this rank, as nccl-tests counts: what is gathered, or scattered
    live: int  # memory after it [B]
