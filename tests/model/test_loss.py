"""Output and cross-entropy in chunks: PyTorch's own in float64, on one rank and several; no full logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from colossi.model import loss
from colossi.model.collectives import copy_to
from colossi.model.grok import Grok, Losses
from colossi.model.loss import Output, cross_entropy_sum
from colossi.train.parallel import DTYPES

from ..train.ranks import run_ranks, spec_of

MULTIPLIER = 0.7
VOCABULARY, WIDTH = 96, 24


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven tokens at a time: 40 tokens are five chunks and a rest."""
    monkeypatch.setattr(loss, "LEAST_TOKENS", 7)
    monkeypatch.setattr(loss, "CHUNK_CPU", 1)


def example(dtype: torch.dtype = torch.float64, counted: float = 0.6) -> tuple[Tensor, ...]:
    """Activations, table, targets and which of them count. Logits reach 20: some p round to 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(2, 20, WIDTH, generator=generator, dtype=torch.float64)
    table = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64) * 2
    targets = torch.randint(0, VOCABULARY, (2, 20), generator=generator)
    is_target = torch.rand(2, 20, generator=generator) < counted
    return h.to(dtype), table.to(dtype), targets, is_target


def by_torch(h: Tensor, table: Tensor, targets: Tensor, is_target: Tensor, cap: float) -> list[Tensor]:
    """The sum and its gradients by h and table, in float64 and whole."""
    h, table = (x.double().requires_grad_() for x in (h, table))
    logits = MULTIPLIER * (h @ table.T)
    logits = cap * torch.tanh(logits / cap) if cap else logits
    total = F.cross_entropy(logits[is_target], targets[is_target], reduction="sum")
    return [total.detach(), *torch.autograd.grad(3 * total, (h, table))]


def ours(h: Tensor, table: Tensor, targets: Tensor, is_target: Tensor, cap: float) -> list[Tensor]:
    h, table = h.clone().requires_grad_(), table.clone().requires_grad_()
    total = cross_entropy_sum(h, table, targets, is_target, Output(MULTIPLIER, cap, None))
    return [total.detach(), *torch.autograd.grad(3 * total, (h, table))]


@pytest.mark.parametrize("counted", [0.6, 1.0, 0.0])
@pytest.mark.parametrize("cap", [0.0, 10.0])
def test_equals_pytorchs_in_float64(cap: float, counted: float) -> None:
    arguments = example(counted=counted)
    for found, expected in zip(ours(*arguments, cap), by_torch(*arguments, cap), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cap", [0.0, 10.0])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_lower_precisions_are_close(dtype: torch.dtype, close: float, cap: float) -> None:
    arguments = example(dtype)
    found, expected = ours(*arguments, cap), by_torch(*arguments, cap)
    assert [x.dtype for x in found] == [torch.float32, dtype, dtype]
    for ours_, theirs in zip(found, expected, strict=True):
        assert float((ours_ - theirs).norm()) <= close * float(theirs.norm())


def sliced(rank: int, ranks: int, cap: float) -> list[Tensor]:
    """The same with the table dealt out; what each rank finds is put together."""
    h, table, targets, is_target = example()
    h, part = h.requires_grad_(), table.chunk(ranks)[rank].clone().requires_grad_()
    group = dist.group.WORLD
    output = Output(MULTIPLIER, cap, group)
    total = cross_entropy_sum(copy_to(h, group), part, targets, is_target, output)
    by_h, by_part = torch.autograd.grad(3 * total, (h, part))
    parts = [torch.empty_like(by_part) for _ in range(ranks)]
    dist.all_gather(parts, by_part)
    return [total.detach(), by_h, torch.cat(parts)]


@pytest.mark.parametrize("cap", [0.0, 10.0])
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_vocabulary_dealt_out_over_ranks(ranks: int, cap: float, tmp_path: Path) -> None:
    found = run_ranks(ranks, sliced, cap, folder=tmp_path)
    for ours_, theirs in zip(found, by_torch(*example(), cap), strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=1e-10, atol=1e-12)


def test_the_gradients_can_be_asked_for_one_by_one_and_twice() -> None:
    # As zero-bubble pipelines do: first by the activations, later by the table.
    h, table, targets, is_target = example()
    h, table = h.requires_grad_(), table.requires_grad_()
    total = cross_entropy_sum(h, table, targets, is_target, Output(MULTIPLIER, 0.0, None))
    (by_h,) = torch.autograd.grad(3 * total, h, retain_graph=True)
    (by_table,) = torch.autograd.grad(3 * total, table)
    _, h_alone, table_alone = by_torch(h.detach(), table.detach(), targets, is_target, 0.0)
    torch.testing.assert_close(by_h, h_alone, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(by_table, table_alone, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_the_compiled_passes_are_the_same() -> None:
    # What GPUs run. Compiled here for the CPU.
    logits, at, mine = torch.randn(5, 96) * 8, torch.randint(0, 96, (5,)), torch.tensor([True] * 4 + [False])
    weight = torch.rand(5)
    scores, slopes = (torch.compile(f, dynamic=False) for f in (loss._scores, loss._slopes))
    for cap in (0.0, 10.0):
        expected, found = logits.clone(), logits.clone()
        theirs, own = loss._scores(expected, at, mine, cap), scores(found, at, mine, cap)
        torch.testing.assert_close([*own, found], [*theirs, expected])
        rest = (own[0], at, mine, weight, cap, torch.float32)
        torch.testing.assert_close(slopes(found, *rest), loss._slopes(expected, *rest))


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operator gives."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [
            x.untyped_storage().nbytes() // x.itemsize for x in tree_leaves(out) if isinstance(x, Tensor)
        ]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_tensor_of_all_logits_is_ever_made(precision: str) -> None:
    spec = spec_of(model={"layers": 1, "vocabulary": 2048, "final_cap": 30.0})
    grok = Grok(spec.model, dtype=DTYPES[precision])
    for parameter in grok.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tokens = torch.randint(1, 2048, (4, 64))
    with Largest() as largest:
        losses = grok(tokens, tokens.roll(-1, 1), torch.ones_like(tokens, dtype=torch.bool))
        assert isinstance(losses, Losses)
        losses.cross_entropy.backward()
    assert 2048 * 32 <= largest.elements < tokens.numel() * 2048 // 2  # the table has 2048 x 32
    with Largest() as largest, torch.no_grad():
        grok(tokens)
    assert largest.elements >= tokens.numel() * 2048  # generation does make them: the mode would have seen it
