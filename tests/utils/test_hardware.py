"""What a device can do is read off the machine, not assumed."""

import platform
from pathlib import Path

import pytest
import torch

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
