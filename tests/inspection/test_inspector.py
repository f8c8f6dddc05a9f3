"""What an inspection reports, counted by hand on a few rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import TOPICS, Command, as_row, passed, toy_examples, write_rows
from metakd.data.dataset import load_dataset
from metakd.data.examples import read_examples
from metakd.inspection.inspector import Inspector, inspect_data, inspect_dataset, lengths
from metakd.inspection.remarks import remarks
from metakd.inspection.tables import findings, short_form
from metakd.inspection.terms import strongest_terms
from metakd.utils.errors import InputError


def row(text: str, label: str = "good", domain: str = "books") -> dict[str, Any]:
    return {"text": text, "label": label, "domain": domain}


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """train: 'a' twice, once with each label, 'b', 'c'; dev: 'b', 'x'; test: 'c', 'x', 'y'."""
    write_rows(tmp_path / "train.jsonl", [row("a"), row("b"), row("a", "bad"), row("c", "bad", "kitchen")])
    write_rows(tmp_path / "dev.jsonl", [row("b"), row("x")])
    write_rows(tmp_path / "test.jsonl", [row("c"), row("x"), row("y")])
    return tmp_path


def test_counts_repeats_leaks_and_contradictions(messy: Path) -> None:
    report = inspect_data(messy)
    assert report["rows"] == 9
    assert report["counts"]["train"] == {"books": {"bad": 1, "good": 2}, "kitchen": {"bad": 1}}
    assert report["duplicates"] == {"train": 1, "dev": 0, "test": 0}
    assert report["leaks"] == [
        {"rows": 1, "of": "dev", "also_in": "train"},
        {"rows": 1, "of": "test", "also_in": "train"},
        {"rows": 1, "of": "test", "also_in": "dev"},
    ]
    torn = report["contradictions"]
    assert torn["texts"] == 2
    assert {tuple(rows) for rows in torn["rows"]} == {("train row 1", "train row 3"), ("train row 4", "test row 1")}
    assert report["faults"] == ["test has no rows of kitchen; add some, or drop the domain"]
    messages = "\n".join(findings(report))
    for message in (
        "kitchen has no rows of good in train",
        "books has 3 rows in test: too few to score (under 50)",
        "1 row of train repeats the text of another row of train",
        "1 row of test is also in train, which inflates every score; `metakd run --drop-leaks` removes them from",
        "2 texts are on several rows with different labels",
    ):
        assert message in messages
    assert short_form(report)[0] == "domains: books, kitchen; labels: bad, good; rows: train 4, dev 2, test 3"


@pytest.mark.parametrize("drop_leaks", [False, True])
def test_data_in_memory_are_inspected_as_files_are(messy: Path, drop_leaks: bool) -> None:
    read = inspect_data(messy, drop_leaks=drop_leaks)
    in_memory = inspect_dataset(load_dataset(messy, drop_leaks=drop_leaks))
    dropped = [
        f"{n} rows of {split} dropped: their texts are also in a later split" for n, split in ((1, "dev"), (2, "train"))
    ]
    assert read["remarks"] == dropped * drop_leaks + in_memory["remarks"]
    assert (read["leaks"] == []) is drop_leaks
    for key in ("rows", "domains", "labels", "counts", "duplicates", "leaks", "faults"):
        assert read[key] == in_memory[key]


def test_faults_do_not_end_an_inspection(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [row("a"), row(""), row("b") | {"id": "1"}, row("c") | {"id": "1"}])
    report = inspect_data(file)
    assert report["rows"] == 3
    assert report["faults"] == [
        "rows.jsonl, row 2, text: is empty; drop the row or give it text",
        "id: 1 rows have the id of another row of their split",
    ]
    rest = [row("a"), row("b")]
    assert inspect_data(write_rows(tmp_path / "rest.jsonl", rest))["faults"] == [
        "train: only one label (good); a classifier needs at least two",
        "no label has enough texts in one domain for test to get one; add rows, files by split, or another --cut",
    ]


def test_what_a_run_would_refuse_is_a_fault(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [row("a"), row("b", "bad"), row("c") | {"text_pair": "d"}])
    write_rows(tmp_path / "test.jsonl", [row("x", "odd"), row("y", "bad", "attic")])
    faults = inspect_data(tmp_path)["faults"]
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    assert len(faults) == 3
    assert all(fault in str(error.value) for fault in faults)


def test_one_file_is_judged_by_what_the_cut_will_make_of_it(tmp_path: Path) -> None:
    rows = [row(f"text {i}", "good" if i % 2 else "bad") for i in range(30)]
    rows += [row(f"pan {i}", "bad", "kitchen") for i in range(3)]
    report = inspect_data(write_rows(tmp_path / "rows.jsonl", rows))
    messages = report["remarks"]
    assert report["faults"] == [
        "test will have no rows of 'kitchen', as its labels have too few texts; add some, or drop the domain"
    ]
    assert "kitchen has no rows of good in train" in messages
    assert "kitchen will have about 0 rows in test: too few to score (under 50)" in messages
    tiny = write_rows(tmp_path / "tiny.jsonl", rows[:4])
    assert "for test to get one" in inspect_data(tiny)["faults"][0]
    with pytest.raises(InputError, match="for test to get one"):
        load_dataset(tiny)


def test_remarks_name_what_looks_alike_or_like_a_missing_value() -> None:
    counts = {"Bücher": {"pos": 200, "NA": 200}, "Bu\u0308cher": {"Pos": 200, "1": 200, "1.0": 200}}
    messages = "\n".join(remarks({"train": counts}, ["1", "1.0", "NA", "Pos", "pos"]))
    for alike in ("labels '1' and '1.0'", "labels 'Pos' and 'pos'", "domains 'Bu\\u0308cher' and 'B\\xfccher'"):
        assert f"{alike} look alike" in messages
    assert "label 'NA' looks like a missing value, but counts as a label" in messages
    sound = {"books": {"bad": 100, "good": 100}}
    assert remarks({"train": sound, "test": sound}, ["bad", "good"]) == []


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("kitchen", "kit\u200bchen"),
        ("kitchen", "kit\xadchen"),
        ("kitchen", "\ufeffkitchen"),
        ("kitchen", "Kitchen\ufe0f"),
        ("home goods", "home  goods"),
        ("home goods", "home\xa0\u2060goods"),
        ("1", "\uff11\u200d"),
        ("books", "\uff42ooks"),
        ("books", "b\u043e\u043eks"),
        ("home", "\u041dom\u0435"),
        ("e-books", "e\u2011books"),
        ("\u043a\u043d\u0438\u0433\u0438", "\u041a\u041d\u0418\u0413\u0418"),
    ],
)
def test_names_look_alike_whatever_cannot_be_seen(name: str, other: str) -> None:
    """Invisible characters, blanks, widths, letters of other scripts; an escape shows where they differ."""
    messages = remarks({"train": {"x": {name: 100, other: 100}}}, sorted([name, other]))
    (message,) = [text for text in messages if "look alike, but count as different labels; use one spelling" in text]
    quoted = message.removeprefix("labels ").partition(" look")[0].split(" and ")
    assert {text.translate({ord(c): None for c in "'"}) for text in quoted} >= {name}
    assert all(text.isprintable() for text in quoted)
    assert remarks({"train": {"x": {"books": 100, "cooks": 100}}}, ["books", "cooks"]) == []


@pytest.mark.parametrize(
    ("counts", "code"),
    [
        ({("books", "good"): 10, ("books", "bad"): 10, ("kitchen", "good"): 10, ("kitchen", "bad"): 1}, 0),
        ({("books", "good"): 10, ("books", "bad"): 10, ("kitchen", "good"): 3, ("kitchen", "bad"): 3}, 2),
        ({("books", "good"): 3, ("books", "bad"): 3}, 2),
        ({("books", "good"): 10, ("books", "bad"): 10, ("attic", "torn"): 10}, 0),
        ({("books", "good"): 10, ("books", "bad"): 10, ("attic", "same"): 12}, 2),
        ({("books", "torn"): 3, ("books", "good"): 3}, 2),
    ],
)
def test_inspect_exits_as_a_run_would(
    metakd: Command, base: Path, tmp_path: Path, counts: dict[tuple[str, str], int], code: int
) -> None:
    """Rows of texts of their own, but `same` has 3 texts in 12 rows, and those of `torn` have both labels."""
    rows = [
        row(f"{domain} {label} {i % 3 if label == 'same' else i}", each, domain)
        for (domain, label), count in counts.items()
        for i in range(count)
        for each in (["good", "bad"] if label == "torn" else ["good" if label == "same" else label])
    ]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    assert metakd("inspect", file, "--base", base)[0] == code
    plan = ("run", "--dry-run", "--data", file, "--output", tmp_path / "o", "--base", base)
    assert metakd(*plan, "--student", "layers=2", "--max-length", "16")[0] == code


def test_data_without_a_valid_row_have_no_tables(metakd: Command, tmp_path: Path, base: Path) -> None:
    rows = [row("a") | {"label": ["good"]}, row("b") | {"label": ["bad"]}]
    code, out, err = metakd("inspect", write_rows(tmp_path / "rows.jsonl", rows), "--base", base)
    assert (code, out) == (2, "")
    assert "row 1 and 1 more: label is a list" in err
    assert "--columns labels=label" in err


def test_lengths_are_in_tokens_of_the_base_or_in_words(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'a good pan' is 5 tokens with [CLS] and [SEP]; 'a fine , dull page' has an unknown ',' and is 7."""
    file = write_rows(tmp_path / "rows.jsonl", [row("a good pan"), row("a fine , dull page", "bad")])
    tokens = inspect_data(file, tokenizer=base / "tokenizer.json", max_length=6)["lengths"]
    monkeypatch.setattr("metakd.inspection.lengths.CHUNK", 1)
    assert inspect_data(file, tokenizer=base / "tokenizer.json", max_length=6)["lengths"] == tokens
    assert tokens["unit"] == "tokens"
    assert tokens["domains"] == {"books": {"median": 6, "p95": 6, "longest": 7, "over_limit": 0.5}}
    assert lengths(read_examples(file), None, 3)["domains"]["books"]["longest"] == 5  # words


