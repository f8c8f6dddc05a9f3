"""The command line as a user types it: what works, and what message every mistake gets."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import FAST, toy_examples, write_rows
from metakd.data.dataset import folder_name
from metakd.utils.signals import Stopped

Command = Callable[..., tuple[int, str, str]]


def test_help_shows_every_step_and_every_setting(metakd: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    steps = ("run", "demo", "weigh", "teach", "distill", "evaluate", "predict", "methods")
    flags = ("--gamma2", "--no-baseline", "--domain-loss", "--dry-run", "--resume", "--config")
    defaults = ("(default: meta_kd)", "(default: embedding,hidden,attention,prediction,feature)", "(default: on)")
    expected = {("--help",): steps, ("run", "--help"): flags + defaults, ("methods",): ("meta_kd", "fine_tuned")}
    for command, parts in expected.items():
        code, out, _ = metakd(*command)
        assert code == 0
        for part in parts:
            assert part in out


def test_help_shows_the_type_of_every_setting(metakd: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = dict(re.findall(r"(--[\w-]+).*(<\w+>)", metakd("run", "--help")[1]))
    types = {"alpha": "float", "cache-budget": "float", "seed": "int", "heads": "choice", "base": "str", "terms": "str"}
    assert {name: shown[f"--{name}"] for name in types} == {name: f"<{kind}>" for name, kind in types.items()}
    assert "One of one, domain. (default: one)" in metakd("run", "--help")[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", [{"text": "a lovely page"}])


def test_predict_writes_id_label_and_probability_in_order(metakd: Command, finished_run: Path, tmp_path: Path) -> None:
    """Labels and domains of any type are not read; one id for what is one text or has one id."""
    rows: list[dict[str, Any]] = [
        {"text": "a lovely page", "label": 4.5, "domain": ["x"]},
        {"text": "a lovely page", "label": {"a": 1}},
        *({"id": 7, "text": text} for text in ("dull prose", "bad")),
    ]
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    code, out, err = metakd("predict", finished_run / "students" / "books", "--input", source, "--output", target)
    assert code == 0, err
    assert "4 predictions" in out
    predictions = [json.loads(row) for row in target.read_text().splitlines()]
    assert [set(row) for row in predictions] == [{"id", "label", "probability"}] * 4
    assert predictions[0]["id"] == predictions[1]["id"]
    assert [row["id"] for row in predictions[2:]] == ["7", "7"]
    assert all(row["label"] in ("negative", "positive") and 0.5 <= row["probability"] <= 1 for row in predictions)


def test_predict_refuses_a_student_that_is_not_what_was_trained(
    metakd: Command, finished_run: Path, source: Path, tmp_path: Path
) -> None:
    """Weights of another student load, and would label every text by another domain's rules, in silence."""
    student = shutil.copytree(finished_run / "students" / "books", tmp_path / "books")
    shutil.copy(finished_run / "students" / "kitchen" / "model.safetensors", student)
    command = ("predict", student, "--input", source, "--output", tmp_path / "out.jsonl")
    code, _, err = metakd(*command)
    assert code == 2
    assert "not what manifest.json says: model.safetensors" in " ".join(err.split())
    (student / "manifest.json").write_text("{")
    code, _, err = metakd(*command)
    assert (code, "manifest.json is torn" in err) == (2, True)
    (student / "manifest.json").unlink()
    assert metakd(*command)[0] == 0


def test_a_domain_of_other_letters_is_known_by_its_name(
    metakd: Command, finished_run: Path, source: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run / "students" / "books", tmp_path / folder_name("Büro"))
    assert metakd("predict", tmp_path / "Büro", "--input", source, "--output", tmp_path / "out.jsonl")[0] == 0


def test_predict_refuses_a_file_of_nothing_but_faults_and_to_write_over_its_input(
    metakd: Command, finished_run: Path, source: Path, tmp_path: Path
) -> None:
    before, student = source.read_bytes(), finished_run / "students" / "books"
    code, _, err = metakd("predict", student, "--input", source, "--output", source)
    assert (code, "is the input itself" in err) == (2, True)
    assert source.read_bytes() == before
    source.write_text("no json\n" * 12_000)
    code, _, err = metakd("predict", student, "--input", source, "--output", tmp_path / "out.jsonl")
    assert (code, "read until there were 10,000 faults: 10000 faults" in " ".join(err.split())) == (2, True)


def test_a_run_stays_finished_where_scoring_it_again_was_stopped(
    metakd: Command, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(finished_run, tmp_path / "copy"))

    def stopped(*_: object) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("metakd.pipeline.evaluate.predict_with_models", stopped)
    assert metakd("evaluate", copied)[0] == 128 + signal.SIGTERM
    assert (copied / "manifest.json").is_file()


