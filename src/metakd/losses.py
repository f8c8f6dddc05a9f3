"""Every loss of the method: pure functions of tensors, one value for each example.

Equations are those of Pan et al., "Meta-KD" (ACL 2021, arXiv 2012.01266); sections in brackets are the paper's::

    CE            [3.2]  cross_entropy                 true class of an example, or its several labels
    L_dom         [3.2]  false_domain_loss             the meta-teacher's domain loss, as in the paper
                         permuted_domain_loss          as in the released code
    L_emb, L_hid  [3.3]  hidden_state_loss             embeddings and hidden states
    L_att         [3.3]  attention_score_loss          attention scores
                         relation_loss                 ours, where scores cannot be compared
                         pooled_state_loss             ours, layers averaged over each model's own tokens
    L_pred        [3.3]  prediction_loss               predictions at a temperature
                         soft_label_loss               ours, probabilities of the data and gold labels
    L_tkd         [3.3]  transferable_knowledge_loss   transferable representations h
    L                    reduce                        the weighted sum of terms, averaged over the batch

`models/meta_teacher.py` puts the terms of L_T together, `methods/meta_kd.py` those of L_S; their weights t and λ are in
`prototypes.py`. Only `reduce` averages over the batch, so that a weight always reaches its example.
Symbols: B examples in a batch, L tokens, H width of the encoder, A attention heads, M classes, K domains.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class Term(NamedTuple):
    """One named part of a loss: its value for each example, its coefficient, and the weight of each example."""

    values: Tensor  # (B,)
    coefficient: float = 1.0
    weights: Tensor | None = None  # (B,); None counts every example once


LossTerms = dict[str, Term]


def reduce(terms: LossTerms) -> Tensor:
    """mean_i Σ_k c_k · w_k,i · L_k,i over the terms k. Losses are weighted and averaged nowhere else.

    Args:
        terms: Terms of the same B examples, by name.

    Returns:
        A scalar.

    Raises:
        ValueError: There is no term.
    """
    if not terms:
        raise ValueError("there is no loss term to reduce")
    parts = [t.coefficient * (t.values if t.weights is None else t.weights * t.values) for t in terms.values()]
    return torch.stack(parts).sum(0).mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """CE(y, p) = −log p[y] with p = softmax(logits), in nats.

    Of texts that may have several labels, −Σ_m [y_m log p_m + (1 − y_m) log(1 − p_m)] with p = sigmoid(logits): a sum,
    as a mean over many labels is nothing beside the other terms.

    Args:
        logits: (B, M).
        labels: (B,) int, the true classes; or (B, M), 1 for each label of a text, else 0.

    Returns:
        (B,).
    """
    if labels.dim() > 1:
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none").sum(-1)
    return F.cross_entropy(logits.float(), labels, reduction="none")


# --- The meta-teacher's domain loss L_dom [3.2]: two kinds ------------------------------------------------------


def false_domain_loss(logits: Tensor, domains: Tensor) -> Tensor:
    """The paper's L_dom = −1/(K − 1) · Σ_{k ≠ z} log p[k] with p = softmax(logits): the mean over the wrong domains.

    Smallest where the true domain z has no probability.

    Args:
        logits: (B, K), of the domain classifier.
        domains: (B,) int, the true domains.

    Returns:
        (B,), in nats.
    """
    log_p = F.log_softmax(logits.float(), dim=-1)
    true = log_p.gather(1, domains[:, None]).squeeze(1)
    return -(log_p.sum(-1) - true) / (logits.shape[1] - 1)


def permuted_domain_loss(logits: Tensor, domains: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The released code's L_dom = CE(z_π, p), with the domains of the batch shuffled by a permutation π.

    Smallest on average where the classifier cannot tell the domains apart.

    Args:
        logits: (B, K), of the domain classifier.
        domains: (B,) int, the true domains.
        generator: The source of π; by default torch's global one.

    Returns:
        (B,), in nats.
    """
    order = torch.randperm(len(domains), generator=generator).to(domains.device)
    return cross_entropy(logits, domains[order])


# --- Distillation [3.3]: student and teacher outputs; hidden states are first projected to one width -------------


def hidden_state_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """L_hid = MSE(H_student, H_teacher) of one mapped layer, mean over tokens and width; of embeddings: L_emb.

    Args:
        student: (B, L, H).
        teacher: (B, L, H).
        mask: (B, L), 1 for a token, special ones included, 0 for padding.

    Returns:
        (B,).
    """
    return _masked_mean_squared_error(student, teacher, mask[:, :, None])


def attention_score_loss(student: Tensor, teacher: Tensor, mask: Tensor, window: int | None = None) -> Tensor:
    """L_att = MSE(S_student, S_teacher) of one mapped layer, of the scores S = q·k/√d before mask and softmax.

    The mean is over heads and pairs of tokens that both models attend to.

    Args:
        student: (B, A, L, L).
        teacher: (B, A, L, L).
        mask: (B, L), 1 for a token, special ones included, 0 for padding.
        window: The largest distance of two tokens that a local layer attends to; None for all.

    Returns:
        (B,).
    """
    pairs = _pairs(mask)
    if window is not None:
        places = torch.arange(mask.shape[1], device=mask.device)
        pairs = pairs * ((places[:, None] - places).abs() <= window)
    return _masked_mean_squared_error(student, teacher, pairs[:, None])


