"""The grouped experts against a loop over experts, and the router's figures against counting."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from colossi.model.collectives import Flight, Groups
from colossi.model.experts import (
    Experts,
    MixtureOfExperts,
    Router,
    RouterStats,
    Routing,
    invert,
    permute,
    router_stats,
)
from colossi.spec.model import ModelSpec

from ..train.ranks import run_ranks


def sizes(experts: int, k: int, width: int = 12, hidden: int = 20, **more: float) -> ModelSpec:
    keys = {"layers": 1, "hidden": width, "heads": 1, "kv_heads": 1, "ffn_hidden": hidden, "vocabulary": 8}
    return ModelSpec.model_validate(keys | {"experts": experts, "experts_per_token": k} | more)


def experts_of(model: ModelSpec) -> Experts:
    torch.manual_seed(model.experts)
    experts = Experts(model, Groups())
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return experts


def by_loop(x: Tensor, weights: Tensor, chosen: Tensor, stacks: list[Tensor]) -> Tensor:
    """sum over a token's k experts e of weight * down_e(gelu(gate_e x) * value_e x), one expert at a time."""
    gate, value, down = stacks
    y = torch.zeros_like(x)
    for expert in range(gate.shape[0]):
        out = (F.gelu(x @ gate[expert].T, approximate="tanh") * (x @ value[expert].T)) @ down[expert].T
        y = y + out * (weights * (chosen == expert)).sum(1, keepdim=True)
    return y


def check_against_loop(experts: Experts, x: Tensor, weights: Tensor, chosen: Tensor) -> None:
    """Within 2e-6 of the largest number; where sums cancel, within what the loop itself loses in float32."""
    inputs = [x.requires_grad_(), weights.requires_grad_(), experts.gate, experts.value, experts.down]
    direction = torch.linspace(-1, 1, x.numel()).view_as(x)

    def by(function: Callable[..., Tensor], arguments: list[Tensor]) -> list[Tensor]:
        out = function(*arguments)
        return [out.detach(), *torch.autograd.grad((out * direction).sum(), arguments)]

    def loop(x: Tensor, weights: Tensor, *stacks: Tensor) -> Tensor:
        return by_loop(x, weights, chosen, list(stacks))

    ours = by(lambda x, weights, *_: experts(x, weights, chosen), inputs)
    exact = by(loop, [t.detach().double().requires_grad_() for t in inputs])
    for found, same_precision, wanted in zip(ours, by(loop, inputs), exact, strict=True):
        scale = float(wanted.abs().max()) or 1.0
        lost = float((same_precision.double() - wanted).abs().max()) / scale
        torch.testing.assert_close(found.double() / scale, wanted / scale, rtol=0, atol=max(2e-6, 4 * lost))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(2, 9).flatmap(lambda x: st.tuples(st.just(x), st.integers(1, x))),
    st.integers(0, 99),
)
def test_equals_a_loop_over_experts(tokens: int, experts_and_k: tuple[int, int], seed: int) -> None:
    total, k = experts_and_k
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 12, generator=generator)
    weights, chosen = torch.rand(tokens, total, generator=generator).topk(k, dim=-1)
    check_against_loop(experts_of(sizes(total, k)), x, weights, chosen)


@pytest.mark.parametrize(
    "chosen",
    [
        [[3]],  # one token
        [[0]] * 7,  # all to the first: the others are empty
        [[4]] * 7,  # all to the last
        [[1], [3], [1], [3]],  # empty ones at both ends and between
        [[0, 1, 2, 3, 4]] * 3,  # every token to all
        [[4, 0], [0, 4]],  # the order of a token's choices is its own
    ],
)
def test_lopsided_routing(chosen: list[list[int]]) -> None:
    chosen_Nk = torch.tensor(chosen)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(chosen), 12, generator=generator)
    weights = torch.rand(chosen_Nk.shape, generator=generator)
    check_against_loop(experts_of(sizes(5, chosen_Nk.shape[1])), x, weights, chosen_Nk)


def test_an_expert_without_tokens_gets_a_gradient_of_zeros() -> None:
    experts = experts_of(sizes(3, 1))
    experts(torch.randn(4, 12), torch.ones(4, 1), torch.tensor([[0], [2], [0], [2]])).sum().backward()
    for parameter in experts.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[1].any() and parameter.grad[0].any() and parameter.grad[2].any()


