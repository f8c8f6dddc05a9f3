"""`metakd predict`: the rows of a file with predictions, in each format, by one model or by one of each domain."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import Command, as_row, passed, read_json, read_rows, refused, toy_examples, write_rows
from metakd import Classifier, InputError, load_dataset
from metakd.data.schema import folder_name
from metakd.inference import files
from metakd.inference.by_domain import ByDomain, models_by_domain
from metakd.utils.artifacts import write_json

TEXTS = ["a lovely page", "dull prose", "bad"]


@pytest.fixture
def books(finished_run: Path) -> Path:
    return finished_run / "students" / "books"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", [as_row(e) | {"stars": i} for i, e in enumerate(toy_examples(12, 3, "t"))])


def test_all_probabilities_and_the_likeliest_labels(books: Path) -> None:
    classifier = Classifier.from_pretrained(books)
    p = classifier.predict_proba(TEXTS)
    assert p.shape == (3, 2)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    best = classifier.predict(TEXTS)
    assert [row.max() for row in p] == [each.probability for each in best]
    for k, count in ((1, 1), (2, 2), (9, 2)):
        ranked = classifier.predict(TEXTS, top_k=k)
        assert [each[0] for each in ranked] == best
        assert {len(each) for each in ranked} == {count}
        assert all(each == sorted(each, key=lambda p: -p.probability) for each in ranked)
    assert classifier.predict([], top_k=2) == []
    assert classifier.predict_proba([]).shape == (0, 2)
    with pytest.raises(InputError, match="top_k = 0: must be at least 1"):
        classifier.predict(TEXTS, top_k=0)
    with pytest.raises(InputError, match="put it into a list"):
        classifier.predict_proba("a lovely page")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ""])
def test_the_columns_of_the_input_are_kept(
    suffix: str, books: Path, rows: Path, metakd: Command, tmp_path: Path
) -> None:
    output = tmp_path / f"out{suffix}"
    out, _ = passed(metakd("predict", books, "--input", rows, "--output", output, "--probabilities"))
    assert f"12 predictions: {output}" in out
    read: Any = {".csv": pd.read_csv, ".parquet": pd.read_parquet}.get(suffix)
    written = read(output).to_dict("records") if read else read_rows(output)
    before, texts = read_rows(rows), [row["text"] for row in read_rows(rows)]
    assert [{name: row[name] for name in before[0]} for row in written] == before
    for row, (label, probability), p in zip(
        written,
        Classifier.from_pretrained(books).predict(texts),
        Classifier.from_pretrained(books).predict_proba(texts),
        strict=True,
    ):
        assert (row["predicted_label"], row["probability"]) == (label, pytest.approx(probability, abs=1e-6))
        of_all = json.loads(row["probabilities"]) if suffix == ".csv" else row["probabilities"]
        assert of_all == pytest.approx(
            dict(zip(Classifier.from_pretrained(books).labels, p.tolist(), strict=True)), abs=1e-6
        )
    data = {"train": output if suffix else rows, "dev": rows, "test": rows}
    assert load_dataset(data, soft_labels=bool(suffix)).has_soft_labels == bool(suffix)


def test_lines_are_printed_where_a_pipe_wants_them(
    books: Path, rows: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but rows, and nothing is left in the folder; the same as in a file of several chunks."""
    monkeypatch.chdir(tmp_path)
    before = {*tmp_path.iterdir()}
    out, _ = passed(metakd("predict", books, "--input", rows, "--output", "-"))
    assert {*tmp_path.iterdir()} == before
    monkeypatch.setattr(files, "CHUNK", 5)
    passed(metakd("predict", books, "--input", rows, "--output", "out.jsonl"))
    assert [*map(json.loads, out.splitlines())] == read_rows(tmp_path / "out.jsonl")


