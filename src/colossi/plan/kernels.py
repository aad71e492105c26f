"""
How long kernels take, by their shapes.

A product of matrices is cut into tiles; tiles go to the multiprocessors in waves, and the last wave is seldom
full. A kernel that computes little takes what its bytes take. [seconds]

[1] NVIDIA, "Matrix Multiplication Background User's Guide": tile and wave quantisation.
[2] T. Dao, "FlashAttention-2", 2023, section 3: FLOPs of fused attention, 2.5 times as many going back.
"""

from dataclasses import dataclass

import numpy as np

from colossi.plan.case import Machine, Number
from colossi.plan.efficiency import Efficiency


@dataclass(frozen=True, slots=True)
class Products:
    """What products of matrices run on."""

    machine: Machine
    efficiency: Efficiency
    peak: Number  # [FLOP/s] that large ones reach
    item: Number = 2.0  # [bytes] of an operand's number
    result: Number = 2.0  # [bytes] of the output's

    def seconds(self, m: Number, n: Number, k: Number, groups: Number = 1.0) -> Number:
        """`groups` products [m, k] times [k, n], launched as one: their tiles share the waves [1]."""
        e = self.efficiency
        m, n, k = np.maximum(m, 1e-9), np.maximum(n, 1e-9), np.maximum(k, 1e-9)
        tile = self.machine.tile
        tiles = np.ceil(m / tile) * np.ceil(n / tile)
        filled = m * n / (tiles * tile * tile)
        slots = self.machine.tiles
        full = tiles * groups / (np.ceil(tiles * groups / slots) * slots)
        losses = 1 + e.product_depth / k + e.product_width / n + e.product_rows / m
        share = filled * (1 - e.product_wave * (1 - full)) / losses
        bytes_ = groups * (self.item * (m * k + k * n) + self.result * m * n)
        return np.maximum(2.0 * groups * m * n * k / (self.peak * share), moved(bytes_, self.machine, e))

    def both(self, m: Number, n: Number, k: Number, groups: Number = 1.0) -> tuple[Number, Number]:
        """Forward, and backward: the gradients of the input [m, k] and of the weights [k, n]."""
        back = self.seconds(m, k, n, groups) + self.seconds(k, n, m, groups)
        return self.seconds(m, n, k, groups), back


def moved(bytes_: Number, machine: Machine, e: Efficiency) -> Number:
    """A kernel that reads and writes so many bytes and computes little."""
    return bytes_ / (machine.memory_rate * e.memory_share)


def attention_flops(queries: Number, keys: Number, heads: Number, sizes: Number) -> Number:
    """Forward: q k^T and p v; `sizes` is the sum of the sizes of a query's and of a value's head."""
    return 2.0 * queries * keys * heads * sizes


def fused_attention(flops: Number, keys: Number, machine: Machine, e: Efficiency) -> tuple[Number, Number]:
    """Forward and backward of `flops` forward [2]."""
    peak = machine.peak_16 * machine.attention_share * keys / (keys + e.attention_length)
    return flops / peak, 2.5 * flops / (peak * e.attention_backward)
