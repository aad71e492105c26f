"""
Context parallel: which tokens of a sequence each rank has.

Under the causal mask a late token costs more than an early one. So a sequence is cut into 2C chunks for C
ranks, and rank r has the chunks r and 2C - 1 - r: every rank computes the same number of products [1].

[1] A. Dubey et al., "The Llama 3 Herd of Models", 2024, section 3.3.2.
"""

import torch
from torch import Tensor


def positions(rank: int, ranks: int, length: int) -> Tensor:
    """The positions in the sequence of a rank's tokens, in order, int64 [length / ranks]."""
    chunks = torch.arange(length).chunk(2 * ranks)
    return torch.cat((chunks[rank], chunks[2 * ranks - 1 - rank])) if ranks > 1 else torch.arange(length)
