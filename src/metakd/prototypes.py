"""Instance weights: class prototypes of each domain, prototype scores t, expertise weights λ.

N examples, K domains, M classes, H width. Equations: Pan et al., "Meta-KD" (ACL 2021), sections 3.1 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 8192  # examples compared with all prototypes at a time


@dataclass(frozen=True)
class Prototypes:
    """One mean vector for each domain and class, and how many examples stand behind it."""

    vectors: Tensor  # (K, M, H); zeros where a domain lacks the class
    counts: Tensor  # (K, M) int


def prototypes(
    embeddings: Tensor,  # (N, H), E(x) by the pretrained encoder
    labels: Tensor,  # (N,) int
    domains: Tensor,  # (N,) int
    num_labels: int,
    num_domains: int,
) -> Prototypes:
    """p_k^m = mean of E(x_i) over the examples of domain k with class m [3.1]."""
    cells = domains * num_labels + labels
    counts = torch.bincount(cells, minlength=num_domains * num_labels)
    sums = torch.zeros(num_domains * num_labels, embeddings.shape[1], dtype=embeddings.dtype)
    sums.index_add_(0, cells, embeddings)
    vectors = sums / counts.clamp(min=1)[:, None]
    shape = (num_domains, num_labels)
    return Prototypes(vectors.view(*shape, -1), counts.view(*shape))


def prototype_scores(
    known: Prototypes,
    embeddings: Tensor,  # (N, H): the same examples that `known` was made of
    labels: Tensor,  # (N,) int
    domains: Tensor,  # (N,) int
    alpha: float = 0.5,
) -> Tensor:  # (N,)
    """t_i = α · cos(p_k^m, E_i) + (1 − α)/(K − 1) · Σ_{k' ≠ k} cos(p_k'^m, E_i), with m = y_i [3.1].

    An example's own vector is left out of its home prototype. The foreign mean runs over the domains that
    have the class; where home or abroad has none, the other side alone counts, unscaled; where neither has
    one, nothing speaks for or against the example and it gets the mean of all others (1 if there are none).
    """
    parts = [
        _scores(known, *part, alpha)
        for part in zip(embeddings.split(CHUNK), labels.split(CHUNK), domains.split(CHUNK), strict=True)
    ]
    scores, defined = (torch.cat(found) for found in zip(*parts, strict=True))
    neutral = scores[defined].mean() if defined.any() else torch.tensor(1.0)
    return torch.where(defined, scores, neutral)


def _scores(
    known: Prototypes, embeddings: Tensor, labels: Tensor, domains: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """t of one chunk of N examples, and which of them have a prototype to be compared with: (N,), (N,) bool."""
    counts = known.counts[domains, labels]  # (N,), the example itself included
    home_sum = known.vectors[domains, labels] * counts[:, None]
    home = F.cosine_similarity((home_sum - embeddings) / (counts - 1).clamp(min=1)[:, None], embeddings, dim=-1)
    has_home = counts > 1

    unit, there = F.normalize(known.vectors, dim=-1), known.counts > 0  # vectors of absent classes are 0
    foreign = unit.sum(0)[labels] - unit[domains, labels]  # (N, H): a sum of cosines is the cosine with a sum
    num_foreign = there.sum(0)[labels] - there[domains, labels].long()
    foreign_mean = (F.normalize(embeddings, dim=-1) * foreign).sum(-1) / num_foreign.clamp(min=1)
    has_foreign = num_foreign > 0

    scores = alpha * home + (1 - alpha) * foreign_mean
    scores = torch.where(has_foreign, scores, home)
    scores = torch.where(has_home, scores, foreign_mean)
    return scores, has_home | has_foreign


def domain_similarity(known: Prototypes) -> Tensor:
    """How alike two domains are: the mean over the classes that both have of cos(p_k^m, p_k'^m): (K, K)."""
    unit, there = F.normalize(known.vectors, dim=-1), (known.counts > 0).float()
    cosines = torch.einsum("kmh,jmh->kj", unit, unit)  # vectors of absent classes are 0
    return cosines / (there @ there.T).clamp(min=1)


def instance_weights(scores: Tensor, normalize: bool = True) -> Tensor:
    """t as used in losses: never negative (that would maximise the loss); by default divided by its mean.

    scores: (N,) prototype scores -> (N,) weights.
    """
    weights = scores.clamp(min=0)
    if not normalize:
        return weights
    mean = weights.mean()
    return weights / mean if mean > 0 else torch.ones_like(weights)


def transfer_weights(
    representations: Tensor,  # (N, H), h of every example
    labels: Tensor,  # (N,) int
    domains: Tensor,  # (N,) int
    home: int,  # the domain that is to gain by the others
) -> Tensor:  # (N,)
    """How far each example transfers to one domain: 1 for its own, at most that for others', 0 for a class it lacks.

    Others' examples count as their place among their own domain's resembles that of the home's of their class,
    relative to how the home's resemble each other: with c_i = h_i − (mean of its domain's prototypes of the classes),
    and p^m the mean of c over the home's class m = y_i, w_i = clamp(cos(p^m, c_i) / mean_home cos(p^m − own, c), 0, 1).
    Only what differs within a domain is compared, since h carries e_z, which tells domains apart. An h that nothing has
    trained is a random projection of E(x), which nearly keeps angles.
    """
    known = prototypes(representations, labels, domains, int(labels.max()) + 1, int(domains.max()) + 1)
    centres = known.vectors.sum(1) / (known.counts > 0).sum(1, keepdim=True).clamp(min=1)
    centred, own = representations - centres[domains], domains == home
    weights = own.float()
    for label in labels[own].unique():
        of_class = labels == label
        here = centred[own & of_class]
        likeness = F.cosine_similarity(centred[of_class], here.mean(0), dim=-1)
        others = (here.sum(0) - here) / max(len(here) - 1, 1)
        usual = F.cosine_similarity(others, here, dim=-1).mean() if len(here) > 1 else torch.tensor(1.0)
        weights[of_class] = torch.where(own[of_class], 1.0, (likeness / usual.clamp(min=1e-6)).clamp(0, 1))
    return weights


def effective_share(weights: Tensor) -> float:
    """(Σ w)² / (N Σ w²) of (N,) weights: 1 where every example counts alike, 1/N where one alone does."""
    w = weights.double()
    return float(w.sum().square() / (len(w) * w.square().sum())) if w.any() else 1.0


def expertise_weights(
    instance: Tensor,  # (B,) t
    teacher_logits: Tensor,  # (B, M)
    labels: Tensor,  # (B,) int
    hard: bool = False,
) -> Tensor:  # (B,)
    """λ_i = (1 + t_i) / (exp((ŷ_i − y_i)²) + 1) [3.3]: how far the teacher may be trusted on this example.

    ŷ_i is the teacher's probability of the true class, so that (ŷ − y)² = (1 − p_y)²; with `hard`, it is 1
    where the teacher's first choice is the true class and 0 elsewhere.
    """
    if hard:
        trusted = (teacher_logits.argmax(-1) == labels).float()
    else:
        trusted = teacher_logits.float().softmax(-1).gather(1, labels[:, None]).squeeze(1)
    return (1 + instance) / ((1 - trusted).pow(2).exp() + 1)
