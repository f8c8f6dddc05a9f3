"""Raw releases, in small, become the papers' splits."""

import tarfile
from collections import Counter
from pathlib import Path

import pytest

from conftest import Command, multinli_rows, passed, read_json, refused, write_release, write_rows
from metakd.data.dataset import load_dataset
from metakd.experiments.releases import prepare
from metakd.utils.errors import InputError


@pytest.mark.parametrize("archived", [False, True])
def test_amazon_comes_out_in_the_papers_split(tmp_path: Path, archived: bool) -> None:
    """The paper's counts, which depend on the order of pooling, on pandas' shuffling and on both folds."""
    source = write_release(tmp_path / "raw", 1000)
    if archived:
        with tarfile.open(tmp_path / "raw.tar.gz", "w:gz") as archive:
            archive.add(source, "domain_sentiment_data")
        source = tmp_path / "raw.tar.gz"
    assert prepare("amazon", str(source), tmp_path / "out").notices == []
    data = load_dataset(tmp_path / "out")
    counts = {split: Counter(e.domain for e in rows) for split, rows in data.splits.items()}
    assert {d: tuple(counts[s][d] for s in ("train", "dev", "test")) for d in data.domains} == {
        "books": (1631, 170, 199),
        "dvd": (1621, 194, 185),
        "electronics": (1615, 172, 213),
        "kitchen": (1613, 184, 203),
    }
    first = data.train[0]
    assert (first.domain, first.text) == ("books", "books & negative\ufffd no. 414")  # pooled row 1414, shuffled
    assert not any("not for us" in e.text for rows in data.splits.values() for e in rows)
    assert data.labels == ["negative", "positive"]


def test_multinli_is_pairs_by_genre_without_those_that_nobody_agreed_on(
    tmp_path: Path, metakd: Command, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "dev_matched", "dev_mismatched"):
        write_rows(tmp_path / "raw" / f"multinli_1.0_{split}.jsonl", multinli_rows())
    out, _ = passed(metakd("data", "multinli", "--source", tmp_path / "raw", "--output", tmp_path / "out"))
    assert "train 12, dev 12, dev_mismatched 12" in out
    assert "4 of 16 rows of train dropped: no agreed label" in caplog.text
    data = load_dataset(tmp_path / "out")
    assert data.domains == ["fiction", "travel"]
    assert data.labels == ["contradiction", "entailment", "neutral"]
    assert (data.train[0].text, data.train[0].text_pair) == ("a 0", "b 0")
    assert read_json(tmp_path / "out" / "manifest.json")["release"] == "multinli"


def test_multinli_has_no_row_of_one_text(tmp_path: Path, metakd: Command) -> None:
    for split in ("train", "dev_matched"):
        rows = multinli_rows()
        del rows[0]["sentence2"]
        write_rows(tmp_path / "raw" / f"multinli_1.0_{split}.jsonl", rows)
    text = refused(metakd("data", "multinli", "--source", tmp_path / "raw", "--output", tmp_path / "out"))
    assert "train: 1 of 12 rows have no sentence2" in text
    assert not (tmp_path / "out").exists()


def test_multinli_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    names = ["entailment", "neutral", "contradiction"]
    pairs = ({"premise": f"a {i}", "hypothesis": f"b {i}", "label": [0, 1, 2, -1][i % 4]} for i in range(8))
    rows = [pair | {"genre": "fiction"} for pair in pairs]
    table = datasets.Dataset.from_list(rows).cast_column("label", datasets.ClassLabel(names=names))
    splits = dict.fromkeys(("train", "validation_matched", "validation_mismatched"), table)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: splits)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    release = prepare("multinli", "nyu-mll/multi_nli", tmp_path / "out")
    assert {name: len(kept) for name, kept in release.splits.items()} == {"train": 6, "dev": 6, "dev_mismatched": 6}
    assert release.splits["train"][0] == {"text": "a 0", "text_pair": "b 0", "label": "entailment", "domain": "fiction"}


def test_what_is_no_release_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for name, source, message in (
        ("imdb", ".", "choose one of amazon, multinli"),
        ("amazon", "empty", "the release is incomplete"),
        ("multinli", "empty", "no dev and no train of MultiNLI"),
        ("multinli", "nowhere", "no such folder, and not a dataset id"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(name, source, Path("out"))
        assert not Path("out").exists()


def test_files_without_reviews_or_labels_are_refused(tmp_path: Path) -> None:
    """The release's sibling, `processed_acl`, has files of the same names and no blocks."""
    for path in write_release(tmp_path / "raw", 1).rglob("*.review"):
        empty = "<review_text> </review_text>\n" * 10
        path.write_text("good:1 bad:2 #label#:positive\n" if path.stem == "negative" else empty)
    with pytest.raises(InputError, match=r"0 reviews in books/negative\.review") as error:
        prepare("amazon", str(tmp_path / "raw"), tmp_path / "out")
    assert "an empty review in books/positive.review" in str(error.value)
    for split in ("train", "dev_matched"):
        write_rows(tmp_path / "m" / f"multinli_1.0_{split}.jsonl", [{"sentence1": "a"}])
    with pytest.raises(InputError, match="train: no row has a label"):
        prepare("multinli", str(tmp_path / "m"), tmp_path / "out")


def test_part_of_a_release_is_cut_with_a_word(tmp_path: Path) -> None:
    release = prepare("amazon", str(write_release(tmp_path / "raw", 20)), tmp_path / "out")
    assert release.notices == ["not the paper's data, which has 1000 reviews per label"]
