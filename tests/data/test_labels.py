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
    (tmp_path / "p.csv").write_text("text,domain,labels\nt0,x,\"['b', 'a']\"\nt1,x,['a']\nt2,x,[]\n")  # by pandas
    assert labels_of(tmp_path / "p.csv") == EXPECTED[:3]
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert labels_of(tmp_path / "a.parquet") == EXPECTED
    named = write_rows(tmp_path / "b.jsonl", [{"text": "t", "domain": "x", "tags": ["b", 1]}])
    assert labels_of(named, columns={"labels": "tags"}) == [("1", "b")]


def test_labels_in_one_string_and_in_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,domain,label\nt0,x,b; a\nt1,x,a\nt2,x,\nt3,x,b;;b\n")
    assert labels_of(tmp_path / "a.csv", several=SeveralLabels(separator=";")) == EXPECTED
    (tmp_path / "b.csv").write_text("text,domain,a,b\nt0,x,1,1.0\nt1,x,true,0.0\nt2,x,0,\nt3,x,No,yes\n")
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
        ([{"labels": "a;b"}, {"labels": "a"}], [], "add --columns label=COLUMN, and if several stand in one string"),
        ([{"labels": ["a"]}, {"labels": "['a' 'b']"}], [], "row 2, labels: expected a list of labels, found"),
        ([{"labels": [0, 1, 0, 0]}], [], "is 0 or 1 for each label; write names, or a column for each label"),
        ([{"a": 1, "b": 0}], ["--label-columns", "a,b", "--unlabelled-rows"], "an empty cell means no; leave one out"),
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
            [{"label": "a;b"}, {"label": "a"}, {"label": "b"}],
            ["--label-separator", "|"],
            "train.jsonl: --label-separator '|' separates no labels, but ';' is in 'a;b'; write --label-separator ';'",
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


def test_bad_rows_are_skipped_whole(tmp_path: Path) -> None:
    """Not kept as texts without labels, nor with those of their labels that can be read."""
    bad = [{"text": "u1", "domain": "x", "labels": "a;b"}, {"text": "u2", "domain": "x", "labels": ["a", 0.5]}]
    write_rows(tmp_path / "train.jsonl", [*ROWS, *bad])
    write_rows(tmp_path / "test.jsonl", [ROWS[0] | {"text": "test"}])
    data = load_dataset(tmp_path, skip_bad_rows=True)
    assert [e.text for e in data.train] == [row["text"] for row in ROWS]
    assert len(data.skipped) == 2


def test_a_column_of_labels_is_not_asked_of_texts_without_labels(tmp_path: Path) -> None:
    renamed = [{name.replace("labels", "tags"): value for name, value in row.items()} for row in ROWS]
    write_rows(tmp_path / "train.jsonl", renamed)
    write_rows(tmp_path / "test.jsonl", [renamed[0] | {"text": "test"}])
    for extra in ({"text": "more", "domain": "x"}, {"text": "more", "domain": "x", "tags": ["a"]}):
        more = write_rows(tmp_path / "more" / "more.jsonl", [extra])
        data = load_dataset(tmp_path, columns={"labels": "tags"}, unlabelled=more)
        assert [(e.text, e.labels) for e in data.unlabelled] == [("more", None)]


def test_tables_in_memory_are_read(tmp_path: Path) -> None:
    """Of pandas: arrays in cells, gaps; of datasets: numbers of classes."""
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    frame = pandas.DataFrame([{**ROWS[0], "labels": np.array(["b", "a"])}, *ROWS[1:], {"text": "u", "domain": "x"}])
    test = pandas.DataFrame([ROWS[0] | {"text": "test"}])
    data = load_dataset({"train": frame, "test": test}, unlabelled_rows=True)
    assert [e.labels for e in data.train] == EXPECTED
    assert [e.text for e in data.unlabelled] == ["u"]
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "domain": datasets.Value("string"),
            "labels": [datasets.ClassLabel(names=["a", "b"])],
        }
    )
    rows = [{"text": f"t{i}", "domain": "x", "labels": numbers} for i, numbers in enumerate([[1, 0], [0], []])]
    table = datasets.Dataset.from_list(rows, features=features)
    assert [e.labels for e in load_dataset({"train": table, "test": table.select([0])}).train] == EXPECTED[:3]


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
    lists = ["['a', 'b']", "[]"]
    (message,) = remarks({"train": {"x": dict.fromkeys(lists, 50)}, "test": {"x": dict.fromkeys(lists, 50)}}, lists)
    assert "looks like a list (2 labels do); if texts may have several labels, name their column with" in message
    plain = ["a/c", "other", "b"]
    assert remarks({"train": {"x": dict.fromkeys(plain, 50)}, "test": {"x": dict.fromkeys(plain, 50)}}, plain) == []


def test_what_the_cut_will_leave_is_counted_by_the_rarest_label(metakd: Command, tmp_path: Path) -> None:
    """200 texts with all of three labels are 200 rows, not 600, and so few go to test."""
    rows = [{"text": f"t{i}", "domain": "x", "labels": ["a", "b", "c"]} for i in range(200)]
    out, _ = passed(metakd("inspect", write_rows(tmp_path / "all.jsonl", rows), "--cut", "80/10/10"))
    assert "x will have about 20 rows in test: too few to score" in " ".join(out.split())
    message = refused(metakd("inspect", write_rows(tmp_path / "few.jsonl", rows[:3])))
    assert "no label has enough texts in one domain for test to get one" in message


def test_rare_classes_are_noticed() -> None:
    counts = {"x": {"a": 50, "b": 4}}
    messages = remarks({"train": counts, "test": {"x": {"a": 50, "b": 1}}}, ["a", "b"])
    assert messages == ["classes with under 5 training rows, which are hardly learnt: b of x (4)"]


def test_inspect_counts_texts_and_shares_of_them(metakd: Command, tmp_path: Path) -> None:
    rows = [row | {"text": f"{row['text']} {i}"} for i in range(30) for row in ROWS]
    out, _ = passed(metakd("inspect", write_rows(tmp_path / "all.jsonl", rows), "--json"))
    assert '"rows": 120' in out
    rows_of_text = "".join(f"t{i},x,{'a|b' if i % 3 == 0 else 'a' if i % 3 == 1 else ''}\n" for i in range(300))
    (tmp_path / "joined.csv").write_text(f"text,domain,label\n{rows_of_text}")
    out, _ = passed(metakd("inspect", tmp_path / "joined.csv", "--label-separator", "|"))
    assert "a 67 %, b 33 %" in " ".join(out.split())
    out, _ = passed(metakd("inspect", tmp_path / "all.jsonl"))
    assert "a 50 %, b 50 %" in " ".join(out.split())
