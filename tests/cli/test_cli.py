"""The command line as a user types it: what works, and what message every mistake gets."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from conftest import FAST, Command, passed, read_json, refused, toy_examples, write_rows
from metakd import __version__
from metakd.cli.main import app
from metakd.config.groups import GROUPS
from metakd.config.settings import Settings
from metakd.data.schema import folder_name
from metakd.experiments.variants import EXPERIMENTS
from metakd.methods import METHODS
from metakd.pipeline.plan import Disk
from metakd.utils.artifacts import write_json
from metakd.utils.errors import flag
from metakd.utils.signals import Stopped


def test_help_shows_every_step_and_every_setting(metakd: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    steps = (*get_command(app).commands,)
    assert {"run", "demo", "distill", "label", "fit"} < {*steps}
    flags = (*map(flag, Settings.model_fields), "--no-baseline", "--dry-run", "--resume", "--config")
    flags += ("(default: meta_kd)", "(default: embedding, hidden, attention, prediction, feature)", "(default: on)")
    flags += ("<false|permuted|none>", "One of tensorboard, none, clearml")
    expected = {("--help",): steps, ("run", "--help"): flags, ("methods",): METHODS}
    expected["experiment", "--help"] = (*EXPERIMENTS,)
    for command, parts in expected.items():
        out, _ = passed(metakd(*command))
        assert [part for part in parts if part not in out] == []
    out = metakd("run", "--help")[1]
    shown = dict(re.findall(r"--([\w-]+).*<([\w|]+)>", out))
    types = {"alpha": "float", "cache-budget": "float", "seed": "int", "heads": "one|domain", "base": "text"}
    assert {name: shown[name] for name in types} == types
    assert re.findall(r"─ ([A-Z][\w ()-]+) ─", out) == ["Options", *GROUPS]


def test_missing_files_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """In a process of their own, as this one has torch."""
    script = """
import sys
from metakd.cli.main import main
for command in sys.argv[1:]:
    sys.argv = ["metakd", *command.split()]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, command
    assert "torch" not in sys.modules, command
"""
    new = "--data none.csv --output o"
    commands = [*(f"{name} {new}" for name in ("run", "weigh", "teach", "distill", "fit", "experiment main"))]
    commands += ["distill --output o", "evaluate none", "report none", "compare none no", "reproduce none"]
    commands += ["export none --output o", "predict . --input none.csv --output p", f"run {new} --alpha 2"]
    subprocess.run([sys.executable, "-c", script, *commands], cwd=tmp_path, check=True)


def test_version(metakd: Command) -> None:
    assert passed(metakd("--version"))[0] == f"metakd {__version__}\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", [{"text": "a lovely page"}])


def test_predict_adds_label_and_probability_in_order(metakd: Command, finished_run: Path, tmp_path: Path) -> None:
    """Labels and domains of any type are not read, and kept."""
    rows: list[dict[str, Any]] = [
        {"text": "a lovely page", "label": 4.5, "domain": ["x"]},
        {"text": "a lovely page", "label": {"a": 1}},
        *({"id": 7, "text": text} for text in ("dull prose", "bad")),
    ]
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    target.write_text("replaced only if asked for")
    command = ("predict", finished_run / "students" / "books", "--input", source, "--output", target, "--overwrite")
    assert "4 predictions" in passed(metakd(*command))[0]
    predictions = [json.loads(row) for row in target.read_text().splitlines()]
    assert [
        {k: v for k, v in row.items() if k not in ("predicted_label", "probability")} for row in predictions
    ] == rows
    labels = {row["predicted_label"] for row in predictions}
    assert labels <= {"negative", "positive"}
    assert all(0.5 <= row["probability"] <= 1 for row in predictions)


def test_predict_refuses_a_student_that_is_not_what_was_trained(
    metakd: Command, finished_run: Path, source: Path, tmp_path: Path
) -> None:
    """Weights of another student load, and would label every text by another domain's rules, in silence."""
    student = shutil.copytree(finished_run / "students" / "books", tmp_path / "books")
    shutil.copy(finished_run / "students" / "kitchen" / "model.safetensors", student)
    command = ("predict", student, "--input", source, "--output", tmp_path / "out.jsonl")
    assert "differs from its manifest.json: model.safetensors" in refused(metakd(*command))
    (student / "manifest.json").write_text("{")
    assert "manifest.json is damaged" in refused(metakd(*command))
    (student / "manifest.json").unlink()
    passed(metakd(*command))


def test_a_domain_of_other_letters_is_known_by_its_name(
    metakd: Command, finished_run: Path, source: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run / "students" / "books", tmp_path / folder_name("Büro"))
    passed(metakd("predict", tmp_path / "Büro", "--input", source, "--output", tmp_path / "out.jsonl"))


