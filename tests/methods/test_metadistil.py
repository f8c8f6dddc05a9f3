"""The teacher learns from the quiz: its gradient is the true one, its folder stays, nobody trains on the questions."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from conftest import WORDS, as_row, open_run, toy_examples, write_rows
from metakd import InputError, Settings, losses
from metakd.data.samplers import endless_batches
from metakd.data.splits import hold_out
from metakd.data.tokenization import Batch, Collator, encode
from metakd.methods import BASELINE, METHODS, metadistil
from metakd.methods.base import Setup, check_needs
from metakd.methods.fine_tuned import FineTuned
from metakd.methods.metadistil import MetaDistil
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.models.meta_teacher import MetaTeacher, freeze
from metakd.models.student import cut_student
from metakd.pipeline.distill import distill
from metakd.pipeline.teach import teach
from metakd.training import checkpointing
from metakd.training.distillation_module import Distillation
from metakd.utils.artifacts import read_manifest
from metakd.utils.hardware import Precision

LABELS = ["a", "b"]
KINDS = ("bert", "distilbert", "mpnet", "albert", "deberta-v2")


def setup_of(folder: Path, precision: Precision = "float32", **settings: Any) -> Setup:
    """A two-layer cut of the teacher in `folder`."""
    torch.manual_seed(0)
    teacher = freeze(MetaTeacher(load_encoder(folder, LABELS), 2, "false", 0.5))
    built = Settings.build({"shared_learning_rate": 0.1, "temperature": 2.0, **settings})
    return Setup(built, cut_student(teacher.encoder, [2, 4]), True, teacher, True, 2, 10, 25, precision)


def batch_of(folder: Path, seed: int) -> Batch:
    features = encode(load_tokenizer(folder, 16), toy_examples(4, seed, "t"), 16)
    return Collator(0)([*features]) | {"labels": torch.tensor([0, 0, 1, 1]), "domains": torch.tensor([0, 1, 0, 1])}


def weights_of(model: torch.nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.state_dict().values()]


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_teachers_gradient_is_the_slope_of_the_quiz_after_the_pilot(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Along a random direction d in the teacher's weights, in double precision: (L(φ + εd) − L(φ − εd)) / 2ε = ∇L·d."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # losses are taken in float32
    setup = setup_of(checkpoint(kind))
    assert setup.teacher is not None
    setup.teacher.double()
    student, method = setup.student.double().eval(), MetaDistil.build(setup)
    given = student, batch_of(checkpoint(kind), 1), batch_of(checkpoint(kind), 2), method.stages()[0]
    gradient = method.meta_gradient(method.meta_validation_loss(*given))
    direction = [torch.randn_like(weight) for weight in method.learning]
    around = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            torch._foreach_add_(method.learning, direction, alpha=step)
        around.append(method.meta_validation_loss(*given).item())
        with torch.no_grad():
            torch._foreach_add_(method.learning, direction, alpha=-step)
    slope = sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True))
    assert abs(slope) > 1e-6
    assert slope == pytest.approx((around[0] - around[1]) / 2e-4, rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_teacher_learns_what_helps_the_student_and_the_student_waits(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """Asked the same thing again and again, the quiz's loss after a pilot falls; only encoder and class head move."""
    monkeypatch.setattr(metadistil, "TEACHER_LEARNING_RATE", 1e-2)
    setup = setup_of(checkpoint(), precision)
    method, student, teacher = MetaDistil.build(setup), setup.student.train(), setup.teacher
    assert teacher is not None
    before, domains = weights_of(student), weights_of(teacher.transferable) + weights_of(teacher.domain_classifier)
    given = student, batch_of(checkpoint(), 1), batch_of(checkpoint(), 2), method.stages()[0]
    asked = [method.before_update(*given).item() for _ in range(20)]
    assert asked[-1] < asked[0]
    assert all(len(method.optimizer.state[weight]) for weight in method.learning)
    assert same(weights_of(student), before)
    assert same(weights_of(teacher.transferable) + weights_of(teacher.domain_classifier), domains)
    assert student.training
    assert not any(weight.grad is not None for model in (student, teacher) for weight in model.parameters())


def test_the_teacher_moves_however_small_the_students_rate(checkpoint: Callable[..., Path]) -> None:
    """AdamW's first step is μ for each weight, up or down, though the meta-gradient is of the order of 1e-9 here."""
    setup = setup_of(checkpoint(), shared_learning_rate=1e-7)
    assert setup.teacher is not None
    method, before = MetaDistil.build(setup), setup.teacher.encoder.classifier.weight.detach().clone()
    method.before_update(setup.student, batch_of(checkpoint(), 1), batch_of(checkpoint(), 2), method.stages()[0])
    moved = (setup.teacher.encoder.classifier.weight - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, metadistil.TEACHER_LEARNING_RATE), rtol=0.1, atol=0)


