"""Scores: of every model and domain, of the right models on the right rows, with and without leaked rows."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import metakd
from conftest import as_row, open_run, read_json, read_rows, reopen, toy_examples, write_rows
from metakd import InputError
from metakd.data.examples import read_examples
from metakd.pipeline.evaluate import evaluate, evaluate_file
from metakd.pipeline.readings import write_readings
from metakd.pipeline.run_all import run_all
from metakd.utils.artifacts import is_done, write_json, write_manifest

DOMAINS = ["books", "kitchen"]


def test_results_have_every_model_domain_and_figure(finished_run: Path) -> None:
    """One word gives the class away: teacher and students have to be far above chance."""
    results = read_json(finished_run / "results.json")
    models = ["meta_teacher", "student", "fine_tuned_shared", "tfidf"]
    average = results["average"]
    assert results["split"] == "test"
    assert list(average) == models
    assert list(results["domains"]) == DOMAINS
    for domain in DOMAINS:
        assert list(results["domains"][domain]) == models
        for scores in results["domains"][domain].values():
            assert 0 <= scores["accuracy_interval"][0] <= scores["accuracy"] <= scores["accuracy_interval"][1] <= 1
            assert min(scores["parameters"], scores["bytes"]) > 0
            assert 0 < scores["latency_ms"]["median"] <= scores["latency_ms"]["p95"]
    mean = sum(results["domains"][domain]["student"]["accuracy"] for domain in DOMAINS) / 2
    assert average["student"]["accuracy"] == pytest.approx(mean)
    assert min(average[name]["accuracy"] for name in ("meta_teacher", "student")) > 0.9
    assert average["student"]["parameters"] < average["meta_teacher"]["parameters"]
    assert "| meta_teacher |" in (finished_run / "results.md").read_text()


def test_a_students_score_reads_the_students_weights(run_copy: Path, tmp_path: Path, toy_data: Path) -> None:
    """Zeroed, the student of books predicts one class for everything, and only its score falls to a half."""
    weights = run_copy / "students" / "books" / "model.safetensors"
    save_file({k: torch.zeros_like(v) for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    manifest = read_json(weights.parent / "manifest.json")
    write_manifest(weights.parent, {name: value for name, value in manifest.items() if name != "files"})
    after = evaluate_file(run_copy, toy_data / "test.jsonl", tmp_path / "scores.json")["domains"]
    before = read_json(run_copy / "results.json")["domains"]
    assert after["books"]["student"]["accuracy"] == 0.5 != before["books"]["student"]["accuracy"]
    for domain, model in (("kitchen", "student"), ("books", "meta_teacher"), ("books", "fine_tuned_shared")):
        assert after[domain][model]["accuracy"] == before[domain][model]["accuracy"]


def test_a_domains_scores_are_of_that_domain_alone(finished_run: Path, toy_data: Path) -> None:
    """The dev check of a student counts the domain's dev rows, and the table the domain's test rows."""
    check = read_json(finished_run / "students" / "books" / "manifest.json")["check"]
    results = read_json(finished_run / "results.json")["domains"]["books"]["student"]
    for split, scores in (("dev", check), ("test", results)):
        rows = read_examples(toy_data / f"{split}.jsonl")
        assert scores["examples"] == sum(e.domain == "books" for e in rows) < len(rows)


def test_no_models_no_scores(run_copy: Path, tmp_path: Path, toy_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model whose files are not those of its manifest counts as missing."""
    weights = run_copy / "students" / "books" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    run = reopen(run_copy)
    with pytest.raises(InputError, match=r"student is missing for books; to train what is missing, run `metakd"):
        evaluate(run)
    assert "books counts as unfinished, because files are missing or changed: model.safetensors" in caplog.text
    assert not is_done(weights.parent, run.fingerprints.distill("meta_kd", "books"))
    assert not (run_copy / "manifest.json").exists()
    shutil.rmtree(run_copy / "students" / "kitchen")
    with pytest.raises(InputError, match="student is missing for books, kitchen; "):
        evaluate(reopen(run_copy))
    shutil.rmtree(run_copy / "meta_teacher")
    with pytest.raises(InputError, match="no finished meta-teacher"):
        evaluate_file(run_copy, toy_data / "test.jsonl", tmp_path / "s.json")


