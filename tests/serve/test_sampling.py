"""The next token of a row: from the nucleus, in proportion; the likeliest where it is too cold to tell."""

import pytest
import torch

from colossi.serve.generate import COLD, Sampling, choose
from colossi.serve.sampling import pick


@pytest.mark.parametrize("temperature", [0.0, 2.2e-313, 1e-30, COLD])
@pytest.mark.parametrize("top_p", [0.0, 0.5, 1.0])
def test_the_coldest_say_the_likeliest(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[-torch.inf, 3.0, 5.0, 4.9]])
    rule = Sampling(temperature=temperature, top_p=top_p, seed=1)
    assert pick(logits, [rule], [0.999]) == [2]
    assert choose(logits, rule, torch.Generator().manual_seed(3)).tolist() == [2]


def test_draws_follow_the_probabilities_of_the_nucleus() -> None:
    """Of 0.5, 0.3, 0.15, 0.05 and top_p 0.8 the first two are left, as 5 to 3."""
    logits = torch.tensor([[-torch.inf, 0.5, 0.3, 0.15, 0.05]]).log()
    logits[0, 0] = -torch.inf
    rule = Sampling(temperature=1.0, top_p=0.75, seed=1)
    drawn = [pick(logits.clone(), [rule], [(n + 0.5) / 800])[0] for n in range(800)]
    assert {token: drawn.count(token) for token in set(drawn)} == {1: 500, 2: 300}
