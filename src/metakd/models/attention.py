"""Attention as encoders compute it here, and what its raw scores are made of, without forking a model."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function, eager_mask, sdpa_mask

PLAIN = "metakd_plain"  # of an exported graph
Record = Literal["nothing", "factors", "scores"]  # what an encoder leaves of its attention besides its output
LONG = 384  # tokens: from here on matrices of length by length cost more memory than their speed is worth


def attend(
    query: Tensor,  # (B, A, L, d)
    key: Tensor,  # (B, A, L, d)
    value: Tensor,  # (B, A, L, d)
    mask: Tensor | None,  # True where a token may look, or what is added to scores; broadcast to (B, A, L, L)
    scale: float,
    dropout: float = 0.0,
) -> Tensor:  # (B, A, L, d)
    """softmax(scale · q·kᵀ)·v, by whichever kernel is the quicker one here.

    PyTorch's fused attention, except for short texts in bfloat16 on a processor: there it takes twice as long as the
    matrices written out, and its backward pass several times as long (docs/performance.md).
    """
    on_processor = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if on_processor and query.shape[2] < LONG:
        return _weighted_values((query * scale) @ key.transpose(-1, -2), value, mask, dropout)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)


def _weighted_values(
    scores: Tensor,  # (B, A, L, L)
    value: Tensor,  # (B, A, L, d)
    mask: Tensor | None,
    dropout: float,
) -> Tensor:  # (B, A, L, d)
    """softmax(scores)·v."""
    if mask is not None and mask.dtype == torch.bool:  # finite, so that padding which may look nowhere is no NaN
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, torch.finfo(scores.dtype).min)
    if mask is not None:
        scores = scores + mask
    return F.dropout(scores.softmax(-1), dropout) @ value


def _attention(
    module: nn.Module,
    query: Tensor,  # (B, A, L, d)
    key: Tensor,  # (B, A, L, d)
    value: Tensor,  # (B, A, L, d)
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    record: Record,
    **_: Any,  # the library's interface passes what its other implementations need
) -> tuple[Tensor, Tensor | None]:
    """Attention's output (B, L, A, d), and the raw scores (B, A, L, L) or what they are made of (B, A, L, 2d)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    recorded: Tensor | None = None
    if record == "scores":  # which a loss and attention itself then share
        recorded = (query * scale) @ key.transpose(-1, -2)
        output = _weighted_values(recorded, value, attention_mask, dropout)
    else:
        recorded = torch.cat([query * scale, key], dim=-1) if record == "factors" else None
        output = attend(query, key, value, attention_mask, scale, dropout)
    return output.transpose(1, 2).contiguous(), recorded


def _name(record: Record) -> str:
    """Under which the library knows our attention."""
    return f"metakd_{record}"


for _record in get_args(Record):
    AttentionInterface.register(_name(_record), partial(_attention, record=_record))
    AttentionMaskInterface.register(_name(_record), sdpa_mask)  # without it, padding is attended silently


def _plain_attention(
    module: nn.Module,
    query: Tensor,  # (B, A, L, d)
    key: Tensor,  # (B, A, L, d)
    value: Tensor,  # (B, A, L, d)
    attention_mask: Tensor | None,  # what is added to scores
    scaling: float | None = None,
    **_: Any,  # the library's interface passes what its other implementations need
) -> tuple[Tensor, None]:
    """Matrix products and a softmax, (B, L, A, d): the fewest nodes that an exported graph can do with."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores if attention_mask is None else scores + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2), None


def _plain_mask(**asked: Any) -> Tensor | None:
    """What is added to scores, (B, 1, 1, L): the lowest number for padding; the library's, where more is asked for."""
    mask = asked["attention_mask"]
    if mask is None or asked["mask_function"] is not bidirectional_mask_function:
        return eager_mask(**asked)
    dtype = asked["dtype"]
    return (1 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


AttentionInterface.register(PLAIN, _plain_attention)
AttentionMaskInterface.register(PLAIN, _plain_mask)


def raw_scores(factors: Tensor) -> Tensor:
    """q·kᵀ·scaling before mask and softmax: (B, A, L, 2d) -> (B, A, L, L)."""
    queries, keys = factors.chunk(2, dim=-1)
    return queries @ keys.transpose(-1, -2)


def has_raw_scores(model: PreTrainedModel) -> bool:
    """Whether the library lets this architecture's attention be replaced (DeBERTa-v2 and MPNet do not) by ours.

    Ours is for tokens that look both ways, with a key for each query head.
    """
    fits = all(
        not getattr(module, "is_causal", False) and getattr(module, "num_key_value_groups", 1) == 1
        for module in model.modules()
    )
    return fits and bool(getattr(model, "_supports_attention_backend", False))


def attend_here(model: PreTrainedModel, record: Record = "nothing") -> None:
    """Let `model` attend by what is in this file, and leave as its attentions what is to be recorded."""
    if has_raw_scores(model):
        model.set_attn_implementation(_name(record))


def attend_plainly(model: PreTrainedModel) -> None:
    """Let `model` attend by few, simple operations, as suits an exported graph."""
    model.set_attn_implementation(PLAIN if has_raw_scores(model) else "eager")