@pytest.mark.slow
def test_leaks_are_counted(run_copy: Path, toy_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows of a file that stand in the run's train too."""
    new, old = (read_examples(toy_data / f"{name}.jsonl") for name in ("test", "train"))
    wrong = [replace(e, label="negative") for e in old if e.label == "positive"][:4]
    rows = write_rows(tmp_path / "rows.jsonl", [*map(as_row, new + wrong)])
    clean, leaky = (evaluate_file(run_copy, file, tmp_path / "s.json") for file in (toy_data / "test.jsonl", rows))
    assert leaky["leaked_rows"] == clean["leaked_rows"] + 4
    without = [scores["average"]["student"]["accuracy_without_leaks"] for scores in (clean, leaky)]
    assert without[0] == without[1] > leaky["average"]["student"]["accuracy"]
    assert "has changed or is missing" not in caplog.text
    write_json(run_copy / "run.json", read_json(run_copy / "run.json") | {"data": str(tmp_path / "gone")})
    assert evaluate_file(run_copy, rows, tmp_path / "s.json")["leaked_rows"] == 0
    assert "gone) has changed or is missing" in caplog.text


def test_results_have_averages_without_leaked_rows(base: Path, tmp_path: Path) -> None:
    """Of each domain's four dev rows two are also in train: the second average is that of the other two."""
    train = toy_examples(32, 0, "a")
    known = {e.text for e in train}
    fresh = [e for e in toy_examples(400, 1, "b") if e.text not in known][:4]
    write_rows(tmp_path / "data" / "train.jsonl", [as_row(e) for e in train])
    write_rows(tmp_path / "data" / "dev.jsonl", [as_row(e) for e in train[:4] + fresh])
    run = open_run(tmp_path / "run", tmp_path / "data", base, baseline=False)
    results = run_all(run)
    assert results["leaked_rows"] == 4
    students = {domain: metakd.Classifier.from_pretrained(run.folders.student("meta_kd", domain)) for domain in DOMAINS}
    correct = [students[e.domain].predict([e.text])[0].label == e.label for e in fresh]  # two of each domain
    assert results["average"]["student"]["accuracy_without_leaks"] == pytest.approx(sum(correct) / 4)
    assert "4 of them are also in train; averages without them: " in (run.folder / "results.md").read_text()


def test_an_unseen_domain_is_scored_by_the_teacher_alone(finished_run: Path, tmp_path: Path) -> None:
    def scores(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return evaluate_file(finished_run, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "scores.json")

    new = [as_row(e) | {"domain": "garden"} for e in toy_examples(8, 3, "new")]
    known = [as_row(e) for e in toy_examples(8, 4, "known")]
    assert list(scores(new)["domains"]["garden"]) == ["meta_teacher"]
    both = scores(new + known)
    mean = sum(both["domains"][domain]["meta_teacher"]["accuracy"] for domain in DOMAINS) / 2
    assert both["average"]["meta_teacher"]["accuracy"] == mean
    (tmp_path / "scores.json").unlink()
    with pytest.raises(InputError, match="the run's texts are not pairs"):
        scores([row | {"text_pair": "x"} for row in known])
    with pytest.raises(InputError, match="label 'neutral'"):
        scores([new[0] | {"label": "neutral"}])
    assert not (tmp_path / "scores.json").exists()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("I love it", "list of texts"),
        *(([text], "pairs of strings") for text in (1, None, ("one", 2), ("one",))),
        (["half a character: \ud800"], "lone surrogate"),
        ([("one", "a\0b")], "NUL"),
    ],
)
def test_anything_but_a_list_of_texts_is_refused(finished_run: Path, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metakd.Classifier.from_pretrained(finished_run / "students" / "books").predict(texts)


@pytest.fixture
def long_data(toy_data: Path, tmp_path: Path) -> Path:
    """The toy data, with 18 words that say nothing before the texts of dev and test: more than 16 tokens in all."""
    shutil.copytree(toy_data, tmp_path / "long")
    for split, count, seed in (("dev", 160, 7), ("test", 24, 8)):
        write_rows(tmp_path / "long" / f"{split}.jsonl", [lengthened(e) for e in toy_examples(count, seed, split)])
    return tmp_path / "long"


def lengthened(e: Any) -> dict[str, Any]:
    return as_row(replace(e, text=f"{'it was so ' * 6}{e.text}"))


@pytest.mark.slow
def test_long_texts_are_read_as_the_settings_say(base: Path, long_data: Path, tmp_path: Path) -> None:
    """The first window says nothing; the whole text says it all. What was trained stays.

    The models have read none to eighteen of the words that say nothing before a text, so that they do not go by them.
    """
    repeats = [(0, 1, 2, 6)[i // 4 % 4] for i in range(448)]
    texts = zip(repeats, toy_examples(len(repeats), 0, "a"), strict=True)
    train = [replace(e, text=f"{'it was so ' * times}{e.text}") for times, e in texts]
    write_rows(long_data / "train.jsonl", [as_row(e) for e in train])
    rates = {f"{name}_learning_rate": 5e-3 for name in ("teacher", "shared", "match", "predict")}
    passes = {"teacher_epochs": 8, "shared_epochs": 4, "match_epochs": 2, "predict_epochs": 4, "batch_size": 8}
    folder = tmp_path / "run"
    run_all(open_run(folder, long_data, base, baseline=False, **rates, **passes))
    results = dict[str, Any]()
    for way in ("first", "mean", "longer", "adaptive"):
        before = read_json(folder / "run.json")["settings"]
        settings = metakd.Settings.build(before | {"long_texts": way, "read_length": 64})
        results[way] = evaluate(metakd.Run.assemble(folder, settings, long_data).begin())
        reading = read_json(folder / "students" / "books" / "reading.json")
        assert reading["most_windows"] == (8 if way in ("mean", "adaptive") else 1)
        assert reading["max_length"] == (40 if way == "longer" else 16)  # as many as it has positions
        assert (reading["enough"] is not None) == (way == "adaptive")
        assert metakd.Classifier.from_pretrained(folder / "students" / "books").reading.model_dump() == reading
        assert ("windows" in (folder / "results.md").read_text()) == (way in ("mean", "adaptive"))
    first, mean, longer, adaptive = (results[way]["average"]["student"] for way in results)
    assert first["accuracy"] < 0.7 < 0.9 < mean["accuracy"]
    gain = mean["accuracy"] - first["accuracy"]
    assert adaptive["accuracy"] > first["accuracy"] + 0.3 * gain  # 0.6 are kept of another change, in probabilities
    assert "windows" not in first | longer
    assert 1 < adaptive["windows"] <= mean["windows"] == 2  # as first windows say nothing, it may read all
    assert [*mean["latency_ms"]["by_windows"]] == ["2"]


def test_a_few_long_texts_choose_nothing(run_copy: Path, long_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And scores of another reading are none of the run's until it is scored again."""
    rows = read_rows(long_data / "dev.jsonl")
    write_rows(long_data / "dev.jsonl", rows[:24])
    settings = reopen(run_copy).settings.model_copy(update={"long_texts": "adaptive"})
    run = metakd.Run.assemble(run_copy, settings, long_data).begin()
    assert write_readings(run, {"student": {d: run_copy / "students" / d for d in DOMAINS}}, {}) is False
    assert "dev has 24 long texts, and 100 are needed to choose by, so all windows are read" in caplog.text
    assert (run_copy / "manifest.json").exists()
    settings = settings.model_copy(update={"long_texts": "first"})
    write_readings(replace(run, settings=settings), {"student": {"books": run_copy / "students" / "books"}}, {})
    assert not (run_copy / "manifest.json").exists()


@pytest.mark.slow
def test_without_dev_all_windows_are_read(run_copy: Path, long_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (long_data / "dev.jsonl").unlink()
    settings = reopen(run_copy).settings.model_copy(update={"long_texts": "adaptive"})
    run = metakd.Run.assemble(run_copy, settings, long_data).begin()
    assert evaluate(run)["average"]["student"]["windows"] == 2
    assert "dev has no texts of its own to choose by, so all windows of long texts are read" in caplog.text


def test_short_texts_have_the_tables_that_they_had(finished_run: Path) -> None:
    results = read_json(finished_run / "results.json")
    assert all(set(average["latency_ms"]) <= {"median", "p95", "busy"} for average in results["average"].values())
    assert "windows" not in (finished_run / "results.md").read_text()
