"""Prototypes, t and λ against arithmetic done by hand in two dimensions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metakd import prototypes as prototypes_module
from metakd.prototypes import (
    expertise_weights,
    instance_weights,
    prototype_scores,
    prototypes,
    transfer_weights,
    whole_texts,
)

ROOT_HALF = math.sqrt(0.5)


def scores(embeddings: list[list[float]], labels: list[int], domains: list[int], alpha: float = 0.5) -> torch.Tensor:
    vectors, y, z = torch.tensor(embeddings), torch.tensor(labels), torch.tensor(domains)
    return prototype_scores(prototypes(vectors, y, z, max(labels) + 1, max(domains) + 1), vectors, y, z, alpha)


def test_prototypes_are_one_mean_for_each_domain_and_class() -> None:
    """Domain 0, class 0: mean of (1, 0) and (3, 2) is (2, 1); one prototype a domain would be (1, 2) instead."""
    embeddings = torch.tensor([[1.0, 0.0], [3.0, 2.0], [-1.0, 4.0], [5.0, 5.0]])
    known = prototypes(embeddings, torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 0, 1]), 2, 2)
    assert known.vectors.tolist() == [[[2, 1], [-1, 4]], [[5, 5], [0, 0]]]
    assert known.counts.tolist() == [[2, 1], [1, 0]]


def test_score_of_two_domains_by_hand() -> None:
    """Class 0 of domain 0 holds (1, 0) and (0, 2), of domain 1 (3, 3).

    For (1, 0): home without itself is (0, 2), cosine 0; abroad (3, 3), cosine √½; t = ½·0 + ½·√½.
    For (3, 3): alone at home, so abroad counts unscaled: prototype (½, 1), cosine 1.5 / (√1.25·√2).
    """
    t = scores([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], [0, 0, 0], [0, 0, 1])
    assert t.tolist() == pytest.approx([ROOT_HALF / 2, ROOT_HALF / 2, 1.5 / math.sqrt(2.5)])


def test_foreign_part_is_the_mean_of_cosines_not_the_cosine_of_the_mean() -> None:
    """Foreign prototypes (10, 0) and (0, 1), home (1, 0) twice: cosines to (1, 0) are 1 and 0, mean ½.

    The cosine to their mean (5, ½) would be 0.995.
    """
    t = scores([[1.0, 0.0], [1.0, 0.0], [10.0, 0.0], [0.0, 1.0]], [0] * 4, [0, 0, 1, 2], alpha=0.25)
    assert t[0].item() == pytest.approx(0.25 * 1 + 0.75 * 0.5)


def test_a_domain_without_the_class_is_left_out_of_the_foreign_mean() -> None:
    """Class 0 is abroad only in domain 1 (cosine 1), not in domain 2: the mean is 1, not ½."""
    t = scores([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [9.0, 9.0]], [0, 0, 0, 1], [0, 0, 1, 2])
    assert t[0].item() == pytest.approx(0.5 * 0 + 0.5 * 1)


def test_one_domain_scores_by_home_alone_unscaled() -> None:
    """K = 1: (1, 0) beside (1, 1): t = √½, not α·√½."""
    assert scores([[1.0, 0.0], [1.0, 1.0]], [0, 0], [0, 0], 0.3).tolist() == pytest.approx([ROOT_HALF] * 2)


def test_an_example_without_any_prototype_gets_the_mean_of_the_others() -> None:
    """A class of one, known nowhere else, does not score itself 1."""
    t = scores([[1.0, 0.0], [1.0, 1.0], [5.0, 0.0]], [0, 0, 1], [0, 0, 0])
    assert t[2].item() == pytest.approx(ROOT_HALF)
    assert scores([[5.0, 0.0]], [0], [0]).tolist() == [1.0]


def test_weights_are_clamped_then_divided_by_their_mean() -> None:
    """(−1, 1, 3) becomes (0, 1, 3), of mean 4/3: (0, 0.75, 2.25)."""
    scores = torch.tensor([-1.0, 1.0, 3.0])
    assert instance_weights(scores).tolist() == pytest.approx([0, 0.75, 2.25])
    assert instance_weights(scores, normalize=False).tolist() == [0, 1, 3]
    assert instance_weights(torch.tensor([-1.0, -2.0])).tolist() == [1, 1]
    assert instance_weights(scores, labelled=torch.tensor([4.0, -1])).tolist() == [0, 0.5, 1.5]


def test_expertise_by_hand() -> None:
    """p_y = 3/4: (1 − p)² = 1/16; λ = (1 + 2) / (e^(1/16) + 1). Hard and right: 3 / 2; hard and wrong: 3 / (e + 1)."""
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])
    t = torch.tensor([2.0, 2.0])
    soft = expertise_weights(t, logits, torch.tensor([0, 1]))
    assert soft.tolist() == pytest.approx([3 / (math.exp(1 / 16) + 1), 3 / (math.exp(9 / 16) + 1)])
    hard = expertise_weights(t, logits, torch.tensor([0, 1]), hard=True)
    assert hard.tolist() == pytest.approx([1.5, 3 / (math.e + 1)])


def test_expertise_of_several_labels_by_hand() -> None:
    """sigmoid (3/4, 1/4); of the label 0 alone both answers are right with 3/4, of the label 1 alone with 1/4.

    Hard, both are right or both are wrong; with both labels, one is right: (1 − 1/2)².
    """
    logits, t = torch.tensor([[math.log(3), -math.log(3)]] * 3), torch.full((3,), 2.0)
    labels = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    squares = [math.exp(1 / 16), math.exp(9 / 16), math.exp(1 / 4)]
    assert expertise_weights(t, logits, labels).tolist() == pytest.approx([3 / (each + 1) for each in squares])
    squares = [1, math.e, math.exp(1 / 4)]
    assert expertise_weights(t, logits, labels, hard=True).tolist() == pytest.approx(
        [3 / (each + 1) for each in squares]
    )


def test_scores_of_several_labels_are_their_mean() -> None:
    """One domain. Label 0: (1, 0) and (0, 1); label 1: (1, 0) and (1, 1). For (1, 0): cos with (0, 1) is 0, with
    (1, 1) √½, so t = √½ / 2. For (0, 1): 0. For (1, 1): √½. The text without labels: the mean of these three.
    """
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [5.0, 5.0]])
    labels, domains = torch.tensor([[1.0, 1], [1, 0], [0, 1], [0, 0]]), torch.zeros(4, dtype=torch.long)
    known = prototypes(embeddings, labels, domains, 2, 1)
    assert known.vectors.tolist() == [[[0.5, 0.5], [1.0, 0.5]]]
    assert known.counts.tolist() == [[2, 2]]
    t = prototype_scores(known, embeddings, labels, domains)
    expected = [ROOT_HALF / 2, 0.0, ROOT_HALF]
    assert t.tolist() == pytest.approx([*expected, sum(expected) / 3], abs=1e-6)
    held_out = prototypes(embeddings, labels, domains, 2, 1, torch.tensor([True, True, False, True]))
    assert held_out.counts.tolist() == [[2, 1]]


def test_single_labels_written_as_several_score_the_same() -> None:
    embeddings, labels, domains = torch.randn(40, 5), torch.arange(40) % 3, torch.arange(40) // 3 % 2
    several = torch.nn.functional.one_hot(labels, 3).float()
    one, other = (prototypes(embeddings, y, domains, 3, 2) for y in (labels, several))
    assert torch.equal(one.vectors, other.vectors)
    scored = prototype_scores(one, embeddings, labels, domains)
    torch.testing.assert_close(prototype_scores(other, embeddings, several, domains), scored)


@given(t=st.floats(0, 10), gap=st.floats(-30, 30))
def test_the_factor_beside_one_plus_t_runs_from_027_to_05(t: float, gap: float) -> None:
    factor = expertise_weights(torch.tensor([t]), torch.tensor([[gap, 0.0]]), torch.tensor([0])).item() / (1 + t)
    assert 1 / (math.e + 1) - 1e-5 <= factor <= 0.5 + 1e-5


def test_scores_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine examples of which one stands alone in its class: its score is the mean of all others, of every chunk."""
    examples = torch.randn(9, 4).tolist(), [0, 1, 0, 1, 0, 1, 0, 1, 2], [0, 0, 1, 1, 0, 0, 1, 1, 0]
    whole = scores(*examples)
    monkeypatch.setattr(prototypes_module, "CHUNK", 4)
    torch.testing.assert_close(scores(*examples), whole)
    assert whole[8].item() == pytest.approx(whole[:8].mean().item())


