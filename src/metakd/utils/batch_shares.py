"""Shares of a batch and sums over processes, so that several processes learn from it as one process would."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from metakd.utils.distributed import rank, world_size

T = TypeVar("T")


def local_share(batch: list[T]) -> list[T]:
    """This process's share of a batch; all of it if there are fewer rows than processes, as the mean is the same."""
    return batch[rank() :: world_size()] if len(batch) >= world_size() else batch


def mean_share(num_rows: int) -> float:
    """The factor for this process's mean that makes the average over processes the mean over the whole batch."""
    return 1.0 if world_size() == 1 else num_rows * world_size() / int(sum_over_processes(torch.tensor(num_rows)))


def least_of_all(number: int) -> int:
    """The smallest of the processes' numbers."""
    if world_size() == 1:
        return number
    least = torch.tensor(number)
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    return int(least)


def true_of_any(*facts: bool) -> list[bool]:
    """Whether each fact is true in any process, so that all processes act at the same update."""
    return [count > 0 for count in sum_over_processes(torch.tensor(facts).int()).tolist()]


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes, which passes the gradients of all to each.

    accelerate's `reduce` passes no gradients, and PyTorch has deprecated its own all_reduce that does.
    """
    return values if world_size() == 1 else _Sum.apply(values)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Any) -> Tensor:
        return _Sum.apply(gradients[0])
