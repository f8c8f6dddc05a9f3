"""Instance weights: class prototypes p of each domain, prototype scores t, expertise weights λ.

Equations are those of Pan et al., "Meta-KD" (ACL 2021, arXiv 2012.01266); sections in brackets are the paper's::

    p_k^m  [3.1]  prototypes          mean vector of class m in domain k
    t_i    [3.1]  prototype_scores    how typical an example is, within its domain and across domains
    t_i           instance_weights    t as the losses use it
    λ_i    [3.3]  expertise_weights   how much the teacher counts for an example

Ours are `whole_texts`, `domain_centres`, `transfer_weights`, `domain_similarity` and `effective_share`.
Symbols: N examples, B of them in a batch, K domains, M classes, H width; E(x) is the pretrained encoder's vector of x.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 8192  # examples compared with all prototypes at a time


@dataclass(frozen=True)
class Prototypes:
    """One mean vector for each domain and class, and the number of examples that it averages."""

    vectors: Tensor  # (K, M, H); zeros for a class that the domain does not have
    counts: Tensor  # (K, M) int


def whole_texts(embeddings: Tensor, tokens: Tensor, rows: Tensor, num_texts: int) -> Tensor:
    """E(x) of each text: the mean over the real tokens of all its windows. `embeddings` is changed in place.

    Args:
        embeddings: (N + W, H), E of the first window of each text, then of W further windows.
        tokens: (N + W,) int, real tokens of each window.
        rows: (N + W,) int, the text of each window.
        num_texts: N.

    Returns:
        (N, H).
    """
    long, places = rows[num_texts:].unique(return_inverse=True)
    sums, totals = embeddings[long] * tokens[long, None], tokens[long].clone()
    for chunk in torch.arange(num_texts, len(rows)).split(CHUNK):
        sums.index_add_(0, places[chunk - num_texts], embeddings[chunk] * tokens[chunk, None])
        totals.index_add_(0, places[chunk - num_texts], tokens[chunk])
    embeddings[long] = sums / totals[:, None]
    return embeddings[:num_texts]


def prototypes(
    embeddings: Tensor,
    labels: Tensor,
    domains: Tensor,
    num_labels: int,
    num_domains: int,
    counted: Tensor | None = None,
) -> Prototypes:
    """p_k^m = mean of E(x_i) over the examples of domain k with class m [3.1].

    Args:
        embeddings: (N, H), E(x) by the pretrained encoder.
        labels: (N,) int; or (N, M), 1 for each label of a text that may have several, which then counts for each.
        domains: (N,) int.
        num_labels: The number of classes, M.
        num_domains: The number of domains, K.
        counted: (N,) bool, which examples are averaged; None for all.

    Returns:
        The prototypes, with the number of examples of each.
    """
    rows, classes = _pairs(labels) if labels.dim() > 1 else (torch.arange(len(labels)), labels)
    groups, size = domains[rows] * num_labels + classes, num_domains * num_labels
    if counted is not None:
        groups = groups.where(counted[rows], torch.tensor(size))  # the last group is left out
    counts = torch.bincount(groups, minlength=size + 1)[:size]
    sums = torch.zeros(size + 1, embeddings.shape[1], dtype=embeddings.dtype)
    for chunk, of_chunk in zip(rows.split(CHUNK), groups.split(CHUNK), strict=True):
        sums.index_add_(0, of_chunk, embeddings[chunk])
    sums = sums[:size]
    vectors = sums / counts.clamp(min=1)[:, None]
    shape = (num_domains, num_labels)
    return Prototypes(vectors.view(*shape, -1), counts.view(*shape))


def prototype_scores(
    known: Prototypes,
    embeddings: Tensor,
    labels: Tensor,
    domains: Tensor,
    alpha: float = 0.5,
    *,
    averaged: bool | Tensor = True,
) -> Tensor:
    """t_i = α · cos(p_k^m, E_i) + (1 − α)/(K − 1) · Σ_{k' ≠ k} cos(p_k'^m, E_i), with m = y_i [3.1].

    The home prototype p_k^m is the mean of the other examples, without the example itself. The foreign mean runs over
    the domains that have the class. If only one of the two sides has a prototype, the score is that side, unscaled; if
    neither has, the score is the mean over all other examples (1 if there are none). Of a text that may have several
    labels, it is the mean over those that it has; without any, the mean over all other texts.

    Args:
        known: The prototypes.
        embeddings: (N, H).
        labels: (N,) int; or (N, M), 1 for each label of a text.
        domains: (N,) int.
        alpha: α, the share of the example's own domain, from 0 to 1.
        averaged: Whether the prototypes average these examples, so that each has to be left out of its own; (N,) bool,
            if only some of them.

    Returns:
        (N,), from −1 to 1.
    """
    within = torch.as_tensor(averaged).expand(len(labels))
    rows, classes = _pairs(labels) if labels.dim() > 1 else (torch.arange(len(labels)), labels)
    parts = [
        _scores(known, embeddings[chunk], classes_of, domains[chunk], within[chunk], alpha)
        for chunk, classes_of in zip(rows.split(CHUNK), classes.split(CHUNK), strict=True)
    ]
    scores, defined = (torch.cat(column) for column in zip(*parts, strict=True))
    neutral = scores[defined].mean() if defined.any() else torch.tensor(1.0)
    scores = torch.where(defined, scores, neutral)
    return _mean_by_text(scores, rows, len(labels)) if labels.dim() > 1 else scores


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and the classes of all labels that texts have: (N, M) -> (P,), (P,)."""
    rows, classes = (labels > 0).nonzero(as_tuple=True)
    return rows, classes


