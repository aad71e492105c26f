"""The tiled attention against the formula as it is written, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from colossi.model import softcap
from colossi.model.softcap import softcap_attention, softcap_forward


def formula(
    q: Tensor, k: Tensor, v: Tensor, multiplier: float, cap: float, first: Tensor | None = None
) -> Tensor:
    """softmax over the keys not after the query of cap * tanh(multiplier * q.k / cap), times v.

    The queries are the last of the keys' positions; they see no key before `first`.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = multiplier * q @ k.transpose(-1, -2)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    positions = torch.arange(k.shape[2])
    hidden = positions > positions[-q.shape[2] :, None]
    if first is not None:
        hidden = hidden | (positions < first[:, None, :, None])
    return scores.masked_fill(hidden, -math.inf).softmax(-1) @ v


def inputs(
    batch: int, heads: int, kv_heads: int, length: int, size: int, spread: float = 1.0, past: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    keys = (batch, kv_heads, length + past, size)
    shapes = [(batch, heads, length, size), keys, keys]
    return [(spread * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]


def value_and_gradients(f, tensors: list[Tensor], *rest: float | Tensor | None) -> list[Tensor]:  # type: ignore[no-untyped-def]
    out = f(*tensors, *rest)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), tensors)]


def in_float64(tensors: list[Tensor]) -> list[Tensor]:
    return [x.detach().double().requires_grad_() for x in tensors]


def firsts(batch: int, length: int, past: int) -> Tensor:
    """Documents of many lengths in the sequences that the queries are the last of: where each begins."""
    positions = torch.arange(past + length)
    begins = torch.rand(batch, past + length, generator=torch.Generator().manual_seed(length)) < 0.05
    return (begins * positions).cummax(1).values[:, past:].int()


@settings(deadline=None, max_examples=100)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    length=st.one_of(st.integers(1, 20), st.integers(60, 140)),  # one tile, and around the edges of several
    size=st.sampled_from([2, 8, 24]),
    cap=st.sampled_from([0.0, 1.5, 30.0]),
    spread=st.sampled_from([0.1, 1.0, 4.0]),
    past=st.sampled_from([0, 0, 1, 40, 200]),
    documents=st.booleans(),
)
def test_equals_the_formula(
    batch: int,
    kv_heads: int,
    groups: int,
    length: int,
    size: int,
    cap: float,
    spread: float,
    past: int,
    documents: bool,
) -> None:
    tensors = inputs(batch, kv_heads * groups, kv_heads, length, size, spread, past)
    first = firsts(batch, length, past) if documents else None
    found = value_and_gradients(softcap_attention, tensors, size**-0.5, cap, first)
    expected = value_and_gradients(formula, in_float64(tensors), size**-0.5, cap, first)
    # float32 knows a score to so many last places of the largest one, and a probability no better.
    largest = (
        float(tensors[0].detach().norm(dim=-1).max() * tensors[1].detach().norm(dim=-1).max()) * size**-0.5
    )
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(1.0, float(theirs.abs().max()))  # a saturated softmax has gradients of next to nothing
        torch.testing.assert_close(
            ours.double() / scale, theirs / scale, rtol=0, atol=1e-5 * max(1, largest / 20)
        )


def test_a_token_sees_nothing_after_it() -> None:
    q, k, v = (x.detach() for x in inputs(1, 2, 1, 150, 8))
    before = softcap_attention(q, k, v, 0.3, 30.0)
    k[:, :, 101:], v[:, :, 101:] = 1e3, -1e3
    assert torch.equal(softcap_attention(q, k, v, 0.3, 30.0)[:, :, :101], before[:, :, :101])


def test_the_cap_bounds_what_a_huge_logit_can_do() -> None:
    # Scores are 0 and 1e6 capped to 2: the second key gets e^2 / (1 + e^2) = 0.880797 of the weight.
    q = torch.ones(1, 1, 2, 2)
    k = torch.tensor([[0.0, 0.0], [5e5, 5e5]]).view(1, 1, 2, 2)
    v = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).view(1, 1, 2, 2)
    assert softcap_attention(q, k, v, 1.0, 2.0)[0, 0, 1].tolist() == pytest.approx([0.880797] * 2, abs=1e-6)


