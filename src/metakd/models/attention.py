"""Our attention function, plugged into Hugging Face encoders: it can record raw scores or their factors."""

from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function, eager_mask, sdpa_mask

PLAIN = "metakd_plain"  # attention of few operations, for exported graphs
Record = Literal["nothing", "factors", "scores"]  # what an encoder returns as its `attentions`
LONG = 384  # tokens: from here on, matrices of length by length cost more memory than their speed is worth


def attend(
    query: Tensor,  # (B, A, L, d)
    key: Tensor,  # (B, A, L, d)
    value: Tensor,  # (B, A, L, d)
    mask: Tensor | None,  # True where a token may attend, or added to scores; broadcast to (B, A, L, L)
    scale: float,
    dropout: float = 0.0,
) -> Tensor:  # (B, A, L, d)
    """softmax(scale · q·kᵀ)·v, by the faster kernel.

    That is PyTorch's fused attention, except for short texts in bfloat16 on a CPU: there it takes twice as long as
    plain matrix products, and its backward pass several times as long (docs/performance.md).
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[2] < LONG:
        return _weighted_values((query * scale) @ key.transpose(-1, -2), value, mask, dropout)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)


def _weighted_values(
    scores: Tensor,  # (B, A, L, L)
    value: Tensor,  # (B, A, L, d)
    mask: Tensor | None,
    dropout: float,
) -> Tensor:  # (B, A, L, d)
    """softmax(scores)·v."""
    if mask is not None and mask.dtype == torch.bool:  # finite, so that fully masked rows are not NaN
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
    """Attention's output (B, L, A, d), and the raw scores (B, A, L, L) or their factors (B, A, L, 2d)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    recorded: Tensor | None
    if record == "scores":  # computed once, for the loss and for attention itself
        recorded = (query * scale) @ key.transpose(-1, -2)
        output = _weighted_values(recorded, value, attention_mask, dropout)
    else:
        recorded = torch.cat([query * scale, key], dim=-1) if record == "factors" else None
        output = attend(query, key, value, attention_mask, scale, dropout)
    return output.transpose(1, 2).contiguous(), recorded


def _plain_attention(
    module: nn.Module,
    query: Tensor,  # (B, A, L, d)
    key: Tensor,  # (B, A, L, d)
    value: Tensor,  # (B, A, L, d)
    attention_mask: Tensor | None,  # added to scores
    scaling: float | None = None,
    **_: Any,  # the library's interface passes what its other implementations need
) -> tuple[Tensor, None]:
    """Attention's output (B, L, A, d) by matrix products and a softmax: the fewest nodes in an exported graph."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores if attention_mask is None else scores + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2), None


def _plain_mask(**options: Any) -> Tensor | None:
    """The mask that is added to scores, (B, 1, 1, L): the lowest number for padding, 0 elsewhere.

    Masks that hide more than padding are left to the library.
    """
    mask, dtype = options["attention_mask"], options["dtype"]
    if mask is None or options["mask_function"] is not bidirectional_mask_function:
        return eager_mask(**options)
    return (1 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


for _record in get_args(Record):
    AttentionInterface.register(f"metakd_{_record}", partial(_attention, record=_record))
    AttentionMaskInterface.register(f"metakd_{_record}", sdpa_mask)  # without it, padding is attended to silently
AttentionInterface.register(PLAIN, _plain_attention)
AttentionMaskInterface.register(PLAIN, _plain_mask)


def raw_scores(factors: Tensor) -> Tensor:
    """q·kᵀ·scaling before mask and softmax: (B, A, L, 2d) -> (B, A, L, L)."""
    queries, keys = factors.chunk(2, dim=-1)
    return queries @ keys.transpose(-1, -2)


def has_raw_scores(model: PreTrainedModel) -> bool:
    """Whether our attention can replace this model's, which DeBERTa-v2 and MPNet do not allow.

    Ours is bidirectional, with one key for each query head.
    """
    return bool(getattr(model, "_supports_attention_backend", False)) and not any(
        getattr(module, "is_causal", False) or getattr(module, "num_key_value_groups", 1) != 1
        for module in model.modules()
    )


def local_windows(config: Any) -> list[int | None]:
    """For each layer the distance up to which its tokens attend to each other; None: to all, as in most encoders."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return [config.sliding_window if kind == "sliding_attention" else None for kind in kinds]


def set_attention(model: PreTrainedModel, record: Record = "nothing") -> None:
    """Make `model` use our attention if it can, and return what `record` names as its `attentions`."""
    if has_raw_scores(model):
        model.set_attn_implementation(f"metakd_{record}")


def set_plain_attention(model: PreTrainedModel) -> None:
    """Make `model` use attention with few, simple operations, for exported graphs."""
    model.set_attn_implementation(PLAIN if has_raw_scores(model) else "eager")
