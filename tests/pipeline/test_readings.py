"""Which rows of dev decide on temperatures, thresholds and how far long texts are read."""

from dataclasses import replace

import pytest

from conftest import NewRun, toy_examples
from metakd.data.schema import Example
from metakd.pipeline import readings
from metakd.pipeline.readings import rows_to_decide_on
from metakd.runs.run import Run


def with_splits(run: Run, **splits: list[Example]) -> Run:
    return replace(run, data=replace(run.data, splits=run.data.splits | splits))


def test_a_text_that_a_model_has_learnt_or_that_is_scored_decides_nothing(
    toy_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five texts, one is in train, one in test, and one stands there twice, with another label the second time."""
    words = ("learnt", "scored", "twice", "twice", "once")
    rows = [replace(toy_examples(1, 0, f"d{i}")[0], id=str(i), text=text) for i, text in enumerate(words)]
    rows[3] = replace(rows[3], label="negative" if rows[3].label == "positive" else "positive")
    train, test = ([replace(row, id="another", domain="kitchen")] for row in rows[:2])
    run = with_splits(toy_run(), train=train, dev=rows, test=test)
    assert [e.id for e in rows_to_decide_on(run)] == ["2", "4"]
    assert [e.id for e in rows_to_decide_on(with_splits(run, test=[]))] == ["1", "2", "4"]
    monkeypatch.setattr(readings, "MOST", 1)
    monkeypatch.setattr(readings, "FEWEST", 2)
    many = [replace(row, id=f"{row.id} {i}", text=f"{row.text} {i}") for row in rows for i in range(9)]
    assert len(rows_to_decide_on(with_splits(run, dev=many))) == 4
