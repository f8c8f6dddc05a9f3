"""h, the kinds of L_dom, what carries t and what does not, and saving."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from conftest import encoded
from metakd import losses
from metakd.data.tokenization import Batch, Collator
from metakd.models.class_head import all_right
from metakd.models.loading import load_encoder
from metakd.models.meta_teacher import NO_LAYERS, MetaTeacher, TransferableRepresentation, assert_frozen, freeze


def make(folder: Path, kind: str = "false", num_domains: int = 2) -> MetaTeacher:
    torch.manual_seed(0)
    return MetaTeacher(load_encoder(folder, ["a", "b"]).eval(), num_domains, kind, gamma1=0.5)


def batch_of(folder: Path) -> Batch:
    columns = {"labels": [0, 1, 0, 1], "domains": [0, 1, 1, 0], "instance_weights": [0.0, 1.0, 2.0, 3.0]}
    return Collator(0)(encoded(folder, 4, **columns))


def test_a_teacher_learns_from_soft_labels_where_there_are_any(base: Path) -> None:
    teacher, batch = make(base).eval(), batch_of(base)
    q, beta = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [1.0, 0.0]]), torch.tensor([0.0, 0.3, 1.0, 0.5])
    term = teacher(**batch | {"soft_labels": q, "gold_weights": beta})["class"]
    logits = teacher.outputs(batch, NO_LAYERS).logits
    torch.testing.assert_close(term.values, losses.soft_label_loss(logits, batch["labels"], q, beta))
    assert not torch.allclose(term.values, teacher(**batch)["class"].values)


def test_all_answers_are_right_with_the_product_of_their_probabilities() -> None:
    """p = (3/4, 1/4): yes and no are right with 3/4 · 3/4, no and no with 1/4 · 3/4."""
    logits = torch.tensor([[math.log(3), -math.log(3)]] * 2)
    both = all_right(logits, torch.tensor([[True, False], [False, False]]))
    assert both.tolist() == pytest.approx([9 / 16, 3 / 16])


def test_h_is_tanh_of_a_layer_over_e_plus_the_domains_embedding() -> None:
    """W = 2·I, b = 1, E = (0.5, −1), e_z = (0.1, 0.2): h = tanh(2·0.6 + 1), tanh(2·(−0.8) + 1).

    An unseen domain has the mean of e_z and (0.3, 0), (0.2, 0.1): tanh(2·0.7 + 1), tanh(2·(−0.9) + 1).
    """
    head = TransferableRepresentation(2, 2)
    with torch.no_grad():
        head.dense.weight.copy_(2 * torch.eye(2))
        head.dense.bias.fill_(1.0)
        head.embedding.weight.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.0]]))
    h = head(torch.tensor([[0.5, -1.0]] * 2), torch.tensor([0, -1]))
    torch.testing.assert_close(h, torch.tanh(torch.tensor([[2.2, -0.6], [2.4, -0.8]])))


def test_class_loss_carries_t_and_domain_loss_does_not(base: Path) -> None:
    """L_T worked out from logits and h: mean(t · CE) + γ1 · mean(L_dom)."""
    teacher, batch = make(base), batch_of(base)
    terms = teacher(**batch)
    assert {name: (term.coefficient, term.weights is None) for name, term in terms.items()} == {
        "class": (1.0, False),
        "domain": (0.5, True),
    }
    outputs = teacher.outputs(batch)
    ce = losses.cross_entropy(outputs.logits, batch["labels"])
    domain = losses.false_domain_loss(teacher.domain_classifier(outputs.representation), batch["domains"])
    expected = (batch["instance_weights"] * ce).mean() + 0.5 * domain.mean()
    torch.testing.assert_close(losses.reduce(terms), expected)


def test_weights_change_the_gradient_of_each_example(base: Path) -> None:
    """The example of weight 0 moves nothing; a loss reduced before its weights would move it with the rest."""
    teacher, batch = make(base, "none"), batch_of(base)
    states = teacher.encoder.get_input_embeddings()
    rows: list[torch.Tensor] = []
    states.register_forward_hook(lambda *a: (a[2].retain_grad(), rows.append(a[2]))[0])
    losses.reduce(teacher(**batch)).backward()
    grad = rows[0].grad
    assert grad[0].abs().sum() == 0
    assert (grad[1:].abs().sum((1, 2)) > 0).all()


@pytest.mark.parametrize("kind", ["false", "permuted"])
def test_every_kind_is_its_own_loss_and_reaches_head_and_encoder(base: Path, kind: str) -> None:
    teacher, batch = make(base, kind), batch_of(base)
    logits = teacher.domain_classifier(teacher.outputs(batch).representation)
    domains = batch["domains"]
    torch.manual_seed(5)
    expected = {
        "false": losses.false_domain_loss(logits, domains),
        "permuted": losses.permuted_domain_loss(logits, domains),
    }[kind]
    torch.manual_seed(5)
    values = teacher(**batch)["domain"].values
    torch.testing.assert_close(values, expected)
    values.sum().backward()
    for module in (teacher.domain_classifier, teacher.transferable.dense, teacher.encoder.get_input_embeddings()):
        assert module.weight.grad.abs().sum() > 0


def test_one_domain_has_no_domain_loss(base: Path) -> None:
    batch = batch_of(base) | {"domains": torch.zeros(4, dtype=torch.long)}
    assert set(make(base, num_domains=1)(**batch)) == {"class"}


def test_saved_it_is_a_plain_checkpoint_with_the_head_beside(base: Path, tmp_path: Path) -> None:
    teacher, batch = make(base), batch_of(base)
    teacher.save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    torch.testing.assert_close(plain(**inputs).logits, teacher.outputs(batch).logits)
    again = MetaTeacher(load_encoder(tmp_path, ["a", "b"]).eval(), 2, "false", 0.5)
    again.load_head(tmp_path)
    torch.testing.assert_close(again.outputs(batch).representation, teacher.outputs(batch).representation)
    assert "domain_head" in " ".join(path.name for path in tmp_path.iterdir())


def test_class_weights_and_shares_multiply_t_and_leave_the_domain_loss(base: Path) -> None:
    batch = batch_of(base) | {"shares": torch.tensor([1.0, 1, 0.5, 0.5]), "class_weights": torch.tensor([1.0, 2, 3, 4])}
    terms = make(base)(**batch)
    assert terms["class"].weights is not None
    assert terms["class"].weights.tolist() == [0, 2, 3, 6]  # t is 0, 1, 2, 3
    assert terms["domain"].weights is batch["shares"]


def test_a_teacher_that_trains_or_can_learn_is_refused(base: Path) -> None:
    teacher = freeze(make(base))
    assert_frozen(teacher)
    teacher.encoder.train()
    with pytest.raises(RuntimeError, match="training mode"):
        assert_frozen(teacher)
    freeze(teacher).domain_classifier.weight.requires_grad_(True)
    with pytest.raises(RuntimeError, match="not frozen"):
        assert_frozen(teacher)


def test_of_windows_both_terms_count_by_their_share_of_the_text(base: Path) -> None:
    """As if the second and the third were windows of one text: 4/3 of a half each, and 4/3 for the other two."""
    teacher, batch = make(base), batch_of(base)
    shares = torch.tensor([4 / 3, 2 / 3, 2 / 3, 4 / 3])
    outputs = teacher.outputs(batch)
    ce = losses.cross_entropy(outputs.logits, batch["labels"])
    domain = losses.false_domain_loss(teacher.domain_classifier(outputs.representation), batch["domains"])
    expected = (shares * (batch["instance_weights"] * ce + 0.5 * domain)).mean()
    torch.testing.assert_close(losses.reduce(teacher(**batch, shares=shares)), expected)
