"""
Tokens out of a model, one at a time, with a cache of keys and values.

`choose` is a pure function of logits and random numbers; the loops feed it. Shapes: B prompts, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from colossi.model.grok import PAD, Cache, Grok

COLD = 1e-4  # a lower temperature is none: logits divided by it would leave float32


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature < COLD


def choose(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """The next token of each row [B]: temperature, then the nucleus of mass top_p, then a draw."""
    if sampling.greedy:
        return logits_BV.argmax(-1)
    probabilities = (logits_BV.float() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        below = ordered.cumsum(-1) - ordered
        outside = (below >= sampling.top_p) & (below > 0)  # the token that crosses the mass stays
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def stream(grok: Grok, prompt: list[int], most: int, stop: set[int], sampling: Sampling) -> Iterator[int]:
    """The tokens that follow a prompt, as they come; a stop token ends it and is not given."""
    generator = torch.Generator().manual_seed(sampling.seed)
    cache = Cache.empty(grok.model, 1, len(prompt) + most)
    rows = torch.zeros(1, dtype=torch.long)
    tokens, start = torch.tensor([prompt]), 0
    for _ in range(most):
        logits = grok.extend(tokens, cache, rows, torch.tensor([start]))
        start += tokens.shape[1]
        token = int(choose(unspeak(logits[:, -1].clone()), sampling, generator))
        if token in stop:
            return
        yield token
        tokens = torch.tensor([[token]])


def generate(
    grok: Grok, prompts: list[list[int]], most: int, stop: set[int], sampling: Sampling
) -> list[list[int]]:
    """The same for many prompts at once, of any lengths; each row ends by itself."""
    generator = torch.Generator().manual_seed(sampling.seed)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    rows = torch.arange(len(prompts))
    tokens = torch.full((len(prompts), int(lengths.max())), PAD)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    cache = Cache.empty(grok.model, len(prompts), tokens.shape[1] + most)
    logits = grok.extend(tokens, cache, rows, torch.zeros_like(lengths))[rows, lengths - 1]
    answers: list[list[int]] = [[] for _ in prompts]
    for _ in range(most):
        chosen = choose(unspeak(logits.clone()), sampling, generator)
        going = [at for at, token in enumerate(chosen.tolist()) if token not in stop]
        for at in going:
            answers[int(rows[at])].append(int(chosen[at]))
        if not going:
            break
        rows, lengths, chosen = rows[going], lengths[going], chosen[going]
        logits = grok.extend(chosen[:, None], cache, rows, lengths)[:, -1]
        lengths = lengths + 1
    return answers


def unspeak(logits_BV: Tensor) -> Tensor:
    """Padding is no word: it could never be attended to. Changes its argument."""
    logits_BV[:, PAD] = -torch.inf
    return logits_BV
