"""
Faults that a worker makes on purpose, between two steps: for `--chaos`, and for the tests of recovery.

What kills or stops a process comes from outside, by signals; here is what only the inside can do.
"""

import queue
import time
from typing import Any

import torch
from torch import nn

from colossi.model.matrix import local

BIT = 20  # of the mantissa: the weight changes by an eighth at most, and the loss hardly


class Faults:
    """Carries out what the agent passes on."""

    def __init__(self, ordered: "queue.Queue[dict[str, Any]] | None") -> None:
        self._ordered = ordered
        self._slow = 0.0  # [s] added to each step

    def before(self, step: int, model: nn.Module) -> None:
        """What is to happen before this step."""
        time.sleep(self._slow)
        while self._ordered is not None and not self._ordered.empty():
            fault = self._ordered.get()
            kind = fault["fault"]
            if kind == "raise":
                raise RuntimeError(f"raised on purpose before step {step}")
            if kind == "hang":
                time.sleep(1e9)
            if kind == "slow":
                self._slow = fault["seconds"]
            if kind == "flip":
                flip_a_bit(model)


@torch.no_grad()
def flip_a_bit(model: nn.Module) -> None:
    """Silent corruption: one bit of one weight is another, and nobody is told."""
    weights = max((local(parameter) for parameter in model.parameters()), key=torch.Tensor.numel)
    words = weights.detach().view(-1).view(torch.int32)
    words[words.numel() // 2] ^= 1 << BIT
