"""Linear layers by the quicker kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from metakd.utils.hardware import processor_vendor


@cache
def onednn_is_quicker() -> bool:
    """Whether float32 products take oneDNN half the time of MKL: on AMD's processors (docs/performance.md)."""
    built = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return built and processor_vendor() == "AuthenticAMD"


def product(
    x: Tensor,  # (..., I)
    weight: Tensor,  # (O, I)
    bias: Tensor | None = None,  # (O,)
) -> Tensor:  # (..., O)
    """x · weightᵀ + bias by oneDNN, whatever the strides."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Affine(torch.autograd.Function):
    """`product` with gradients of any order, which are products too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            _Affine.apply(gradient, weight.t(), None) if for_x else None,
            _Affine.apply(rows.t(), x.flatten(0, -2).t(), None) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


class _Linear(nn.Linear):
    """nn.Linear, of which float32 on a processor goes to oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return _Affine.apply(x, self.weight, self.bias)


@contextlib.contextmanager
def quick_linear(model: object) -> Iterator[None]:
    """Inside, the linear layers of `model` take the quicker kernel; afterwards they are what they were."""
    layers = []
    if onednn_is_quicker() and isinstance(model, nn.Module):  # and not a function that calls one
        layers = [module for module in model.modules() if type(module) is nn.Linear]
    for layer in layers:
        layer.__class__ = _Linear
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear
