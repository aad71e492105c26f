"""
The few collectives inside the model, as differentiable functions of a tensor and a group.

`copy_to` and `reduce_from` are the pair f and g of Megatron-LM [1]: a region between them computes with
slices of its matrices on every rank. A group of None (one rank) makes each the identity.

[1] M. Shoeybi et al., "Megatron-LM", 2019, section 3.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


@dataclass(frozen=True, slots=True)
class Groups:
    """The ranks that share one forward pass: None where an axis has a single rank."""

    tensor: ProcessGroup | None = None
    expert: ProcessGroup | None = None
    context: ProcessGroup | None = None  # each of its ranks has some of every sequence's tokens
    context_method: str = "gather"  # how they see the others' keys and values; or "ring"
    expert_pieces: int = 1  # that a pass's tokens travel to their experts in


class _CopyTo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        total = grad.clone()  # not contiguous gradients of a view cannot be reduced in place
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _ReduceFrom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


class Flight:
    """An exchange of rows that nobody waits for yet, and later that of their gradients on the way back."""

    def __init__(self, sent: list[int], received: list[int], group: ProcessGroup) -> None:
        self.sent, self.received, self.group = sent, received, group
        self._work: dist.Work | None = None
        self._rows: tuple[Tensor, ...] = ()  # must live until it is done

    def begin(self, rows: Tensor, back: bool = False) -> Tensor:
        """What the arriving rows will be written into. `back`: they go the other way."""
        sent, received = (self.received, self.sent) if back else (self.sent, self.received)
        arriving, rows = rows.new_empty(sum(received), *rows.shape[1:]), rows.contiguous()
        self._work = dist.all_to_all_single(arriving, rows, received, sent, group=self.group, async_op=True)
        self._rows = (rows, arriving)
        return arriving

    def end(self) -> Tensor:
        """The rows that were to arrive, once they are there."""
        assert self._work is not None
        self._work.wait()
        self._work = None  # gloo's keeps the rows as long as it lives, and autograd keeps the flight
        (_, arrived), self._rows = self._rows, ()
        return arrived


class _Depart(torch.autograd.Function):
    """With `_Arrive` one exchange. Autograd goes back in reverse, so gradients overlap with what rows did."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, flight: Flight) -> Tensor:
        ctx.flight = flight
        return flight.begin(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.flight.end(), None


class _Arrive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, arriving: Tensor, flight: Flight) -> Tensor:
        ctx.flight = flight
        return flight.end().view_as(arriving)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.flight.begin(grads[0], back=True)
        return grads[0], None  # of the right shape, and not looked at: the flight has the gradient


def copy_to(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """Enter a region of sliced matrices: x as it is; its gradient is summed over the group."""
    return x if group is None else _CopyTo.apply(x, group)  # type: ignore[no-untyped-call]


def reduce_from(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """Leave it: x summed over the group; its gradient as it is."""
    return x if group is None else _ReduceFrom.apply(x, group)  # type: ignore[no-untyped-call]


def depart(rows: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> tuple[Tensor, Flight]:
    """Begin an all-to-all: the first sent[0] rows go to rank 0 and so on. What this gives is for `arrive`."""
    flight = Flight(sent, received, group)
    return _Depart.apply(rows, flight), flight  # type: ignore[no-untyped-call]


def arrive(arriving: Tensor, flight: Flight) -> Tensor:
    """The rows, by sender, waited for here; going back, their gradients depart here. [rows, ...]"""
    return _Arrive.apply(arriving, flight)  # type: ignore[no-untyped-call]
