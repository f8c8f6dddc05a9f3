"""How several processes learn from one batch as one process would: its parts, and sums over them."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from metakd.utils import distributed

T = TypeVar("T")


def share(batch: list[T]) -> list[T]:
    """This process's part of a batch. Where it does not go round each takes the whole, whose mean is the same."""
    several = distributed.count()
    return batch[distributed.place() :: several] if len(batch) >= several else batch


def mean_share(rows: int) -> float:
    """What the mean over this process's `rows` counts, for the mean over processes to be that over the whole batch."""
    if distributed.count() == 1:
        return 1.0
    return rows * distributed.count() / int(summed(torch.tensor(rows)))


def agreed(*facts: bool) -> list[bool]:
    """Whether each is true of any process: what all of them are to do at the same update."""
    return [count > 0 for count in summed(torch.tensor(facts).int()).tolist()]


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, through which each gets the gradients of all."""
    return values if distributed.count() == 1 else _Sum.apply(values)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Any) -> Tensor:
        return _Sum.apply(gradients[0])