def test_evaluate_a_file_and_the_run_itself(
    metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path
) -> None:
    scores = tmp_path / "scores.json"
    code, out, _ = metakd("evaluate", finished_run, "--data", toy_data / "test.jsonl", "--output", scores)
    assert code == 0
    assert "student" in out
    copied = shutil.copytree(finished_run, tmp_path / "copy")
    (copied / "results.json").unlink()
    assert metakd("evaluate", copied)[0] == 0
    before, after, of_file = (
        {name: values["accuracy"] for name, values in json.loads(path.read_text())["average"].items()}
        for path in (finished_run / "results.json", copied / "results.json", scores)
    )
    assert after == before
    assert of_file["student"] == before["student"]


def test_steps_one_by_one_give_what_run_gives(
    metakd: Command, finished_run: Path, checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    """weigh with all settings, the others with none but the folder; the student is the same to the last bit."""
    folder = tmp_path / "steps"
    assert metakd("weigh", "--data", toy_data, "--base", checkpoint(), "--output", folder, *FAST)[0] == 0
    assert metakd("teach", "--output", folder)[0] == 0
    assert metakd("distill", "--output", folder, "--domain", "books")[0] == 0
    whole, alone = (p / "students" / "books" / "model.safetensors" for p in (finished_run, folder))
    assert whole.read_bytes() == alone.read_bytes()


def test_a_run_goes_on_only_with_resume(
    metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code, _, err = metakd("run", "--data", toy_data, "--output", finished_run)
    assert code == 2
    assert "--resume" in err
    code, out, _ = metakd("run", "--resume", "--output", finished_run)
    assert code == 0
    assert "students" in out
    copied = shutil.copytree(finished_run, tmp_path / "copy")
    assert metakd("run", "--resume", "--output", copied, "--bootstrap", "300")[0] == 0
    assert "goes on with other settings than it was begun with: bootstrap = 300, was" in caplog.text
    for name, value in (("seed", "5"), ("gamma2", "9"), ("method", "fine_tuned")):
        code, _, err = metakd("run", "--resume", "--output", finished_run, f"--{name}", value)
        assert code == 2
        assert "made with other settings" in err
        assert f"What was set otherwise: {name} = {value}" in " ".join(err.split())
        assert str(json.loads((finished_run / "run.json").read_text())["settings"][name]) != value


def test_dry_run_prints_plan_sizes_and_time_and_writes_nothing(
    metakd: Command, checkpoint: Callable[..., Path], finished_run: Path, toy_data: Path, tmp_path: Path
) -> None:
    """A folder with no more than a stopped command's lock is free; --overwrite counts no finished step."""
    plan, folder, stopped = (
        ("run", "--dry-run", "--data", toy_data, "--base", checkpoint()),
        tmp_path / "none",
        tmp_path,
    )
    code, out, _ = metakd(*plan, "--output", folder, *FAST)
    assert code == 0
    for word in ("books", "weigh", "teach", "distill (meta_kd)", "minutes", "parameters", "disk"):
        assert word in out
    assert not folder.exists()
    for name in ("run.lock", ".run.json.partial"):
        (stopped / name).touch()
    assert metakd(*plan, "--output", stopped, *FAST)[0] == 0
    code, _, err = metakd(*plan, "--output", finished_run, "--overwrite", *FAST, "--seed", "5")
    assert code == 0, err


def test_settings_from_a_file_give_way_to_flags(
    metakd: Command, checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"base: {checkpoint()}\nmax_length: 16\nalpha: 0.9\nseed: 4\n")
    folder = tmp_path / "run"
    code, _, err = metakd("weigh", "--data", toy_data, "--output", folder, "--config", config, "--seed", "5")
    assert code == 0, err
    settings = json.loads((folder / "run.json").read_text())["settings"]
    assert (settings["alpha"], settings["seed"], settings["gamma1"]) == (0.9, 5, 0.5)


def test_a_spreadsheets_export_becomes_students_in_one_command(
    metakd: Command, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Semicolons, other column names, German and French words, a Windows encoding."""
    words = {"positive": "gut", "negative": "schlecht", "books": "Bücher", "kitchen": "Küche"}
    rows = ["Bewertung;Urteil;Sparte"]
    for i, e in enumerate(toy_examples(120, 0, "t")):
        rows.append(f'"{e.text}; für {i} Köche, déjà vu";{words[e.label]};{words[e.domain]}')
    (tmp_path / "export.csv").write_bytes("\r\n".join(rows).encode("cp1252"))
    reading = ("--columns", "text=Bewertung,label=Urteil,domain=Sparte", "--encoding", "cp1252")
    base = ("--base", checkpoint(), "--student", "layers=2", "--max-length", "16")
    quick = ("--teacher-epochs", "1", "--allow-weak-teacher", "--no-baseline", "--bootstrap", "100")
    code, out, err = metakd(
        "run", "--data", tmp_path / "export.csv", *reading, *base, *quick, "--output", tmp_path / "o"
    )
    assert code == 0, err
    assert "Bücher" in out
    assert {p.name for p in (tmp_path / "o" / "students").iterdir()} == {"B%C3%BCcher", "K%C3%BCche"}
