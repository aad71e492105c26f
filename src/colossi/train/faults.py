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
                self._slow = float(fault.get("seconds", 1.0))
            if kind == "flip":
                flip_a_bit(model, int(fault.get("bit", 20)))


@torch.no_grad()
def flip_a_bit(model: nn.Module, bit: int) -> None:
    """Silent corruption: one bit of one weight is another, and nobody is told."""
    name, parameter = max(model.named_parameters(), key=lambda entry: local(entry[1]).numel())
    del name
    words = local(parameter).detach().view(-1).view(torch.int32)
    words[words.numel() // 2] ^= 1 << bit