@pytest.mark.slow
def test_rows_go_to_the_student_of_their_domain(
    finished_run: Path, rows: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run, and of its exports; in the order of the file, in several chunks."""
    monkeypatch.setattr(files, "CHUNK", 5)
    passed(metakd("export", finished_run, "--output", tmp_path / "onnx", "--force"))
    students = {
        domain: Classifier.from_pretrained(finished_run / "students" / domain) for domain in ("books", "kitchen")
    }
    expected = [students[row["domain"]].predict([row["text"]])[0] for row in read_rows(rows)]
    for folder in (finished_run, tmp_path / "onnx"):
        output = tmp_path / f"{folder.name}.jsonl"
        passed(metakd("predict", folder, "--input", rows, "--output", output))
        assert [row["predicted_label"] for row in read_rows(output)] == [p.label for p in expected]
        assert [row["probability"] for row in read_rows(output)] == pytest.approx(
            [p.probability for p in expected], abs=1e-4
        )


def test_the_models_of_a_search_are_known(tmp_path: Path, books: Path, rows: Path) -> None:
    shutil.copytree(books, tmp_path / folder_name("Büro"))
    (tmp_path / "fit.json").write_text(json.dumps({"delivered": {"Büro": {}}}))
    models = models_by_domain(tmp_path)
    assert models is not None
    [source] = [write_rows(tmp_path / "one.jsonl", [{"text": "bad", "domain": "Büro", "when": None}])]
    assert files.label_file(ByDomain(models), source, tmp_path / "one.csv", columns={}) == 1
    assert pd.read_csv(tmp_path / "one.csv")["predicted_label"].tolist() == [
        Classifier.from_pretrained(books).predict(["bad"])[0].label
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_some_rows_and_gaps(
    suffix: str, books: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that begin later, numbers of two kinds, lists, NaN, and labels that `metakd label` has written."""
    monkeypatch.setattr(files, "CHUNK", 2)
    rows: list[dict[str, Any]] = [
        {"text": "a lovely page", "n": 1, "probabilities": {"good": 0.5}},
        {"text": "b"},
        {"text": "c", "n": 1.5, "tags": ["x", "y"], "gap": float("nan")},
    ]
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / f"out{suffix}"
    passed(metakd("predict", books, "--input", source, "--output", output))
    table = pd.read_csv(output) if suffix == ".csv" else pd.read_parquet(output)
    assert [*table] == ["text", "n", "probabilities", "tags", "gap", "predicted_label", "probability"]
    assert table["n"].tolist() == pytest.approx([1, float("nan"), 1.5], nan_ok=True)
    assert [*(json.loads(table["tags"][2]) if suffix == ".csv" else table["tags"][2])] == ["x", "y"]
    assert table["gap"].isna().all()
    assert table["predicted_label"].notna().all()


@pytest.mark.slow
def test_a_reader_that_stops_is_no_fault(books: Path, tmp_path: Path) -> None:
    """The exit code is that of success, and nothing is said; there is more than a pipe holds."""
    rows = write_rows(tmp_path / "many.jsonl", [{"text": "bad", "more": "x" * 5000}] * 100)
    command = f"{sys.executable} -m metakd predict {books} --input {rows} --output - | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["predicted_label"]
    assert (done.returncode, "rror" in done.stderr) == (0, False)


def test_a_run_is_no_classifier(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has a model for each domain; load .*/students/DOMAIN, or label"):
        Classifier.from_pretrained(finished_run)
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(InputError, match=r"has a model for each domain; load [^ ]*[0-9]/DOMAIN, or label"):
        Classifier.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"fit.json: cannot be read; repeat your `metakd fit`"):
        models_by_domain(tmp_path)
    (tmp_path / "fit.json").write_text('{"delivered": {}}')
    with pytest.raises(InputError, match="has no models"):
        models_by_domain(tmp_path)


def test_a_model_of_the_hub_with_onnx_files_is_read_by_torch(books: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(books, tmp_path / "other"))
    (other / "manifest.json").unlink()
    (other / "onnx").mkdir()
    (other / "onnx" / "model.onnx").write_bytes(b"of another library")
    assert Classifier.from_pretrained(other).predict(TEXTS) == Classifier.from_pretrained(books).predict(TEXTS)


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (
            [{"text": "a", "domain": "toys"}, {"text": "b"}],
            [],
            "row 1, domain: 'toys' has no model, books, kitchen have",
        ),
        ([{"text": "a", "domain": ""}], [], "row 1, domain: is empty"),
        ([{"text": "a"}], [], "no column 'domain'"),
        (
            [{"text": "a", "domain": "books"}, {"text": "a", "domain": "books", "probability": 1}],
            [],
            "the columns probability are written with predictions; rename",
        ),
        ([{"text": "a", "domain": "books", "by": "\ud83d"}], [], "row 1, by: "),
        ([{"text": "a", "domain": "books", "\ud83d": 1}], [], "the name of a column: contains a lone surrogate"),
        (
            [
                {"text": "a", "domain": "books", "x": 1, "y": 1},
                {"text": "a", "domain": "books", "x": "one", "y": "one"},
            ],
            ["--output", "out.parquet"],
            "the column 'y' cannot be written as Parquet; write .jsonl instead",
        ),
        ([{"text": "a", "domain": "books", "tags": ["\ud83d"]}], [], "row 1, tags: cannot be written as JSON"),
        ([{"text": "a", "domain": "books", "n": [float("nan")]}], [], "row 1, n: cannot be written as JSON"),
        ([{"text": "a", "domain": "books", "n": {}}], ["--output", "out.parquet"], "cannot be written as Parquet"),
        ([{"text": "a", "domain": "books"}], ["--output", "out.xlsx"], "the name must end in .jsonl or .csv"),
        ([{"text": "a", "domain": "books"}], ["--output", "none/out.csv"], "must be a file in an existing folder"),
        (
            [{"text": "a", "domain": "books", "x": 1}, {"text": "b", "domain": "books", "x": "one"}],
            ["--output", "out.parquet"],
            "the column 'x' cannot be written as Parquet; write .jsonl instead",
        ),
        ([{"text": "a", "domain": "books"}, {"text": ["b"], "domain": "books"}], ["--output", "-"], "expected text"),
    ],
)
def test_bad_input(
    content: list[Any],
    flags: list[str],
    message: str,
    finished_run: Path,
    metakd: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_rows(tmp_path / "in.jsonl", content)
    before = {*tmp_path.iterdir()}
    result = metakd("predict", finished_run, "--input", source, *(flags or ["--output", "out.jsonl"]))
    assert message in refused(result)
    assert result[1] == ""
    assert {*tmp_path.iterdir()} == before


def test_all_models_are_loaded_before_anything_is_labelled(
    run_copy: Path, rows: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is wrong with any of them is one message."""
    monkeypatch.setattr("metakd.inference.files._answers", lambda *_: pytest.fail("labelled in vain"))
    for domain in ("books", "kitchen"):
        with (run_copy / "students" / domain / "config.json").open("a") as file:
            file.write(" ")
    message = refused(metakd("predict", run_copy, "--input", rows, "--output", tmp_path / "out.jsonl"))
    assert "students/books: differs from its manifest.json: config.json" in message
    assert "students/kitchen: differs from its manifest.json: config.json" in message
    assert not (tmp_path / "out.jsonl").exists()


def test_more_models_than_fit_in_memory_label_more_rows_at_a_time(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a file in mixed order would load every model again for a few rows of each."""
    source = write_rows(tmp_path / "mixed.jsonl", [{"text": "good", "domain": f"d{i % 3}"} for i in range(14)])
    sizes, answers = list[int](), files._answers
    monkeypatch.setattr(files, "_answers", lambda *of: (sizes.append(len(of[1])), answers(*of))[1])
    monkeypatch.setattr(files, "CHUNK", 2)
    monkeypatch.setattr(files, "LOADED", 2)
    model = ByDomain({f"d{i}": books for i in range(3)})
    assert files.label_file(model, source, tmp_path / "out.jsonl", columns={}) == 14
    assert sizes == [4, 4, 4, 2]


def test_a_run_that_lacks_a_student_is_refused(run_copy: Path, rows: Path, metakd: Command, tmp_path: Path) -> None:
    shutil.rmtree(run_copy / "students" / "kitchen")
    message = refused(metakd("predict", run_copy, "--input", rows, "--output", tmp_path / "out.jsonl"))
    assert f"no finished model for kitchen; run `metakd run --resume --output {run_copy}`" in message


def test_a_teacher_with_a_head_for_each_domain_does_not_answer_by_any_of_them(
    run_copy: Path, rows: Path, metakd: Command, tmp_path: Path
) -> None:
    description = read_json(run_copy / "run.json")
    description["settings"]["heads"] = "domain"
    write_json(run_copy / "run.json", description)
    message = refused(metakd("predict", run_copy / "meta_teacher", "--input", rows, "--output", tmp_path / "out.jsonl"))
    assert f"use its students: `metakd predict {run_copy} --input FILE --output FILE`" in message
    assert Classifier.from_pretrained(run_copy / "students" / "books")
