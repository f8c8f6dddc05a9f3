"""`--class-weights balanced`: each class counts as much, wherever a model learns from labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from setups import batch_of, learner_of, setup_of

from conftest import as_row, open_run, taught, toy_examples, write_rows
from metakd.data.labels import balanced_weights
from metakd.inference.torch_backend import TorchModel
from metakd.methods import METHODS
from metakd.methods.metadistil import MetaDistil
from metakd.methods.soft_labels import SoftLabels
from metakd.models.encoder import EncoderOutputs
from metakd.pipeline.distill import distill
from metakd.pipeline.teach import load_teacher


def test_weights_by_hand() -> None:
    """Four texts, three of class 0: 4 / (2 · 3) each, and 4 / (2 · 1) of class 7; their mean is 1."""
    weights = balanced_weights(np.array([0, 0, 7, 0]))
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2, 2 / 3])
    assert weights.mean() == pytest.approx(1)
    gold = np.array([True, True, True, False, False])
    assert balanced_weights(np.array([0, 0, 7, 7, 7]), gold).tolist() == pytest.approx([3 / 4, 3 / 4, 3 / 2, 1, 1])


def test_cross_entropy_counts_by_them() -> None:
    """In the baseline's loss."""
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    outputs = EncoderOutputs(logits, (), (), torch.zeros(4, 2))
    weights = torch.tensor([1.0, 2, 3, 4])
    terms = METHODS["fine_tuned"]([]).loss(outputs, {"labels": labels, "class_weights": weights}, None, None)
    assert terms["class"].weights is weights
    assert METHODS["fine_tuned"]([]).loss(outputs, {"labels": labels}, None, None)["class"].weights is None


def test_other_methods_that_learn_from_labels_count_by_them(base: Path) -> None:
    """β of them where a row has soft labels too; terms that imitate do not count classes."""
    batch, weights = batch_of(base), torch.tensor([1.0, 2, 3, 4])
    terms = learner_of(MetaDistil, setup_of(base, method="metadistil"))(**batch | {"class_weights": weights})
    assert terms["class"].weights is weights
    assert terms["prediction"].weights is None
    beta = torch.tensor([0.5, 0, 1, 0.25])
    soft = {"soft_labels": torch.full((4, 2), 0.5), "gold_weights": beta, "class_weights": weights}
    terms = learner_of(SoftLabels, replace(setup_of(base), teacher=None))(**batch | soft)
    torch.testing.assert_close(terms["class"].weights, beta * weights)


def test_balanced_models_give_the_rare_class_more_often(base: Path, tmp_path: Path) -> None:
    """One of eight texts is negative, and a third of the labels are wrong, so that no word decides."""
    rows = [e for i, e in enumerate(toy_examples(400, 0, "train")) if e.label == "positive" or i % 16 in (2, 3)]
    other = {"positive": "negative", "negative": "positive"}
    rows = [replace(e, label=other[e.label]) if i % 3 == 0 else e for i, e in enumerate(rows)]
    data = write_rows(tmp_path / "data" / "train.jsonl", [as_row(e) for e in rows]).parent
    write_rows(data / "test.jsonl", [as_row(e) for e in toy_examples(80, 1, "test")])
    chosen = {}
    for kind in ("none", "balanced"):
        run = open_run(tmp_path / kind, data, base, class_weights=kind, method="fine_tuned", teacher_epochs=2)
        teacher, texts = load_teacher(taught(run)), run.features.encode(run.data.splits["test"])
        batch = run.features.collator([*texts])
        p = TorchModel.load(distill(run, "books")).answers(run.data.splits["test"]).probabilities
        negative = run.data.labels.index("negative")
        chosen[kind] = teacher.outputs(batch).logits.softmax(-1)[:, negative].mean().item(), p[:, negative].mean()
    assert chosen["balanced"][0] > chosen["none"][0]
    assert chosen["balanced"][1] > chosen["none"][1]