def test_same_inputs_same_bits() -> None:
    experts = experts_of(sizes(8, 2, width=96, hidden=64))
    x = torch.randn(300, 96)
    weights, chosen = torch.rand(300, 8).topk(2, dim=-1)

    def run() -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        out = experts(leaf, weights, chosen)
        return [out, *torch.autograd.grad(out.square().sum(), [leaf, *experts.parameters()])]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@given(st.integers(1, 30).flatmap(lambda n: st.permutations(range(n))))
def test_invert_undoes(order: list[int]) -> None:
    there = torch.tensor(order)
    assert there[invert(there)].tolist() == invert(there)[there].tolist() == list(range(len(order)))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_permute_and_its_gradient(tokens: int, k: int, random) -> None:  # type: ignore[no-untyped-def]
    order = torch.tensor(random.sample(range(tokens * k), tokens * k))
    x = torch.arange(tokens * 3.0).view(tokens, 3).requires_grad_()
    out = permute(x, order, invert(order), k)
    assert out.tolist() == [x[copy // k].tolist() for copy in order.tolist()]
    weight = torch.arange(1.0, out.numel() + 1).view_as(out)
    (out * weight).sum().backward()
    expected = torch.zeros_like(x).index_add(0, order // k, weight)
    assert x.grad is not None and torch.equal(x.grad, expected)  # whole numbers: no rounding


def brute_force(routing: Routing, counted: Tensor) -> RouterStats:
    """Token by token, in float64, from the definitions."""
    batch, length = counted.shape
    total, k = routing.logits_NX.shape[1], routing.experts_Nk.shape[1]
    balance, z, load = 0.0, 0.0, [0] * total
    for row in range(batch):
        sent, likely, tokens = [0] * total, [0.0] * total, 0
        for at in range(length):
            if not counted[row, at]:
                continue
            token, tokens = row * length + at, tokens + 1
            z += float(routing.logits_NX[token].double().logsumexp(0)) ** 2
            z += sum(max(abs(r) - 1.5, 0.0) ** 2 for r in routing.logits_NX[token].tolist())
            for expert in routing.experts_Nk[token].tolist():
                sent[expert] += 1
                load[expert] += 1
            likely = [p + q for p, q in zip(likely, routing.probabilities_NX[token].tolist(), strict=True)]
        tokens = max(tokens, 1)
        balance += total * sum((s / (tokens * k)) * (p / tokens) for s, p in zip(sent, likely, strict=True))
    largest = max((abs(x) for row in routing.logits_NX[counted.flatten()].tolist() for x in row), default=0.0)
    return RouterStats(*(torch.tensor(x, dtype=torch.float64) for x in (balance, z, load, largest)))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(2, 6), st.integers(0, 99))
def test_router_stats_by_counting(batch: int, length: int, total: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch * length, total, generator=generator)  # some of them beyond the bound
    probabilities = logits.softmax(-1)
    k = 1 + seed % total
    weights, chosen = probabilities.topk(k, dim=-1)
    routing = Routing(weights, chosen, logits, probabilities)
    counted = torch.rand(batch, length, generator=generator) < 0.7
    found, expected = router_stats(routing, counted), brute_force(routing, counted)
    for name in ("balance", "z", "load_X", "largest"):
        ours, theirs = getattr(found, name).double(), getattr(expected, name)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, msg=name)


def test_even_routing_has_balance_one_per_sequence() -> None:
    # 4 experts, logits all equal: P = 1/4 each. Tokens 0..3 go to experts 0..3: f = 1/4. 4 * 4 * 1/16 = 1.
    logits = torch.zeros(8, 4)
    chosen = torch.arange(4).repeat(2).view(8, 1)
    routing = Routing(torch.full((8, 1), 0.25), chosen, logits, logits.softmax(-1))
    stats = router_stats(routing, torch.ones(2, 4, dtype=torch.bool))
    assert float(stats.balance) == pytest.approx(2.0)  # two sequences
    assert stats.load_X.tolist() == [2, 2, 2, 2]
    assert float(stats.z) == pytest.approx(8 * 1.386294**2, rel=1e-5)  # log(4) = 1.386294


def test_z_pulls_a_large_negative_logit_back_where_the_log_sum_exp_is_content() -> None:
    # exp(-4) + exp(r) = 1: the log-sum-exp is 0, and so is the slope of its square. (4 - 1.5)^2 is left.
    logits = torch.tensor([[-4.0, math.log(1 - math.exp(-4))]]).requires_grad_()
    routing = Routing(torch.ones(1, 1), torch.ones(1, 1, dtype=torch.long), logits, logits.softmax(-1))
    z = router_stats(routing, torch.ones(1, 1, dtype=torch.bool)).z
    z.backward()
    assert z.item() == pytest.approx(6.25)
    torch.testing.assert_close(logits.grad, torch.tensor([[-5.0, 0.0]]))


@pytest.mark.parametrize("cap", [0.0, 30.0])
@torch.no_grad()
def test_router_takes_the_likeliest_and_keeps_their_probabilities(cap: float) -> None:
    router = Router(sizes(5, 2, router_cap=cap))
    torch.nn.init.normal_(router.weight)
    routing = router.route(torch.randn(10, 12))
    assert torch.allclose(routing.probabilities_NX.sum(-1), torch.ones(10))
    for token in range(10):
        ranked = sorted(range(5), key=lambda e: -float(routing.probabilities_NX[token, e]))
        assert routing.experts_Nk[token].tolist() == ranked[:2]
        assert torch.equal(routing.weights_Nk[token], routing.probabilities_NX[token, ranked[:2]])
    if cap:
        assert float(routing.logits_NX.abs().max()) < cap


def test_the_shared_expert_is_added_and_scaled() -> None:
    model = sizes(3, 3, shared_expert_ffn=16)
    torch.manual_seed(0)
    mixture = MixtureOfExperts(model, Groups())
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 5, 12)
    y, stats = mixture(x, torch.ones(2, 5, dtype=torch.bool))
    routing = mixture.router.route(x.flatten(0, 1))
    routed = mixture.experts(x.flatten(0, 1), routing.weights_Nk, routing.experts_Nk).view_as(x)
    assert mixture.shared is not None and stats is not None
    torch.testing.assert_close(y, (routed + mixture.shared(x)) / 2**0.5)
    assert stats.load_X.tolist() == [10, 10, 10]


def journey(rank: int, ranks: int, pieces: int) -> tuple[list[Tensor], list[str]]:
    """Experts on two ranks: y and its gradients, and when rows set out and were waited for."""
    model = sizes(4, 2)
    whole, log = experts_of(model), []
    experts = Experts(model, Groups(expert=dist.group.WORLD, expert_pieces=pieces))
    for name, parameter in whole.named_parameters():
        part = torch.nn.Parameter(parameter.detach().chunk(ranks)[rank].clone())
        setattr(experts, name, part)
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(9, 12, generator=generator).requires_grad_()
    weights, chosen = torch.rand(9, 4, generator=generator).topk(2, dim=-1)
    begin, end, grouped = Flight.begin, Flight.end, experts._grouped

    def logged(word: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any, **keys: Any) -> Tensor:
            log.append(word)
            return function(*arguments, **keys)

        return call

    Flight.begin, Flight.end = logged("go", begin), logged("wait", end)  # type: ignore[method-assign]
    experts._grouped = logged("compute", grouped)  # type: ignore[method-assign]
    y = experts(x, weights, chosen)
    log.append("back")
    gradients = torch.autograd.grad(y.square().sum(), [x, *experts.parameters()])
    Flight.begin, Flight.end = begin, end  # type: ignore[method-assign]
    alone = by_loop(x, weights, chosen, [p.detach() for p in whole.parameters()])
    torch.testing.assert_close(y, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients[0], torch.autograd.grad(alone.square().sum(), x)[0])
    return [y.detach(), *gradients], log


def test_a_piece_travels_while_another_one_is_computed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    together, _ = run_ranks(2, journey, 1, folder=tmp_path / "one")
    apart, log = run_ranks(2, journey, 2, folder=tmp_path / "two")
    torch.testing.assert_close(apart, together)
    # The second piece is on its way there while the first is computed, the first on its way back while the
    # second is. Gradients do the same in reverse: the products' own are not in the log.
    there = ["go", "go", "wait", "compute", "go", "wait", "compute", "go", "wait", "wait"]
    assert log == [*there, "back", "go", "go", "wait", "go", "wait", "go", "wait", "wait"]
