"""The student's loss: which teacher layer meets which, what λ weights, what reaches the optimizer, what drops out."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import setups
import torch
from setups import batch_of, teacher_outputs
from transformers import ModernBertConfig, ModernBertModel

from conftest import Checkpoint
from metakd import losses
from metakd.config.settings import Settings
from metakd.methods.meta_kd import MetaKD, _windows
from metakd.models.attention import local_windows, raw_scores
from metakd.models.encoder import forward
from metakd.models.loading import set_problem
from metakd.models.meta_teacher import NO_LAYERS, MetaTeacher, TeacherLayers, freeze
from metakd.models.student import cut_student
from metakd.prototypes import expertise_weights
from metakd.utils.errors import InputError

setup_of = partial(setups.setup_of, stages="joint", shared_epochs=0)
learner_of = partial(setups.learner_of, MetaKD)


def test_a_student_that_is_the_teacher_has_nothing_to_match(base: Path) -> None:
    """Four of four layers, the teacher's own head: every matching term is 0, L_pred is the teacher's entropy."""
    setup = setup_of(base)
    learner = learner_of(replace(setup, student=cut_student(setup.teacher.encoder, [1, 2, 3, 4]).eval()))
    terms = learner(**batch_of(base))
    for name in ("embedding", "hidden", "attention", "feature"):
        torch.testing.assert_close(terms[name].values, torch.zeros(4), msg=name)
    p = teacher_outputs(learner, batch_of(base)).logits.softmax(-1)
    torch.testing.assert_close(terms["prediction"].values, -(p * p.log()).sum(-1))


def test_student_layers_meet_the_mapped_teacher_layers(base: Path) -> None:
    """Two layers of four: layer 1 meets layer 2, layer 2 meets layer 4, in hidden states and in raw scores."""
    learner, batch = learner_of(setup_of(base)), batch_of(base)
    ours, theirs = forward(learner.student, batch, attentions=True), teacher_outputs(learner, batch)
    mask, pairs = batch["attention_mask"], ((1, 2), (2, 4))
    hidden = sum(losses.hidden_state_loss(ours.hidden_states[j], theirs.hidden_states[i], mask) for j, i in pairs)
    scores = ((ours.attentions[j - 1], raw_scores(theirs.attention_factors[i])) for j, i in pairs)
    attention = sum(losses.attention_score_loss(*each, mask) for each in scores)
    terms = learner(**batch)
    torch.testing.assert_close(terms["hidden"].values, hidden)
    torch.testing.assert_close(terms["attention"].values, attention)
    learner.method.windows = [1, None]  # type: ignore[attr-defined]
    scores = ((ours.attentions[j - 1], raw_scores(theirs.attention_factors[i])) for j, i in pairs)
    local = sum(losses.attention_score_loss(*each, mask, w) for each, w in zip(scores, (1, None), strict=True))
    torch.testing.assert_close(learner(**batch)["attention"].values, local)
    assert not torch.allclose(local, attention)


def test_lambda_weights_every_term_and_gamma2_only_the_feature(base: Path) -> None:
    learner, batch = learner_of(setup_of(base, gamma2=0.25)), batch_of(base)
    logits = teacher_outputs(learner, batch).logits
    expertise = expertise_weights(batch["instance_weights"], logits, batch["labels"])
    terms = learner(**batch)
    assert set(terms) == {"embedding", "hidden", "attention", "prediction", "feature"}
    for name, term in terms.items():
        assert term.values.shape == (4,)
        assert term.coefficient == (0.25 if name == "feature" else 1.0)
        torch.testing.assert_close(term.weights, expertise)


def test_lambda_is_left_out_or_made_of_first_choices_on_request(base: Path) -> None:
    """(1 + t) / 2 where the teacher is right, (1 + t) / (e + 1) where it is wrong."""
    batch = batch_of(base)
    assert learner_of(setup_of(base, expertise="none"))(**batch)["hidden"].weights is None
    learner = learner_of(setup_of(base, expertise="hard"))
    right = teacher_outputs(learner, batch).logits.argmax(-1) == batch["labels"]
    assert 0 < right.sum() < 4
    expected = (1 + batch["instance_weights"]) / torch.where(right, 2.0, 1 + torch.e)
    torch.testing.assert_close(learner(**batch)["hidden"].weights, expected)


def test_a_local_layer_matches_what_both_models_attend_to() -> None:
    """ModernBERT: of four layers, the first and the last attend to all tokens, the others to 64 on each side."""
    teacher = ModernBertConfig(num_hidden_layers=4, global_attn_every_n_layers=3, local_attention=128)
    student = ModernBertConfig(num_hidden_layers=2, global_attn_every_n_layers=3, local_attention=64)
    assert local_windows(teacher) == [None, 64, 64, None]
    assert _windows(student, teacher, [2, 4]) == [64, 32]
    assert _windows(student, teacher, [1, 2]) == [None, 32]


def test_a_local_window_is_what_the_model_attends_to() -> None:
    config = ModernBertConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        global_attn_every_n_layers=2,
        local_attention=4,
        pad_token_id=0,
    )
    config._attn_implementation = "eager"
    ids = torch.arange(1, 13)[None]
    attentions = ModernBertModel(config).eval()(ids, output_attentions=True).attentions
    distance = (torch.arange(12)[:, None] - torch.arange(12)).abs()
    for layer, window in zip(attentions, local_windows(config), strict=True):
        assert ((layer[0, 0] > 0) == (distance <= (12 if window is None else window))).all()


@pytest.mark.parametrize("labels", [[[1, 0], [0, 1], [1, 1], [0, 0]]])
def test_predictions_of_several_labels_are_matched_one_by_one(base: Path, labels: list[list[float]]) -> None:
    learner, batch = learner_of(setup_of(base, temperature=2.0)), batch_of(base)
    set_problem(learner.student, several=True)
    batch["labels"] = torch.tensor(labels, dtype=torch.float32)
    ours, theirs = forward(learner.student, batch), teacher_outputs(learner, batch)
    term = learner(**batch)["prediction"]
    torch.testing.assert_close(term.values, losses.prediction_loss(ours.logits, theirs.logits, 2.0, several=True))
    torch.testing.assert_close(
        term.weights, expertise_weights(batch["instance_weights"], theirs.logits, batch["labels"])
    )


def test_stages_share_match_and_predict(base: Path) -> None:
    """A stage without epochs drops out; every term is in the shared start, and the prediction alone in the last."""
    setup = setup_of(base, stages="two", shared_epochs=3, match_epochs=7, predict_epochs=2)
    share, match, predict = MetaKD.build(setup).stages()
    assert [stage.shared for stage in (share, match, predict)] == [True, False, False]
    assert [stage.epochs for stage in (share, match, predict)] == [3, 7, 2]
    assert share.terms == Settings().terms
    assert match.terms == ("embedding", "hidden", "attention", "feature")
    assert share.layers == match.layers == TeacherLayers(hidden=(0, 2, 4), attention=(2, 4))
    assert (predict.terms, predict.layers) == (("prediction",), NO_LAYERS)
    assert MetaKD.build(setup_of(base, stages="two", match_epochs=0, predict_epochs=2)).stages() == [predict]


def test_projections_stand_on_the_students_side_and_are_trained(base: Path, checkpoint: Checkpoint) -> None:
    """Width 8 against 16: one projection for all layers and one for h, both with gradients; the teacher's target
    is the teacher's own, with nothing untrained in between."""
    narrow = checkpoint(hidden_size=8, intermediate_size=16, num_hidden_layers=2)
    learner, batch = learner_of(setup_of(base, narrow)), batch_of(base)
    assert set(learner.extras) == {"layers", "feature", "transferable"}
    losses.reduce(learner(**batch)).backward()
    trained = {name for name, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for name in ("extras.layers.weight", "extras.feature.weight", "extras.transferable.dense.weight"):
        assert name in trained
    assert not any(name.startswith("_teacher") for name, _ in learner.named_parameters())
    with torch.no_grad():
        learner.extras["layers"].weight.zero_()
        learner.extras["layers"].bias.zero_()
    target = teacher_outputs(learner, batch).hidden_states[0]
    expected = losses.hidden_state_loss(torch.zeros_like(target), target, batch["attention_mask"])
    torch.testing.assert_close(learner(**batch)["embedding"].values, expected)


def test_the_students_h_is_learnt_by_the_feature_term_alone(base: Path) -> None:
    """Equal widths need no projection, so that this h is all that is trained with the student."""
    learner, batch = learner_of(setup_of(base, student_init="base")), batch_of(base)
    assert set(learner.extras) == {"transferable"}
    terms = learner(**batch)
    sum(term.values.sum() for name, term in terms.items() if name != "feature").backward(retain_graph=True)
    head = learner.extras["transferable"]
    assert all(p.grad is None for p in head.parameters())
    terms["feature"].values.sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_both_h_have_their_tanh(base: Path) -> None:
    learner, batch = learner_of(setup_of(base)), batch_of(base)
    pooled = forward(learner.teacher.encoder, batch).pooled
    ours = learner.extras["transferable"](pooled, batch["domains"])
    torch.testing.assert_close(ours, teacher_outputs(learner, batch).representation)
    assert (100 * pooled).abs().max() > 1
    assert learner.extras["transferable"](100 * pooled, batch["domains"]).abs().max() <= 1


@pytest.mark.parametrize(
    ("shape", "reason"),
    [({"num_attention_heads": 4}, "2 attention heads and the student 4"), ({"kind": "deberta-v2"}, "deberta-v2 does")],
)
def test_without_common_raw_scores_relations_are_matched_or_it_is_refused(
    base: Path, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, shape: dict[str, Any], reason: str
) -> None:
    student, batch = checkpoint(**shape, num_hidden_layers=2), batch_of(base)
    learner = learner_of(setup_of(base, student))
    assert reason in caplog.text
    assert learner.stage.layers == TeacherLayers(hidden=(0, 2, 4))  # relations are made of hidden states
    ours, theirs, mask = forward(learner.student, batch), teacher_outputs(learner, batch), batch["attention_mask"]
    expected = sum(
        losses.relation_loss(ours.hidden_states[j], theirs.hidden_states[i], mask) for j, i in ((1, 2), (2, 4))
    )
    torch.testing.assert_close(learner(**batch)["attention"].values, expected)
    with pytest.raises(InputError, match="attention relation"):
        MetaKD.build(setup_of(base, student, attention="scores"))


def test_another_tokenizer_leaves_prediction_and_feature(
    base: Path, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """The teacher reads its own tokens: its outputs do not depend on the student's."""
    student = checkpoint(words=setups.OTHER_WORDS)
    learner = learner_of(setup_of(base, student, same_tokens=False))
    assert "terms left out: embedding, hidden, attention" in caplog.text
    theirs = batch_of(base)
    mixed = batch_of(student) | {f"teacher_{key}": value for key, value in theirs.items()}
    torch.testing.assert_close(teacher_outputs(learner, mixed).logits, learner.teacher.outputs(theirs).logits)
    assert set(learner(**mixed)) == {"prediction", "feature"}
    with pytest.raises(InputError, match="no term is left to match"):
        MetaKD.build(setup_of(base, student, same_tokens=False, terms="hidden"))


@pytest.mark.parametrize(("kind", "domains", "gamma1"), [("none", 2, 0.5), ("false", 2, 0.0), ("false", 1, 0.5)])
def test_an_h_that_nothing_trained_is_not_matched(
    base: Path, caplog: pytest.LogCaptureFixture, kind: str, domains: int, gamma1: float
) -> None:
    """Without L_dom the teacher's W, b and e_z stay as drawn: a target behind a random, never trained projection."""
    setup = setup_of(base)
    learner = learner_of(replace(setup, teacher=freeze(MetaTeacher(setup.teacher.encoder, domains, kind, gamma1))))
    assert "terms left out: feature" in caplog.text
    assert "feature" not in learner(**batch_of(base) | {"domains": torch.zeros(4, dtype=torch.long)})
    assert "transferable" not in learner.extras
    with pytest.raises(InputError, match="no term is left to match"):
        MetaKD.build(replace(setup_of(base, terms="feature"), teacher=learner.teacher))


def test_a_teacher_left_in_training_mode_is_refused(base: Path) -> None:
    learner = learner_of(setup_of(base))
    learner.train()
    learner(**batch_of(base))  # train() does not reach the teacher
    learner.teacher.train()
    with pytest.raises(RuntimeError, match="training mode"):
        learner(**batch_of(base))
