"""Each text is tokenised once in a run, for each tokenizer, and labels are looked up in no list."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from conftest import TINY, NewRun, as_row, open_run, toy_examples, write_rows
from metakd import Run, Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.schema import Example
from metakd.pipeline import checks
from metakd.pipeline.run_all import run_all

DOMAINS = ("books", "kitchen", "garden")


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each text is tokenised."""
    counts, call = Counter[str](), PreTrainedTokenizerBase.__call__

    def counted(self: Any, texts: list[str], *rest: Any, **options: Any) -> Any:
        counts.update(texts)
        return call(self, texts, *rest, **options)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", counted)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("method", ["meta_kd", "cross_domain"])
def test_a_run_tokenises_each_text_once(
    base: Path, tmp_path: Path, tokenised: Counter[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Long training texts a second time for their windows, and a row of dev for each of nine reloaded models.

    With --long-texts adaptive, each row of dev once more for all models, to choose by the long ones how far to read.
    """
    monkeypatch.setattr(checks, "RELOADED", 1)
    texts = dict[str, list[str]]()
    for split in ("train", "dev", "test"):
        rows = [as_row(e) | {"domain": DOMAINS[i % 3]} for i, e in enumerate(toy_examples(48, 0, split))]
        for number, row in enumerate(rows):
            row["text"] = f"{split}{number} {row['text']}" + " very good" * (number % 4 == 3) * 8
        texts[split] = [row["text"] for row in rows]
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    run_all(
        open_run(
            tmp_path / "run", tmp_path / "data", base, method=method, windows=1, batch_size=8, long_texts="adaptive"
        )
    )
    assert [tokenised[text] for text in texts["train"]] == [1, 1, 1, 2] * 12
    assert sum(tokenised[text] for text in texts["dev"]) == 48 + 1 + 2 * (1 + len(DOMAINS)) + 48


def test_open_runs_share_tokens_of_the_same_tokenizer_and_length(toy_run: NewRun, tokenised: Counter[str]) -> None:
    one, same, shorter = toy_run(), toy_run(), toy_run(max_length=8)
    texts = {e.text for e in one.data.train}
    for run, expected in ((one, 1), (same, 1), (shorter, 2)):
        features = run.features.encode(run.data.train)
        assert {tokenised[text] for text in texts} == {expected}
        assert features.lengths.max() == (8 if run is shorter else 10)


def test_none_of_ten_thousand_labels_is_looked_up_in_their_list(base: Path, tmp_path: Path) -> None:
    """That took 4 seconds."""

    class Labels(list[str]):
        def index(self, *_: Any) -> int:
            raise AssertionError("looked up one by one")

    labels, domains = Labels(f"{number:05d}" for number in range(10_000)), ["books", "kitchen"]
    train = [Example(str(i), "good", None, labels[-1 - i % 5], domains[i % 2]) for i in range(50)]
    data = MultiDomainDataset("many", None, {"train": train}, labels, domains)
    features = Run(tmp_path, Settings.build(TINY | {"base": str(base)}), data).features
    encoded = features.encode(train)
    assert encoded.column("labels")[:6].tolist() == [9999, 9998, 9997, 9996, 9995, 9999]
    assert encoded.column("domains")[:3].tolist() == [0, 1, 0]
