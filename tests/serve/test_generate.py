"""Generation against the plain model without a cache, and sampling against its definition."""

import pytest
import torch

from colossi.model import Grok
from colossi.serve.generate import Sampling, choose, generate, stream
from colossi.spec.model import ModelSpec

STOP = {4}


@pytest.fixture(scope="module")
def grok() -> Grok:
    torch.manual_seed(3)
    model = ModelSpec.model_validate(
        dict(
            layers=2,
            hidden=32,
            heads=4,
            kv_heads=2,
            ffn_hidden=48,
            vocabulary=40,
            experts=4,
            experts_per_token=2,
        )
    )
    grok = Grok(model)
    for parameter in grok.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return grok


def slowly(grok: Grok, prompt: list[int], most: int) -> list[int]:
    """Greedy, the whole sequence anew for each token; padding is never said."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + most:
        logits = grok(torch.tensor([tokens]))[0, -1]
        logits[0] = -torch.inf
        token = int(logits.argmax())
        if token in STOP:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


PROMPTS = [[5], [7, 8, 9], [11, 12, 13, 14, 15, 16, 17], [30, 31], [6, 6, 6, 6]]


@torch.no_grad()
def test_greedy_is_the_plain_models_answer_alone_and_in_a_batch(grok: Grok) -> None:
    expected = [slowly(grok, prompt, 12) for prompt in PROMPTS]
    assert [list(stream(grok, prompt, 12, STOP, Sampling())) for prompt in PROMPTS] == expected
    assert generate(grok, PROMPTS, 12, STOP, Sampling()) == expected
    assert any(len(answer) < 12 for answer in expected) or len({len(a) for a in expected}) == 1


def test_a_seed_fixes_the_answer(grok: Grok) -> None:
    def draw(seed: int) -> list[int]:
        return list(stream(grok, [5, 6], 20, set(), Sampling(temperature=1.5, seed=seed)))

    assert draw(1) == draw(1) != draw(2)


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    generator = torch.Generator().manual_seed(0)
    cases = {0.4: {0}, 0.5: {0}, 0.6: {0, 1}, 0.85: {0, 1, 2}, 1.0: {0, 1, 2, 3}}
    for mass, allowed in cases.items():
        sampling = Sampling(temperature=1.0, top_p=mass)
        drawn = {int(choose(probabilities.log(), sampling, generator)) for _ in range(400)}
        assert drawn == allowed, mass


def test_temperature_draws_by_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20000, 3)
    drawn = choose(logits, Sampling(temperature=2.0), torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(share, (logits[0] / 2.0).softmax(-1), atol=0.01, rtol=0)
