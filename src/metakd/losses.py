"""Every loss of the method: pure functions of tensors, one value for each example.

Symbols: B examples in a batch, L tokens, H width of the encoder, A attention heads, M classes, K domains.
Equations are those of Pan et al., "Meta-KD" (ACL 2021, arXiv 2012.01266); sections in brackets are the paper's.
Nothing here is reduced over the batch but in `reduce`, so that a weight always reaches its example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class Term(NamedTuple):
    """One named part of a loss: its value for each example, its coefficient, and what each example counts."""

    values: Tensor  # (B,)
    coefficient: float = 1.0
    weights: Tensor | None = None  # (B,); None counts every example once


LossTerms = dict[str, Term]


def reduce(terms: LossTerms) -> Tensor:
    """mean_i Σ_k c_k · w_k,i · term_k,i -> scalar: the only place where losses are weighted and averaged."""
    if not terms:
        raise ValueError("there is no loss term to reduce")
    parts = [t.coefficient * (t.values if t.weights is None else t.weights * t.values) for t in terms.values()]
    return torch.stack(parts).sum(0).mean()


def cross_entropy(
    logits: Tensor,  # (B, M)
    labels: Tensor,  # (B,) int
) -> Tensor:  # (B,)
    """−log softmax(logits)[y], in nats."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


# --- The meta-teacher's domain loss L_dom [3.2], in kinds; `logits` are the domain head's -----------------------


def false_domain_loss(
    logits: Tensor,  # (B, K)
    domains: Tensor,  # (B,) int
) -> Tensor:  # (B,)
    """The paper's: cross-entropy averaged over the K − 1 wrong domains. Least where the true one gets nothing."""
    log_p = F.log_softmax(logits.float(), dim=-1)
    true = log_p.gather(1, domains[:, None]).squeeze(1)
    return -(log_p.sum(-1) - true) / (logits.shape[1] - 1)


def permuted_domain_loss(
    logits: Tensor,  # (B, K)
    domains: Tensor,  # (B,) int
    generator: torch.Generator | None = None,
) -> Tensor:  # (B,)
    """The released code's: cross-entropy to the batch's domains, shuffled. Least where the head is blind."""
    order = torch.randperm(len(domains), generator=generator).to(domains.device)
    return cross_entropy(logits, domains[order])


def uniform_domain_loss(logits: Tensor) -> Tensor:
    """Cross-entropy to the uniform distribution over the K domains; logits (B, K) -> (B,). Least value: log K."""
    return -F.log_softmax(logits.float(), dim=-1).mean(-1)


class _ReverseGradient(torch.autograd.Function):
    """Identity forwards, −1 times the gradient backwards (Ganin and Lempitsky, 2015)."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


def reverse_gradient(x: Tensor) -> Tensor:
    """x as it is; whatever learns through it is pushed the other way. Any shape."""
    return _ReverseGradient.apply(x)


# --- Distillation [3.3]: what the student is to imitate ---------------------------------------------------------


def hidden_state_loss(
    student: Tensor,  # (B, L, H)
    teacher: Tensor,  # (B, L, H)
    mask: Tensor,  # (B, L), 1 for a real token, 0 for padding
) -> Tensor:  # (B,)
    """L_hid of one mapped layer (L_emb when given embedding outputs): MSE, mean over tokens and width."""
    return _masked_mean_squared_error(student, teacher, mask[:, :, None])


def attention_score_loss(
    student: Tensor,  # (B, A, L, L)
    teacher: Tensor,  # (B, A, L, L)
    mask: Tensor,  # (B, L)
) -> Tensor:  # (B,)
    """L_att of one mapped layer: MSE of raw scores q·k/√d, before mask and softmax; mean over heads and pairs."""
    return _masked_mean_squared_error(student, teacher, _pairs(mask)[:, None])


def relation_loss(
    student: Tensor,  # (B, L, H_student)
    teacher: Tensor,  # (B, L, H_teacher)
    mask: Tensor,  # (B, L)
) -> Tensor:  # (B,)
    """L_att where heads differ in number or no raw scores can be had: MSE of the tokens' cosine similarities.

    Needs neither equal heads nor equal widths (after Tung and Mori, "Similarity-Preserving KD", ICCV 2019).
    """
    with torch.autocast(student.device.type, enabled=False):  # cosines near 1 differ in digits that bfloat16 lacks
        similarity = [F.normalize(x.float(), dim=-1) for x in (student, teacher)]
        ours, theirs = (x @ x.transpose(1, 2) for x in similarity)
        return _masked_mean_squared_error(ours, theirs, _pairs(mask))


def prediction_loss(
    student: Tensor,  # (B, M) logits
    teacher: Tensor,  # (B, M) logits
    temperature: float = 1.0,
) -> Tensor:  # (B,)
    """L_pred: T² · cross-entropy from the teacher's softened distribution (Hinton et al., 2015)."""
    target = F.softmax(teacher.float() / temperature, dim=-1)
    return -(target * F.log_softmax(student.float() / temperature, dim=-1)).sum(-1) * temperature**2


def transferable_knowledge_loss(
    student: Tensor,  # (B, H): h of the student, tanh included
    teacher: Tensor,  # (B, H): h of the teacher, tanh included
) -> Tensor:  # (B,)
    """L_tkd: MSE of the transferable representations h, mean over the width."""
    return F.mse_loss(student.float(), teacher.float(), reduction="none").mean(-1)


def sum_layers(losses: Sequence[Tensor]) -> Tensor:
    """Σ over mapped layers of (B,) losses."""
    return torch.stack(list(losses)).sum(0)


class _SumOfSquares(torch.autograd.Function):
    """Σ (mask · (student − teacher))² of each example, in few passes; masks are 0 and 1.

    Summed in float32 or wider. In bfloat16 the norm of each row is rounded before that, which moves what is reported by
    some 0.0001 of itself and no gradient; a copy in float32 would take longer than all the rest.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        assert not ctx.needs_input_grad[1], "the teacher is what it is: it gets no gradient"
        difference = (student - teacher).mul_(mask)
        ctx.save_for_backward(difference)
        wide = torch.promote_types(difference.dtype, torch.float32)
        of_rows = torch.linalg.vector_norm(difference, dim=-1).to(wide)
        return of_rows.square().flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (difference,) = ctx.saved_tensors
        slope = (2 * gradient).to(difference.dtype)
        return difference * slope.view(-1, *[1] * (difference.dim() - 1)), None, None


def _masked_mean_squared_error(
    student: Tensor,  # (B, ...)
    teacher: Tensor,  # (B, ...)
    mask: Tensor,  # (B, ...), 1 for what counts and 0 else, broadcast to the same shape
) -> Tensor:  # (B,)
    each = student[0].numel() // mask[0].numel()
    counted = mask.flatten(1).sum(1) * each
    return _SumOfSquares.apply(student, teacher, mask) / counted.clamp(min=1)


def _pairs(mask: Tensor) -> Tensor:
    """Which pairs of tokens are both kept: (B, L) -> (B, L, L)."""
    return mask[:, :, None] * mask[:, None, :]
