"""Text without labels: what is read of it, what is left out, and each fault in one message."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import write_rows
from metakd import InputError, load_dataset


def rows(*texts: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"text": text, "domain": "books"} | fields for text in texts]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for split, texts in (("train", ("a", "b", "c")), ("dev", ("d",)), ("test", ("e",))):
        labels = ["good", "bad", "good"]
        both = [
            row | {"label": label, "domain": domain}
            for domain in ("books", "films")
            for row, label in zip(rows(*texts), labels, strict=False)
        ]
        write_rows(tmp_path / "data" / f"{split}.jsonl", both)
    return tmp_path / "data"


def test_texts_that_are_known_are_left_out_and_counted(labelled: Path, tmp_path: Path) -> None:
    """Labels are not read; ids are apart from those of train."""
    extra = [*rows("a", "d", "e", "x", "x"), {"text": "y", "domain": "films", "label": "?", "id": "7"}]
    data = load_dataset(labelled, unlabelled=write_rows(tmp_path / "more.jsonl", extra))
    assert [(e.text, e.label, e.domain) for e in data.unlabelled] == [("x", "", "books"), ("y", "", "films")]
    assert data.unlabelled[1].id == "unlabelled/7"
    assert "2 new texts without labels; 4 left out: 1 in train, 1 in dev, 1 in test, 1 repeated" in data.notices[-1]
    assert data.unlabelled_place == str(tmp_path / "more.jsonl")
    assert load_dataset(labelled).fingerprint == data.fingerprint
    assert load_dataset(labelled).unlabelled_fingerprint != data.unlabelled_fingerprint
    assert [e.text for e in data.only("films").unlabelled] == ["y"]


def test_ids_are_unique_whatever_they_are(labelled: Path, tmp_path: Path) -> None:
    extra = [row | {"id": name} for row, name in zip(rows("x", "y", "z"), ("7", "7", "7'"), strict=True)]
    data = load_dataset(labelled, unlabelled=write_rows(tmp_path / "more.jsonl", extra), columns={"label": "label"})
    assert len({e.id for e in [*data.train, *data.unlabelled]}) == len(data.train) + 3


def test_tables_in_memory_have_no_place(labelled: Path) -> None:
    data = load_dataset(labelled, unlabelled=pd.DataFrame({"text": ["x"], "domain": ["books"]}))
    assert data.unlabelled_place is None
    assert [e.text for e in data.unlabelled] == ["x"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (rows("x", domain="music"), "domain 'music' (1 rows): not in train, which has books, films"),
        (rows("x", text_pair="y"), "text_pair: 1 rows have one, unlike those of train"),
        (rows("a", "e"), "no text is left that is not in train, dev or test; leave out --unlabelled"),
        (rows(""), "row 1, text: is empty"),
        ([], "no rows"),
    ],
)
def test_what_cannot_be_used_is_refused(
    labelled: Path, tmp_path: Path, extra: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(labelled, unlabelled=write_rows(tmp_path / "more.jsonl", extra))
    assert message.replace("--unlabelled", "unlabelled") in str(caught.value).replace("--unlabelled", "unlabelled")


def test_rows_of_train_without_a_label_are_text_without_labels_on_request(labelled: Path) -> None:
    with (labelled / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": "x", "label": "", "domain": "books"}\n{"text": "a", "domain": "films"}\n')
    with pytest.raises(InputError, match="row 7, label: is empty"):
        load_dataset(labelled)
    data = load_dataset(labelled, unlabelled_rows=True)
    assert [(e.text, e.domain) for e in data.unlabelled] == [("x", "books")]
    assert len(data.train) == 6
    assert data.notices == ["train: 1 new texts without labels; 1 left out: 1 in train"]
    assert data.unlabelled_place is None


def test_empty_labels_of_dev_stay_faults(labelled: Path) -> None:
    with (labelled / "dev.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": "x", "label": "", "domain": "books"}\n')
    with pytest.raises(InputError, match=r"dev\.jsonl, row 3, label: is empty"):
        load_dataset(labelled, unlabelled_rows=True)


def test_texts_without_a_domain_get_the_one_that_train_suggests(tmp_path: Path) -> None:
    """Each domain has its word; cross-validation can then be right always."""
    train = [
        {"text": f"{word} {i}", "label": "pn"[i % 2], "domain": domain}
        for domain, word in (("books", "plot"), ("kitchen", "pan"))
        for i in range(8)
    ]
    write_rows(tmp_path / "data" / "train.jsonl", train)
    extra = [{"text": "pan x"}, {"text": "plot y", "domain": None}, {"text": "plot z", "domain": "kitchen"}]
    data = load_dataset(tmp_path / "data", unlabelled=write_rows(tmp_path / "more.jsonl", extra))
    assert [e.domain for e in data.unlabelled] == ["kitchen", "books", "kitchen"]
    assert data.notices[-1].endswith("; 2 had no domain and got one by TF-IDF (accuracy 100.0 % by cross-validation)")


def test_most_are_drawn_evenly_from_the_domains(labelled: Path, tmp_path: Path) -> None:
    """Of 20 and 2 texts, at most 10: both of the smaller domain, and 8."""
    extra = [*rows(*(f"x{i}" for i in range(20))), *rows("y0", "y1", domain="films")]
    file = write_rows(tmp_path / "more.jsonl", extra)
    drawn, again, other = (
        [e.text for e in load_dataset(labelled, seed, unlabelled=file, max_unlabelled=10).unlabelled]
        for seed in (0, 0, 1)
    )
    assert drawn == again != other
    assert drawn[-2:] == ["y0", "y1"]
    assert len(drawn) == 10
    assert (
        "10 new texts without labels; 12 left out: 12 not drawn"
        in (load_dataset(labelled, unlabelled=file, max_unlabelled=10).notices[-1])
    )


def test_dropped_labels_and_a_share_of_the_texts(labelled: Path, tmp_path: Path) -> None:
    """Of three texts of books and of films (two good, one bad), 40 percent are none: one of each label stays."""
    file = write_rows(tmp_path / "more.jsonl", [*rows("x0", "x1", "x2", "x3"), *rows("y0", "y1", domain="films")])
    data = load_dataset(labelled, unlabelled=file)
    thin = data.thinned(40, 0, rest_unlabelled=True)
    dropped = {e.id for e in data.train} - {e.id for e in thin.train}
    assert {e.id for e in thin.unlabelled} == dropped | {e.id for e in data.unlabelled}
    assert dropped
    assert all(not e.label for e in thin.unlabelled)
    assert data.thinned(40, 0).unlabelled == data.unlabelled
    half = data.with_unlabelled(50, 0)
    assert Counter(e.domain for e in half.unlabelled) == {"books": 2, "films": 1}
    assert data.with_unlabelled(0, 0).unlabelled == []
    assert half.train_fingerprint == data.train_fingerprint