def test_bfloat16_gives_nearly_the_gradient_of_float32(checkpoint: Callable[..., Path]) -> None:
    gradients = []
    for precision in ("float32", "bfloat16"):
        setup = setup_of(checkpoint(), precision)
        method = MetaDistil.build(setup)
        asked = method.meta_validation_loss(
            setup.student.eval(), batch_of(checkpoint(), 1), batch_of(checkpoint(), 2), method.stages()[0]
        )
        gradients.append(torch.cat([g.flatten() for g in method.meta_gradient(asked)]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_without_soft_targets_the_teacher_has_nothing_to_learn(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """α = 0: the pilot hears nothing of the teacher, and the student's loss is that of labels alone."""
    monkeypatch.setattr(metadistil, "SOFT_SHARE", 0.0)
    setup, batch = setup_of(checkpoint()), batch_of(checkpoint(), 1)
    method = MetaDistil.build(setup)
    learner = Distillation(setup.student.eval(), method, setup.teacher, None)
    gradient = method.meta_gradient(method.meta_validation_loss(learner.student, batch, batch, learner.stage))
    assert not any(part.any() for part in gradient)
    baseline = Distillation(learner.student, FineTuned.build(setup), None, None)
    torch.testing.assert_close(losses.reduce(learner(**batch)), losses.reduce(baseline(**batch)))


def test_the_pilot_is_one_step_down_the_gradient_of_the_loss(checkpoint: Callable[..., Path]) -> None:
    """θ' = θ − 0.1 ∇L_S(θ), with the gradient that the real update takes, and L_S = (CE + L_pred) / 2."""
    setup, batch = setup_of(checkpoint()), batch_of(checkpoint(), 1)
    method = MetaDistil.build(setup)
    learner = Distillation(setup.student.eval(), method, setup.teacher, None)
    terms = learner(**batch)
    loss = losses.reduce(terms)
    torch.testing.assert_close(loss, (terms["class"].values + terms["prediction"].values).mean() / 2)
    loss.backward()
    moved = method.pilot(learner.student, batch, learner.stage)
    for name, weight in learner.student.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(moved[name], weight - 0.1 * weight.grad)


def test_the_quiz_is_a_tenth_of_each_domain_and_label_by_seed() -> None:
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


def test_questions_come_in_passes_without_end(checkpoint: Callable[..., Path]) -> None:
    features = encode(load_tokenizer(checkpoint(), 16), toy_examples(10, 0, "t"), 16).with_columns(row=range(10))
    batches = endless_batches(features, Collator(0), 4, seed=0)
    passes = [[row for _ in range(3) for row in next(batches)["row"].tolist()] for _ in range(3)]
    assert [sorted(one) for one in passes] == [[*range(10)]] * 3
    assert passes[0] != passes[1]


def test_needs_that_cannot_be_met_are_refused_with_the_reason() -> None:
    both = type("Both", (MetaDistil,), {"needs": frozenset({"teacher", "live_teacher"})})
    with pytest.raises(InputError, match="no longer what it says once it has learnt"):
        check_needs("both", both)
    deaf = type("Deaf", (FineTuned,), {"needs": frozenset({"held_out_split"})})
    with pytest.raises(InputError, match="no before_update"):
        check_needs("deaf", deaf)
    for name, kind in METHODS.items():
        check_needs(name, kind)


def test_a_domain_too_small_for_a_quiz_is_refused_before_anything_is_trained(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    rows = toy_examples(80, 0, "t")
    few = [e for e in rows if e.domain == "books"] + [e for e in rows if e.domain == "kitchen"][:12]
    for split, part in {"train": few, "test": rows[:8]}.items():
        write_rows(tmp_path / f"{split}.jsonl", [as_row(e) for e in part])
    with pytest.raises(InputError, match="domain 'kitchen': a quiz needs two labels with 10 texts"):
        open_run(tmp_path / "run", tmp_path, checkpoint(), method="metadistil")
    open_run(tmp_path / "run", tmp_path, checkpoint(), method="meta_kd")
    one_label = [e for e in rows if e.domain == "books" or e.label == "positive" or e.id == "t-3"]
    with pytest.raises(InputError, match="domain 'kitchen': a quiz needs two labels"):
        hold_out(one_label, seed=0)


def test_stages_are_those_of_the_rival_with_a_shared_start(checkpoint: Callable[..., Path]) -> None:
    setup = setup_of(checkpoint(), stages="two", shared_epochs=3, match_epochs=7, predict_epochs=2)
    ours, theirs = (METHODS[name].build(setup).stages() for name in ("metadistil", BASELINE))
    assert [(s.epochs, s.shared) for s in ours] == [(s.epochs, s.shared) for s in theirs] == [(3, True), (9, False)]
    assert [s.learning_rate for s in ours] == [setup.settings.shared_learning_rate, 5e-5]
    assert [s.learning_rate for s in theirs] == [setup.settings.baseline_learning_rate, 5e-5]


def test_without_a_shared_start_the_rival_learns_at_its_own_rate(checkpoint: Callable[..., Path]) -> None:
    (only,) = METHODS[BASELINE].build(setup_of(checkpoint(), shared_epochs=0, baseline_learning_rate=0.02)).stages()
    assert only.learning_rate == 0.02


class Watch:
    """What reaches MetaDistil.before_update: texts by lesson, and each teacher's class head as it was at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learnt: list[set[tuple[int, ...]]] = []
        self.asked: list[set[tuple[int, ...]]] = []
        self.updates: list[int] = []
        self.heads: list[Tensor] = []
        self.methods: list[MetaDistil] = []
        given = MetaDistil.before_update

        def before_update(method: MetaDistil, student: Any, batch: Batch, held_out: Batch, stage: Any) -> Tensor:
            if method not in self.methods:
                self.methods.append(method)
                self.heads.append(method.teacher.encoder.classifier.weight.detach().clone())
                self.learnt.append(set())
                self.asked.append(set())
                self.updates.append(0)
            self.updates[-1] += 1
            self.learnt[-1] |= texts_in(batch)
            self.asked[-1] |= texts_in(held_out)
            return given(method, student, batch, held_out, stage)

        monkeypatch.setattr(MetaDistil, "before_update", before_update)


def texts_in(batch: Batch) -> set[tuple[int, ...]]:
    rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].sum(1).tolist(), strict=True)
    return {tuple(ids[:length]) for ids, length in rows}


def bytes_in(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


TINY_FLAGS = (
    *("--allow-weak-teacher", "--teacher-epochs", "1", "--shared-epochs", "1", "--predict-epochs", "2"),
    *("--stages", "two", "--windows", "0"),
    *("--batch-size", "16", "--max-length", "16", "--student", "layers=2", "--bootstrap", "100", "--no-baseline"),
)


def test_a_whole_run_by_its_name(
    metakd: Callable[..., Any],
    checkpoint: Callable[..., Path],
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A student for each domain; none has met a question; teachers begin as the meta-teacher, and move; no cache."""
    base = ("--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "run", *TINY_FLAGS)
    code, out, err = metakd("run", *base, "--method", "metadistil", "--dry-run")
    assert code == 0, err
    assert "distill (metadistil)" in out
    assert "ask the teacher" not in out
    code, _, err = metakd("weigh", *base, "--method", "metadistil")
    assert code == 0, err
    code, _, err = metakd("teach", "--output", tmp_path / "run")
    assert code == 0, err
    run, before, watch = tmp_path / "run", bytes_in(tmp_path / "run" / "meta_teacher"), Watch(monkeypatch)
    code, out, err = metakd("run", *base, "--method", "metadistil", "--resume")
    assert code == 0, err
    assert "student" in out
    for place in ("shared_student", "students/books", "students/kitchen"):
        manifest = read_manifest(run / place)
        assert manifest is not None
        (log,) = manifest["log"].values()
        assert {"loss_class", "loss_prediction", "loss_meta_validation"} <= set(log[-1])
    assert bytes_in(run / "meta_teacher") == before
    assert not (run / "teacher_cache").exists()
    saved = load_encoder(run / "meta_teacher", ["negative", "positive"], whole=True).classifier.weight
    assert all(torch.equal(head.cpu(), saved) for head in watch.heads)
    assert not any(torch.equal(m.teacher.encoder.classifier.weight.cpu(), saved) for m in watch.methods)
    assert watch.updates == [16, 2 * 8, 2 * 8]  # as many as 256 and twice 128 examples make in batches of 16
    assert all(watch.asked)
    assert not set.union(*watch.asked) & set.union(*watch.learnt)


def test_a_student_with_other_tokens_has_a_teacher_that_reads_its_own(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    other = checkpoint(words=[*WORDS[:5], *reversed(WORDS[5:])], hidden_size=8, num_hidden_layers=2)
    settings = {"method": "metadistil", "student": str(other), "baseline": False, "weights": "none"}
    run = open_run(tmp_path / "run", toy_data, checkpoint(), **settings, precision="bfloat16")
    teach(run)
    assert (distill(run, "books") / "model.safetensors").is_file()


def test_a_lesson_with_a_quiz_keeps_no_checkpoints_and_begins_anew(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second lesson's last update, and gone on with: the same weights as without a stop."""
    monkeypatch.setattr(checkpointing, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(checkpointing, "LARGEST_SHARE", math.inf)
    whole, torn = (
        open_run(tmp_path / name, toy_data, checkpoint(), method="metadistil", baseline=False, weights="none")
        for name in ("whole", "torn")
    )
    for run in (whole, torn):
        teach(run)
    distill(whole, "books")
    given, count = MetaDistil.before_update, 0

    def stop(*arguments: Any) -> Tensor:
        nonlocal count
        count += 1
        if count == 16 + 8:
            raise KeyboardInterrupt
        return given(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MetaDistil, "before_update", stop)
        with pytest.raises(KeyboardInterrupt):
            distill(torn, "books")
    assert (torn.folder / "shared_student").exists()
    assert not [*torn.folder.rglob("checkpoint-*")]
    distill(torn, "books")
    weights = [load_file(run.folder / "students" / "books" / "model.safetensors") for run in (whole, torn)]
    assert same(*([*one.values()] for one in weights))
