"""How several processes learn from one batch as one process would: its parts, and sums over them."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from metakd.utils import distributed

T = TypeVar("T")


def local_share(batch: list[T]) -> list[T]:
    """This process's part of a batch. Where it does not go round each takes the whole, whose mean is the same."""
    several = distributed.world_size()
    return batch[distributed.rank() :: several] if len(batch) >= several else batch


def mean_share(rows: int) -> float:
    """What the mean over this process's `rows` counts, for the mean over processes to be that over the whole batch."""
    if distributed.world_size() == 1:
        return 1.0
    return rows * distributed.world_size() / int(sum_over_processes(torch.tensor(rows)))


def true_of_any(*facts: bool) -> list[bool]:
    """Whether each is true of any process: what all of them are to do at the same update."""
    return [count > 0 for count in sum_over_processes(torch.tensor(facts).int()).tolist()]


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes, through which each gets the gradients of all."""
    return values if distributed.world_size() == 1 else _Sum.apply(values)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Any) -> Tensor:
        return _Sum.apply(gradients[0])
