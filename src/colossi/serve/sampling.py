"""
The next token of many rows at once, each by its own rule and its own random numbers.

A row's draw depends on its logits and one uniform number, never on what else is in the batch.

Shapes: N rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from colossi.serve.generate import Sampling


@dataclass(frozen=True, slots=True)
class Likely:
    """A token's log-probability before temperature, and the likeliest tokens with theirs."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def pick(logits_NV: Tensor, rules: Sequence[Sampling], uniforms: Sequence[float]) -> list[int]:
    """The next token of each row: the likeliest, or the one at `uniform` of the nucleus' mass."""
    chosen: list[int] = logits_NV.argmax(-1).tolist()
    drawn = [row for row, rule in enumerate(rules) if not rule.greedy]
    if not drawn:
        return chosen
    temperature = torch.tensor([[rules[row].temperature] for row in drawn])
    top_p = torch.tensor([[rules[row].top_p] for row in drawn])
    uniform = torch.tensor([[uniforms[row]] for row in drawn])
    logits = logits_NV[drawn]
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature
    ordered, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    below = ordered.cumsum(-1) - ordered  # the token that crosses the mass stays
    ordered = ordered.masked_fill((below >= top_p) & (below > 0), 0.0)
    sums = ordered.cumsum(-1)
    at = (sums <= uniform * sums[:, -1:]).sum(-1, keepdim=True)
    last = (ordered > 0).sum(-1, keepdim=True) - 1  # where rounding puts a draw behind the end
    for row, token in zip(drawn, order.gather(-1, at.minimum(last)).flatten().tolist(), strict=True):
        chosen[row] = token
    return chosen


def likely(logits_NV: Tensor, tokens: Sequence[int], top: int) -> list[Likely]:
    """What each row's token was worth, and the `top` likeliest of its row."""
    logprobs = logits_NV.log_softmax(-1)
    own = logprobs.gather(-1, torch.tensor(tokens)[:, None]).flatten().tolist()
    if not top:
        return [Likely(value) for value in own]
    best = logprobs.topk(min(top, logprobs.shape[-1] - 1), dim=-1)  # all but padding
    rows = zip(own, best.indices.tolist(), best.values.tolist(), strict=True)
    return [Likely(value, tuple(zip(ids, values, strict=True))) for value, ids, values in rows]