def test_predict_refuses_a_file_of_nothing_but_faults_and_to_write_over_its_input(
    metakd: Command, finished_run: Path, source: Path, tmp_path: Path
) -> None:
    before, predict = source.read_bytes(), ("predict", finished_run / "students" / "books", "--input", source)
    assert "is the input file" in refused(metakd(*predict, "--output", source))
    assert source.read_bytes() == before
    source.write_text("no json\n" * 12_000)
    text = refused(metakd(*predict, "--output", tmp_path / "out.jsonl"))
    assert "not read beyond the first 10,000 faults: 10000 faults" in text


def test_a_run_stays_finished_where_scoring_it_again_was_stopped(
    metakd: Command, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("metakd.pipeline.evaluate.predict_by_models", stopped)
    assert metakd("evaluate", run_copy)[0] == 128 + signal.SIGTERM
    assert (run_copy / "manifest.json").is_file()


def test_a_file_is_not_scored_by_some_of_the_students(
    metakd: Command, run_copy: Path, toy_data: Path, tmp_path: Path
) -> None:
    evaluate = ("evaluate", run_copy, "--data", toy_data / "test.jsonl", "--output", tmp_path / "scores.json")
    (run_copy / "students" / "books" / "reading.json").unlink()
    assert f"not scored, which decides what students answer; run `metakd evaluate {run_copy}`" in refused(
        metakd(*evaluate)
    )
    (run_copy / "students" / "kitchen" / "manifest.json").unlink()
    message = refused(metakd(*evaluate))
    assert (
        f"student is missing for kitchen; to train what is missing, run `metakd run --resume --output {run_copy}`"
        in message
    )
    assert not (tmp_path / "scores.json").exists()


def test_data_that_has_moved_is_noted_by_a_command(metakd: Command, run_copy: Path, tmp_path: Path) -> None:
    write_json(run_copy / "run.json", read_json(run_copy / "run.json") | {"data": "/moved/reviews"})
    for command in (("evaluate", run_copy), ("export", run_copy, "--output", tmp_path / "onnx")):
        message = refused(metakd(*command))
        assert f"/moved/reviews: the data of {run_copy} is no longer there" in message
        assert f"`metakd run --resume --output {run_copy} --data NEW`" in message


def test_flags_of_an_experiment_go_with_the_keys_of_its_file(metakd: Command, toy_data: Path, tmp_path: Path) -> None:
    """And a flag with the very value that an experiment sets itself is taken."""
    (tmp_path / "my.yaml").write_text("stages: two\n")
    flags = ("--config", tmp_path / "my.yaml", "--match-epochs", 2, "--teacher-tries", 1, "--only", "odd")
    message = refused(metakd("experiment", "ablation", "--data", toy_data, "--output", tmp_path / "o", *flags))
    assert "odd" in message
    assert "match-epochs" not in message
    assert "sets this itself" not in message


def test_keys_of_the_file_that_a_teacher_decides_are_named(
    metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "my.yaml").write_text("teacher_epochs: 2\nmax_length: 16\n")
    flags = ("--config", tmp_path / "my.yaml", "--teacher", finished_run / "meta_teacher", "--student", "layers=1")
    passed(metakd("run", "--data", toy_data, "--output", tmp_path / "run", *flags, "--dry-run"))
    assert "--config: teacher_epochs not used, because --teacher or --lora-rank decides that" in caplog.messages


@pytest.mark.slow
def test_evaluate_a_file_and_the_run_itself(
    metakd: Command, finished_run: Path, run_copy: Path, toy_data: Path, tmp_path: Path
) -> None:
    scores = tmp_path / "scores.json"
    out, _ = passed(metakd("evaluate", finished_run, "--data", toy_data / "test.jsonl", "--output", scores))
    assert "student" in out
    (run_copy / "results.json").unlink()
    passed(metakd("evaluate", run_copy))
    before, after, of_file = (
        {name: values["accuracy"] for name, values in read_json(path)["average"].items()}
        for path in (finished_run / "results.json", run_copy / "results.json", scores)
    )
    assert after == before
    assert of_file["student"] == before["student"]


@pytest.mark.slow
def test_steps_one_by_one_give_what_run_gives(
    metakd: Command, finished_run: Path, base: Path, toy_data: Path, tmp_path: Path
) -> None:
    """weigh with all settings, the others with none but the folder; the student is the same to the last bit."""
    folder = tmp_path / "steps"
    passed(metakd("weigh", "--data", toy_data, "--base", base, "--output", folder, *FAST))
    passed(metakd("teach", "--output", folder))
    passed(metakd("distill", "--output", folder, "--domain", "books"))
    whole, alone = (p / "students" / "books" / "model.safetensors" for p in (finished_run, folder))
    assert whole.read_bytes() == alone.read_bytes()


@pytest.mark.slow
def test_a_run_goes_on_only_with_resume(
    metakd: Command, finished_run: Path, run_copy: Path, toy_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "--resume" in refused(metakd("run", "--data", toy_data, "--output", finished_run))
    assert "students" in passed(metakd("run", "--resume", "--output", finished_run))[0]
    passed(metakd("run", "--resume", "--output", run_copy, "--track", "none"))
    assert "continues with changed settings: track = none, was" in caplog.text
    for name, value in (("seed", "5"), ("gamma2", "9"), ("method", "fine_tuned")):
        text = refused(metakd("run", "--resume", "--output", finished_run, f"--{name}", value))
        assert "made with other settings" in text
        assert f"Changed settings: {name} = {value}" in text
        assert str(read_json(finished_run / "run.json")["settings"][name]) != value


def test_a_run_is_not_removed_where_the_disk_has_no_room_for_the_next(
    metakd: Command, run_copy: Path, base: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --overwrite removes makes room; other files in the folder do not."""
    (run_copy / "notes.bin").write_bytes(bytes(10**8))
    before = {path for path in run_copy.rglob("*") if path.suffix != ".lock"}
    monkeypatch.setattr("metakd.pipeline.plan.free_disk", lambda _: 0)
    monkeypatch.setattr("metakd.pipeline.plan.needed_disk", lambda *_: Disk(5e7, 0))
    command = ("run", "--data", toy_data, "--base", base, "--output", run_copy, *FAST, "--overwrite")
    message = refused(metakd(*command))
    assert f"{run_copy}: needs about" in message
    assert {path for path in run_copy.rglob("*") if path.suffix != ".lock"} == before


def test_dry_run_prints_plan_sizes_and_time_and_writes_nothing(
    metakd: Command, base: Path, finished_run: Path, toy_data: Path, tmp_path: Path
) -> None:
    """A folder with no more than a stopped command's lock is free; --overwrite counts no finished step."""
    plan = ("run", "--dry-run", "--data", toy_data, "--base", base, *FAST, "--output")
    out, _ = passed(metakd(*plan, tmp_path / "none"))
    for word in ("books", "weigh", "teach", "distill (meta_kd)", "minutes", "parameters", "disk"):
        assert word in out
    assert not (tmp_path / "none").exists()
    for name in ("run.lock", ".run.json.partial"):
        (tmp_path / name).touch()
    passed(metakd(*plan, tmp_path))
    passed(metakd(*plan, finished_run, "--overwrite", "--seed", "5"))


def test_settings_from_a_file_give_way_to_flags(metakd: Command, base: Path, toy_data: Path, tmp_path: Path) -> None:
    config, folder = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text(f"base: {base}\nmax_length: 16\nalpha: 0.9\nseed: 4\n")
    passed(metakd("weigh", "--data", toy_data, "--output", folder, "--config", config, "--seed", "5"))
    settings = read_json(folder / "run.json")["settings"]
    assert (settings["alpha"], settings["seed"], settings["gamma1"]) == (0.9, 5, 0.5)


@pytest.mark.slow
def test_a_spreadsheets_export_becomes_students_in_one_command(metakd: Command, base: Path, tmp_path: Path) -> None:
    """Semicolons, other column names, German and French words, a Windows encoding."""
    words = {"positive": "gut", "negative": "schlecht", "books": "Bücher", "kitchen": "Küche"}
    rows = ["Bewertung;Urteil;Sparte"]
    for i, e in enumerate(toy_examples(120, 0, "t")):
        rows.append(f'"{e.text}; für {i} Köche, déjà vu";{words[e.label]};{words[e.domain]}')
    (tmp_path / "export.csv").write_bytes("\r\n".join(rows).encode("cp1252"))
    reading = ("--columns", "text=Bewertung,label=Urteil,domain=Sparte", "--encoding", "cp1252")
    models = ("--base", base, "--student", "layers=2", "--max-length", "16", "--output", tmp_path / "o")
    quick = ("--teacher-epochs", "1", "--allow-weak-teacher", "--no-baseline")
    assert "Bücher" in passed(metakd("run", "--data", tmp_path / "export.csv", *reading, *models, *quick))[0]
    assert {p.name for p in (tmp_path / "o" / "students").iterdir()} == {"B%C3%BCcher", "K%C3%BCche"}
