"""How several processes learn from one batch as one process would: its parts, and sums over them."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from metakd.utils.distributed import rank, world_size

T = TypeVar("T")


def local_share(batch: list[T]) -> list[T]:
    """This process's part of a batch. With fewer rows than processes each takes the whole: the mean is the same."""
    return batch[rank() :: world_size()] if len(batch) >= world_size() else batch


def mean_share(num_rows: int) -> float:
    """The factor of the mean over this process's rows, for the mean over processes to be that over the whole batch."""
    return 1.0 if world_size() == 1 else num_rows * world_size() / int(sum_over_processes(torch.tensor(num_rows)))


def true_of_any(*facts: bool) -> list[bool]:
    """Whether each fact is true of any process: what all of them are to do at the same update."""
    return [count > 0 for count in sum_over_processes(torch.tensor(facts).int()).tolist()]


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes, through which each gets the gradients of all.

    accelerate's `reduce` passes no gradients on, and PyTorch has deprecated its own all_reduce that does.
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
