"""
Weights as the forward pass sees them.

A parameter may be a DTensor: a slice of a matrix under tensor or expert parallel. The model's own collectives
know what the slices mean, so all arithmetic is on this rank's plain tensor.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

ONEDNN = torch.backends.mkldnn.is_available()


def local(weight: Tensor) -> Tensor:
    """This rank's part of a weight, as a plain tensor that passes gradients on."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


class Matrix(nn.Module):
    """y = W x with W [out, in], cast to the type of x as it is used; no bias."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, local(self.weight).to(x.dtype))


def linear(x: Tensor, w: Tensor) -> Tensor:
    """x W^T, with W [out, in]."""
    eager_training = torch.is_grad_enabled()
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    if eager_training and plain and ONEDNN:
        return _Linear.apply(x, w)  # type: ignore[no-untyped-call]
    return F.linear(x, w)


class _Linear(torch.autograd.Function):
    """The same by oneDNN where it is at least as fast as MKL: a tenth faster on AMD, forward and for dx.

    PyTorch keeps this product for its compiler, which takes it only where weights are constant. W's gradient
    stays with MKL, which is as fast at it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Any:
        ctx.save_for_backward(x, w)
        return _by_onednn(x, w)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, w = ctx.saved_tensors
        dx = _by_onednn(dy, w.t()) if ctx.needs_input_grad[0] else None
        dw = dy.flatten(0, -2).t() @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
        return dx, dw


@torch.library.custom_op("colossi::onednn_linear", mutates_args=(), device_types="cpu")
def _opaque(x: Tensor, w: Tensor) -> Tensor:
    """To the compiler, which would refuse a product whose weights are not constant."""
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


@_opaque.register_fake
def _(x: Tensor, w: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], w.shape[0])


def _by_onednn(x: Tensor, w: Tensor) -> Any:
    if torch.compiler.is_compiling():
        return _opaque(x, w)
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


class Norm(nn.Module):
    """RMSNorm in float32, cast back: g * x / sqrt(mean(x^2) + eps); the scale is g, not 1 + g."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = local(self.weight)
        return rms_norm(x.float(), scale.float(), self.eps).to(x.dtype)


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """g * x / sqrt(mean(x^2) + eps) over the last dimension."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _RMSNorm.apply(x, scale, eps)  # type: ignore[no-untyped-call]
    return F.rms_norm(x, scale.shape, scale, eps)


class _RMSNorm(torch.autograd.Function):
    """The same in half the time of PyTorch's, which has a kernel of it for GPUs only.

    With r = 1 / sqrt(mean(x^2) + eps), going back is LayerNorm's kernel, told that the mean of x is 0 and its
    deviation 1 / r; that kernel also subtracts r mean(dy g), the share of the mean, which is added again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, eps: float) -> Any:
        r = torch.linalg.vecdot(x, x).unsqueeze(-1).div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, g, r)
        return (x * r).mul_(g)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, g, r = ctx.saved_tensors
        wanted = [True, True, False]
        dx, dg, _ = torch.ops.aten.native_layer_norm_backward(
            dy, x, g.shape, torch.zeros_like(r), r, g, None, wanted
        )
        return dx.add_((dy @ g).unsqueeze(-1).mul_(r).div_(x.shape[-1])), dg, None
