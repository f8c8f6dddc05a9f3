"""Every loss against arithmetic done by hand, and at its limits."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from metakd import losses
from metakd.losses import Term

LOG2 = math.log(2)


def test_reduce_weights_each_example_and_term_before_the_mean() -> None:
    """Two examples, terms 1 and 3, weights 2 and 0.5, coefficient 2: (2·2·1 + 2·0.5·3) / 2 = 3.5; unweighted 4.

    With a second term 2 of coefficient 0.5, which carries no weight: 1 more.
    """
    values = torch.tensor([1.0, 3.0])
    weighted = Term(values, 2.0, torch.tensor([2.0, 0.5]))
    assert losses.reduce({"class": weighted}) == pytest.approx(3.5)
    assert losses.reduce({"class": weighted, "domain": Term(torch.full((2,), 2.0), 0.5)}) == pytest.approx(4.5)
    assert losses.reduce({"a": Term(values, 2.0)}) == losses.reduce({"a": Term(values, 2.0, torch.ones(2))}) == 4
    with pytest.raises(ValueError, match="no loss term"):
        losses.reduce({})


def test_cross_entropy_of_one_to_three_odds() -> None:
    """Logits (0, log 3): p = (1/4, 3/4), so −log p is log 4 and log 4/3."""
    logits = torch.tensor([[0.0, math.log(3)]] * 2)
    assert losses.cross_entropy(logits, torch.tensor([0, 1])).tolist() == pytest.approx([math.log(4), math.log(4 / 3)])


def test_soft_labels_and_gold_labels_share_the_cross_entropy() -> None:
    """p = (1/4, 3/4), y = 0, q = (1/2, 1/2), β = 0.3."""
    logits, q = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.5, 0.5]])
    loss = losses.soft_label_loss(logits, torch.tensor([0]), q, torch.tensor([0.3]))
    assert loss.tolist() == pytest.approx([0.3 * math.log(4) + 0.7 * (math.log(4) + math.log(4 / 3)) / 2])


def test_cross_entropy_of_several_labels_is_the_sum_over_them() -> None:
    """Logits (0, log 3, log 3): p = (1/2, 3/4, 3/4). With the labels 0 and 1, log 2 + log 4/3 + log 4."""
    logits = torch.tensor([[0.0, math.log(3), math.log(3)]] * 2)
    values = losses.cross_entropy(logits, torch.tensor([[1.0, 1, 0], [0, 0, 0]]))
    assert values.tolist() == pytest.approx([LOG2 + math.log(4 / 3) + math.log(4), LOG2 + 2 * math.log(4)])


def test_false_domain_loss_is_the_mean_over_wrong_domains() -> None:
    """p = (1/2, 1/4, 1/4), true domain 0: (log 4 + log 4) / 2 = log 4; true domain 1: (log 2 + log 4) / 2.

    Of two domains it is the classification of the other one.
    """
    logits = torch.tensor([[math.log(2), 0.0, 0.0]] * 2)
    values = losses.false_domain_loss(logits, torch.tensor([0, 1]))
    assert values.tolist() == pytest.approx([math.log(4), (LOG2 + math.log(4)) / 2])
    logits, domains = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    torch.testing.assert_close(losses.false_domain_loss(logits, domains), losses.cross_entropy(logits, 1 - domains))


def test_false_domain_loss_never_rewards_the_true_domain() -> None:
    """The public code permutes labels, so the true one is fitted one time in K; the paper's never is."""
    logits = torch.zeros(4, 3, requires_grad=True)
    domains = torch.tensor([0, 1, 2, 0])
    losses.false_domain_loss(logits, domains).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[torch.arange(4), domains] > 0).all()  # descending lowers the true domain's logit


def test_permuted_domain_loss_is_that_of_the_shuffled_domains() -> None:
    """Blind logits score log K whatever the order; sure ones are right where the order leaves the domain."""
    domains = torch.arange(4)
    assert losses.permuted_domain_loss(torch.zeros(4, 4), domains).tolist() == pytest.approx([math.log(4)] * 4)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(3))
    assert order.tolist() != domains.tolist()
    values = losses.permuted_domain_loss(30 * torch.eye(4), domains, torch.Generator().manual_seed(3))
    assert values.tolist() == pytest.approx([0 if i == domain else 30 for i, domain in enumerate(order.tolist())])


