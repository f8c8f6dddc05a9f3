"""What a device can do is read off the machine, not assumed."""

import os
import platform
from pathlib import Path

import pytest
import torch

from metakd.models.loading import load_encoder
from metakd.utils import hardware


@pytest.mark.parametrize(
    ("text", "name", "has"),
    [
        ("model name\t: Some CPU\nflags\t: fpu avx512f avx512_bf16\n", "Some CPU", True),
        ("model name\t: Some CPU\nflags\t: fpu amx_bf16 amx_tile\n", "Some CPU", True),
        ("model name\t: Some CPU\nflags\t: fpu avx512f\n", "Some CPU", False),
        ("Features\t: asimd bf16\nmodel name\t: An Arm\n", "An Arm", True),
    ],
)
def test_the_processor_is_read_off_its_flags(monkeypatch: pytest.MonkeyPatch, text: str, name: str, has: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert hardware.processor_name() == name
    assert hardware.processor_has_bfloat16() is has
    assert (hardware.machine()["processor"], hardware.machine()["bfloat16"]) == hardware.timed_on()[:2] == (name, has)
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))
    assert hardware.native_precision() == ("bfloat16" if has else "float32")


def test_a_system_without_that_file_has_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "Path", lambda _: tmp_path / "cpuinfo")
    assert hardware.processor_name()
    assert not hardware.processor_has_bfloat16()


def test_autocast_multiplies_in_the_precision_named() -> None:
    x = torch.ones(2, 2)
    for precision in ("float32", "bfloat16"):
        with hardware.autocast(precision):
            assert (x @ x).dtype == getattr(torch, precision)


V2, V1 = "0::/pod/box\n", "5:memory:/other\n4:cpu,cpuacct:/pod/box\n"


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        (V2, {"pod/box/cpu.max": "150000 100000"}, 2),  # a core and a half
        (V2, {"pod/box/cpu.max": "max 100000"}, 64),
        (V2, {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "300000 100000"}, 3),  # of the group above it
        ("0::/\n", {"cpu.max": "20000 100000"}, 1),  # a container that sees its group as the root
        (V2, {"cpu.max": "20000 100000"}, 1),  # one that sees the host's name of its group
        (V2, {"pod/cpu.max": "100 cores"}, 64),
        (V2, {"pod/box/cpu.max/no-file": ""}, 64),
        (V2, {"other/cpu.max": "100000 100000"}, 64),
        (V2, {"pod/box/cpu.max": "9900000 100000"}, 64),  # more than there are
        (V1, {f"cpu,cpuacct/pod/box/cpu.cfs_{name}_us": n for name, n in (("quota", "-1"), ("period", "100000"))}, 64),
        (V1, {f"cpu,cpuacct/pod/box/cpu.cfs_{name}_us": n for name, n in (("quota", "50000"), ("period", "20000"))}, 3),
        (V1, {f"cpu/cpu.cfs_{name}_us": n for name, n in (("quota", "200000"), ("period", "100000"))}, 2),
        (V1, {f"cpu/other/cpu.cfs_{name}_us": n for name, n in (("quota", "100000"), ("period", "100000"))}, 64),
        ("no group\n", {"cpu.max": "100000 100000"}, 64),
    ],
)
def test_cores_are_those_that_the_quota_pays_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, membership: str, files: dict[str, str], cores: int
) -> None:
    """Of 64 cores; microseconds of quota / microseconds of period, rounded up."""
    for name, text in {"membership": membership, **{f"groups/{name}": text for name, text in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(hardware, "_MEMBERSHIPS", tmp_path / "membership")
    monkeypatch.setattr(hardware, "_CONTROL_GROUPS", tmp_path / "groups")
    assert hardware.usable_cores() == cores
    (tmp_path / "membership").unlink()
    assert hardware.usable_cores() == 64


@pytest.mark.parametrize(
    ("usable", "environment", "after"),
    [(2, {}, 2), (4, {}, 4), (64, {}, 4), (2, {"OMP_NUM_THREADS": "4"}, 4), (2, {"MKL_NUM_THREADS": "4"}, 4)],
)
def test_torch_uses_no_more_threads_than_cores_unless_they_are_set(
    monkeypatch: pytest.MonkeyPatch, base: Path, usable: int, environment: dict[str, str], after: int
) -> None:
    """Loading a model lowers torch's 4 threads and never raises them."""
    threads = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(hardware, "usable_cores", lambda: usable)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    load_encoder(base, ["a", "b"])
    assert threads == ([4, after] if after < 4 else [4])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be tuned")
def test_memory_is_kept_inside_and_returned_afterwards() -> None:
    """Of 64 freed megabytes at least 32 are still resident inside (a second tensor takes them), and none afterwards."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

    before = resident()
    with hardware.allocator_tuned():
        torch.ones(2**24)
        inside = resident()
    assert inside >= before + 32
    assert resident() <= before + 32


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda *_: pytest.fail("it is left alone"))
    with hardware.allocator_tuned():
        pass
