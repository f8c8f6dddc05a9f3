"""Several processes that train one model together, as torchrun and accelerate launch start them; else there is one.

All take the same steps. What only one may do (write, score, speak), the main one does while the others wait.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from metakd.utils.console import console, stdout
from metakd.utils.errors import LostProcessError

T = TypeVar("T")
DECLARED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what launchers set in the environment
LONGEST_WAIT = timedelta(days=30)  # for what the main process does alone; one that dies is noticed at once
_alone = False  # whether the main process is at something in which the others take no part


def world_size() -> int:
    """How many processes work together."""
    return int(os.environ["WORLD_SIZE"]) if set(DECLARED) <= set(os.environ) else 1


def rank() -> int:
    """Which of them this is; 0 is the main one."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def is_main() -> bool:
    return rank() == 0


def on_main(action: Callable[[], T]) -> T:
    """What `action` gives at the main process; the others wait for it, and get the same as JSON has it.

    Where it fails they end as well, without a word.
    """
    global _alone
    if world_size() == 1 or _alone:
        return action()
    if not is_main():
        return _heard()
    _meeting()
    _alone, said = True, None
    try:
        value = action()
        said = [value]
    finally:
        _alone = False
        with contextlib.nullcontext() if said else contextlib.suppress(LostProcessError):
            _broadcast(json.dumps(said).encode())
    return value


def on_main_first(action: Callable[[], T]) -> T:
    """What `action` gives at each process, at the main one first: what is wrong for all is said once."""
    found: list[T] = []
    on_main(lambda: found.extend([action()]))
    if not is_main():
        found.append(action())
    barrier()
    return found[0]


def wait_for_main() -> None:
    """Until the main process has come as far."""
    on_main(lambda: None)


def barrier() -> None:
    """Until every process has come as far."""
    if world_size() > 1:
        from torch import distributed

        with lost_processes_detected():
            distributed.barrier(group=_meeting())


@contextlib.contextmanager
def lost_processes_detected() -> Iterator[None]:
    """Inside, the processes hear of each other; where one of them is gone, LostProcessError says what to do."""
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
def _meeting() -> Any:
    """Meet the others, and silence all but the main process; the group in which they wait for it."""
    from torch import cuda, distributed

    if not is_main():
        console.quiet = stdout.quiet = True
        logging.getLogger("metakd").setLevel(logging.CRITICAL)
    if cuda.is_available():
        cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo")
    atexit.register(_part)
    return distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)


def _part() -> None:
    """Leave the others while the interpreter is whole: a thread of theirs that lets go of a tensor later on aborts."""
    from torch import distributed

    _meeting.cache_clear()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _heard() -> Any:
    """What the main process says next."""
    said = json.loads(_broadcast(b""))
    if said is None:
        with contextlib.suppress(LostProcessError):  # once this one ends, a launcher does not let the main one speak
            _broadcast(b"")
        sys.exit(1)
    return said[0]


def _broadcast(said: bytes) -> bytes:
    """What the main process says, to all."""
    import torch

    with lost_processes_detected():
        size = torch.tensor(len(said))
        torch.distributed.broadcast(size, 0, group=_meeting())
        letters = torch.frombuffer(bytearray(said), dtype=torch.uint8) if said else torch.empty(int(size)).byte()
        torch.distributed.broadcast(letters, 0, group=_meeting())
    return letters.numpy().tobytes()