def test_characteristic_terms_are_those_of_one_domain() -> None:
    terms = strongest_terms(toy_examples(64, 0, "t"), 3)
    assert {domain: {word for word, _ in terms[domain]} for domain in terms} == {d: {*TOPICS[d]} for d in TOPICS}
    assert strongest_terms(toy_examples(1, 0, "t"), 3) == {}


def test_a_sample_is_small_and_the_same_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metakd.inspection.inspector.SAMPLE", 10)
    examples, samples = toy_examples(50, 0, "t"), []
    for order in (examples, examples[::-1]):
        inspector = Inspector()
        for number, example in enumerate(order):
            inspector.add("train", number, example)
        samples.append(sorted(example.text for example in inspector.sample))
    assert samples[0] == samples[1]
    assert len(samples[0]) == 10


def test_inspect_as_a_user_types_it(metakd: Command, messy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Exit code 2 for a domain that nothing scores; the base cannot be had, so lengths are in words."""
    code, out, err = metakd("inspect", messy, "--base", "nobody/nothing")
    assert (code, "test has no rows of kitchen" in err) == (2, True)
    for part in ("Rows of", "Lengths in words", "1 row of dev is also in train"):
        assert part in out
    assert "lengths are counted in words, not tokens" in caplog.text
    code, out, _ = metakd("inspect", messy, "--base", "nobody/nothing", "--json")
    assert (code, json.loads(out)["rows"]) == (2, 9)


def test_inspect_prints_names_that_look_like_markup_and_ends_with_the_faults(
    metakd: Command, tmp_path: Path, base: Path
) -> None:
    rows = [row(f"{word} {i}", "[/b]", "[fiction]") for word in "ab" for i in range(10)]
    rows += [row(f"c {i}", "good", "[/b]") for i in range(10)]
    out, _ = passed(metakd("inspect", write_rows(tmp_path / "rows.jsonl", rows), "--base", base))
    assert "[fiction]" in out
    assert "[/b]" in out
    rows = [row("a"), row("b") | {"label": None}]
    code, out, err = metakd("inspect", write_rows(tmp_path / "rows.jsonl", rows), "--base", base)
    assert (code, "row 2, label: is empty" in err) == (2, True)
    assert "1 fault to fix before `metakd run` accepts the data" in out


def test_a_run_prints_the_short_form(
    metakd: Command, tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "dev"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", [as_row(e) for e in toy_examples(8, 0, "t")])
    models = ("--base", base, "--student", "layers=2", "--max-length", "16")
    _, err = passed(metakd("weigh", "--data", tmp_path / "data", *models, "--output", tmp_path / "o"))
    assert "rows: train 8, dev 8" in " ".join(err.split())
    assert "8 rows of dev are also in train" in caplog.text
