"""Files in, checked domains out; every fault with its row and field."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas import DataFrame

from conftest import as_row, toy_examples, write_rows
from metakd.config.settings import Settings
from metakd.data.dataset import load_dataset
from metakd.data.examples import read_examples
from metakd.data.schema import SPLITS, Example
from metakd.data.splits import cut_into_splits, leaks, parse_cut, sample_by_domain
from metakd.utils.errors import Faults, InputError

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


def test_numbers_are_labels_too(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": i % 2, "domain": 7, "id": i} for i in range(4)]
    data = load_dataset(write_rows(tmp_path / "train.jsonl", rows).parent)
    assert (data.labels, data.domains) == (["0", "1"], ["7"])


def test_one_file_is_cut_by_domain_and_label_and_says_so(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i % 2], "domain": "xy"[i // 2 % 2]} for i in range(80)]
    data = load_dataset(write_rows(tmp_path / "all.jsonl", rows), seed=1)
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 52, "dev": 8, "test": 20}
    assert "was split by domain and label" in data.notices[0]
    for part in ("dev", "test"):
        assert len({(e.domain, e.label) for e in data.splits[part]}) == 4


def test_a_text_on_several_rows_stays_in_one_split() -> None:
    rows = [Example(str(i), f"text {i % 40}", None, "ab"[i % 2], "x") for i in range(80)]
    splits = cut_into_splits(rows, 0)
    assert {e.text for e in splits["test"]}.isdisjoint(e.text for e in splits["train"])
    assert len(splits["test"]) == 20
    assert len(cut_into_splits(rows, 0, test=10)["test"]) == 8


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
        "2 rows of train dropped: their texts are also in a later split",
        "1 rows of dev dropped: their texts are also in a later split",
    ]


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("ab")), max_size=60), st.integers(0, 5))
def test_cutting_loses_and_doubles_nothing(kinds: list[tuple[str, str]], seed: int) -> None:
    rows = [Example(str(i), f"t{i // 2}", None, label, domain) for i, (domain, label) in enumerate(kinds)]
    splits = cut_into_splits(rows, seed)
    assert sorted(e.id for name in SPLITS for e in splits[name]) == sorted(e.id for e in rows)
    assert splits == cut_into_splits(rows, seed)
    assert {(e.domain, e.label) for e in splits["train"]} == {(e.domain, e.label) for e in rows}


def test_a_sample_has_rows_of_every_domain_however_few() -> None:
    """Of 300 rows in a, 40 in b and 1 in c, at most 60: 20 of a and of b, and the one of c."""
    rows = [Example(str(i), f"text {i}", None, "x", "a" if i < 300 else "b" if i < 340 else "c") for i in range(341)]
    sample = sample_by_domain(rows, 60, seed=0)
    assert Counter(e.domain for e in sample) == {"a": 20, "b": 20, "c": 1}
    assert sample == sample_by_domain(rows, 60, seed=0) != sample_by_domain(rows, 60, seed=1)
    assert Counter(e.domain for e in sample_by_domain(rows, 3, seed=0)) == {"a": 2, "b": 2, "c": 1}
    assert sorted(sample_by_domain(rows, 1_000, 0), key=rows.index) == rows


def test_rows_put_together_by_hand_need_unique_ids(toy_data: Path) -> None:
    data = load_dataset(toy_data)
    with pytest.raises(InputError, match="train: 256 ids are on several rows, for example "):
        replace(data, splits={"train": data.train * 2})


def test_auto_gives_test_fifty_texts_of_a_domain_that_has_two_hundred() -> None:
    """Large: 10 % of 1,000. Middle: 200 and 2 labels, 26 %, at most 25: 25 of each label. Small: 25 % of 40."""
    sizes = {"large": 1000, "middle": 200, "small": 40}
    rows = [Example(f"{d}{i}", f"{d} {i}", None, "ab"[i % 2], d) for d, n in sizes.items() for i in range(n)]
    splits = cut_into_splits(rows, 0)
    assert Counter(e.domain for e in splits["test"]) == {"large": 100, "middle": 50, "small": 10}
    assert Counter(e.domain for e in splits["dev"]) == {"large": 100, "middle": 20, "small": 4}
    assert Counter(e.domain for e in cut_into_splits(rows, 0, *parse_cut("60/20/20"))["test"])["large"] == 200


@pytest.mark.parametrize("cut", ["80/10", "80/10/20", "100/0/0", "0/50/50", "a/b/c", "-10/10/100", ""])
def test_a_cut_that_is_none_is_refused(cut: str) -> None:
    with pytest.raises(InputError, match="cut = "):
        Settings.build({"cut": cut})


def test_a_cut_is_looked_at_where_there_are_files_for_splits_too(toy_data: Path) -> None:
    with pytest.raises(InputError, match="cut = '80/20': write percent for train, dev and test"):
        load_dataset(toy_data, cut="80/20")


def test_a_cut_that_changes_nothing_is_noticed(toy_data: Path) -> None:
    [notice] = load_dataset(toy_data, cut="80/0/20").notices
    assert notice == f"--cut 80/0/20 changes nothing: {toy_data} has the splits train, dev, test"


def test_a_table_that_is_nearly_named_as_a_split_is_refused() -> None:
    """Else nothing would be scored on it."""
    rows = [as_row(e) for e in toy_examples(8, 0, "t")]
    with pytest.raises(InputError, match="'tests': no split; use one of train, dev, test"):
        load_dataset({"train": DataFrame(rows), "dev": DataFrame(rows), "tests": DataFrame(rows)})
    other = DataFrame([as_row(e) for e in toy_examples(8, 1, "d")])
    assert {*load_dataset({"train.csv": DataFrame(rows), "dev.csv": other}).splits} == {"train", "dev"}


def test_a_broken_file_is_not_read_to_its_end_and_how_to_leave_rows_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{broken\n" * 10_001)
    (tmp_path / "dev.jsonl").write_text('{"text": "a", "label": "b", "domain": "c"}\n')
    with pytest.raises(InputError, match=r"not read beyond the first 10,000 faults(.|\n)*add skip_bad_rows"):
        load_dataset(tmp_path)
    faults = Faults("ids")
    with pytest.raises(InputError, match="ids, not read beyond"):
        faults += (f"{number} is on 2 rows" for number in range(10_001))


def test_bad_rows_are_skipped_and_listed_only_on_request(tmp_path: Path) -> None:
    good = [{"text": f"t{i}", "label": "pn"[i % 2], "domain": "d"} for i in range(8)]
    bad = [{"text": "", "label": "p", "domain": "d"}, {"text": "x", "domain": "d"}, {"text": "y", "domain": "d"}]
    file = write_rows(tmp_path / "rows.jsonl", [*good[:4], *bad, *good[4:]])
    with file.open("a", encoding="utf-8") as rows:
        rows.write("{broken\n")
    with pytest.raises(InputError, match=r"3 faults(.|\n)*To leave out such rows, add skip_bad_rows"):
        load_dataset(file)
    data = load_dataset(file, skip_bad_rows=True)
    assert sum(map(len, data.splits.values())) == 8
    assert [fault.partition(": ")[0] for fault in data.skipped] == [
        "rows.jsonl, row 5, text",
        "rows.jsonl, row 12",
        "rows.jsonl, row 6",
        "rows.jsonl, row 7",
    ]
    assert data.notices[-1].startswith("rows.jsonl: rows with faults are left out: 4, for example rows.jsonl, row 5")
    write_rows(file, [{"text": "a", "domain": "d"}])  # a missing column is no fault of rows
    with pytest.raises(InputError, match="no column 'label'"):
        load_dataset(file, skip_bad_rows=True)
    write_rows(file, [{"text": str(i), "domain": "d"} for i in range(50)])
    with pytest.raises(InputError, match=r"1 fault\n  - rows.jsonl, row 1 and 49 more: no column 'label'"):
        load_dataset(file, skip_bad_rows=True)


def test_duplicates_are_dropped_with_the_same_label_and_domain_alone(tmp_path: Path) -> None:
    kinds = ["apx", "apx", "anx", "apy", "bnx", "bnx", "bnx"]
    write_rows(tmp_path / "train.jsonl", [dict(zip(("text", "label", "domain"), kind, strict=True)) for kind in kinds])
    data = load_dataset(tmp_path, drop_duplicates=True)
    assert ["".join((e.text, e.label, e.domain)) for e in data.train] == ["apx", "anx", "apy", "bnx"]
    assert data.notices == ["3 rows of train dropped: they repeat another row"]
