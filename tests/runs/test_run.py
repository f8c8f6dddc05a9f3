"""A run that goes on in its folder: finished steps stay, and other settings or files are refused."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import open_run, reopen
from metakd import InputError
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.utils.artifacts import is_done


def test_the_precision_stays(base: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """run.json has what `auto` meant on the first machine, and another machine keeps to it."""
    monkeypatch.setattr("metakd.runs.run.native_precision", lambda: "bfloat16")
    run = open_run(tmp_path / "run", toy_data, base, precision="auto")
    monkeypatch.setattr("metakd.runs.run.native_precision", lambda: "float32")
    assert reopen(run.folder).fingerprints.teach == run.fingerprints.teach
    assert open_run(tmp_path / "other", toy_data, base, precision="auto").precision == "float32"


def test_finished_steps_stay_and_other_settings_are_refused(run_copy: Path) -> None:
    manifest = run_copy / "meta_teacher" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    teach(reopen(run_copy).begin())
    assert manifest.stat().st_mtime_ns == before
    other = reopen(run_copy, gamma1=0.1)
    assert is_done(run_copy / "instance_weights", other.fingerprints.weigh)
    with pytest.raises(InputError, match="made with other settings"):
        teach(other)


def test_another_base_in_the_same_folder_is_refused(base: Path, toy_data: Path, tmp_path: Path) -> None:
    """Every weight is replaced, the file's size stays: steps made with the old base cannot go on with the new one."""
    base = Path(shutil.copytree(base, tmp_path / "base"))
    weigh(open_run(tmp_path / "run", toy_data, base))
    weights = base / "model.safetensors"
    save_file({k: torch.rand_like(v) for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match="made with other settings, data, base or precision"):
        open_run(tmp_path / "run", toy_data, base)