def _mean_by_text(scores: Tensor, rows: Tensor, num_texts: int) -> Tensor:
    """The mean of the scores of each text's labels, (P,) -> (N,); of texts without any, the mean of the others."""
    counts = torch.bincount(rows, minlength=num_texts)
    means = torch.zeros(num_texts).index_add_(0, rows, scores) / counts.clamp(min=1)
    neutral = means[counts > 0].mean() if len(rows) else torch.tensor(1.0)
    return torch.where(counts > 0, means, neutral)


def _scores(
    known: Prototypes, embeddings: Tensor, labels: Tensor, domains: Tensor, averaged: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """t of one chunk of N examples, and which of them have a prototype to be compared with: (N,), (N,) bool."""
    counts, prototype = known.counts[domains, labels], known.vectors[domains, labels]  # (N,), (N, H)
    if averaged.any():
        others = (prototype * counts[:, None] - embeddings) / (counts - 1).clamp(min=1)[:, None]
        prototype = others.where(averaged[:, None], prototype)
    home, has_home = F.cosine_similarity(prototype, embeddings, dim=-1), counts > averaged

    unit, there = F.normalize(known.vectors, dim=-1), known.counts > 0  # vectors of absent classes are 0
    foreign = unit.sum(0)[labels] - unit[domains, labels]  # (N, H): a sum of cosines is the cosine with a sum
    num_foreign = there.sum(0)[labels] - there[domains, labels].long()
    foreign_mean = (F.normalize(embeddings, dim=-1) * foreign).sum(-1) / num_foreign.clamp(min=1)
    has_foreign = num_foreign > 0

    scores = alpha * home + (1 - alpha) * foreign_mean
    scores = torch.where(has_foreign, scores, home)
    scores = torch.where(has_home, scores, foreign_mean)
    return scores, has_home | has_foreign


def instance_weights(scores: Tensor, normalize: bool = True, labelled: Tensor | None = None) -> Tensor:
    """t as used in losses: max(t, 0), as a negative weight would maximise the loss; by default divided by its mean.

    Args:
        scores: (N,), prototype scores.
        normalize: Divide by the mean, so that weights are 1 on average.
        labelled: (L,), scores of the texts with labels, whose mean divides those of texts without.

    Returns:
        (N,).
    """
    weights = scores.clamp(min=0)
    if not normalize:
        return weights
    mean = weights.mean() if labelled is None else labelled.clamp(min=0).mean()
    return weights / mean if mean > 0 else torch.ones_like(weights)


def expertise_weights(instance: Tensor, teacher_logits: Tensor, labels: Tensor, hard: bool = False) -> Tensor:
    """λ_i = (1 + t_i) / (exp((ŷ_i − y_i)²) + 1) [3.3]: how much the teacher counts for this example.

    ŷ_i is the teacher's probability of the true class, so that (ŷ − y)² = (1 − p_y)². Of texts that may have several
    labels, it is the mean over these of the probability of the right answer, yes or no.

    Args:
        instance: (B,), t.
        teacher_logits: (B, M).
        labels: (B,) int, the true classes; or (B, M), 1 for each label of a text, else 0.
        hard: Let ŷ be 1 where the teacher's first choice is the true class, and 0 elsewhere; or so for each label.

    Returns:
        (B,).
    """
    if labels.dim() > 1:
        p = (teacher_logits > 0).float() if hard else teacher_logits.float().sigmoid()
        predicted = torch.where(labels > 0, p, 1 - p).mean(-1)
    elif hard:
        predicted = (teacher_logits.argmax(-1) == labels).float()
    else:
        predicted = teacher_logits.float().softmax(-1).gather(1, labels[:, None]).squeeze(1)
    return (1 + instance) / ((1 - predicted).pow(2).exp() + 1)


# --- Not in the paper -------------------------------------------------------------------------------------------


def domain_centres(known: Prototypes) -> Tensor:
    """The mean of the prototypes that each domain has, (K, H); 0 for a domain that has none."""
    return known.vectors.sum(1) / (known.counts > 0).sum(1, keepdim=True).clamp(min=1)


def transfer_weights(
    representations: Tensor,
    labels: Tensor,
    domains: Tensor,
    home: int,
    centres: Tensor,
    labelled: Tensor | None = None,
) -> Tensor:
    """How well each example transfers to domain `home`: 1 for its own examples, w in [0, 1] for those of others.

    With c_i = h_i − (mean of its domain's prototypes) and p^m the mean of c over the home examples of class m = y_i::

        w_i = clamp(cos(p^m, c_i) / u^m, 0, 1),   u^m = mean over home of cos(p^m without c_j, c_j)

    so that 1 means as similar to the home class as its members are to each other; w is 0 where home has no such class.
    Where the members are not similar (u^m ≤ 0, or a single one), u^m is 1.
    Only differences within a domain are compared, because h carries the domain embedding e_z. An untrained h is a
    random projection of E(x), which nearly keeps angles.

    Args:
        representations: (N, H), h of every example.
        labels: (N,) int.
        domains: (N,) int.
        home: The domain that the examples of the others are weighted for.
        centres: (K, H), the mean of each domain's prototypes [`domain_centres`], also of classes that home lacks.
        labelled: (N,) bool, the examples that p^m averages, or all where home has none of the class; by default all.

    Returns:
        (N,), from 0 to 1.
    """
    kept = torch.ones_like(labels, dtype=torch.bool) if labelled is None else labelled
    centred, at_home = representations - centres[domains], domains == home
    weights = at_home.float()
    for label in labels[at_home].unique():
        of_class = labels == label
        counted = at_home & of_class & kept
        members = centred[counted if counted.any() else at_home & of_class]
        similarity = F.cosine_similarity(centred[of_class], members.mean(0), dim=-1)
        without_itself = (members.sum(0) - members) / max(len(members) - 1, 1)
        usual = float(F.cosine_similarity(without_itself, members, dim=-1).mean()) if len(members) > 1 else 1.0
        usual = usual if usual > 0 else 1.0
        weights[of_class] = torch.where(at_home[of_class], 1.0, (similarity / usual).clamp(0, 1))
    return weights


def domain_similarity(known: Prototypes) -> Tensor:
    """Mean of cos(p_k^m, p_k'^m) over the classes m that domains k and k' both have.

    Args:
        known: The prototypes of all domains.

    Returns:
        (K, K), from −1 to 1; 0 for domains that share no class.
    """
    unit, there = F.normalize(known.vectors, dim=-1), (known.counts > 0).float()
    cosines = torch.einsum("kmh,jmh->kj", unit, unit)  # vectors of absent classes are 0
    return cosines / (there @ there.T).clamp(min=1)


def effective_share(weights: Tensor) -> float:
    """(Σ w)² / (N Σ w²): 1 if all examples weigh the same, 1/N if only one has a weight.

    Args:
        weights: (N,), not negative.

    Returns:
        A share from 0 to 1; 1 if all weights are 0.
    """
    w = weights.double()
    return float(w.sum().square() / (len(w) * w.square().sum())) if w.any() else 1.0
