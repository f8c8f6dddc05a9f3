"""What survives a machine that stops: content reaches the disk before its name does, and the manifest comes last."""

import os
from pathlib import Path

import pytest

from metakd.utils.artifacts import step_folder, write_text


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and named, in turn."""
    events, replace = list[str](), Path.replace

    def fsync(handle: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")

    def rename(path: Path, target: Path) -> Path:
        events.append(f"name {target.name}")
        return replace(path, target)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    return events


def test_a_file_is_on_the_disk_before_it_has_its_name(order: list[str], tmp_path: Path) -> None:
    write_text(tmp_path / "results.md", "whole")
    assert order == ["sync .results.md.partial", "name results.md", f"sync {tmp_path.name}"]


def test_a_step_is_on_the_disk_before_its_manifest_and_that_before_its_name(order: list[str], tmp_path: Path) -> None:
    with step_folder(tmp_path / "step", "weigh", "fingerprint", {}) as partial:
        (partial / "weights.jsonl").write_text("{}")
    content, manifest, folder = order[:2], order[2:5], order[5:]
    assert {*content} == {"sync weights.jsonl", "sync .step.partial"}
    assert manifest == ["sync .manifest.json.partial", "name manifest.json", "sync .step.partial"]
    assert folder == ["sync .step.partial", "name step", f"sync {tmp_path.name}"]
