"""
What an operation computes and moves, from the shapes of its tensors.

FLOPs are those of products: a multiplication and an addition for each term of a sum; everything else counts
none, as is usual. PyTorch has the formulas of plain products (`torch.utils.flop_counter`); those of grouped
products, of oneDNN's and of causal attention are here.

Attention counts the pairs of query and key that the mask leaves, as a causal kernel computes: 2 products of
D terms each going forward; going back 5, as a kernel that keeps no [T, S] matrix computes the scores once
more [1].

[1] T. Dao, "FlashAttention-2", 2023, section 4.1 counts the same 2 and 5, with T^2 / 2 for the pairs.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from colossi.model import matrix, softcap


def _linear(x: Tensor, w: Tensor, *_: Any, **__: Any) -> int:
    """x [..., E] by W [F, E]."""
    return 2 * x.numel() * w.shape[0]


def _grouped(x: Tensor, w: Tensor, *_: Any, **__: Any) -> int:
    """Every row of [rows, E] meets one matrix of a stack [X, E, F], however the rows are dealt out; or the
    gradient by that stack: [E, rows] by [rows, F], every row in one group.
    """
    return 2 * x.numel() * w.shape[-1]


def pairs(queries: int, keys: int, past: int, batch: int, first_BT: Tensor | None = None) -> int:
    """How often a query sees a key: query t those from first[t] to t + past, of `keys`."""
    last_T = torch.arange(past + 1, past + queries + 1, dtype=torch.int64).clamp(max=keys)
    if first_BT is None:
        return batch * int(last_T.sum())
    return int((last_T - first_BT).clamp(min=0).sum())


def _attention(products: int) -> Callable[..., int]:
    def flops(q: Tensor, k: Tensor, past: int, first: Tensor | None) -> int:
        batch, heads, queries, size = q.shape
        return products * 2 * size * heads * pairs(queries, k.shape[2], past, batch, first)

    return flops


_forward, _backward = _attention(2), _attention(5)


def _softcap(q: Tensor, k: Tensor, v: Tensor, multiplier: float, cap: float, past: int, first: Any) -> int:
    return _forward(q, k, past, first)


def _softcap_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, *rest: Any) -> int:
    return _backward(q, k, rest[-2], rest[-1])


def _sdpa(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """PyTorch's, which the model calls for causal attention of a sequence to itself only."""
    return _forward(q, k, 0, None)


def _sdpa_backward(grad: Tensor, q: Tensor, k: Tensor, *_: Any, **__: Any) -> int:
    return _backward(q, k, 0, None)


aten: Any = torch.ops.aten
FORMULAS: dict[Any, tuple[str, Callable[..., int]]] = {
    torch.ops.mkldnn._linear_pointwise: ("matrices", _linear),
    torch.ops.colossi.onednn_linear: ("matrices", _linear),
    aten._grouped_mm: ("experts", _grouped),
    torch.ops.colossi.softcap_attention: ("attention", _softcap),
    torch.ops.colossi.softcap_attention_backward: ("attention", _softcap_backward),
    aten._scaled_dot_product_flash_attention_for_cpu: ("attention", _sdpa),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: ("attention", _sdpa_backward),
}
# Going back the first argument is the gradient, the next are the query and the key.
GOING_BACK = {
    torch.ops.colossi.softcap_attention_backward: 1,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: 1,
}
assert matrix and softcap  # they define the operators named above


def flops_of(func: Any, args: Any, kwargs: Any, out: Any) -> tuple[str, int]:
    """The kind of an operation, and its FLOPs; "other" and none where it is no product."""
    packet = func._overloadpacket
    if packet in FORMULAS:
        kind, formula = FORMULAS[packet]
        return kind, formula(*args, **kwargs)
    if packet in flop_registry:
        return "matrices", flop_registry[packet](*args, **kwargs, out_val=out)
    return "other", 0


def sides_of(func: Any, args: Any, out: Any, kind: str, flops: int) -> tuple[int, int, int, int] | None:
    """Rows, columns and inner dimension of an operation's products, and how many such there are.

    Of a grouped product a group's rows on average; of attention [queries, size] by [size, keys], for each
    sequence and head.
    """
    if not flops:
        return None
    if kind == "attention":
        q, k = [x for x in args if isinstance(x, Tensor)][GOING_BACK.get(func._overloadpacket, 0) :][:2]
        return q.shape[2], k.shape[2], q.shape[3], q.shape[0] * q.shape[1]
    y = next(tensors_in(out))
    groups, rows, columns = 1, y.numel() // y.shape[-1], y.shape[-1]
    if kind == "experts":
        groups = args[2].numel()
        rows = y.shape[-2] if y.dim() == 3 else max(rows // groups, 1)
    elif y.dim() == 3 and func._overloadpacket in (aten.bmm, aten.baddbmm):
        groups, rows = y.shape[0], y.shape[1]
    return rows, columns, max(flops // (2 * groups * rows * columns), 1), groups


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of an operation's arguments, or of what it gives."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of the numbers that tensors show, each tensor once [B]."""
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values())
