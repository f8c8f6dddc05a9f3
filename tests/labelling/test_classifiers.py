"""`metakd label` with fine-tuned classifiers: one for all texts, or one for each domain."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Command, as_row, passed, read_json, read_rows, refused, toy_examples, write_rows
from metakd.inference.classifier import Classifier
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.utils.artifacts import MANIFEST, write_json


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "texts.jsonl", [as_row(e) for e in toy_examples(40, 0, "t")])


def renamed(folder: Path, copy: Path, names: dict[str, str]) -> Path:
    """A copy of a classifier whose classes have other names."""
    shutil.copytree(folder, copy)
    (copy / MANIFEST).unlink()
    config = read_json(copy / "config.json")
    config["id2label"] = {place: names[label] for place, label in config["id2label"].items()}
    config["label2id"] = {label: int(place) for place, label in config["id2label"].items()}
    write_json(copy / "config.json", config)
    return copy


def positive(rows: list[Any]) -> list[float]:
    return [row["probabilities"]["positive"] for row in rows]


def test_texts_go_to_the_classifier_of_their_domain(
    metakd: Command, finished_run: Path, texts: Path, tmp_path: Path
) -> None:
    """By name, each with the probability that the classifier itself gives; of texts without labels as well."""
    students, output, rows = finished_run / "students", tmp_path / "out.jsonl", read_rows(texts)
    swapped = renamed(students / "kitchen", tmp_path / "kitchen", {"positive": "negative", "negative": "positive"})
    models = {"books": students / "books", "kitchen": swapped}
    flags = [part for domain, folder in models.items() for part in ("--model", f"{domain}={folder}")]
    out, _ = passed(metakd("label", "--data", texts, "--output", output, *flags))
    written, classifiers = (
        read_rows(output),
        {domain: Classifier.from_pretrained(folder) for domain, folder in models.items()},
    )
    expected = []
    for row in rows:
        [(label, probability)] = classifiers[row["domain"]].predict([row["text"]])
        expected.append(probability if label == "positive" else 1 - probability)
    assert positive(written) == pytest.approx(expected, abs=1e-5)
    right = sum((p > 0.5) == (row["label"] == "positive") for p, row in zip(expected, rows, strict=True))
    assert f"40 texts, of which 40 have a label: {right / 40:.1%} right" in out
    unlabelled = write_rows(tmp_path / "new.jsonl", [{"text": row["text"], "domain": row["domain"]} for row in rows])
    passed(metakd("label", "--data", unlabelled, "--output", output, "--overwrite", *flags))
    assert positive(read_rows(output)) == pytest.approx(expected, abs=1e-5)


def test_one_classifier_reads_all_texts(metakd: Command, finished_run: Path, texts: Path, tmp_path: Path) -> None:
    """Labels are those of the rows, or else its classes; equal shares are asked for by a flag alone."""
    teacher, output = finished_run / "meta_teacher", tmp_path / "out.jsonl"
    passed(metakd("label", "--data", texts, "--output", output, "--model", teacher))
    before = positive(read_rows(output))
    asked = {row["text"]: p for row, p in zip(read_rows(texts), before, strict=True)}
    [first] = Classifier.from_pretrained(teacher).predict([next(iter(asked))])
    assert max(before[0], 1 - before[0]) == pytest.approx(first.probability, abs=1e-5)
    passed(metakd("label", "--data", texts, "--output", output, "--model", teacher, "--overwrite", "--correct-prior"))
    assert sum(positive(read_rows(output))) == pytest.approx(20, abs=0.01)
    other = renamed(teacher, tmp_path / "other", {"positive": "positive", "negative": "mixed"})
    rows = [{"text": text, "domain": "books"} for text in asked]
    unlabelled = write_rows(tmp_path / "new.jsonl", rows)
    flags = ("--data", unlabelled, "--output", output, "--overwrite", "--model", other)
    passed(metakd("label", *flags))
    assert {*read_rows(output)[0]["probabilities"]} == {"positive", "mixed"}
    assert "--labels" in refused(metakd("label", *flags, "--labels", "positive"))
    assert "positive, other are not all among" in refused(metakd("label", *flags, "--labels", "positive,other"))


def test_classes_that_are_no_labels_are_left_out(
    metakd: Command, base: Path, texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left has the classifier's odds, and sums to 1."""
    network = load_encoder(base, ["positive", "mixed", "negative"])
    torch.nn.init.normal_(network.classifier.bias)
    network.save_pretrained(tmp_path / "three")
    load_tokenizer(base, 32).save_pretrained(tmp_path / "three")
    passed(metakd("label", "--data", texts, "--output", tmp_path / "out.jsonl", "--model", tmp_path / "three"))
    assert "its classes mixed are not among the labels, and are left out" in " ".join(caplog.text.split())
    answers = Classifier.from_pretrained(tmp_path / "three").model.answers(toy_examples(40, 0, "t")).probabilities
    expected = answers[:, 0] / (answers[:, 0] + answers[:, 2])
    assert positive(read_rows(tmp_path / "out.jsonl")) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_run_labels_texts_of_some_of_its_domains(
    metakd: Command, finished_run: Path, texts: Path, tmp_path: Path
) -> None:
    """One row with a label is enough, as the classes are known."""
    rows = [row for row in read_rows(texts) if row["domain"] == "books"]
    some = [{k: v for k, v in row.items() if k != "label" or not i} for i, row in enumerate(rows)]
    output = tmp_path / "out.jsonl"
    data = write_rows(tmp_path / "some.jsonl", [row | {"label": row.get("label")} for row in some])
    passed(metakd("label", "--data", data, "--model", finished_run, "--output", output))
    expected = Classifier.from_pretrained(finished_run / "students" / "books").predict_proba(
        [row["text"] for row in rows]
    )
    assert positive(read_rows(output)) == pytest.approx(expected[:, 1].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("models", "flags", "message"),
    [
        (["books=TEACHER"], [], "--model: no classifier for kitchen"),
        (["books=TEACHER", "kitchen=TEACHER", "films=TEACHER"], [], "--model films=...: no row has this domain"),
        (["books=TEACHER", "books=TEACHER"], [], "--model books=...: books has several"),
        (["books=TEACHER", "TEACHER"], [], "write DOMAIN=MODEL"),
        (["books=", "kitchen=TEACHER"], [], "--model books=: write DOMAIN=MODEL"),
        (["books=TEACHER", "kitchen=BASE"], [], "not a text classifier"),
        (["books=TEACHER", "kitchen=nowhere/at-all"], [], "nowhere/at-all"),
        (["books=TEACHER", "kitchen=OTHER"], [], "/other: its classes are bad, good"),
        (["TEACHER"], ["--chat", "--max-length", "9"], "--chat, --max-length: for language models"),
        (["books=TEACHER", "kitchen=TEACHER"], ["--max-length", "9"], "--max-length: for language models, but"),
        (["a", "b"], ["--endpoint", "http://127.0.0.1:1"], "--model: several language models; choose one"),
    ],
)
def test_bad_input(
    metakd: Command,
    finished_run: Path,
    base: Path,
    texts: Path,
    tmp_path: Path,
    models: list[str],
    flags: list[str],
    message: str,
) -> None:
    teacher = finished_run / "meta_teacher"
    other = renamed(teacher, tmp_path / "other", {"positive": "good", "negative": "bad"})
    names = {"TEACHER": str(teacher), "BASE": str(base), "OTHER": str(other)}
    for short, folder in names.items():
        models = [model.replace(short, folder) for model in models]
    output = tmp_path / "out.jsonl"
    asked = [part for model in models for part in ("--model", model)]
    assert message in refused(metakd("label", "--data", texts, "--output", output, *asked, *flags))
    assert not output.exists()


def test_several_teachers_are_refused_with_the_command_for_them(
    metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path
) -> None:
    teachers = [part for domain in ("books", "kitchen") for part in ("--teacher", f"{domain}={finished_run}")]
    message = refused(metakd("run", "--data", toy_data, "--output", tmp_path / "run", *teachers))
    assert "takes one classifier for all domains; of several, `metakd label --model DOMAIN=DIR" in message
