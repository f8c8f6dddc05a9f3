"""Training rows whose label the teacher contradicts: who is on the list, and where it is said."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from conftest import Command, as_row, open_run, passed, taught, toy_examples, write_rows, write_toy
from metakd import InputError
from metakd.data.schema import Example
from metakd.evaluation import suspects
from metakd.evaluation.suspects import read_suspects, write_suspects
from metakd.pipeline.distill import distill_all


def test_only_sure_contradictions_are_listed(tmp_path: Path) -> None:
    """p = 0.95 for another label is listed, 0.85 is not, nor is 0.99 for the same; the surest first."""
    odds = torch.tensor([0.95, 0.85, 0.01, 0.99]).logit()
    texts = ['first, "quoted"', "second", "third", "fourth\nof two lines"]
    examples = [Example(f"e{i}", text, None, "bad", "books") for i, text in enumerate(texts)]
    p = torch.stack([torch.zeros(4), odds], 1).softmax(-1)
    write_suspects(tmp_path / "s.csv", examples, *p.max(-1), ["bad", "good"])
    table = pd.read_csv(tmp_path / "s.csv")
    assert table["id"].tolist() == ["e3", "e0"]
    assert table["text"].tolist() == [texts[3], texts[0]]
    assert table["probability"].tolist() == [0.99, 0.95]
    assert {*table["label"]} == {"bad"}
    assert {*table["teacher_label"]} == {"good"}
    rows = read_suspects(tmp_path / "s.csv")
    assert rows is not None
    assert [row["text"] for row in rows] == [texts[3], texts[0]]
    assert read_suspects(tmp_path / "none.csv") is None


@pytest.mark.parametrize("saved", [b"id;domain;label\n1;a;b\n", "id,domain\n1,B\u00fcro\n".encode("cp1252")])
def test_a_table_that_another_program_has_changed_is_refused(tmp_path: Path, saved: bytes) -> None:
    (tmp_path / "s.csv").write_bytes(saved)
    with pytest.raises(InputError, match=r"s\.csv: not as metakd wrote it; restore it, or delete it"):
        read_suspects(tmp_path / "s.csv")


def test_a_wrong_label_is_found_by_the_teacher(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of 160 has the other label; its word is in many rows that are right. A tiny teacher is less sure."""
    monkeypatch.setattr(suspects, "SURE", 0.5)
    data = write_toy(tmp_path / "data", train=160, dev=16, test=16)
    rows = [as_row(e) for e in toy_examples(160, 0, "train")]
    rows[5]["label"] = "negative" if rows[5]["label"] == "positive" else "positive"
    rows[5]["id"] = "wrong"
    write_rows(data / "train.jsonl", rows)
    run = taught(open_run(tmp_path / "run", data, base, teacher_epochs=4, teacher_learning_rate=5e-3, baseline=False))
    distill_all(run, ["books"], ["meta_kd"])
    table = pd.read_csv(tmp_path / "run" / "suspects.csv")
    assert table["id"][0] == "wrong"


def test_the_report_lists_them(metakd: Command, run_copy: Path) -> None:
    """The surest, and their texts only where texts are shown."""
    examples = [replace(e, label="negative") for e in toy_examples(30, 0, "train")]
    sure = torch.linspace(0.95, 0.99, 30), torch.ones(30, dtype=torch.int64)
    write_suspects(run_copy / "suspects.csv", examples, *sure, ["negative", "positive"])
    for flags, shown in (((), True), (("--no-texts",), False)):
        passed(metakd("report", run_copy, *flags))
        page = " ".join((run_copy / "report.html").read_text().split())
        assert "it contradicts 30 as surely" in page
        assert "and the table the 20 surest" in page
        for example, listed in ((examples[29], True), (examples[0], False)):
            assert (f"<small>{example.id}</small>" in page) == listed
            assert (f"{example.text}<br><small>{example.id}</small>" in page) == (listed and shown)
