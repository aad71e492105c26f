"""Attention shared by several processes against the kernel on one, whose own test is test_softcap.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from colossi.model.attention import Attention, Rope
from colossi.model.collectives import Groups
from colossi.model.context import attend_across, positions
from colossi.model.experts import Routing, router_stats
from colossi.model.softcap import softcap_attention
from colossi.spec.model import ModelSpec
from tests.train.ranks import run_ranks

LENGTH, HEADS, KV_HEADS, SIZE = 48, 4, 2, 8


def test_who_has_what() -> None:
    assert positions(0, 2, 8).tolist() == [0, 1, 6, 7]
    assert positions(1, 2, 8).tolist() == [2, 3, 4, 5]
    assert positions(0, 1, 4).tolist() == [0, 1, 2, 3]


def test_every_rank_computes_the_same_number_of_products() -> None:
    work = {int((positions(rank, 4, 64) + 1).sum()) for rank in range(4)}
    assert work == {64 * 65 // 2 // 4}


def sequences(length: int, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor, Tensor]:
    """q, k, v; a weight for each number of the output; and where documents of many lengths begin."""
    generator = torch.Generator().manual_seed(length)
    shapes = [(2, HEADS, length, SIZE), (2, KV_HEADS, length, SIZE), (2, KV_HEADS, length, SIZE)]
    q, k, v, weight = (torch.randn(s, generator=generator).to(dtype) for s in (*shapes, shapes[0]))
    begins = torch.rand(2, length, generator=generator) < 0.1
    return [q, k, v], weight, (begins * torch.arange(length)).cummax(1).values.int()


def expected(length: int, cap: float, documents: bool, dtype: torch.dtype) -> list[Tensor]:
    tensors, weight, first = sequences(length, dtype)
    leaves = [x.requires_grad_() for x in tensors]
    out = softcap_attention(*leaves, 0.3, cap, first if documents else None)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)]


def shared(
    rank: int, ranks: int, length: int, cap: float, documents: bool, method: str, dtype: torch.dtype
) -> list[Tensor]:
    """Each rank its tokens; what they have found, gathered and put in order."""
    tensors, weight, first = sequences(length, dtype)
    mine = positions(rank, ranks, length)
    leaves = [x[:, :, mine].clone().requires_grad_() for x in tensors]
    group = dist.group.WORLD
    assert group is not None
    out = attend_across(*leaves, 0.3, cap, first[:, mine] if documents else None, group, method)
    (out * weight[:, :, mine]).sum().backward()
    found = [out.detach(), *(x.grad for x in leaves)]
    return [together(x, ranks, length) for x in found if x is not None]


def together(x: Tensor, ranks: int, length: int, dim: int = 2) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(ranks)]
    dist.all_gather(parts, x.contiguous())
    order = torch.cat([positions(rank, ranks, length) for rank in range(ranks)])
    return torch.cat(parts, dim).index_select(dim, order.argsort())


@pytest.mark.parametrize("documents", [False, True], ids=["one document", "documents"])
@pytest.mark.parametrize("cap", [0.0, 3.0], ids=["no cap", "cap"])
@pytest.mark.parametrize("method", ["gather", "ring"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_together_compute_what_one_does(
    ranks: int, method: str, cap: float, documents: bool, tmp_path: Path
) -> None:
    arguments = (LENGTH, cap, documents)
    found = run_ranks(ranks, shared, *arguments, method, torch.float32, folder=tmp_path)
    for ours, theirs in zip(found, expected(*arguments, torch.float32), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("method", ["gather", "ring"])
def test_in_float64_to_the_last_digits(method: str, tmp_path: Path) -> None:
    found = run_ranks(4, shared, 256, 3.0, True, method, torch.float64, folder=tmp_path)
    for ours, theirs in zip(found, expected(256, 3.0, True, torch.float64), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor had that was made under it."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else [out]:
            if isinstance(made, Tensor):
                self.numbers = max(self.numbers, made.numel())
        return out


def largest_made(rank: int, ranks: int, length: int, method: str) -> float:
    tensors, weight, _ = sequences(length)
    mine = positions(rank, ranks, length)
    leaves = [x[:, :, mine].clone().requires_grad_() for x in tensors]
    group = dist.group.WORLD
    assert group is not None
    with Largest() as largest:
        out = attend_across(*leaves, 0.3, 3.0, None, group, method)
        (out * weight[:, :, mine]).sum().backward()
    numbers = torch.tensor(float(largest.numbers))
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return float(numbers)


def test_no_rank_makes_a_square_and_the_ring_never_the_whole_keys(tmp_path: Path) -> None:
    length, ranks = 2048, 4
    keys = 2 * 2 * KV_HEADS * length * SIZE  # K and V of both sequences
    made = {}
    for method in ("gather", "ring"):
        (tmp_path / method).mkdir()
        made[method] = run_ranks(ranks, largest_made, length, method, folder=tmp_path / method)
    tile = 2 * HEADS * 64 * length  # a tile of scores: 64 queries of all heads and rows
    assert keys <= made["gather"] <= max(keys, tile) < 2 * HEADS * length * length / 16
    assert made["ring"] <= max(keys / ranks, tile / ranks)


MODEL = ModelSpec(layers=1, hidden=32, ffn_hidden=48, heads=4, kv_heads=2, head_dim=8, vocabulary=64)


def through_attention(rank: int, ranks: int, method: str, dtype: torch.dtype) -> list[Tensor]:
    """The module's output and gradients over all positions, whoever has them."""
    group = dist.group.WORLD if ranks > 1 else None
    torch.manual_seed(0)
    module = Attention(MODEL, Groups(context=group, context_method=method))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, weight = torch.randn(2, LENGTH, 32), torch.randn(2, LENGTH, 32)
    first = (torch.arange(LENGTH) // 20 * 20).int().expand(2, -1)
    mine = positions(rank, ranks, LENGTH)
    leaf = x[:, mine].to(dtype).requires_grad_()
    out = module(leaf, Rope.at(mine[None], 8, 1e4), first_BT=first[:, mine])
    (out * weight[:, mine]).sum().backward()
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert leaf.grad is not None
    found = [out.detach().float(), leaf.grad.float()]
    if group is not None:
        for grad in grads:
            dist.all_reduce(grad)
        found = [together(each, ranks, LENGTH, dim=1) for each in found]
    return [*found, *grads]


@pytest.mark.parametrize("method", ["gather", "ring"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_attention_module(ranks: int, method: str, tmp_path: Path) -> None:
    found = run_ranks(ranks, through_attention, method, torch.float32, folder=tmp_path)
    for ours, theirs in zip(found, through_attention(0, 1, method, torch.float32), strict=True):
        assert (ours - theirs).norm() <= 2e-6 * theirs.norm()


@pytest.mark.parametrize("method", ["gather", "ring"])
def test_the_attention_module_in_bfloat16(method: str, tmp_path: Path) -> None:
    found = run_ranks(2, through_attention, method, torch.bfloat16, folder=tmp_path)
    for ours, theirs in zip(found, through_attention(0, 1, method, torch.float32), strict=True):
        assert (ours - theirs).norm() <= 2e-2 * theirs.norm()


def routed(rank: int, ranks: int) -> list[Tensor]:
    """The router's losses and their gradient; the last tokens of a sequence are padding."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, LENGTH, 5, generator=generator)
    counted = torch.arange(LENGTH)[None] < torch.tensor([[LENGTH], [30]])
    mine = positions(rank, ranks, LENGTH)
    leaf = logits[:, mine].clone().requires_grad_()
    flat = leaf.flatten(0, 1)
    weights, chosen = flat.softmax(-1).topk(2, dim=-1)
    group = dist.group.WORLD if ranks > 1 else None
    stats = router_stats(Routing(weights, chosen, flat, flat.softmax(-1)), counted[:, mine], group)
    (stats.balance + stats.z).backward()
    assert leaf.grad is not None
    sums = torch.cat((torch.stack((stats.balance, stats.z)).detach(), stats.load_X))
    if group is None:
        return [sums, leaf.grad]
    dist.all_reduce(sums)
    return [sums, together(leaf.grad, ranks, LENGTH, dim=1)]


@pytest.mark.parametrize("ranks", [2, 4])
def test_router_losses_are_those_of_whole_sequences(ranks: int, tmp_path: Path) -> None:
    found = run_ranks(ranks, routed, folder=tmp_path)
    for ours, theirs in zip(found, routed(0, 1), strict=True):
        torch.testing.assert_close(ours, theirs)
