"""Linear layers with the faster kernel: oneDNN's for float32 on AMD's CPUs with AVX-512, else PyTorch's."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from metakd.utils.hardware import processor_vendor

SMALL = 2**24  # multiplications below which oneDNN takes longer than MKL, as a call costs more (docs/performance.md)


@cache
def onednn_is_quicker() -> bool:
    """Whether oneDNN takes less time than MKL for float32 products: on AMD's CPUs with AVX-512 (docs/performance.md).

    MKL uses AVX-512 on Intel's CPUs alone. Without it, oneDNN is the slower one in training.
    """
    built = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return built and processor_vendor() == "AuthenticAMD" and torch.backends.cpu.get_cpu_capability() == "AVX512"


def use_quick_linear(model: nn.Module) -> None:
    """Make all linear layers of `model` use the faster kernel, if this CPU has one; weights and names stay."""
    if onednn_is_quicker():
        _change_class(model, nn.Linear, QuickLinear)


def use_torch_linear(model: nn.Module) -> None:
    """Undo `use_quick_linear`: for exported graphs, which do not support oneDNN, and for exact comparisons."""
    _change_class(model, QuickLinear, nn.Linear)


def _change_class(model: nn.Module, before: type[nn.Module], after: type[nn.Module]) -> None:
    for module in model.modules():
        if type(module) is before:
            module.__class__ = after


class QuickLinear(nn.Linear):
    """nn.Linear that uses oneDNN for float32 on a CPU, unless the product is SMALL, and else nn.Linear's kernel."""

    def forward(self, x: Tensor) -> Tensor:
        other = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if other or x.numel() * self.out_features < SMALL:
            return super().forward(x)
        return _Affine.apply(x, self.weight, self.bias)


class _Affine(torch.autograd.Function):
    """x · weightᵀ + bias by oneDNN, with gradients of any order, which are such products too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (..., I), of any strides
        weight: Tensor,  # (O, I)
        bias: Tensor | None,  # (O,)
    ) -> Tensor:  # (..., O)
        ctx.save_for_backward(x, weight)
        output = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        # oneDNN's result is a view, which Longformer and DeBERTa v1, for instance, could not change in place
        return torch.ops.aten._unsafe_view(output, output.shape)

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
