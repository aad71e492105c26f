"""The engine against the plain model without a cache, in random company and where rounding could decide."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.model import Grok
from colossi.serve.engine import Engine, Limits, Refused, Ticket, plain
from colossi.serve.generate import Sampling

from .served import random_grok

STOP = frozenset({4, 2})

KINDS: dict[str, dict[str, object]] = {
    "experts": {"tied_embeddings": False},
    "dense, no cap": {"experts": 1, "experts_per_token": 1, "attention_cap": 0.0, "tied_embeddings": False},
    "as Grok-2": {
        "shared_expert_ffn": 64,
        "router_cap": 30.0,
        "final_cap": 50.0,
        "tied_embeddings": False,
        "kv_heads": 6,
    },
}
MODELS = {kind: random_grok(11, **sizes) for kind, sizes in KINDS.items()}


@contextmanager
def engine(grok: Grok, **limits: float) -> Iterator[Engine]:
    made = Engine(grok, Limits(**limits))  # type: ignore[arg-type]
    made.start()
    try:
        yield made
    finally:
        made.stop()


def answers(made: Engine, tickets: list[Ticket]) -> list[list[int]]:
    """Ask all and wait for all."""
    done = threading.Semaphore(0)
    for ticket in tickets:
        ticket.every, ticket.tell = False, done.release
        made.ask(ticket)
    for _ in tickets:
        assert done.acquire(timeout=60)
    return [[ticket.said.get().token for _ in range(ticket.said.qsize())] for ticket in tickets]


def slowly(grok: Grok, prompt: list[int], most: int) -> list[int]:
    """Greedy, the whole sequence anew for each token."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + most:
        logits = plain(grok, tokens)[0]
        token = 1 + int(logits[1:].argmax())
        if token in STOP:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_greedy_is_the_plain_models_answer_in_any_company(kind: str, seed: int) -> None:
    """Shared beginnings, others that draw, few pages, few at once."""
    rng, grok = random.Random(seed), MODELS[kind]
    beginning = [rng.randrange(5, 300) for _ in range(rng.randint(1, 70))]
    tickets = []
    for _ in range(12):
        prompt = beginning[: rng.randint(1, 70)] + [rng.randrange(5, 300) for _ in range(rng.randint(1, 30))]
        sampling = Sampling(rng.choice([0.0, 0.0, 1.2]), seed=rng.randrange(100))
        tickets.append(Ticket(prompt, rng.randint(1, 10), sampling, STOP))
    with engine(grok, running=rng.choice([1, 3, 12]), cache=rng.choice([160, 320, 4096])) as made:
        said = answers(made, tickets)
    for ticket, tokens in zip(tickets, said, strict=True):
        if ticket.sampling.temperature == 0:
            assert tokens == slowly(grok, ticket.prompt, ticket.most)


def twins(part: str) -> Grok:
    """A model in which rounding decides all the time: words, or experts, that are as likely as each other."""
    grok = random_grok(3, tied_embeddings=False, experts_per_token=1)
    with torch.no_grad():
        if part == "words":
            weight = grok.get_parameter("head.weight")
            weight[151:299:2] = weight[150:298:2] * (1 + 1e-7 * torch.randn(74, 1))
        else:
            for name, weight in grok.named_parameters():
                if "router" in name:
                    weight[1] = weight[0] * (1 + 1e-7 * torch.randn(weight.shape[1]))
                    weight[3] = weight[2] * (1 + 1e-7 * torch.randn(weight.shape[1]))
    return grok


@pytest.mark.parametrize("part", ["words", "experts"])
def test_near_ties_are_settled_by_the_plain_model(part: str) -> None:
    grok, rng = twins(part), random.Random(1)
    prompts = [[rng.randrange(5, 300) for _ in range(rng.randint(1, 40))] for _ in range(10)]
    with engine(grok) as made:
        said = answers(made, [Ticket(prompt, 10, Sampling(), STOP) for prompt in prompts])
        assert made.metrics.near_ties.labels("settled")._value.get() > 20
    assert said == [slowly(grok, prompt, 10) for prompt in prompts]


def test_a_seed_draws_the_same_in_any_company() -> None:
    ticket = [5, 6, 7]
    with engine(MODELS["experts"]) as made:
        (alone,) = answers(made, [Ticket(ticket, 20, Sampling(1.0, 0.9, 7), STOP)])
        crowd = [Ticket(ticket, 20, Sampling(1.0, 0.9, seed), STOP) for seed in range(12)]
        said = answers(made, crowd)
    assert said[7] == alone
    assert len({tuple(tokens) for tokens in said}) > 6


def test_what_waits_too_long_is_told_so_and_a_full_queue_refuses() -> None:
    grok = MODELS["experts"]
    with engine(grok, running=1, waiting=3, patience=0.05) as made:
        first = Ticket([5], 400, Sampling(), frozenset())
        begun = threading.Event()
        first.tell = begun.set
        made.ask(first)
        assert begun.wait(20)
        late = [Ticket([6], 5, Sampling(), STOP) for _ in range(3)]
        told = threading.Semaphore(0)
        for ticket in late:
            ticket.tell = told.release
        made.ask(*late)
        with pytest.raises(Refused):
            made.ask(Ticket([7], 5, Sampling(), STOP))
        for _ in late:
            assert told.acquire(timeout=20)
        assert [ticket.finish for ticket in late] == ["late"] * 3
        made.ask(Ticket([7], 5, Sampling(), STOP))  # the queue is empty again
        made.cancel(first)
    assert first.finish == "cancelled"


def test_a_long_prompt_may_wait_alone_but_not_behind_others() -> None:
    with engine(MODELS["experts"], running=1, waiting_tokens=10) as made:
        busy = Ticket([5], 400, Sampling(), frozenset())
        begun = threading.Event()
        busy.tell = begun.set
        made.ask(busy)
        assert begun.wait(20)
        made.ask(Ticket([6] * 50, 5, Sampling(), STOP))
        with pytest.raises(Refused):
            made.ask(Ticket([6] * 5, 5, Sampling(), STOP))
        made.cancel(busy)


def test_who_is_stopped_with_the_engine_is_told() -> None:
    with engine(MODELS["experts"], running=1) as made:
        tickets = [Ticket([5], 400, Sampling(), frozenset()) for _ in range(3)]
        made.ask(*tickets)
    assert {ticket.finish for ticket in tickets} <= {"failed", "length"}
    assert not made.alive
