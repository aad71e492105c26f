"""
Weights as the forward pass sees them.

A parameter may be a DTensor: a slice of a matrix under tensor or expert parallel. The model's own collectives
know what the slices mean, so all arithmetic is on this rank's plain tensor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def local(weight: Tensor) -> Tensor:
    """This rank's part of a weight, as a plain tensor that passes gradients on."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


class Matrix(nn.Module):
    """y = W x with W [out, in], cast to the type of x as it is used; no bias."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, local(self.weight).to(x.dtype))


class Norm(nn.Module):
    """RMSNorm in float32, cast back: g * x / sqrt(mean(x^2) + eps); the scale is g, not 1 + g."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = local(self.weight)
        return F.rms_norm(x.float(), scale.shape, scale.float(), self.eps).to(x.dtype)
