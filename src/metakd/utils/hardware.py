"""The machine: its processor, cores, memory and GPU, the precision it computes in, and its allocator. With versions,
commit and command, this is the environment that is needed to repeat a result.
"""

import contextlib
import ctypes
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, Literal

Precision = Literal["float32", "bfloat16"]
# Results depend on these:
PACKAGES = (
    "metakd",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "scikit-learn",
    "numpy",
    "onnxruntime",
)

_CONTROL_GROUPS, _MEMBERSHIPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # options of glibc's mallopt
_KEEP_ALL = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0}
_AS_USUAL = {_TRIM_THRESHOLD: 64 * 2**20, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65536}  # what glibc's own grow to


def processor_name() -> str:
    return _processor().get("model name") or platform.processor() or platform.machine()


def processor_vendor() -> str:
    """'GenuineIntel' or 'AuthenticAMD' for instance; empty where the system does not report it."""
    return _processor().get("vendor_id", "")


def usable_cores() -> int:
    """Cores that this process may run on, at most those that its container's quota pays for, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *map(math.ceil, _quotas())])


def _quotas() -> Iterator[float]:
    """Processor quotas, in cores, of this process's control groups and of those above them, where they have any."""
    with contextlib.suppress(OSError, ValueError):  # names of groups may be no text
        for membership in _MEMBERSHIPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = membership.split(":", 2)  # 0::/a/b, or in version 1: 4:cpu,cpuacct:/a/b
            if not controllers or "cpu" in controllers.split(","):
                roots, parts = _CONTROL_GROUPS.glob("cpu*") if controllers else [_CONTROL_GROUPS], path.split("/")[1:]
                for root, depth in product(roots, range(len(parts) + 1)):
                    yield from _quota(root.joinpath(*parts[:depth]))


def _quota(group: Path) -> Iterator[float]:
    """The group's quota by version 2 or 1 of control groups; none where it is 'max', -1, or cannot be read."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError):
            quota, period = map(int, " ".join((group / file).read_text(encoding="utf-8") for file in files).split())
            if quota > 0:
                yield quota / period


def limit_threads() -> None:
    """Keep torch, which knows no quotas, to `usable_cores`, unless the environment sets the number of its threads."""
    import torch

    chosen = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys()
    if not chosen and usable_cores() < torch.get_num_threads():
        torch.set_num_threads(usable_cores())


def memory_bytes() -> int | None:
    """Memory of the whole machine; None where the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def machine() -> dict[str, Any]:
    """What timings and exact results depend on; with torch's threads and GPU if torch is loaded."""
    memory, torch = memory_bytes(), sys.modules.get("torch")
    return {
        "processor": processor_name(),
        "bfloat16": processor_has_bfloat16(),  # natively; one name may stand for processors with and without
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1) if memory else None,
        "threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
    }


def processor_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (x86: AVX512-BF16 or AMX; Arm: BF16)."""
    processor = _processor()
    return "bf16" in processor.get("flags", processor.get("Features", ""))


def device() -> Any:
    """The torch.device that models run on: the first GPU, or the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def timed_on() -> tuple[str | bool | int, ...]:
    """What sets latencies of exports apart: those of another machine, or by other versions, are measured again."""
    versions = (metadata.version(package) for package in ("onnxruntime", "tokenizers"))
    return processor_name(), processor_has_bfloat16(), usable_cores(), *versions


def native_precision() -> Precision:
    """bfloat16 if the device computes in it natively, else float32."""
    import torch

    if device().type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if processor_has_bfloat16() else "float32"


def autocast(precision: Precision) -> AbstractContextManager[Any]:
    """Matrix products in `precision` inside; weights, losses and reductions stay float32."""
    import torch

    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def allocator_tuned() -> Iterator[None]:
    """Inside, glibc keeps freed memory for the next tensors; afterwards it returns it to the system.

    By default it returns freed blocks of megabytes at once, and faulting the pages in again can take as long as the
    computation. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    c_library = ctypes.CDLL(None)
    for option, value in _KEEP_ALL.items():
        c_library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _AS_USUAL.items():
            c_library.mallopt(option, value)
        c_library.malloc_trim(0)


def _processor() -> dict[str, str]:
    """The last core's entries in /proc/cpuinfo; empty where there is no such file."""
    with contextlib.suppress(OSError):
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return {name.strip(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
    return {}


def environment() -> dict[str, Any]:
    """Versions, machine, commit and command, as manifests record them."""
    return {
        "python": platform.python_version(),
        "versions": installed(PACKAGES),
        "system": f"{platform.system()} {platform.machine()}",
        **machine(),
        "commit": _commit(),
        "command": _command(),
    }


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those `packages` that are installed."""
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _command() -> str:
    """The command line, as typed in a shell."""
    script = Path(sys.argv[0])
    program = ["python", "-m", script.parent.name] if script.name == "__main__.py" else [script.name]
    return shlex.join([*program, *sys.argv[1:]])


@cache
def _commit() -> str | None:
    """The commit of the clone that this package runs from, if any, with '-dirty' if files were changed."""
    git = ["git", "-C", str(Path(__file__).parent)]
    is_tracked = ["ls-files", "--error-unmatch", Path(__file__).name]  # a virtual environment in a repository is not
    try:
        for arguments in (is_tracked, ["describe", "--always", "--dirty", "--abbrev=12"]):
            done = subprocess.run([*git, *arguments], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