def relation_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """L_att = MSE(cos_student, cos_teacher) of the cosine similarities between tokens, where scores cannot be compared.

    Needs neither equal numbers of heads nor equal widths (after Tung and Mori, "Similarity-Preserving KD", ICCV 2019).

    Args:
        student: (B, L, H_student).
        teacher: (B, L, H_teacher).
        mask: (B, L), 1 for a token, special ones included, 0 for padding.

    Returns:
        (B,).
    """
    with torch.autocast(student.device.type, enabled=False):  # bfloat16 cannot tell cosines near 1 apart
        similarity = [F.normalize(x.float(), dim=-1) for x in (student, teacher)]
        ours, theirs = (x @ x.transpose(1, 2) for x in similarity)
        return _masked_mean_squared_error(ours, theirs, _pairs(mask))


def soft_label_loss(logits: Tensor, labels: Tensor, soft_labels: Tensor, gold_weights: Tensor) -> Tensor:
    """β · CE(y, p) + (1 − β) · CE(q, p) with p = softmax(logits), in nats.

    Args:
        logits: (B, M).
        labels: (B,) int, y.
        soft_labels: (B, M), q, rows sum to 1.
        gold_weights: (B,), β.

    Returns:
        (B,).
    """
    soft = F.cross_entropy(logits.float(), soft_labels, reduction="none")
    return gold_weights * cross_entropy(logits, labels) + (1 - gold_weights) * soft


def prediction_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0, *, several: bool = False) -> Tensor:
    """L_pred = −T² · Σ_m softmax(teacher / T)[m] · log softmax(student / T)[m] (Hinton et al., 2015).

    Of texts that may have several labels, T² · CE of sigmoid(teacher / T) and student / T, as `cross_entropy` has it.

    Args:
        student: (B, M) logits.
        teacher: (B, M) logits.
        temperature: T, above 0.
        several: Whether a text may have several labels.

    Returns:
        (B,), in nats.
    """
    if several:
        return cross_entropy(student.float() / temperature, (teacher.float() / temperature).sigmoid()) * temperature**2
    target = F.softmax(teacher.float() / temperature, dim=-1)
    return -(target * F.log_softmax(student.float() / temperature, dim=-1)).sum(-1) * temperature**2


def transferable_knowledge_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_tkd = MSE(h_student, h_teacher) of the transferable representations, mean over the width.

    Args:
        student: (B, H), h of the student, tanh included.
        teacher: (B, H), h of the teacher, tanh included.

    Returns:
        (B,).
    """
    return F.mse_loss(student.float(), teacher.float(), reduction="none").mean(-1)


def pooled_state_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """MSE of one mapped layer, averaged over each model's own tokens; mean over the width.

    Both are brought to mean 0 and variance 1 over their width first, as models differ in scale. Not in the paper: for
    models whose tokens differ.

    Args:
        student: (B, H), of the teacher's width.
        teacher: (B, H).

    Returns:
        (B,).
    """
    width = student.shape[-1:]
    ours, theirs = (F.layer_norm(states.float(), width) for states in (student, teacher))
    return F.mse_loss(ours, theirs, reduction="none").mean(-1)


def sum_layers(losses: Sequence[Tensor]) -> Tensor:
    """Σ over mapped layers of their losses.

    Args:
        losses: (B,) for each layer; at least one.

    Returns:
        (B,).
    """
    return torch.stack(list(losses)).sum(0)


class _SumOfSquares(torch.autograd.Function):
    """Σ (mask · (student − teacher))² of each example, in few passes over memory; masks are 0 and 1.

    Summed in float32 or wider. In bfloat16 the norm of each row is rounded before the sum, which changes the reported
    loss by about 0.01 percent and no gradient; a copy in float32 would take longer than everything else.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        assert not ctx.needs_input_grad[1], "the teacher is fixed: it gets no gradient"
        difference = (student - teacher).mul_(mask)
        ctx.save_for_backward(difference)
        wide = torch.promote_types(difference.dtype, torch.float32)
        norms = torch.linalg.vector_norm(difference, dim=-1).to(wide)
        return norms.square().flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (difference,) = ctx.saved_tensors
        factor = (2 * gradient).to(difference.dtype)
        return difference * factor.view(-1, *[1] * (difference.dim() - 1)), None, None


def _masked_mean_squared_error(
    student: Tensor,  # (B, ...)
    teacher: Tensor,  # (B, ...)
    mask: Tensor,  # (B, ...), 1 for what counts, else 0, broadcast to the same shape
) -> Tensor:  # (B,)
    values_per_entry = student[0].numel() // mask[0].numel()
    counted = mask.flatten(1).sum(1) * values_per_entry
    return _SumOfSquares.apply(student, teacher, mask) / counted.clamp(min=1)


def _pairs(mask: Tensor) -> Tensor:
    """1 for pairs of tokens: (B, L) -> (B, L, L)."""
    return mask[:, :, None] * mask[:, None, :]