def test_hidden_state_loss_averages_real_tokens_and_width() -> None:
    """Widths 2: token 1 differs by (1, 3), token 2 by (2, 0), token 3 is padding: ((1+9)/2 + (4+0)/2) / 2 = 3.5."""
    student = torch.tensor([[[1.0, 3.0], [2.0, 0.0], [99.0, 99.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert losses.hidden_state_loss(student, torch.zeros(1, 3, 2), mask).tolist() == pytest.approx([3.5])


def test_attention_scores_beyond_a_window_are_matched_by_no_model_and_not_compared() -> None:
    """Of nine pairs of three tokens, neighbours differ by 1, the first and the last by 3: 7 / 7, or (7 + 2 · 9) / 9."""
    student, mask = torch.ones(1, 1, 3, 3), torch.ones(1, 3)
    student[..., 0, 2] = student[..., 2, 0] = 3.0
    assert losses.attention_score_loss(student, torch.zeros(1, 1, 3, 3), mask, window=1).tolist() == [1]
    assert losses.attention_score_loss(student, torch.zeros(1, 1, 3, 3), mask).tolist() == pytest.approx([25 / 9])


def test_attention_score_loss_averages_heads_and_real_pairs() -> None:
    """One head differs by 2 on all four real pairs, the other by 0: (4 + 0) / 2 = 2; padding is left out."""
    student = torch.zeros(1, 2, 3, 3)
    student[0, 0, :2, :2] = 2.0
    student[0, :, 2, :] = student[0, :, :, 2] = 50.0
    values = losses.attention_score_loss(student, torch.zeros(1, 2, 3, 3), torch.tensor([[1, 1, 0]]))
    assert values.item() == pytest.approx(2)


def test_relation_loss_compares_cosines_of_tokens() -> None:
    """Student tokens at right angles (cosine 0), teacher tokens alike (1): two of four pairs differ by 1, so 1/2."""
    student = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    teacher = torch.tensor([[[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]])
    assert losses.relation_loss(student, teacher, torch.ones(1, 2)).item() == pytest.approx(0.5)


def test_prediction_loss_is_soft_cross_entropy_times_t_squared() -> None:
    """T = 2, teacher odds 3² : 1 give (3/4, 1/4) at T; a blind student pays log 2, times 4. Least at the teacher."""
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    assert losses.prediction_loss(torch.zeros(1, 2), teacher, 2.0).item() == pytest.approx(4 * LOG2)
    assert losses.prediction_loss(torch.zeros(1, 2), teacher, 1.0).item() == pytest.approx(LOG2)
    teacher = torch.randn(3, 4)
    at_teacher = losses.prediction_loss(teacher, teacher)
    assert (losses.prediction_loss(teacher + torch.randn(3, 4), teacher) > at_teacher).all()


def test_prediction_loss_of_several_labels_by_hand() -> None:
    """T = 2, teacher logits (2 log 3, 0): sigmoid at T is (3/4, 1/2); a blind student pays 2 log 2, times 4.

    A student with logits (2 log 3, 0) pays 4 · (3/4 log 4/3 + 1/4 log 4 + log 2). Least at the teacher.
    """
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    blind, same = (losses.prediction_loss(z, teacher, 2.0, several=True).item() for z in (torch.zeros(1, 2), teacher))
    assert blind == pytest.approx(8 * LOG2)
    assert same == pytest.approx(4 * (0.75 * math.log(4 / 3) + 0.25 * math.log(4) + LOG2))
    teacher = torch.randn(3, 4)
    other = losses.prediction_loss(teacher + torch.randn(3, 4), teacher, several=True)
    assert (other > losses.prediction_loss(teacher, teacher, several=True)).all()


def test_transferable_knowledge_loss_and_the_sum_of_layers_by_hand() -> None:
    """(0.5² + 0.1²) / 2 = 0.13. Layers are added, examples are not."""
    values = losses.transferable_knowledge_loss(torch.tensor([[0.5, 0.1]]), torch.zeros(1, 2))
    assert values.item() == pytest.approx(0.13)
    assert losses.sum_layers([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])]).tolist() == [4.0, 7.0]


@given(batch=st.integers(1, 4), tokens=st.integers(1, 5), padding=st.integers(0, 3), seed=st.integers(0, 99))
def test_matching_losses_are_zero_at_the_teacher_and_blind_to_padding(
    batch: int, tokens: int, padding: int, seed: int
) -> None:
    torch.manual_seed(seed)
    mask, states, scores = torch.ones(batch, tokens), (batch, tokens, 4), (batch, 2, tokens, tokens)
    for loss, shape, pad in (
        (losses.hidden_state_loss, states, (0, 0, 0, padding)),
        (losses.relation_loss, states, (0, 0, 0, padding)),
        (losses.attention_score_loss, scores, (0, padding, 0, padding)),
    ):
        student, teacher = torch.randn(shape), torch.randn(shape)
        values = loss(student, teacher, mask)
        assert values.shape == (batch,)
        padded = loss(F.pad(student, pad, value=7.0), F.pad(teacher, pad, value=7.0), F.pad(mask, (0, padding)))
        torch.testing.assert_close(padded, values)
        torch.testing.assert_close(loss(student, student, mask), torch.zeros(batch))


def test_gradients_of_matching_losses_are_those_of_their_values() -> None:
    """Against differences of the loss itself, in float64; the second text is padded."""
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    states, scores = torch.randn(2, 3, 2, dtype=torch.float64), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    for loss, teacher in ((losses.hidden_state_loss, states), (losses.attention_score_loss, scores)):
        student = torch.randn_like(teacher).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, loss=loss, teacher=teacher: loss(x, teacher, mask), student)


def test_matching_losses_of_bfloat16_are_summed_in_float32() -> None:
    """300 tokens of width 2 that differ by 1: a sum of 600 ones stands still at 256 in bfloat16."""
    student = torch.ones(1, 300, 2, dtype=torch.bfloat16)
    values = losses.hidden_state_loss(student, torch.zeros_like(student), torch.ones(1, 300))
    assert values.dtype == torch.float32
    assert values.item() == pytest.approx(1, rel=1e-3)  # each √2 is rounded to eight bits
