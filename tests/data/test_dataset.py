"""Files in, checked domains out; every fault with its row and field."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import write_rows
from metakd.data.dataset import folder_name, load_dataset
from metakd.data.examples import read_examples
from metakd.data.schema import SPLITS, Example
from metakd.data.splits import cut_into_splits, leaks
from metakd.utils.errors import InputError

GOOD: list[dict[str, Any]] = [
    {"text": "a fine pan", "label": "positive", "domain": "kitchen"},
    {"text": "a dull page", "label": "negative", "domain": "books"},
    {"text": "a poor lid", "label": "negative", "domain": "kitchen"},
]


def test_labels_and_domains_are_sorted_whatever_the_order_of_rows(tmp_path: Path) -> None:
    for name, rows in (("one", GOOD), ("two", GOOD[::-1])):
        data = load_dataset(write_rows(tmp_path / name / "train.jsonl", rows).parent)
        assert data.labels == ["negative", "positive"]
        assert data.domains == ["books", "kitchen"]


def test_ids_come_from_the_text_and_survive_a_new_order(tmp_path: Path) -> None:
    rows = [*GOOD, GOOD[0]]
    one = read_examples(write_rows(tmp_path / "one.jsonl", rows))
    two = read_examples(write_rows(tmp_path / "two.jsonl", rows[::-1]))
    assert {(e.id, e.text) for e in one} == {(e.id, e.text) for e in two}
    assert one[3].id == f"{one[0].id}-2"


def test_gzip_reads_the_same(tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "a.jsonl", GOOD)
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_examples(plain) == read_examples(packed)


def test_numbers_are_labels_too(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": i % 2, "domain": 7, "id": i} for i in range(4)]
    data = load_dataset(write_rows(tmp_path / "train.jsonl", rows).parent)
    assert (data.labels, data.domains) == (["0", "1"], ["7"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "row 2: not a line of JSON"),
        ('["a"]', "row 2: expected an object, found list"),
        ('{"label": "a", "domain": "b"}', "row 2: no 'text'; fields there: label, domain"),
        ('{"text": "x"}', "row 2: no 'domain'; fields there: text"),
        ('{"text": " \\t", "label": "a", "domain": "b"}', "row 2, text: is empty"),
        ('{"text": "\\u0000", "label": "a", "domain": "b"}', "row 2, text: holds a NUL character"),
        ('{"text": "\\ud800", "label": "a", "domain": "b"}', "row 2, text: holds a lone surrogate"),
        ('{"text": 5, "label": "a", "domain": "b"}', "row 2, text: expected text, found 5"),
        ('{"text": "x", "label": 1.5, "domain": "b"}', "row 2, label: expected a name or a whole number, found 1.5"),
        ('{"text": "x", "label": ["a"], "domain": "b"}', "row 2, label"),
        ('{"text": "x", "label": "a", "domain": ""}', "row 2, domain"),
        ('{"text": "x", "text_pair": 3, "label": "a", "domain": "b"}', "row 2, text_pair: expected text"),
        ("[" * 100_000, "row 2: not a line of JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(GOOD[0]) + "\n" + line + "\n")
    with pytest.raises(InputError) as error:
        read_examples(file)
    assert message in str(error.value)


def test_all_bad_rows_stand_in_one_message(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "train.jsonl", [{"text": "", "label": "a", "domain": "b"}] * 30)
    with pytest.raises(InputError) as error:
        read_examples(file)
    assert "30 faults" in str(error.value)
    assert "and 10 more" in str(error.value)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"dev": GOOD}, "no train (.jsonl"),
        ({"train": GOOD[1:]}, "one label only"),
        ({"train": GOOD, "dev": [{**GOOD[0], "label": "neutral"}]}, "dev, label: 'neutral' (1 rows)"),
        ({"train": GOOD, "test": [{**GOOD[0], "domain": "garden"}]}, "test, domain: 'garden' (1 rows)"),
        ({"train": [{**GOOD[0], "text_pair": "x"}, *GOOD[1:]]}, "text_pair: missing on 2 rows"),
        ({"train": [{**row, "id": "same"} for row in GOOD]}, "id 'same' stands on 3 rows"),
        ({"train": []}, "no rows"),
    ],
)
def test_a_bad_folder_is_refused(tmp_path: Path, splits: dict[str, list[dict[str, Any]]], message: str) -> None:
    for name, rows in splits.items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    assert message in str(error.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.jsonl.gz"
    packed = gzip.compress(json.dumps(GOOD).encode())
    corrupt.write_bytes(packed[:12] + b"\xff" * 8 + packed[20:])
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(json.dumps(GOOD[0]).encode())[:-6])
    for path, message in (
        (tmp_path / "none.jsonl", "no such file"),
        (write_rows(tmp_path / "a.xlsx", GOOD), "expected one of .jsonl"),
        (torn, "cannot be read to its end"),
        (corrupt, "cannot be read to its end"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset(path)


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "train.jsonl", GOOD)
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(InputError, match="keep one"):
        load_dataset(tmp_path)


def test_one_file_is_cut_by_domain_and_label_and_says_so(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i % 2], "domain": "xy"[i // 2 % 2]} for i in range(80)]
    data = load_dataset(write_rows(tmp_path / "all.jsonl", rows), seed=1)
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 64, "dev": 8, "test": 8}
    assert "cut into splits" in data.notices[0]
    for part in ("dev", "test"):
        assert len({(e.domain, e.label) for e in data.splits[part]}) == 4


def test_a_text_on_several_rows_stays_in_one_split_and_leaks_are_told(tmp_path: Path) -> None:
    rows = [Example(str(i), f"text {i % 40}", None, "ab"[i % 2], "x") for i in range(80)]
    splits = cut_into_splits(rows, 0)
    assert {e.text for e in splits["test"]}.isdisjoint(e.text for e in splits["train"])
    assert len(splits["test"]) == 8
    write_rows(tmp_path / "train.jsonl", GOOD)
    write_rows(tmp_path / "dev.jsonl", [GOOD[0], {**GOOD[1], "text": "new"}])
    assert [e.text for e in leaks(load_dataset(tmp_path).splits)["dev"]] == ["a fine pan"]


def test_dropping_leaks_keeps_the_later_split_whole(tmp_path: Path) -> None:
    """'b' stands in all three splits and 'c' in two: the last one keeps each."""
    texts = {"train": "abcdef", "dev": "bcg", "test": "bh"}
    for split, letters in texts.items():
        rows = [{"text": x, "label": "pn"[i % 2], "domain": "d"} for i, x in enumerate(letters)]
        write_rows(tmp_path / f"{split}.jsonl", rows)
    leaked = leaks(load_dataset(tmp_path).splits)
    assert {name: [e.text for e in rows] for name, rows in leaked.items()} == {"dev": ["b", "c"], "test": ["b"]}
    data = load_dataset(tmp_path, drop_leaks=True)
    kept = {name: "".join(e.text for e in rows) for name, rows in data.splits.items()}
    assert kept == {"train": "adef", "dev": "cg", "test": "bh"}
    assert data.notices == [
        "2 rows of train dropped: their texts stand in a later split",
        "1 rows of dev dropped: their texts stand in a later split",
    ]


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("ab")), max_size=60), st.integers(0, 5))
def test_cutting_loses_and_doubles_nothing(kinds: list[tuple[str, str]], seed: int) -> None:
    rows = [Example(str(i), f"t{i // 2}", None, label, domain) for i, (domain, label) in enumerate(kinds)]
    splits = cut_into_splits(rows, seed)
    assert sorted(e.id for name in SPLITS for e in splits[name]) == sorted(e.id for e in rows)
    assert splits == cut_into_splits(rows, seed)
    assert {(e.domain, e.label) for e in splits["train"]} == {(e.domain, e.label) for e in rows}


@given(st.text(min_size=1, max_size=30).filter(lambda t: t.isprintable()))
def test_a_domain_name_is_one_safe_component_of_its_own(name: str) -> None:
    folder = folder_name(name)
    assert "/" not in folder
    assert "\\" not in folder
    assert folder.strip(".") == folder
    assert len({folder_name(n) for n in (name, name + "/", "../" + name)}) == 3


def test_rows_put_together_by_hand_need_ids_of_their_own(toy_data: Path) -> None:
    data = load_dataset(toy_data)
    with pytest.raises(InputError, match="train: 256 ids stand on several rows, such as "):
        replace(data, splits={"train": data.train * 2})
