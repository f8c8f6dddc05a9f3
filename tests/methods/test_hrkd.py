"""HRKD: prototypes, compare-aggregate and ratios by hand; what each term counts; graphs that really learn."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import setups
import torch
from setups import batch_of, setup_of

from conftest import encoded
from metakd import losses
from metakd.data.tokenization import Collator
from metakd.methods import hrkd
from metakd.training.distillation_module import Distillation
from metakd.training.trainer import TrainingPlan, fit
from metakd.utils.errors import InputError

BOTH = torch.tensor([True, True])
MEMBERS = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])  # of four examples, the second is of domain 1
learner_of = partial(setups.learner_of, hrkd.HRKD)


def test_a_prototype_is_the_mean_over_the_domains_examples() -> None:
    """Domain 0 has (1, 0), (3, 0) and (2, 3): mean (2, 1). Domain 1 has (5, 5) alone. A third has none: zeros."""
    states = torch.tensor([[[1.0, 0.0], [5.0, 5.0], [3.0, 0.0], [2.0, 3.0]]])
    members = torch.cat([MEMBERS, torch.zeros(1, 4)])
    expected = torch.tensor([[[2.0, 1.0], [5.0, 5.0], [0.0, 0.0]]])
    torch.testing.assert_close(hrkd.domain_prototypes(states, members), expected)


def test_compare_aggregate_by_hand() -> None:
    """Two layers, two domains, A and every B the identity; at layer 1, p_0 = (1, 0) and p_1 = (0, 1).

    Domain 0 is like itself by 1 and like domain 1 by 0: softmax gives s = e/(e + 1) = 0.7311 and 0.2689, so its
    reference is q_0 = (s, 1 − s). At layer 0 its prototype is (0, 2): likeness to q_0 is 2(1 − s) = 0.5379 there and
    s = 0.7311 at layer 1, whose share is 1/(1 + e^(0.5379 − 0.7311)) = 0.5481. So p̂_0 = (0.5481, 2 · 0.4519).
    """
    mechanism = hrkd.CompareAggregate(num_domains=2, width=2)
    for parameter in mechanism.parameters():
        parameter.data = torch.eye(2).expand_as(parameter)
    prototypes = torch.tensor([[[0.0, 2.0], [7.0, 7.0]], [[1.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(mechanism(prototypes, BOTH)[0], torch.tensor([0.5481, 0.9037]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("nodes", "expected"), [([1.0, -2.0], [1.7007, -0.8729]), ([1.0, 2.0], [2.7311, 3.7311])], ids=["mixed", "alike"]
)
def test_graph_attention_by_hand(nodes: list[float], expected: list[float]) -> None:
    """One head, W = (1), a = (1, 1). For nodes 1 and −2, scores of node 1 are 2 for itself and −1 · 0.2 for the other.

    Softmax: 1/(1 + e^−2.2) = 0.9002 and 0.0998, mixed 0.9002 − 0.1995 = 0.7007, which with node 1 itself makes 1.7007
    and ELU leaves as it is. Node −2 scores −0.2 for the first and −0.8 for itself: 0.6457 and 0.3543, mixed −0.0630,
    with itself −2.0630, and ELU makes it e^−2.0630 − 1 = −0.8729.

    For nodes 1 and 2, scores are 2 and 3 for the one, 3 and 4 for the other, which is one softmax: both see the same
    mean 1 · 0.2689 + 2 · 0.7311 = 1.7311, and only the skip connection tells them apart.
    """
    graph = hrkd.GraphAttention(1, 1, 1).eval()
    for parameter in graph.parameters():
        torch.nn.init.ones_(parameter)
    values = graph(torch.tensor(nodes)[:, None], BOTH)
    torch.testing.assert_close(values, torch.tensor(expected)[:, None], atol=1e-4, rtol=0)


def test_ratios_sum_to_one_at_each_layer_and_leave_out_absent_domains() -> None:
    """The values in an absent domain's place change nothing, no gradient is NaN; alike, two domains have 0.5 each."""
    alike = hrkd.DomainRelations(num_layers=0, num_domains=2, width=3).eval()
    ratios = alike(torch.tensor([1.0, -2.0, 3.0]).expand(1, 2, 3), BOTH)
    torch.testing.assert_close(ratios, torch.tensor([[0.5, 0.5]]))
    relations = hrkd.DomainRelations(num_layers=2, num_domains=3, width=4).eval()
    present, prototypes = torch.tensor([True, False, True]), torch.randn(3, 3, 4)
    ratios = relations(prototypes, present)
    torch.testing.assert_close(ratios.sum(1), torch.ones(3))
    assert ratios[:, 1].tolist() == [0, 0, 0]
    assert ((ratios[:, 0] - ratios[:, 2]).abs() > 0.01).all()  # they do tell domains apart
    other = prototypes.clone()
    other[:, 1] = 9.0
    torch.testing.assert_close(relations(other, present), ratios)
    ratios[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in relations.parameters())


def test_a_domains_loss_is_the_mean_over_its_examples() -> None:
    """Ratios 0.2 and 0.8, three examples and one: losses 1, 5, 3, 2 are 0.2 · 2 + 0.8 · 5 = 4.4."""
    weights = hrkd.example_weights(torch.tensor([[0.2, 0.8]]), MEMBERS)
    torch.testing.assert_close((weights[0] * torch.tensor([1.0, 5.0, 3.0, 2.0])).mean(), torch.tensor(4.4))


