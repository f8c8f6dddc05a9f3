"""A run that goes on in its folder: finished steps stay, and other settings or files are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import Command, as_row, open_run, passed, read_json, refused, reopen, toy_examples
from metakd import InputError
from metakd.pipeline.rechecks import check_again
from metakd.pipeline.run_all import clear
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.runs.folders import finished_steps
from metakd.utils.artifacts import RUN_FORMAT, STEP_VERSIONS, is_done, remedy, write_json


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


def test_exports_and_other_runs_in_the_folder_are_no_steps_of_the_run(run_copy: Path) -> None:
    """Nor is a baseline that was turned off since."""
    settings = read_json(run_copy / "run.json")["settings"]
    steps = finished_steps(run_copy, settings)
    assert {"instance_weights", "meta_teacher", "shared_student", "students/books", "fine_tuned_shared/kitchen"} < {
        *steps
    }
    for name in ("onnx/books", "again/meta_teacher", "again", "students/.books.partial"):
        (run_copy / name).mkdir(parents=True, exist_ok=True)
        write_json(run_copy / name / "manifest.json", {"step": "model"})
    assert finished_steps(run_copy, settings) == steps
    without = finished_steps(run_copy, settings | {"baseline": False})
    assert {*steps} - {*without} == {name for name in steps if name.startswith("fine_tuned_shared")}


def test_another_method_in_the_folder_leaves_nothing_behind(run_copy: Path) -> None:
    """With --overwrite: the shared start of what was the baseline has another name than the method's."""
    assert (run_copy / "fine_tuned_shared_shared_student").is_dir()
    (run_copy / ".meta_teacher.partial").mkdir()
    clear(reopen(run_copy, method="fine_tuned_shared"))
    assert not [path for path in run_copy.iterdir() if path.suffix != ".lock"]


def test_what_to_do_next_can_be_typed(tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    command = f"run `metakd teach '--data=a b' --output '{folder}'`"
    assert remedy(folder, "teach", "a b") == f"{command} (with the other flags of your command)"
    folder.mkdir()
    write_json(folder / "run.json", {"format": RUN_FORMAT, "settings": {}, "data": "a b"})
    assert remedy(folder, "teach") == f"run `metakd teach --output '{folder}'`"
    assert remedy(folder) == f"run `metakd run --resume --output '{folder}'`"
    assert remedy(folder, "evaluate") == f"run `metakd evaluate '{folder}'`"
    write_json(folder / "run.json", {"format": RUN_FORMAT, "settings": {}, "data": None})
    assert remedy(folder, "evaluate") == "continue from Python, with the same tables"


def test_another_base_in_the_same_folder_is_refused(base: Path, toy_data: Path, tmp_path: Path) -> None:
    """Every weight is replaced, the file's size stays: steps made with the old base cannot go on with the new one."""
    base = Path(shutil.copytree(base, tmp_path / "base"))
    weigh(open_run(tmp_path / "run", toy_data, base))
    weights = base / "model.safetensors"
    save_file({k: torch.rand_like(v) for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match="made with other settings, data, base or precision"):
        open_run(tmp_path / "run", toy_data, base)


@pytest.mark.parametrize("before", ["version 0", "no versions"])
def test_steps_of_other_code_are_refused_and_not_repeated(run_copy: Path, metakd: Command, before: str) -> None:
    """Also those of runs from before there were versions; `reproduce` could but find differences."""
    path = run_copy / "meta_teacher" / "manifest.json"
    manifest = read_json(path) | {"fingerprint": "of other code"}
    assert manifest["versions"] == {"weigh": STEP_VERSIONS["weigh"], "teach": STEP_VERSIONS["teach"]}
    versions = {"versions": manifest["versions"] | {"teach": 0}} if before == "version 0" else {"versions": None}
    write_json(path, manifest | versions)
    steps = "teach" if before == "version 0" else "weigh, teach"
    for words in (("run", "--resume", "--output", run_copy), ("reproduce", run_copy)):
        message = refused(metakd(*words))
        assert f"metakd's code of {steps} has changed since {run_copy}" in message
        assert "the version of metakd that its manifest.json names" in message
    assert read_json(path)["fingerprint"] == "of other code"


@pytest.mark.slow
def test_a_row_more_of_dev_and_test_leaves_models_and_changes_scores(
    finished_run: Path, run_copy: Path, toy_data: Path, metakd: Command, caplog: pytest.LogCaptureFixture
) -> None:
    """Until `evaluate` has scored the new rows, no report passes the scores of the old ones off as theirs."""
    data = Path(shutil.copytree(toy_data, run_copy.parent / "data"))
    models = {path: path.read_bytes() for path in run_copy.rglob("*.safetensors")}
    for split, (example,) in (("dev", toy_examples(1, 8, "new")), ("test", toy_examples(1, 9, "new"))):
        with (data / f"{split}.jsonl").open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(as_row(example))}\n")
    passed(metakd("report", run_copy))
    passed(metakd("distill", "--data", data, "--output", run_copy))
    assert "continues with changed data; finished models stay" in caplog.text
    assert "dev has changed, so finished models are checked on it again" in caplog.text
    for words in (("report", run_copy), ("compare", finished_run, run_copy)):
        assert "was scored before its data changed; run `metakd evaluate" in refused(metakd(*words))
    passed(metakd("evaluate", run_copy))
    assert read_json(run_copy / "results.json")["domains"]["books"]["student"]["examples"] == 13
    for step, rows in (("meta_teacher", 17), ("students/books", 9), ("fine_tuned_shared/kitchen", 8)):
        assert read_json(run_copy / step / "manifest.json")["check"]["examples"] == rows
    passed(metakd("report", run_copy))
    assert {path: path.read_bytes() for path in models} == models


def test_a_check_made_again_is_that_of_the_training(run_copy: Path) -> None:
    """Bit for bit, so that `reproduce` finds no difference in a run whose dev has changed."""
    paths = [*run_copy.glob("*/manifest.json"), *run_copy.glob("*/*/manifest.json")]
    checked = {path: manifest for path in paths if "check" in (manifest := read_json(path))}
    assert len(checked) == 1 + 2 * 3
    for path, manifest in checked.items():
        probe = {"domain_probe": {}} if "domain_probe" in manifest else {}
        write_json(path, manifest | probe | {"check": {"dev_fingerprint": "of other rows"}})
    check_again(reopen(run_copy))
    assert {path: read_json(path) for path in checked} == checked
