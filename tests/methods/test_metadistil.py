"""The teacher learns from held-out batches: its gradient is exact, its folder stays, no student trains on them."""

import itertools
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import setups
import torch
from safetensors.torch import load_file
from torch import Tensor

from conftest import FAST, Checkpoint, Command, NewRun, as_row, encoded, open_run, passed, toy_examples, write_rows
from metakd import InputError, losses
from metakd.data.samplers import endless_batches
from metakd.data.splits import hold_out
from metakd.data.tokenization import Batch, Collator
from metakd.methods import metadistil
from metakd.methods.fine_tuned import FineTuned
from metakd.methods.metadistil import MetaDistil
from metakd.models.loading import load_encoder
from metakd.pipeline.distill import distill
from metakd.pipeline.teach import teach
from metakd.training import checkpointing
from metakd.utils.artifacts import changed_files, read_manifest
from metakd.utils.hardware import Precision

setup_of = partial(setups.setup_of, shared_learning_rate=0.1, temperature=2.0)
batch_of = partial(setups.batch_of, labels=(0, 0, 1, 1), domains=(0, 1, 0, 1))
learner_of = partial(setups.learner_of, MetaDistil)


def weights_of(model: torch.nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.state_dict().values()]


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet", "albert", "deberta-v2"])
def test_the_meta_gradient_is_exact(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Along a random direction d in the teacher's weights, in double precision: (L(φ + εd) − L(φ − εd)) / 2ε = ∇L·d."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # losses are taken in float32
    setup = setup_of(checkpoint(kind))
    setup.teacher.double()
    student, method = setup.student.double().eval(), MetaDistil.build(setup)
    inputs = student, batch_of(checkpoint(kind), seed=1), batch_of(checkpoint(kind), seed=2), method.stages()[0]
    gradient = method.meta_gradient(method.meta_validation_loss(*inputs))
    direction = [torch.randn_like(weight) for weight in method.teacher_weights]
    around = []
    for step in (1e-4, -2e-4):  # one way, then as far the other way
        with torch.no_grad():
            torch._foreach_add_(method.teacher_weights, direction, alpha=step)
        around.append(method.meta_validation_loss(*inputs).item())
    slope = sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True))
    assert abs(slope) > 1e-6
    assert slope == pytest.approx((around[0] - around[1]) / 2e-4, rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_teacher_learns_what_helps_the_student_and_the_student_waits(
    base: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """On the same batches again and again, the held-out loss falls; only encoder and head of the teacher move."""
    monkeypatch.setattr(metadistil, "TEACHER_LEARNING_RATE", 1e-2)
    setup = setup_of(base, precision=precision)
    method, student, teacher = MetaDistil.build(setup), setup.student.train(), setup.teacher
    before, domains = weights_of(student), weights_of(teacher.transferable) + weights_of(teacher.domain_classifier)
    inputs = student, batch_of(base, seed=1), batch_of(base, seed=2), method.stages()[0]
    held_out_losses = [method.before_update(*inputs).item() for _ in range(20)]
    assert held_out_losses[-1] < held_out_losses[0]
    assert all(len(method.optimizer.state[weight]) for weight in method.teacher_weights)
    assert same(weights_of(student), before)
    assert same(weights_of(teacher.transferable) + weights_of(teacher.domain_classifier), domains)
    assert student.training
    assert not any(weight.grad is not None for model in (student, teacher) for weight in model.parameters())


def test_the_teacher_moves_however_small_the_students_rate(base: Path) -> None:
    """AdamW's first step is μ for each weight, up or down, though the meta-gradient is of the order of 1e-9 here."""
    setup = setup_of(base, shared_learning_rate=1e-7)
    method = MetaDistil.build(setup)
    weight = method.teacher.encoder.classifier.weight
    before, batches = weight.detach().clone(), (batch_of(base, seed=1), batch_of(base, seed=2))
    method.before_update(setup.student, *batches, method.stages()[0])
    moved = (weight - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, metadistil.TEACHER_LEARNING_RATE), rtol=0.1, atol=0)


def test_bfloat16_gives_nearly_the_gradient_of_float32(base: Path) -> None:
    gradients = []
    for precision in ("float32", "bfloat16"):
        learner = learner_of(setup_of(base, precision=precision))
        batches = batch_of(base, seed=1), batch_of(base, seed=2)
        loss = learner.method.meta_validation_loss(learner.student, *batches, learner.stage)
        gradients.append(torch.cat([g.flatten() for g in learner.method.meta_gradient(loss)]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_without_soft_targets_the_teacher_has_nothing_to_learn(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """α = 0: the pilot does not depend on the teacher, and the student's loss is that of labels alone."""
    monkeypatch.setattr(metadistil, "SOFT_SHARE", 0.0)
    setup, batch = setup_of(base), batch_of(base, seed=1)
    learner, baseline = learner_of(setup), setups.learner_of(FineTuned, replace(setup, teacher=None))
    loss = learner.method.meta_validation_loss(learner.student, batch, batch, learner.stage)
    assert not any(part.any() for part in learner.method.meta_gradient(loss))
    torch.testing.assert_close(losses.reduce(learner(**batch)), losses.reduce(baseline(**batch)))


def test_the_pilot_is_one_step_down_the_gradient_of_the_loss(base: Path) -> None:
    """θ' = θ − 0.1 ∇L_S(θ), with the gradient that the real update takes, and L_S = (CE + L_pred) / 2."""
    learner, batch = learner_of(setup_of(base)), batch_of(base, seed=1)
    terms = learner(**batch)
    loss = losses.reduce(terms)
    torch.testing.assert_close(loss, (terms["class"].values + terms["prediction"].values).mean() / 2)
    loss.backward()
    moved = learner.method.pilot(learner.student, batch, learner.stage)
    for name, weight in learner.student.named_parameters():
        torch.testing.assert_close(moved[name], weight - 0.1 * weight.grad)


def test_the_held_out_split_is_a_tenth_of_each_domain_and_label_by_seed() -> None:
    """80 texts: 20 of each domain and label, of which two go; what stands there twice stays on one side."""
    rows = [replace(e, text=f"{e.text} {i}") for i, e in enumerate(toy_examples(80, 0, "t"))]
    rest, held_out = hold_out(rows, seed=0)
    assert Counter((e.domain, e.label) for e in held_out) == dict.fromkeys({(e.domain, e.label) for e in rows}, 2)
    assert [e for e in rows if e not in held_out] == rest
    assert hold_out(rows, seed=0) == (rest, held_out)
    assert hold_out(rows, seed=1)[1] != held_out
    again = rows + [replace(e, id=f"again-{e.id}") for e in rows]
    rest, held_out = hold_out(again, seed=0)
    assert not {e.text for e in rest} & {e.text for e in held_out}


def test_held_out_batches_come_in_passes_without_end(base: Path) -> None:
    batches = endless_batches(encoded(base, 10, row=range(10)), Collator(0), 4, seed=0)
    passes = [[row for _ in range(3) for row in next(batches)["row"].tolist()] for _ in range(3)]
    assert [sorted(one) for one in passes] == [[*range(10)]] * 3
    assert passes[0] != passes[1]


def test_a_domain_too_small_to_hold_out_from_is_refused_before_anything_is_trained(base: Path, tmp_path: Path) -> None:
    rows = toy_examples(80, 0, "t")
    few = [e for e in rows if e.domain == "books"] + [e for e in rows if e.domain == "kitchen"][:12]
    for split, part in {"train": few, "test": rows[:8]}.items():
        write_rows(tmp_path / f"{split}.jsonl", [as_row(e) for e in part])
    with pytest.raises(InputError, match="domain 'kitchen': a held-out split needs two labels with 10 texts"):
        open_run(tmp_path / "run", tmp_path, base, method="metadistil")
    open_run(tmp_path / "run", tmp_path, base, method="meta_kd")
    one_label = [e for e in rows if e.domain == "books" or e.label == "positive" or e.id == "t-3"]
    with pytest.raises(InputError, match="domain 'kitchen': a held-out split needs two labels"):
        hold_out(one_label, seed=0)


def texts_in(batch: Batch) -> set[tuple[int, ...]]:
    rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].sum(1).tolist(), strict=True)
    return {tuple(ids[:length]) for ids, length in rows}


@pytest.mark.slow
def test_a_run(metakd: Command, base: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No student learns from held-out text; teachers begin as the meta-teacher, and move; no cache."""
    run = ("run", "--data", toy_data, "--base", base, "--output", tmp_path, "--method", "metadistil", *FAST)
    run += ("--batch-size", "16", "--teacher-epochs", "1", "--shared-epochs", "1", "--no-baseline")
    run += ("--match-epochs", "0", "--predict-epochs", "2")
    out, _ = passed(metakd(*run, "--dry-run"))
    assert "distill (metadistil)" in out
    assert "teacher outputs" not in out
    learnt, held_out, heads = set(), set(), dict[MetaDistil, list[Tensor]]()
    real = MetaDistil.before_update

    def before_update(method: MetaDistil, student: Any, batch: Batch, validation: Batch, stage: Any) -> Tensor:
        heads.setdefault(method, []).append(method.teacher.encoder.classifier.weight.detach().clone().cpu())
        learnt.update(texts_in(batch))
        held_out.update(texts_in(validation))
        return real(method, student, batch, validation, stage)

    monkeypatch.setattr(MetaDistil, "before_update", before_update)
    assert "student" in passed(metakd(*run))[0]
    for place in ("shared_student", "students/books", "students/kitchen"):
        (log,) = read_manifest(tmp_path / place)["log"].values()
        assert {"loss_class", "loss_prediction", "loss_meta_validation"} <= set(log[-1])
    assert not changed_files(tmp_path / "meta_teacher", read_manifest(tmp_path / "meta_teacher"))
    assert not (tmp_path / "teacher_cache").exists()
    saved = load_encoder(tmp_path / "meta_teacher", ["negative", "positive"], whole=True).classifier.weight
    for method_heads in heads.values():
        assert torch.equal(method_heads[0], saved)
        assert not torch.equal(method_heads[-1], saved)
    assert [*map(len, heads.values())] == [16, 2 * 8, 2 * 8]  # as 256 and twice 128 examples make in batches of 16
    assert held_out
    assert not held_out & learnt


def test_a_student_with_other_tokens_has_a_teacher_that_reads_its_own(checkpoint: Checkpoint, toy_run: NewRun) -> None:
    other = checkpoint(words=setups.OTHER_WORDS, hidden_size=8, num_hidden_layers=2)
    settings = {"method": "metadistil", "baseline": False, "weights": "none", "precision": "bfloat16"}
    run = toy_run(student=str(other), **settings)
    teach(run)
    assert (distill(run, "books") / "model.safetensors").is_file()


@pytest.mark.slow
def test_no_checkpoints_are_kept(base: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the last update of the second student job, and resumed: the same weights as without a stop."""
    monkeypatch.setattr(checkpointing, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(checkpointing, "LARGEST_SHARE", math.inf)
    settings = {"method": "metadistil", "baseline": False, "weights": "none"}
    whole, torn = (open_run(tmp_path / name, toy_data, base, **settings) for name in ("whole", "torn"))
    for run in (whole, torn):
        teach(run)
    distill(whole, "books")
    real, count = MetaDistil.before_update, itertools.count(1)

    def stop(*arguments: Any) -> Tensor:
        if next(count) == 16 + 8:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MetaDistil, "before_update", stop)
        with pytest.raises(KeyboardInterrupt):
            distill(torn, "books")
    assert (torn.folder / "shared_student").exists()
    assert not [*torn.folder.rglob("checkpoint-*")]
    distill(torn, "books")
    weights = [load_file(run.folder / "students" / "books" / "model.safetensors") for run in (whole, torn)]
    assert same(*([*one.values()] for one in weights))