def test_each_layer_has_terms_of_one_value_an_example_and_its_own_ratios(base: Path) -> None:
    """Two of each domain: an example counts twice its domain's ratio, and once in the prediction."""
    terms = learner_of(setup_of(base))(**batch_of(base))
    names = ["embedding", "hidden_1", "hidden_2", "attention_1", "attention_2", "prediction"]
    assert list(terms) == names
    for term in terms.values():
        assert term.values.shape == (4,)
        torch.testing.assert_close(term.weights.mean(), torch.tensor(1.0))
        assert term.weights[0] == term.weights[3]
    assert torch.equal(terms["hidden_2"].weights, terms["attention_2"].weights)  # type: ignore[arg-type]
    assert len({terms[name].weights[0].item() for name in names[:3]}) == 3  # type: ignore[index]
    torch.testing.assert_close(terms["prediction"].weights, torch.ones(4))


@pytest.mark.parametrize("domains", [[0, 0, 0, 0], [-1, -1, -1, -1]])
def test_a_batch_of_one_domain_counts_every_example_once(base: Path, domains: list[int]) -> None:
    """Also where the teacher has never seen that domain."""
    for term in learner_of(setup_of(base))(**batch_of(base, domains)).values():
        torch.testing.assert_close(term.weights, torch.ones(4))


def test_a_domains_own_stages_match_without_weights(base: Path) -> None:
    learner = learner_of(setup_of(base, match_epochs=2, stages="two"))
    batch = batch_of(base, [0, 0, 0, 0])
    share, match, predict = learner.method.stages()
    assert (share.shared, match.shared, predict.shared) == (True, False, False)
    assert (match.terms, predict.terms) == (("embedding", "hidden", "attention"), ("prediction",))
    learner.enter(match)
    terms = learner(**batch)
    assert all(term.weights is None for term in terms.values())
    learner.enter(share)
    shared = learner(**batch)
    for name, term in terms.items():
        torch.testing.assert_close(term.values, shared[name].values)


def test_prototypes_leave_out_padding_and_special_tokens(base: Path) -> None:
    learner, batch = learner_of(setup_of(base)), batch_of(base)
    padded = {name: torch.nn.functional.pad(v, (0, 3)) if v.dim() > 1 else v for name, v in batch.items()}
    terms, same = learner(**batch), learner(**padded)
    for name, term in terms.items():
        torch.testing.assert_close(term.weights, same[name].weights, msg=name)


def train(learner: Distillation, folder: Path, domains: list[int], plan: TrainingPlan) -> None:
    fit(learner, encoded(folder, 32, labels=[0, 0, 1, 1] * 8, domains=domains), Collator(0), plan)


def test_every_graph_learns(base: Path, tmp_path: Path) -> None:
    """The ratios are trained with the student: every one of their weight matrices moves."""
    setup = setup_of(base, batch_size=8, weight_decay=0)
    learner = learner_of(setup)
    before = {name: p.clone() for name, p in learner.extras["relations"].named_parameters()}
    train(learner, base, [0, 1] * 16, TrainingPlan("test", 1, 1e-2, tmp_path, setup.settings, all_domains=True))
    for name, parameter in learner.extras["relations"].named_parameters():
        assert (parameter - before[name]).abs().max() > 1e-3, name


def test_batches_hold_every_domain_where_the_method_needs_it(base: Path, tmp_path: Path) -> None:
    """24 texts of one domain and 8 of another in four batches: six and two in each."""
    seen: list[list[int]] = []
    setup = setup_of(base, batch_size=8)
    learner = learner_of(setup)
    learner.register_forward_pre_hook(lambda *call: seen.append(call[2]["domains"].tolist()), with_kwargs=True)
    for all_domains in (True, False):
        plan = TrainingPlan("test", 2, 1e-3, tmp_path / str(all_domains), setup.settings, all_domains=all_domains)
        train(learner, base, [0, 0, 0, 1] * 8, plan)
    assert [(len(domains), sum(domains)) for domains in seen[:8]] == [(8, 2)] * 8
    assert [sum(domains) for domains in seen[8:]] != [2] * 8


@pytest.mark.parametrize(
    ("settings", "same_tokens", "reason"),
    [
        ({"shared_epochs": 0}, True, "shared_epochs = 0: .*choose 1 or more"),
        ({"terms": "prediction,feature", "stages": "joint"}, True, "embedding, hidden or attention"),
        ({}, False, "the teacher's tokenizer"),
    ],
)
def test_no_relations_are_refused(base: Path, settings: dict[str, Any], same_tokens: bool, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        learner_of(setup_of(base, same_tokens=same_tokens, **settings))


def test_no_weights_are_left_when_all_ratios_are_equal(base: Path) -> None:
    """Equal ratios and domains of equal size give TinyBERT's unweighted loss."""
    learner, batch = learner_of(setup_of(base)), batch_of(base)
    for parameter in learner.extras["relations"].parameters():
        torch.nn.init.zeros_(parameter)
    shared = learner(**batch)
    plain = {name: term._replace(weights=None) for name, term in shared.items()}
    torch.testing.assert_close(losses.reduce(shared), losses.reduce(plain))