@given(st.integers(2, 30), st.integers(1, 4), st.integers(1, 3), st.integers(0, 999))
def test_scores_are_finite_cosines_for_any_mixture(count: int, domains: int, labels: int, seed: int) -> None:
    torch.manual_seed(seed)
    y, z = torch.randint(labels, (count,)), torch.randint(domains, (count,))
    t = scores(torch.randn(count, 5).tolist(), y.tolist(), z.tolist())
    assert t.shape == (count,)
    assert (t.abs() <= 1 + 1e-5).all()


def test_the_effective_share_of_weights_by_hand() -> None:
    """(1, 1, 0, 0): 2² / (4 · 2) = 1/2; alike: 1; one of four: 1/4; all zero count alike."""
    for weights, share in (([1, 1, 0, 0], 0.5), ([3, 3, 3], 1), ([0, 5, 0, 0], 0.25), ([0, 0], 1)):
        assert prototypes_module.effective_share(torch.tensor(weights, dtype=torch.float32)) == pytest.approx(share)


@pytest.mark.parametrize("chunk", [1, 8192])
def test_a_text_of_windows_has_the_mean_over_all_of_their_tokens(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second text has 4 tokens at (1, 0), 3 at (0, 1) and 1 at (0, 5): (4, 8) / 8; others keep their bits."""
    monkeypatch.setattr(prototypes_module, "CHUNK", chunk)
    embeddings = torch.tensor([[0.1, 0.2], [1.0, 0.0], [0.3, 0.3], [0.0, 1.0], [0.0, 5.0]])
    tokens, rows = torch.tensor([2, 4, 3, 3, 1]), torch.tensor([0, 1, 2, 1, 1])
    before = embeddings.clone()
    after = whole_texts(embeddings, tokens, rows, 3)
    torch.testing.assert_close(after[1], torch.tensor([0.5, 1.0]))
    assert after[[0, 2]].equal(before[[0, 2]])
    assert whole_texts(before[:3].clone(), tokens[:3], rows[:3], 3).equal(before[:3])


def test_a_class_at_home_is_the_mean_of_its_labelled_examples_alone() -> None:
    """Two at (1, 0); a third at home, at (0, 1), has no label of its own. A foreign one at (0, 1) transfers nothing."""
    h = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    labels, domains = torch.zeros(4, dtype=torch.long), torch.tensor([0, 0, 0, 1])
    labelled, centres = torch.tensor([True, True, False, True]), torch.zeros(2, 2)
    assert transfer_weights(h, labels, domains, 0, centres, labelled).tolist() == [1, 1, 1, 0]
    assert transfer_weights(h, labels, domains, 0, centres)[3] > 0.5
    nobody = torch.tensor([False, False, False, True])  # at home: then all of the class stand for it
    torch.testing.assert_close(
        transfer_weights(h, labels, domains, 0, centres, nobody), transfer_weights(h, labels, domains, 0, centres)
    )


def test_an_example_outside_the_prototypes_is_compared_with_all_of_its_class() -> None:
    """Home prototype (1, 0), foreign (0, 1): half of cos 45° twice; inside, the only one would have no home."""
    known = prototypes(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2)
    outside = torch.tensor([[1.0, 1.0]]), torch.tensor([0]), torch.tensor([0])
    assert prototype_scores(known, *outside, averaged=False).item() == pytest.approx(ROOT_HALF)
    assert prototype_scores(known, torch.tensor([[1.0, 0.0]]), *outside[1:], averaged=False).item() == pytest.approx(
        0.5
    )


def test_examples_that_are_not_counted_are_scored_but_in_no_prototype() -> None:
    """As if prototypes were made of the first three alone, and the last compared with them whole."""
    embeddings = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels, domains = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 1, 0])
    counted = torch.tensor([True, True, True, False])
    known = prototypes(embeddings, labels, domains, 2, 2, counted)
    alone = prototypes(embeddings[:3], labels[:3], domains[:3], 2, 2)
    torch.testing.assert_close(known.vectors, alone.vectors)
    assert known.counts.equal(alone.counts)
    scores = prototype_scores(known, embeddings, labels, domains, averaged=counted)
    torch.testing.assert_close(scores[:2], prototype_scores(alone, embeddings[:3], labels[:3], domains[:3])[:2])
    torch.testing.assert_close(scores[3], torch.cosine_similarity(alone.vectors[0, 0], embeddings[3], dim=0))
