"""Attention as encoders compute it here, and what its raw scores are made of, without forking a model."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

ATTENTION = "metakd"
FACTORS_ATTENTION = "metakd_factors"
LONG = 384  # tokens: fused attention still loses at 256 and wins at 512 (benchmarks/fused_attention.py)


def attend(
    query: Tensor,  # (B, A, L, d)
    key: Tensor,  # (B, A, L, d)
    value: Tensor,  # (B, A, L, d)
    mask: Tensor | None,  # True where a token may look, or what is added to scores; broadcast to (B, A, L, L)
    scale: float,
    dropout: float = 0.0,
) -> Tensor:  # (B, A, L, d)
    """softmax(scale · q·kᵀ)·v, by whichever kernel is the quicker one here.

    PyTorch's fused attention, except for gradients of short texts in bfloat16 on a processor: there its backward pass
    takes several times as long as the matrices written out (docs/performance.md).
    """
    on_processor = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if not (on_processor and query.requires_grad and query.shape[2] < LONG):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    scores = (query * scale) @ key.transpose(-1, -2)
    if mask is not None and mask.dtype == torch.bool:  # finite, so that padding which may look nowhere is no NaN
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
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
    factors: bool,
    **_: Any,  # the library's interface passes what its other implementations need
) -> tuple[Tensor, Tensor | None]:
    """Attention's output (B, L, A, d), and with `factors` what raw scores are made of: (B, A, L, 2d)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = attend(query, key, value, attention_mask, scale, dropout).transpose(1, 2).contiguous()
    return output, torch.cat([query * scale, key], dim=-1) if factors else None


for _name in (ATTENTION, FACTORS_ATTENTION):
    AttentionInterface.register(_name, partial(_attention, factors=_name == FACTORS_ATTENTION))
    AttentionMaskInterface.register(_name, sdpa_mask)  # without it, padding is attended silently


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


def record_factors(model: PreTrainedModel, wanted: bool) -> None:
    """Let `model` attend by `attend`, with the factors of its raw scores as its attentions or without."""
    if has_raw_scores(model):
        model.set_attn_implementation(FACTORS_ATTENTION if wanted else ATTENTION)
