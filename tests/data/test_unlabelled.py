"""Text without labels: what is read of it, what is left out, and each fault in one message."""

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
        ([{"text": "x"}], "no column 'domain'"),
        (rows("x", domain=""), "row 1, domain: is empty"),
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
