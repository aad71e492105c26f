"""The tiled attention against the formula as it is written, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from colossi.model import softcap
from colossi.model.softcap import softcap_attention


def formula(q: Tensor, k: Tensor, v: Tensor, multiplier: float, cap: float) -> Tensor:
    """softmax over the keys not after the query of cap * tanh(multiplier * q.k / cap), times v."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = multiplier * q @ k.transpose(-1, -2)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    above = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(above, -math.inf).softmax(-1) @ v


def inputs(
    batch: int, heads: int, kv_heads: int, length: int, size: int, spread: float = 1.0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(batch, n, length, size) for n in (heads, kv_heads, kv_heads)]
    return [(spread * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]


def value_and_gradients(f, tensors: list[Tensor], *rest: float) -> list[Tensor]:  # type: ignore[no-untyped-def]
    out = f(*tensors, *rest)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), tensors)]


def in_float64(tensors: list[Tensor]) -> list[Tensor]:
    return [x.detach().double().requires_grad_() for x in tensors]


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    length=st.one_of(st.integers(1, 20), st.integers(60, 140)),  # one tile, and around the edges of several
    size=st.sampled_from([2, 8, 24]),
    cap=st.sampled_from([0.0, 1.5, 30.0]),
    spread=st.sampled_from([0.1, 1.0, 4.0]),
)
def test_equals_the_formula(
    batch: int, kv_heads: int, groups: int, length: int, size: int, cap: float, spread: float
) -> None:
    tensors = inputs(batch, kv_heads * groups, kv_heads, length, size, spread)
    found = value_and_gradients(softcap_attention, tensors, size**-0.5, cap)
    expected = value_and_gradients(formula, in_float64(tensors), size**-0.5, cap)
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(1.0, float(theirs.abs().max()))  # a saturated softmax has gradients of next to nothing
        torch.testing.assert_close(ours.double() / scale, theirs / scale, rtol=0, atol=1e-5)


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
def test_pytorch_accepts_it_as_an_operator(cap: float) -> None:
    tensors = inputs(2, 4, 2, 9, 8)
    torch.library.opcheck(softcap_attention, (*tensors, 0.25, cap))
    q, k, v = (x.detach() for x in tensors)
    torch.library.opcheck(softcap.softcap_attention_backward, (torch.ones_like(q), q, k, v, 0.25, cap))
