"""FlexAttention as GPUs use it, run on a CPU; and the ways from one kernel's gradients to another's."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from colossi.model.attention import attend_causal
from colossi.model.kernel import (
    attend_range,
    attend_range_backward,
    backward_by_autograd,
    block_mask,
    flex_range,
)
from colossi.model.softcap import softcap_forward

CASES = {
    "a sequence": (300, 300, 0, False),
    "documents": (300, 300, 0, True),
    "the last queries": (130, 300, 170, False),
    "the last queries, documents": (130, 300, 170, True),
    "all keys before": (100, 150, 150, False),
}


def documents(queries: int, past: int) -> Tensor:
    begins = torch.rand(2, past + queries, generator=torch.Generator().manual_seed(past)) < 0.01
    return (begins * torch.arange(past + queries)).cummax(1).values[:, past:].int()


def sees(queries: int, keys: int, past: int, first: Tensor | None) -> Tensor:
    """[2, T, S], number by number."""
    start = torch.zeros(2, queries, dtype=torch.int32) if first is None else first
    places = torch.arange(keys)
    return (places <= torch.arange(queries)[:, None] + past) & (places >= start[:, :, None])


def tensors(queries: int, keys: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(queries)
    shapes = [(2, 4, queries, 16), (2, 2, keys, 16), (2, 2, keys, 16)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.filterwarnings("ignore")  # without its compiler it says so
@pytest.mark.parametrize("cap", [0.0, 2.0])
@pytest.mark.parametrize(("queries", "keys", "past", "packed"), CASES.values(), ids=CASES.keys())
def test_flex_attention_computes_the_formula(
    queries: int, keys: int, past: int, packed: bool, cap: float
) -> None:
    q, k, v = tensors(queries, keys)
    first = documents(queries, past) if packed else None
    out, lse = flex_range(flex_attention, q, k, v, 0.25, cap, past, first)
    scores = 0.25 * q.double() @ k.double().repeat_interleave(2, 1).transpose(-1, -2)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~sees(queries, keys, past, first)[:, None], -math.inf)
    wanted = scores.softmax(-1) @ v.double().repeat_interleave(2, 1)
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=2e-6)
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=0, atol=5e-6)


@pytest.mark.parametrize(("queries", "keys", "past", "packed"), CASES.values(), ids=CASES.keys())
def test_the_blocks_are_those_that_pytorch_finds_by_trying_every_pair(
    queries: int, keys: int, past: int, packed: bool
) -> None:
    first = documents(queries, past) if packed else None
    ours = block_mask(queries, keys, past, first, torch.device("cpu"))
    visible = sees(queries, keys, past, first)
    rows, columns = torch.tensor(queries - 1), torch.tensor(keys - 1)

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return visible[b, q.minimum(rows), k.minimum(columns)] & (q < queries) & (k < keys)

    theirs = create_block_mask(mask_mod, 2, None, queries, keys, device="cpu")
    for name in ("kv", "full_kv"):
        assert torch.equal(blocks(ours, name).expand(2, -1, -1), blocks(theirs, name)), name


def blocks(mask: BlockMask, which: str) -> Tensor:
    """Which blocks of keys are among the first `num` of `indices` [B, rows, columns]."""
    count, indices = getattr(mask, f"{which}_num_blocks")[:, 0], getattr(mask, f"{which}_indices")[:, 0]
    listed = torch.arange(indices.shape[-1]) < count[:, :, None]
    return torch.zeros_like(indices).scatter_(2, indices.long(), listed.int())


def test_a_part_of_the_keys_going_back_through_any_kernel() -> None:
    # The whole: 40 queries see 60 keys before them and themselves; the part: the first 60.
    q, k, v = (x.double() for x in tensors(40, 100))
    first = documents(40, 60)
    whole, lse = softcap_forward(q, k, v, 0.25, 2.0, 60, first)
    grad = torch.randn(whole.shape, dtype=torch.float64)
    delta = (grad * whole).sum(-1)
    part = (grad, q, k[:, :, :60], v[:, :, :60], lse, delta)
    rest = (0.25, 2.0, 60, first)
    expected = attend_range_backward(*part, *rest)
    for ours, theirs in zip(backward_by_autograd(attend_range, *part, *rest), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_makes_nothing_as_large_as_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = tensors(300, 300)
    half = attend_causal(*(x.bfloat16() for x in (q, k, v)), 0.25, 2.0)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), attend_causal(q, k, v, 0.25, 2.0), rtol=0, atol=3e-2)