@pytest.mark.parametrize("cap", [0.0, 30.0])
def test_same_inputs_same_bits(cap: float) -> None:
    tensors = inputs(2, 4, 2, 130, 16)
    first, second = (value_and_gradients(softcap_attention, tensors, 0.25, cap) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("cap", [0.0, 30.0])
def test_how_it_is_cut_into_tiles_does_not_matter(cap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = inputs(2, 4, 2, 50, 16)
    whole = value_and_gradients(softcap_attention, tensors, 0.25, cap)
    monkeypatch.setattr(softcap, "ROWS", 7)
    monkeypatch.setattr(softcap, "TILE_FLOATS", 1)
    for a, b in zip(value_and_gradients(softcap_attention, tensors, 0.25, cap), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_strides_do_not_matter() -> None:
    q, k, v = (x.detach() for x in inputs(2, 4, 2, 33, 16))
    strided = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    assert torch.equal(softcap_attention(*strided, 0.25, 30.0), softcap_attention(q, k, v, 0.25, 30.0))


@pytest.mark.parametrize("cap", [0.0, 30.0])
def test_parts_of_the_keys_merge_into_the_whole(cap: float) -> None:
    # Queries 70..99 of a sequence see keys 0..39 whole, 40..99 up to their own, and none of 100..119.
    q, k, v = (x.detach().double() for x in inputs(2, 4, 2, 30, 8, past=90))
    whole, lse = softcap_forward(q, k[:, :, :100], v[:, :, :100], 0.3, cap, 70, None)
    pieces = [(slice(0, 40), 40, None), (slice(40, 100), 30, None)]
    pieces += [(slice(100, 120), 20, torch.full((2, 30), 20, dtype=torch.int32))]
    parts = [softcap_forward(q, k[:, :, s], v[:, :, s], 0.3, cap, past, f) for s, past, f in pieces]
    assert torch.equal(parts[2][0], torch.zeros_like(q)) and bool((parts[2][1] == -math.inf).all())
    together = torch.stack([part[1] for part in parts]).logsumexp(0)
    torch.testing.assert_close(together, lse)
    out = sum(part * (own - lse).exp().unsqueeze(-1) for part, own in parts)
    torch.testing.assert_close(out, whole)


def test_the_log_sum_exp_has_gradients_too() -> None:
    tensors = in_float64(inputs(1, 2, 1, 9, 4))

    def f(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return softcap_forward(q, k, v, 0.5, 2.0, 0, None)

    assert torch.autograd.gradcheck(f, tuple(tensors))


def test_keys_of_other_documents_are_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    tiles = softcap._tiles
    monkeypatch.setattr(softcap, "_tiles", lambda *a: [read.append(t[1:3]) or t for t in tiles(*a)])
    q, k, v = (x.detach() for x in inputs(1, 1, 1, 256, 4))
    first = (torch.arange(256) // 128 * 128).int()[None]
    softcap_attention(q, k, v, 0.5, 2.0, first)
    assert [(seen.start, seen.stop) for _, seen in read] == [(0, 64), (0, 128), (128, 192), (128, 256)]


@pytest.mark.parametrize("cap", [0.0, 30.0])
@pytest.mark.parametrize("documents", [False, True])
def test_pytorch_accepts_it_as_an_operator(cap: float, documents: bool) -> None:
    tensors = inputs(2, 4, 2, 9, 8, past=3)
    first = firsts(2, 9, 3) if documents else None
    torch.library.opcheck(softcap_forward, (*tensors, 0.25, cap, 3, first))
    q, k, v = (x.detach() for x in tensors)
    lse = torch.ones(q.shape[:3])
    arguments = (torch.ones_like(q), q, k, v, lse, lse, 0.25, cap, 3, first)
    torch.library.opcheck(softcap.softcap_backward, arguments)
