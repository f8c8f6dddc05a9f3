"""Columns that give a text several labels, and what is wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Command, passed, refused, write_rows
from metakd import load_dataset
from metakd.data.examples import read_examples
from metakd.data.labels import SeveralLabels, in_words, several_columns
from metakd.data.schema import Example
from metakd.inspection.remarks import remarks
from metakd.utils.errors import InputError

LISTS = [["b", "a"], ["a"], [], ["b", "b"]]
ROWS = [{"text": f"t{i}", "domain": "x", "labels": labels} for i, labels in enumerate(LISTS)]
EXPECTED = [("a", "b"), ("a",), (), ("b",)]


def labels_of(path: Path, **how: Any) -> list[tuple[str, ...] | None]:
    return [e.labels for e in read_examples(path, **how)]


def test_lists_are_read(tmp_path: Path) -> None:
    """In JSONL as they are, in CSV as JSON, in Parquet; sorted, each once, and none at all."""
    assert labels_of(write_rows(tmp_path / "a.jsonl", ROWS)) == EXPECTED
    (tmp_path / "a.csv").write_text('text,domain,labels\nt0,x,"[""b"", ""a""]"\nt1,x,"[""a""]"\nt2,x,[]\n')
    assert labels_of(tmp_path / "a.csv") == EXPECTED[:3]
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert labels_of(tmp_path / "a.parquet") == EXPECTED
    named = write_rows(tmp_path / "b.jsonl", [{"text": "t", "domain": "x", "tags": ["b", 1]}])
    assert labels_of(named, columns={"labels": "tags"}) == [("1", "b")]


def test_labels_in_one_string_and_in_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,domain,label\nt0,x,b; a\nt1,x,a\nt2,x,\nt3,x,b;;b\n")
    assert labels_of(tmp_path / "a.csv", several=SeveralLabels(separator=";")) == EXPECTED
    (tmp_path / "b.csv").write_text("text,domain,a,b\nt0,x,1,1\nt1,x,true,0\nt2,x,0,\nt3,x,No,yes\n")
    assert labels_of(tmp_path / "b.csv", several=SeveralLabels(("a", "b"))) == EXPECTED
    rows = [{"text": "t", "domain": "x", "a": 1.0, "b": False}]
    assert labels_of(write_rows(tmp_path / "c.jsonl", rows), several=SeveralLabels(("a", "b"))) == [("a",)]


def test_an_example_has_its_labels_in_words() -> None:
    example = Example("1", "t", None, in_words(["a", 'b"']), "x", labels=("a", 'b"'))
    assert example.label == '["a", "b\\""]'
    assert example.classes == ("a", 'b"')
    assert Example("1", "t", None, "a", "x").classes == ("a",)
    assert Example("1", "t", None, "", "x").classes == ()


def test_columns_have_a_one_for_each_label() -> None:
    """By hand: the second text has a label of another domain, the third has none, and of the last they are unknown."""
    examples = [Example("", "t", None, in_words(x), "d", labels=x) for x in (("a", "b"), ("b", "c"), ())]
    examples.append(Example("", "t", None, "", "d"))
    columns = several_columns(examples, {"a": 0, "b": 1})
    assert columns.tolist() == [[1, 1], [0, 1], [0, 0], [-1, -1]]
    assert columns.dtype == np.float32


def as_split(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for split in ("train", "test"):
        write_rows(folder / f"{split}.jsonl", [row | {"text": f"{split} {row['text']}"} for row in rows])
    return folder


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        (
            [{"label": ["a"]}, {"label": ["b", "a"]}],
            [],
            "row 1 and 1 more: label is a list; if texts may have several",
        ),
        ([{"labels": ["a", "b"]}, {"labels": "a"}], [], "row 2, labels: expected a list of labels, found 'a'"),
        ([{"labels": "a;b"}, {"labels": "a"}], [], "--columns label=labels --label-separator ';'"),
        (
            [{"labels": ["a", "b"]}, {"labels": 3}],
            [],
            "row 2, labels: expected a list of labels, which may be empty, found 3",
        ),
        (
            [{"labels": ["a", "b"]}, {"labels": None}],
            [],
            "row 2, labels: expected a list of labels, which may be empty",
        ),
        ([{"labels": ["a", "b"]}, {}], [], "row 2: no column 'labels'"),
        ([{"labels": ["a", "b"]}, {"labels": {"a": 1}}], [], "row 2, labels: expected a list of labels"),
        (
            [{"labels": ["a", "b"]}, {"labels": [["a"]]}],
            [],
            "row 2, labels: expected a name or a whole number, found ['a']",
        ),
        ([{"labels": ["a", "b"]}, {"labels": [" ", "a"]}], [], "row 2, labels: is empty; fill it in"),
        (
            [{"labels": ["a", "b"]}, {"labels": [0.5]}],
            [],
            "row 2, labels: expected a name or a whole number, found 0.5",
        ),
        ([{"labels": []}, {"labels": []}], [], "train: only one label (none)"),
        ([{"labels": ["a"]}, {"labels": ["a"]}], [], "train: only one label (a)"),
        (
            [{"label": ["a"]}, {"label": "b"}],
            ["--label-separator", ";"],
            "row 1, label: expected labels with ';' between",
        ),
        (
            [{"a": 1, "b": 0}, {"a": 2, "b": 0}],
            ["--label-columns", "a,b"],
            "row 2, labels: a: expected 0 or 1, found 2",
        ),
        ([{"a": 1, "b": 0}, {"a": "x", "b": 0}], ["--label-columns", "a,b"], "a: expected 0 or 1, found 'x'"),
        ([{"a": 1, "b": 0}], ["--label-columns", "a,c"], "no column 'c'"),
        ([{"a": 1, "b": 0}], ["--label-columns", "a"], "--label-columns: name at least two columns"),
        ([{"a": 1, "b": 0}], ["--label-columns", "a,text"], "--label-columns: text is read as something else"),
        ([{"a": 1}], ["--label-columns", "a,b", "--label-separator", ";"], "in one of the two ways; leave one out"),
        ([{"a": 1}], ["--columns", "labels=a", "--label-separator", ";"], "--columns labels: is a column of lists"),
    ],
)
def test_what_cannot_be_read_is_named(
    metakd: Command, tmp_path: Path, base: Path, rows: list[dict[str, Any]], flags: list[str], message: str
) -> None:
    """One message, and exit code 2."""
    folder = as_split(tmp_path / "d", [{"text": f"t{i}", "domain": "x"} | row for i, row in enumerate(rows)])
    answer = refused(metakd("run", "--data", folder, "--base", base, "--output", tmp_path / "run", *flags))
    assert message in answer
    assert not (tmp_path / "run").exists()


def test_splits_have_to_agree(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", ROWS)
    write_rows(tmp_path / "dev.jsonl", [{"text": "u", "domain": "x", "label": "a"}])
    with pytest.raises(InputError, match="train: texts may have several labels there, and one elsewhere"):
        load_dataset(tmp_path)
    write_rows(tmp_path / "dev.jsonl", [{"text": "u", "domain": "x", "labels": ["a", "new"]}])
    with pytest.raises(InputError, match=r"dev, label: 'new' \(1 rows\) does not occur in train"):
        load_dataset(tmp_path)


def test_rows_without_labels_are_text_without_labels(tmp_path: Path) -> None:
    """An empty list is no label; no list at all is a text whose labels are unknown."""
    write_rows(tmp_path / "train.jsonl", [*ROWS, {"text": "more", "domain": "x", "labels": None}])
    write_rows(tmp_path / "test.jsonl", [ROWS[0] | {"text": "test"}])
    data = load_dataset(tmp_path, unlabelled_rows=True)
    assert [e.text for e in data.unlabelled] == ["more"]
    assert [e.labels for e in data.train] == EXPECTED


def test_labels_joined_in_one_string_are_noticed() -> None:
    labels = ["a", "a;b", "b", "b;a"]
    (message,) = remarks({"train": {"x": dict.fromkeys(labels, 50)}, "test": {"x": dict.fromkeys(labels, 50)}}, labels)
    assert message == (
        "label 'a;b' looks like several in one string (2 labels do); if texts may have several labels, add "
        "--label-separator ';'"
    )
    plain = ["a/c", "other", "b"]
    assert remarks({"train": {"x": dict.fromkeys(plain, 50)}, "test": {"x": dict.fromkeys(plain, 50)}}, plain) == []


def test_rare_classes_are_noticed() -> None:
    counts = {"x": {"a": 50, "b": 4}}
    messages = remarks({"train": counts, "test": {"x": {"a": 50, "b": 1}}}, ["a", "b"])
    assert messages == ["classes with under 5 training rows, which are hardly learnt: b of x (4)"]


def test_inspect_counts_texts_and_shares_of_them(metakd: Command, tmp_path: Path) -> None:
    out, _ = passed(metakd("inspect", write_rows(tmp_path / "all.jsonl", [*ROWS] * 30), "--json"))
    assert '"rows": 120' in out
    out, _ = passed(metakd("inspect", tmp_path / "all.jsonl"))
    assert "a 50 %, b 50 %" in " ".join(out.split())
