"""Several processes that train one model together, started by torchrun or accelerate launch; otherwise one process.

All take the same steps. Work for one process (writing, scoring, printing) is done by the main one while others wait.
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
LONGEST_WAIT = timedelta(days=30)  # for work that only the main process does; gloo notices at once if it dies
_main_is_alone = False  # whether the main process is doing work in which the others take no part


def world_size() -> int:
    """How many processes work together."""
    return int(os.environ["WORLD_SIZE"]) if set(SET_BY_LAUNCHERS) <= set(os.environ) else 1


def rank() -> int:
    """This process's number; 0 is the main process."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def is_main() -> bool:
    return rank() == 0


def on_main(action: Callable[[], T]) -> T:
    """The result of `action` in the main process; the others wait for it and get a copy.

    If it fails, they exit too, without a message.
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
    """The result of `action` in each process, in the main one first, so that a common error is printed once."""
    results: list[T] = []
    on_main(lambda: results.append(action()))
    if not is_main():
        results.append(action())
    barrier()
    return results[0]


def wait_for_main() -> None:
    """Wait until the main process has reached this point."""
    on_main(lambda: None)


def barrier() -> None:
    """Wait until every process has reached this point."""
    if world_size() > 1:
        import torch

        join()
        with lost_processes_detected():  # a CPU tensor uses gloo, which notices at once that a process has ended
            torch.distributed.all_reduce(torch.zeros(()))


@contextlib.contextmanager
def lost_processes_detected() -> Iterator[None]:
    """For communication between processes: if one of them is gone, LostProcessError says what to do."""
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        if world_size() > 1 and (isinstance(error, DistError) or "gloo" in str(error)):
            raise LostProcessError(
                f"another of the {world_size()} processes has ended, so process {rank()} ends too. Finished work is "
                "kept: repeat the command, `metakd run` with --resume. The number of processes may change"
            ) from None
        raise


@cache
def join() -> PartialState:
    """Connect to the other processes, and silence all except the main one."""
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
    """Leave the process group while the interpreter is intact: a gloo thread that frees a tensor later aborts it."""
    join.cache_clear()
    state.destroy_process_group()


def _from_main() -> Any:
    """What the main process sends next."""
    if results := _broadcast([]):
        return results[0]
    with contextlib.suppress(LostProcessError):  # else a launcher could end the main one before its message
        _broadcast([])
    sys.exit(1)


def _broadcast(results: list[Any]) -> list[Any]:
    """The main process's list, in every process."""
    from accelerate.utils import broadcast_object_list

    with lost_processes_detected():
        (sent,) = broadcast_object_list([results])
    return list(sent)
