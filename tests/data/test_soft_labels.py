"""Probabilities of labels in the data: what is read, what is refused, and the targets that they become."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import write_rows
from metakd import InputError, load_dataset
from metakd.data.labels import accuracy_of_hard_labels, parse_soft_label, soft_label_columns
from metakd.data.schema import Example
from metakd.inspection.inspector import inspect_data

IDS = {"bad": 0, "good": 1, "odd": 2}


def row(text: str, **fields: Any) -> dict[str, Any]:
    return {"text": text, "domain": "books", "label": "good"} | fields


def example(label: str, soft: tuple[tuple[str, float], ...] = (), gold: bool = True) -> Example:
    return Example(label, label, None, label, "d", soft, gold, hard=len(soft) == 1)


@pytest.mark.parametrize(
    ("probabilities", "teacher_label", "expected"),
    [
        ({"good": 0.75, "bad": 0.25}, None, {"good": 0.75, "bad": 0.25}),
        ('{"good": 0.75, "bad": 0.25}', "", {"good": 0.75, "bad": 0.25}),
        ("{'good': 0.75, 'bad': 0.25}", None, {"good": 0.75, "bad": 0.25}),  # as pandas writes a mapping into CSV
        ([0.25, 0.75], "bad", {"bad": 0.25, "good": 0.75}),
        ("[0, 1]", None, {"bad": 0, "good": 1}),
        (np.array([0.25, 0.75]), None, {"bad": 0.25, "good": 0.75}),
        ({"good": 0.75, "bad": 0.249}, None, {"good": 0.75 / 0.999, "bad": 0.249 / 0.999}),
        ({"good": 1.0, "bad": None}, None, {"good": 1.0}),
        (None, "good", {"good": 1.0}),
        ("", "good", {"good": 1.0}),
        (None, None, {}),
    ],
)
def test_mappings_lists_json_and_hard_labels(
    probabilities: Any, teacher_label: Any, expected: dict[str, float]
) -> None:
    soft_label, hard = parse_soft_label(probabilities, teacher_label, ["bad", "good"])
    assert dict(soft_label) == pytest.approx(expected)
    assert hard == (isinstance(probabilities, str | None) and not probabilities and bool(teacher_label))


FAULTS: list[tuple[Any, str]] = [
    ({"good": 0.7, "bad": 0.2}, "probabilities: sum to 0.9, not 1"),
    ({"good": float("nan"), "bad": 0.2}, "expected numbers from 0 to 1, found nan"),
    ({"good": 1.5, "bad": -0.5}, "expected numbers from 0 to 1, found 1.5, -0.5"),
    ({"good": "0.5", "bad": "0.5"}, "expected numbers from 0 to 1"),
    ({"good": True}, "expected numbers from 0 to 1"),
    ({"good": 10**400}, "expected numbers from 0 to 1"),
    ("[" * 100_000, "neither a mapping nor a list"),
    ({"": 1.0}, "probabilities, a label: is empty"),
    ({"good": float("inf")}, "expected numbers from 0 to 1, found inf"),
    ({}, "sum to 0, not 1"),
    ([0.5, 0.5], "a list of 2, but --probability-labels names none"),
    ("0.5", "expected a mapping from label, or a list, found 0.5"),
    ("good", "neither a mapping nor a list: 'good'"),
    (0.5, "expected a mapping from label, or a list, found 0.5"),
]


@pytest.mark.parametrize(("probabilities", "message"), FAULTS)
def test_faults_of_probabilities_name_the_row(tmp_path: Path, probabilities: Any, message: str) -> None:
    rows = [row("a"), row("b", label="bad"), row("c", probabilities=probabilities)]
    file = write_rows(tmp_path / "train.jsonl", rows)
    assert load_dataset(tmp_path)  # not read without being asked for
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path, soft_labels=True)
    assert f"{file.name}, row 3, " in str(error.value)
    assert message.replace("--probability-labels", "probability_labels") in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a"), row("b", label="bad", probabilities={"fine": 1.0})], "'fine' (1 rows) is no label of train, which"),
        (
            [row("a", teacher_label="x"), row("b", label="bad")],
            "'x' (1 rows) is no label of train, which has bad",
        ),
        ([row("a"), row("b", label=""), row("c", label="bad", teacher_label="bad")], "row 2, label: is empty"),
        ([row("a", label="", teacher_label="good")] * 2, "only one label"),
    ],
)
def test_labels_have_to_be_those_of_train(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path, soft_labels=True)
    assert message in str(error.value)


def test_lists_need_the_order_of_the_labels(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [row("a", probabilities=[0.5, 0.5]), row("b", label="bad")])
    with pytest.raises(InputError, match="a list of 2, but probability_labels names 3"):
        load_dataset(tmp_path, soft_labels=True, probability_labels=["bad", "good", "odd"])
    data = load_dataset(tmp_path, soft_labels=True, probability_labels=["bad", "good"])
    assert data.train[0].soft_label == (("bad", 0.5), ("good", 0.5))


def test_rows_without_a_gold_label_have_the_likeliest_and_move_the_fingerprint(tmp_path: Path) -> None:
    """Baselines learn from gold labels alone, unless no row has one; held-out rows need theirs."""
    rows = [row("a"), row("b", label="bad"), row("c", label=None, probabilities={"good": 0.4, "bad": 0.6})]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "dev.jsonl", [row("d")])
    data = load_dataset(tmp_path, soft_labels=True)
    assert [(e.label, e.gold) for e in data.train] == [("good", True), ("bad", True), ("bad", False)]
    assert [e.text for e in data.gold] == ["a", "b"]
    write_rows(tmp_path / "train.jsonl", [*rows[:2], row("c", label="bad", teacher_label="bad")])
    assert load_dataset(tmp_path, soft_labels=True).train_fingerprint != data.train_fingerprint
    none = [each | {"label": "", "teacher_label": each["label"]} for each in rows[:2]]
    write_rows(tmp_path / "train.jsonl", none)
    data = load_dataset(tmp_path, soft_labels=True)
    assert (data.labels, data.gold) == (["bad", "good"], data.train)
    write_rows(tmp_path / "dev.jsonl", [row("d", label="", teacher_label="good")])
    with pytest.raises(InputError, match=r"dev\.jsonl, row 1, label: is empty"):
        load_dataset(tmp_path, soft_labels=True)


def test_the_same_from_csv_and_pandas(tmp_path: Path) -> None:
    rows = [row("a", p={"good": 0.9, "bad": 0.1}), row("b", label="bad", p={"good": 0.2, "bad": 0.8})]
    frame = pd.DataFrame(rows)
    how: dict[str, Any] = {"soft_labels": True, "columns": {"probabilities": "p"}}
    in_memory = load_dataset({"train": frame}, **how)
    frame.assign(p=frame["p"].map(json.dumps)).to_csv(tmp_path / "train.csv", index=False)
    assert load_dataset(tmp_path, **how).train_fingerprint == in_memory.train_fingerprint
    assert in_memory.train[0].soft_label == (("good", 0.9), ("bad", 0.1))


def test_targets_and_weights_by_hand() -> None:
    """Of three hard labels two are right: (2 + 1) / (3 + 2) = 0.6, and 0.2 for each of the two other labels."""
    hard = [example("good", (("good", 1.0),)), example("bad", (("bad", 1.0),)), example("bad", (("good", 1.0),))]
    accuracy = accuracy_of_hard_labels(hard)
    assert accuracy == pytest.approx(0.6)
    rows = [
        *hard[:1],
        example("good"),
        example("bad", (("bad", 0.5), ("odd", 0.5)), gold=False),
        example("good", (("bad", 0.9), ("good", 0.1))),
        Example("u", "u", None, "", "d"),
    ]
    columns = soft_label_columns(rows, IDS, accuracy, 0.3)
    q = [[0.2, 0.6, 0.2], [0, 1, 0], [0.5, 0, 0.5], [0.9, 0.1, 0], [0, 0, 0]]
    assert columns["soft_labels"] == pytest.approx(np.array(q))
    assert columns["gold_weights"] == pytest.approx([0.3, 1, 0, 0.3, 1])
    assert accuracy_of_hard_labels(rows[1:]) is None
    assert soft_label_columns(hard[2:], IDS, None, 0.3)["soft_labels"].tolist() == [[0, 1, 0]]


def test_one_file_has_only_gold_labels_in_dev_and_test(tmp_path: Path) -> None:
    """Of 80 texts, 40 with a gold label: 8 go to test, whose two repeats without a gold label are left out."""
    gold = [row(f"t{i}", label="good" if i % 2 else "bad") for i in range(40)]
    soft = [row(f"s{i}", label="", teacher_label="good" if i % 2 else "bad") for i in range(40)]
    file = write_rows(tmp_path / "rows.jsonl", [*gold, *soft])
    data = load_dataset(file, soft_labels=True, cut="80/0/20")
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 72, "dev": 0, "test": 8}
    assert all(e.gold for e in data.splits["test"])
    scored = data.splits["test"][0].text
    write_rows(file, [*gold, *soft, row(scored, label="", teacher_label="bad")])
    again = load_dataset(file, soft_labels=True, cut="80/0/20")
    assert scored not in {e.text for e in again.train}
    assert "1 rows without a gold label are left out: their texts are in dev or test" in again.notices
    write_rows(file, soft)
    with pytest.raises(InputError, match="no row has a gold label to be scored by"):
        load_dataset(file, soft_labels=True)


def test_thinned_rows_lose_their_soft_labels_too(tmp_path: Path) -> None:
    rows = [row(f"s{i}", label="", teacher_label="good" if i % 2 else "bad") for i in range(40)]
    write_rows(tmp_path / "train.jsonl", rows)
    thin = load_dataset(tmp_path, soft_labels=True).thinned(25, 0, rest_unlabelled=True)
    assert (len(thin.train), len(thin.unlabelled)) == (10, 30)
    assert {(e.label, e.soft_label, e.gold, e.hard) for e in thin.unlabelled} == {("", (), True, False)}


def test_a_hard_label_is_another_target_than_a_certain_probability(tmp_path: Path) -> None:
    digests = []
    for fields in ({"teacher_label": "good"}, {"probabilities": {"good": 1.0}}):
        write_rows(tmp_path / "train.jsonl", [row("a", **fields), row("b", label="bad")])
        digests.append(load_dataset(tmp_path, soft_labels=True).train_fingerprint)
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({"label": "", "teacher_label": "good"}, "train: only one label (good)"),
        ({"label": "", "probabilities": {"good": 0.9, "bad": 0.1}}, ""),
        ({"probabilities": {"odd": 1.0}}, "'odd' (2 rows) is no label of train"),
        ({}, "no row of train has probabilities"),
    ],
)
def test_inspect_judges_soft_labels_as_a_run_does(tmp_path: Path, fields: dict[str, Any], finding: str) -> None:
    write_rows(tmp_path / "train.jsonl", [row("a", **fields), row("b", **fields)])
    write_rows(tmp_path / "test.jsonl", [row("c"), row("d", label="bad") if not finding else row("d")])
    faults = "; ".join(inspect_data(tmp_path, soft_labels=True)["faults"])
    assert (finding in faults) if finding else not faults
    if finding:
        with pytest.raises(InputError) as error:
            load_dataset(tmp_path, soft_labels=True)
        assert finding in str(error.value)
    else:
        assert load_dataset(tmp_path, soft_labels=True).labels == ["bad", "good"]
