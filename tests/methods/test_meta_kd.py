"""The student's loss: which teacher layer meets which, what λ weighs, what reaches the optimizer, what drops out."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import WORDS, toy_examples
from metakd import losses
from metakd.config.settings import Settings
from metakd.data.tokenization import Batch, Collator, encode
from metakd.methods import METHODS
from metakd.methods.base import Setup
from metakd.methods.meta_kd import MetaKD
from metakd.models.attention import raw_scores
from metakd.models.encoder import forward
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.models.meta_teacher import NO_LAYERS, MetaTeacher, TeacherLayers, freeze
from metakd.models.student import cut_student
from metakd.prototypes import expertise_weights
from metakd.training.distillation_module import Distillation
from metakd.utils.errors import InputError

LABELS = ["a", "b"]


def teacher_of(folder: Path) -> MetaTeacher:
    return freeze(MetaTeacher(load_encoder(folder, LABELS), 2, "false", 0.5))


def setup_of(folder: Path, student: Path | None = None, same_tokens: bool = True, **settings: Any) -> Setup:
    """A two-layer cut of the teacher in `folder`, or the checkpoint `student`."""
    teacher = teacher_of(folder)
    model = load_encoder(student, LABELS) if student else cut_student(teacher.encoder, [2, 4])
    built = Settings.build({"stages": "joint", "shared_epochs": 0, **settings})
    return Setup(built, model.eval(), student is None, teacher, same_tokens, 2, updates=10, updates_of_all=25)


def batch_of(folder: Path) -> Batch:
    features = encode(load_tokenizer(folder, 16), toy_examples(4, 0, "t"), 16)
    return Collator(0)([*features]) | {
        "labels": torch.tensor([0, 1, 0, 1]),
        "domains": torch.tensor([0, 1, 1, 0]),
        "instance_weights": torch.tensor([0.5, 1.0, 2.0, 0.5]),
    }


def learner_of(setup: Setup) -> Distillation:
    return Distillation(setup.student, MetaKD.build(setup), setup.teacher, None).eval()


def test_a_student_that_is_the_teacher_has_nothing_to_match(checkpoint: Callable[..., Path]) -> None:
    """Four of four layers, the teacher's own head: every matching term is 0, L_pred is the teacher's entropy."""
    setup = setup_of(checkpoint())
    assert setup.teacher is not None
    learner = learner_of(replace(setup, student=cut_student(setup.teacher.encoder, [1, 2, 3, 4]).eval()))
    terms = learner(**batch_of(checkpoint()))
    for name in ("embedding", "hidden", "attention", "feature"):
        torch.testing.assert_close(terms[name].values, torch.zeros(4), msg=name)
    p = learner.taught(batch_of(checkpoint())).logits.softmax(-1)  # type: ignore[union-attr]
    torch.testing.assert_close(terms["prediction"].values, -(p * p.log()).sum(-1))


def test_student_layers_meet_the_mapped_teacher_layers(checkpoint: Callable[..., Path]) -> None:
    """Two layers of four: layer 1 meets layer 2, layer 2 meets layer 4, in hidden states and in raw scores."""
    learner, batch = learner_of(setup_of(checkpoint())), batch_of(checkpoint())
    taught = learner.taught(batch)
    assert taught is not None
    ours, mask = forward(learner.student, batch, attentions=True), batch["attention_mask"]
    hidden = sum(
        losses.hidden_state_loss(ours.hidden_states[j], taught.hidden_states[i], mask) for j, i in ((1, 2), (2, 4))
    )
    attention = sum(
        losses.attention_score_loss(ours.attentions[j], raw_scores(taught.attention_factors[i]), mask)
        for j, i in ((0, 2), (1, 4))
    )
    terms = learner(**batch)
    torch.testing.assert_close(terms["hidden"].values, hidden)
    torch.testing.assert_close(terms["attention"].values, attention)


def test_lambda_weighs_every_term_and_gamma2_only_the_feature(checkpoint: Callable[..., Path]) -> None:
    learner, batch = learner_of(setup_of(checkpoint(), gamma2=0.25)), batch_of(checkpoint())
    taught = learner.taught(batch)
    assert taught is not None
    expertise = expertise_weights(batch["instance_weights"], taught.logits, batch["labels"])
    terms = learner(**batch)
    assert set(terms) == {"embedding", "hidden", "attention", "prediction", "feature"}
    for name, term in terms.items():
        assert term.values.shape == (4,)
        assert term.coefficient == (0.25 if name == "feature" else 1.0)
        torch.testing.assert_close(term.weights, expertise)


def test_two_stages_match_first_and_predict_after(checkpoint: Callable[..., Path]) -> None:
    method = MetaKD.build(setup_of(checkpoint(), stages="two", match_epochs=7, predict_epochs=2))
    match, predict = method.stages()
    assert not match.shared
    assert not predict.shared
    assert (match.terms, match.epochs) == (("embedding", "hidden", "attention", "feature"), 7)
    assert match.layers == TeacherLayers(hidden=(0, 2, 4), attention=(2, 4))
    assert (predict.terms, predict.epochs, predict.layers) == (("prediction",), 2, NO_LAYERS)


def test_the_shared_start_learns_all_terms_and_comes_first(checkpoint: Callable[..., Path]) -> None:
    method = MetaKD.build(setup_of(checkpoint(), stages="two", shared_epochs=3, match_epochs=0, predict_epochs=2))
    share, predict = method.stages()
    assert (share.shared, share.epochs, share.terms) == (True, 3, Settings().terms)
    assert (predict.shared, predict.terms) == (False, ("prediction",))


def test_projections_stand_on_the_students_side_and_are_trained(checkpoint: Callable[..., Path]) -> None:
    """Width 8 against 16: one projection for all layers and one for h, both with gradients; the teacher's target
    is the teacher's own, with nothing untrained in between."""
    narrow = checkpoint(hidden_size=8, intermediate_size=16, num_hidden_layers=2)
    learner, batch = learner_of(setup_of(checkpoint(), narrow)), batch_of(checkpoint())
    assert set(learner.extras) == {"layers", "feature", "transferable"}
    losses.reduce(learner(**batch)).backward()
    trained = {name for name, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for name in ("extras.layers.weight", "extras.feature.weight", "extras.transferable.dense.weight"):
        assert name in trained
    assert not any(name.startswith("_teacher") for name, _ in learner.named_parameters())
    with torch.no_grad():
        learner.extras["layers"].weight.zero_()
        learner.extras["layers"].bias.zero_()
    taught = learner.taught(batch)
    assert taught is not None
    target = taught.hidden_states[0]
    expected = losses.hidden_state_loss(torch.zeros_like(target), target, batch["attention_mask"])
    torch.testing.assert_close(learner(**batch)["embedding"].values, expected)


def test_equal_widths_need_no_projection(checkpoint: Callable[..., Path]) -> None:
    assert set(learner_of(setup_of(checkpoint())).extras) == {"transferable"}


def test_the_students_h_is_learnt_by_the_feature_term_alone(checkpoint: Callable[..., Path]) -> None:
    learner, batch = learner_of(setup_of(checkpoint(), student_init="base")), batch_of(checkpoint())
    terms = learner(**batch)
    others = sum(term.values.sum() for name, term in terms.items() if name != "feature")
    others.backward(retain_graph=True)
    head = learner.extras["transferable"]
    assert all(p.grad is None for p in head.parameters())
    terms["feature"].values.sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_both_h_have_their_tanh(checkpoint: Callable[..., Path]) -> None:
    learner, batch = learner_of(setup_of(checkpoint())), batch_of(checkpoint())
    taught = learner.taught(batch)
    assert taught is not None
    assert learner.teacher is not None
    pooled = forward(learner.teacher.encoder, batch).pooled
    ours = learner.extras["transferable"](pooled, batch["domains"])
    torch.testing.assert_close(ours, taught.representation)
    assert (100 * pooled).abs().max() > 1
    assert learner.extras["transferable"](100 * pooled, batch["domains"]).abs().max() <= 1


@pytest.mark.parametrize(
    ("shape", "reason"),
    [({"num_attention_heads": 4}, "2 attention heads and the student 4"), ({"kind": "deberta-v2"}, "deberta-v2 does")],
)
def test_without_common_raw_scores_relations_are_matched_or_it_is_refused(
    checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture, shape: dict[str, Any], reason: str
) -> None:
    student = checkpoint(**shape)
    with caplog.at_level(logging.WARNING, logger="metakd"):
        learner = learner_of(setup_of(checkpoint(), student))
    assert reason in caplog.text
    assert learner.stage.layers == TeacherLayers(hidden=(0, 1, 2, 3, 4))  # relations are made of hidden states
    assert (learner(**batch_of(checkpoint()))["attention"].values > 0).all()
    with pytest.raises(InputError, match="--attention relation"):
        MetaKD.build(setup_of(checkpoint(), student, attention="scores"))


def test_another_tokenizer_leaves_prediction_and_feature(
    checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The teacher reads its own tokens: what it says does not depend on the student's."""
    student = checkpoint(words=[*WORDS[:5], *reversed(WORDS[5:])])
    with caplog.at_level(logging.WARNING, logger="metakd"):
        learner = learner_of(setup_of(checkpoint(), student, same_tokens=False))
    assert "embedding, hidden, attention drop out" in caplog.text
    theirs = batch_of(checkpoint())
    expected = learner.teacher.outputs(theirs) if learner.teacher else None
    mixed = batch_of(student) | {f"teacher_{key}": value for key, value in theirs.items()}
    found = learner.taught(mixed)
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found.logits, expected.logits)
    assert set(learner(**mixed)) == {"prediction", "feature"}
    with pytest.raises(InputError, match="nothing is left to match"):
        MetaKD.build(setup_of(checkpoint(), student, same_tokens=False, terms="hidden"))


@pytest.mark.parametrize(("kind", "domains", "gamma1"), [("none", 2, 0.5), ("false", 2, 0.0), ("false", 1, 0.5)])
def test_an_h_that_nothing_trained_is_not_matched(
    checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture, kind: str, domains: int, gamma1: float
) -> None:
    """Without L_dom the teacher's W, b and e_z stay as drawn: a target behind a random, never trained projection."""
    setup = setup_of(checkpoint())
    assert setup.teacher is not None
    teacher = freeze(MetaTeacher(setup.teacher.encoder, domains, kind, gamma1))
    with caplog.at_level(logging.WARNING, logger="metakd"):
        learner = learner_of(replace(setup, teacher=teacher))
    assert "the terms feature drop out" in caplog.text
    assert "feature" not in learner(**batch_of(checkpoint()) | {"domains": torch.zeros(4, dtype=torch.long)})
    assert "transferable" not in learner.extras
    with pytest.raises(InputError, match="nothing is left to match"):
        MetaKD.build(replace(setup_of(checkpoint(), terms="feature"), teacher=teacher))


def test_fine_tuned_takes_as_many_updates_and_no_teacher(checkpoint: Callable[..., Path]) -> None:
    setup = replace(
        setup_of(checkpoint(), stages="two", shared_epochs=3, match_epochs=7, predict_epochs=2), teacher=None
    )
    method = METHODS["fine_tuned"].build(setup)
    assert [stage.epochs for stage in method.stages()] == [8 + 7 + 2]  # 3 passes of 25 updates are 7.5 of 10
    assert "teacher" not in METHODS["fine_tuned"].needs
    learner, batch = Distillation(setup.student, method, None, None).eval(), batch_of(checkpoint())
    terms = learner(**batch)
    logits = learner.student(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}).logits
    torch.testing.assert_close(terms["class"].values, losses.cross_entropy(logits, batch["labels"]))
    assert terms["class"].weights is None


def test_a_teacher_left_in_training_mode_is_refused(checkpoint: Callable[..., Path]) -> None:
    learner = learner_of(setup_of(checkpoint()))
    assert learner.teacher is not None
    learner.train()
    learner(**batch_of(checkpoint()))  # the wrapper's train() does not reach the teacher
    learner.teacher.train()
    with pytest.raises(RuntimeError, match="training mode"):
        learner(**batch_of(checkpoint()))
