"""Several processes that train one model together, as torchrun and accelerate launch start them; else there is one.

All take the same steps. What only one may do (write, score, print), the main process does while the others wait.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from metakd.utils.console import console, stdout
from metakd.utils.errors import LostProcessError

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")
SET_BY_LAUNCHERS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LONGEST_WAIT = timedelta(days=30)  # for what the main process does alone; gloo notices at once if it dies
_main_is_alone = False  # whether the main process is at something in which the others take no part


def world_size() -> int:
    """How many processes work together."""
    return int(os.environ["WORLD_SIZE"]) if set(SET_BY_LAUNCHERS) <= set(os.environ) else 1


def rank() -> int:
    """Which of them this is; 0 is the main one."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def is_main() -> bool:
    return rank() == 0


def on_main(action: Callable[[], T]) -> T:
    """The result of `action` at the main process; the others wait for it and get a copy.

    Where it fails they end as well, without a message of their own.
    """
    global _main_is_alone
    if world_size() == 1 or _main_is_alone:
        return action()
    join()
    if not is_main():
        return _from_main()
    _main_is_alone, results = True, list[T]()
    try:
        results = [action()]
    finally:
        _main_is_alone = False
        with contextlib.nullcontext() if results else contextlib.suppress(LostProcessError):
            _broadcast(results)
    return results[0]


def on_main_first(action: Callable[[], T]) -> T:
    """The result of `action` at each process, at the main one first: what is wrong for all is printed once."""
    results: list[T] = []
    on_main(lambda: results.append(action()))
    if not is_main():
        results.append(action())
    barrier()
    return results[0]


def wait_for_main() -> None:
    """Until the main process has come as far."""
    on_main(lambda: None)


def barrier() -> None:
    """Until every process has come as far."""
    if world_size() > 1:
        import torch

        join()
        with lost_processes_detected():  # by a CPU tensor, so by gloo, which notices at once that a process has ended
            torch.distributed.all_reduce(torch.zeros(()))


@contextlib.contextmanager
def lost_processes_detected() -> Iterator[None]:
    """Inside, the processes talk to each other; where one of them is gone, LostProcessError says what to do."""
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        if world_size() > 1 and (isinstance(error, DistError) or "gloo" in str(error)):
            raise LostProcessError(
                f"another of the {world_size()} processes has ended, so process {rank()} ends too. What is whole is "
                "kept: `metakd run --resume` goes on, and other commands do when they are repeated, with any number of "
                "processes"
            ) from None
        raise


@cache
def join() -> PartialState:
    """Meet the other processes, and silence all but the main one."""
    from accelerate import PartialState
    from torch import cuda

    if not is_main():
        console.quiet = stdout.quiet = True
        logging.getLogger("metakd").setLevel(logging.CRITICAL)
    on_gpus = cuda.is_available()
    state = PartialState(cpu=not on_gpus, backend="cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=LONGEST_WAIT)
    atexit.register(_leave, state)
    return state


def _leave(state: PartialState) -> None:
    """Leave the others while the interpreter is whole: a gloo thread that frees a tensor later on aborts it."""
    join.cache_clear()
    state.destroy_process_group()


def _from_main() -> Any:
    """What the main process sends next."""
    if results := _broadcast([]):
        return results[0]
    with contextlib.suppress(LostProcessError):  # once this one ends, a launcher does not let the main one speak
        _broadcast([])
    sys.exit(1)


def _broadcast(results: list[Any]) -> list[Any]:
    """The main process's list, to all."""
    from accelerate.utils import broadcast_object_list

    with lost_processes_detected():
        (sent,) = broadcast_object_list([results])
    return list(sent)
