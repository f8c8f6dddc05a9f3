"""Paths, hub datasets and tables in memory: one table for each split."""

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from conftest import Command, as_row, refused, toy_examples, write_rows
from metakd import Run, Settings
from metakd.data import sources
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.examples import read_examples
from metakd.utils.errors import InputError

ROWS = [as_row(e) for e in toy_examples(8, 0, "t")]


def texts(data: MultiDomainDataset) -> dict[str, list[str]]:
    return {split: [e.text for e in rows] for split, rows in data.splits.items()}


def test_frames_datasets_and_folders_of_any_format_are_the_same_data(tmp_path: Path) -> None:
    parts = {"train": ROWS[:4], "dev": ROWS[4:]}
    frames = {name: pd.DataFrame(rows) for name, rows in parts.items()}
    frames["train"].to_csv(tmp_path / "train.csv", index=False)
    frames["dev"].to_parquet(tmp_path / "validation.parquet")
    (tmp_path / "notes.txt").write_text("no data")
    expected = texts(load_dataset(tmp_path))
    assert expected == {name: [row["text"] for row in rows] for name, rows in parts.items()}
    assert texts(load_dataset(frames)) == expected
    tables = {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
    assert texts(load_dataset(tables)) == expected
    assert texts(load_dataset(datasets.DatasetDict(tables))) == expected
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    assert texts(load_dataset(tmp_path / "saved")) == expected


def test_one_frame_is_cut_and_a_missing_value_is_a_fault() -> None:
    frame = pd.DataFrame([as_row(e) for e in toy_examples(48, 0, "t")])
    assert "was split by domain and label" in load_dataset(frame).notices[0]
    frame.loc[2, "label"] = None
    with pytest.raises(InputError, match="data, row 3, label: is empty"):
        load_dataset(frame)


def test_a_datasets_class_labels_are_names() -> None:
    string, names = datasets.Value("string"), datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": string, "label": names, "domain": string})
    rows = [{"text": f"text {i}", "label": i % 2, "domain": "d"} for i in range(4)]
    assert load_dataset({"train": datasets.Dataset.from_list(rows, features=features)}).labels == ["bad", "good"]
    rows[1]["label"] = -1  # how the hub marks a row without a label
    with pytest.raises(InputError, match="train, row 2, label: is empty"):
        load_dataset({"train": datasets.Dataset.from_list(rows, features=features)})


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    rows = [{"review": r["text"], "stars": r["label"], "genre": r["domain"], "text": "not this"} for r in ROWS]
    columns = {"text": "review", "label": "stars", "domain": "genre"}
    data = load_dataset({"train": pd.DataFrame(rows)}, columns=columns)
    assert texts(data)["train"] == [row["text"] for row in ROWS]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError) as error:
        load_dataset(file, columns=columns | {"label": "star"})
    assert "row 1 and 7 more: no column 'star' (for label)" in str(error.value)
    assert "did you mean columns label=stars?" in str(error.value)


def test_a_hub_dataset_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own loader, on a dataset in a folder such as the hub holds; its id is a relative path that is none."""
    for split, rows in (("train", ROWS[:4]), ("validation", ROWS[4:])):
        write_rows(tmp_path / "hub" / f"{split}.jsonl", rows)
    real = datasets.load_dataset
    calls: list[Any] = []

    def local(name: str, config: str | None, **options: Any) -> Any:
        calls.append((name, config))
        return real(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    data = load_dataset("someone/reviews", data_config="small")
    assert calls == [("someone/reviews", "small")]
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 4, "dev": 4}
    assert data.name == "someone/reviews"


def test_a_hub_that_cannot_be_reached_costs_seconds_and_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    with pytest.raises(InputError, match="someone/reviews: no such file or folder, and cannot be loaded from the hub"):
        load_dataset("someone/reviews")


TWO_LABELS = pd.DataFrame([[*row.values(), "odd"] for row in ROWS], columns=[*ROWS[0], "label"])
HEADER_ROW = pd.DataFrame([*ROWS, {name: name for name in ROWS[0]}])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "found int"),
        (TWO_LABELS, "data: the header has label more than once; rename all but one"),
        ({"train": TWO_LABELS.rename(columns={"domain": "label "})}, "train: the header has label more than once"),
        (pd.DataFrame([[1, 2]], columns=["1", 1]), "data: the header has 1 more than once"),
        (datasets.Dataset.from_dict({"label": ["a"], " label": ["b"]}), "data: the header has label more than once"),
        (HEADER_ROW, "data, row 9: repeats the names of the columns, as a second header; drop the row"),
        (datasets.Dataset.from_pandas(HEADER_ROW), "data, row 9: repeats the names of the columns"),
        ({"train": [1, 2]}, "train: expected a path, a pandas DataFrame or a datasets.Dataset, found list"),
        ({"dev": pd.DataFrame(ROWS)}, "no train"),
        ({"train": pd.DataFrame(ROWS), "validation": pd.DataFrame(ROWS), "dev": pd.DataFrame(ROWS)}, "keep one"),
        ("no/where.csv", "no such file or folder"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(data)
    write_rows(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(InputError, match="expected one file, found a folder"):
        read_examples(tmp_path)


def test_rows_are_read_as_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row is there before the last one is parsed."""
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    parsed: list[str] = []
    real = json.loads
    monkeypatch.setattr("metakd.data.readers.json.loads", lambda text, **how: parsed.append(text) or real(text, **how))
    next(sources.open_source(file).tables[""].rows([]))
    assert len(parsed) == 1


def test_blanks_and_a_gap_beside_whole_numbers_make_no_new_labels() -> None:
    """pandas turns a column of whole numbers with a gap into floats: 1 becomes 1.0."""
    rows = [row | {"label": f" {row['label']} " if i % 3 else row["label"]} for i, row in enumerate(ROWS)]
    assert load_dataset({"train": pd.DataFrame(rows)}).labels == ["negative", "positive"]
    rows = [row | {"label": float(i % 2), "id": None if i else 7} for i, row in enumerate(ROWS)]
    data = load_dataset({"train": pd.DataFrame(rows)})
    assert data.labels == ["0", "1"]
    assert data.train[0].id == "7"


def test_paths_and_tables_by_split_and_odd_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert len(load_dataset({"train": tmp_path / "t.csv", "dev": frame}).splits["dev"]) == len(ROWS)
    with pytest.raises(InputError, match="no column 'text'; the columns are: 0, 1, 2"):
        load_dataset(pd.DataFrame([["a", "b", "c"]]))


def test_a_run_of_tables_in_memory_says_so_when_it_is_resumed(
    tmp_path: Path, base: Path, metakd: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that happens to be called `data` is not taken for them."""
    monkeypatch.chdir(tmp_path)
    write_rows(Path("data") / "train.jsonl", ROWS)
    settings = Settings(base=str(base), max_length=16, student="layers=2")
    Run.assemble("run", settings, {"train": pd.DataFrame(ROWS)}).begin()
    assert "was started with tables in memory" in refused(metakd("weigh", "--output", "run"))
