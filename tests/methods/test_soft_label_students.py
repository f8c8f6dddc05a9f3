"""Learning from probabilities in the data: the loss by hand, and the gradients of the teacher that gave them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from setups import batch_of, learner_of, setup_of, teacher_outputs

from conftest import FAST, Command, NewRun, open_run, passed, read_json, read_rows, taught, write_rows
from metakd import losses
from metakd.evaluation.predictions import loader
from metakd.methods.meta_kd import MetaKD
from metakd.methods.soft_labels import SoftLabels
from metakd.models.loading import load_encoder
from metakd.pipeline.distill import distill
from metakd.pipeline.teacher_outputs import open_teacher_cache


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_teachers_probabilities_give_the_teachers_gradients(base: Path, temperature: float) -> None:
    setup = setup_of(base, terms="prediction", student_init="base", temperature=temperature)
    by_teacher, batch = learner_of(MetaKD, setup), batch_of(base)
    probabilities = teacher_outputs(by_teacher, batch).logits.softmax(-1)
    by_data = learner_of(SoftLabels, replace(setup, teacher=None))
    written = {"soft_labels": probabilities.double().round(decimals=9).float(), "gold_weights": torch.zeros(4)}
    gradients = []
    for learner, inputs in ((by_teacher, batch), (by_data, batch | written)):
        learner.zero_grad()
        losses.reduce(learner(**inputs)).backward()
        gradients.append({name: p.grad.clone() for name, p in learner.student.named_parameters() if p.grad is not None})
    assert gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-5)


def test_gold_labels_count_by_their_weight(base: Path) -> None:
    """β = 1, 0.3, 0 and 1: CE(y) by β, and λ · CE(q) by 1 − β; λ = (1 + t) / (exp((1 − q_y)²) + 1)."""
    setup, batch = setup_of(base), batch_of(base)
    q, beta = torch.tensor([[0.5, 0.5], [0.1, 0.9], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, 0.3, 0.0, 1.0])
    learner = learner_of(SoftLabels, replace(setup, teacher=None))
    terms = learner(**batch | {"soft_labels": q, "gold_weights": beta})
    logits = learner.student(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}).logits
    log_p, labels, t = logits.log_softmax(-1), batch["labels"], batch["instance_weights"]
    expertise = (1 + t) / ((1 - q[torch.arange(4), labels]).pow(2).exp() + 1)
    expected = beta * -log_p[torch.arange(4), labels] + (1 - beta) * expertise * -(q * log_p).sum(-1)
    torch.testing.assert_close(losses.reduce(terms), expected.mean())


def test_a_class_of_probability_0_stays_there_at_any_temperature(base: Path) -> None:
    """L_pred is then −T² log p of the one class that q has; a row without q has no part in it."""
    setup, batch = setup_of(base, temperature=4.0, expertise="none"), batch_of(base)
    q, beta = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    learner = learner_of(SoftLabels, replace(setup, teacher=None))
    term = learner(**batch | {"soft_labels": q, "gold_weights": beta})["prediction"]
    logits = learner.student(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}).logits
    log_p = (logits / 4).log_softmax(-1)
    torch.testing.assert_close(term.values[:3], -16 * log_p[torch.arange(3), torch.tensor([0, 1, 0])])
    assert term.weights is not None
    assert term.weights.tolist() == [1, 1, 1, 0]
    assert term.values.isfinite().all()


@pytest.mark.slow
def test_what_a_teacher_said_can_be_read_back(
    toy_run: NewRun, base: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets equal to 1e-6; from the same start, the same labels on held-out rows."""

    def load_seeded(*args: Any, **options: Any) -> Any:
        torch.manual_seed(0)  # the classification head is drawn after a teacher was loaded, or after none
        return load_encoder(*args, **options)

    monkeypatch.setattr("metakd.runs.starts.load_encoder", load_seeded)
    how = {"terms": "prediction", "student_init": "base", "shared_epochs": 4, "teacher_epochs": 4, "predict_epochs": 2}
    rates = {"teacher_learning_rate": 5e-3, "shared_learning_rate": 5e-3, "predict_learning_rate": 1e-3}
    run = taught(toy_run(**how, **rates))
    students = [distill(run, domain) for domain in run.data.domains]
    cache = open_teacher_cache(run, ["meta_kd"])
    said = cache.logits(cache.rows([e.id for e in run.data.train])).softmax(-1)
    rows = [
        row | {"probabilities": dict(zip(run.data.labels, p, strict=True))}
        for row, p in zip(read_rows(toy_data / "train.jsonl"), said.tolist(), strict=True)
    ]
    write_rows(tmp_path / "data" / "train.jsonl", rows)
    for split in ("dev", "test"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", read_rows(toy_data / f"{split}.jsonl"))
    soft = {"method": "soft_labels", "soft_labels": True, "gold_weight": 0}
    again = open_run(tmp_path / "again", tmp_path / "data", base, **soft, **how, **rates)
    targets = again.features.soft_labels(again.data.train)["soft_labels"]
    torch.testing.assert_close(torch.from_numpy(targets), said, rtol=0, atol=1e-6)
    taught(again)
    load, held_out = loader({}), [*run.data.splits["dev"], *run.data.splits["test"]]
    for domain, student in zip(run.data.domains, students, strict=True):
        texts = [e for e in held_out if e.domain == domain]
        both = [load(folder).answers(texts).probabilities for folder in (student, distill(again, domain))]
        assert (both[0].argmax(-1) == both[1].argmax(-1)).all()
        assert both[0] == pytest.approx(both[1], abs=1e-2)


@pytest.mark.slow
def test_a_whole_run_on_answers_without_gold_labels(
    metakd: Command, base: Path, toy_data: Path, tmp_path: Path
) -> None:
    """The teacher and its students learn from them too; baselines as well, as there is nothing else."""
    rows = [row | {"teacher_label": row["label"], "label": None} for row in read_rows(toy_data / "train.jsonl")]
    write_rows(tmp_path / "data" / "train.jsonl", rows)
    write_rows(tmp_path / "data" / "test.jsonl", read_rows(toy_data / "test.jsonl"))
    for method in ("soft_labels", "meta_kd"):
        options = ("--soft-labels", "--method", method, "--output", tmp_path / method, *FAST)
        passed(metakd("run", "--data", tmp_path / "data", "--base", base, *options))
        average = read_json(tmp_path / method / "results.json")["average"]
        assert average["student"]["accuracy"] > 0.9
        assert average["meta_teacher"]["accuracy"] > 0.9


def test_without_such_columns_the_method_has_nothing_to_learn_from(
    metakd: Command, base: Path, toy_data: Path, tmp_path: Path
) -> None:
    options = ("run", "--data", toy_data, "--method", "soft_labels", "--output", tmp_path / "o", "--base", base)
    code, _, text = metakd(*options)
    assert code == 2
    assert "--method soft_labels: add --soft-labels" in text
    code, _, text = metakd(*options, "--soft-labels", *FAST)
    assert code == 2
    assert "no row of train has probabilities or a teacher_label; name their column" in " ".join(text.split())
