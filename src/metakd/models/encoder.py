"""Any BERT-like Hugging Face encoder -> one EncoderOutputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metakd.data.tokenization import Batch

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class EncoderOutputs:
    """Outputs for a batch of B texts of L tokens: S layers, width H, A heads, M classes."""

    logits: Tensor  # (B, M)
    hidden_states: tuple[Tensor, ...]  # S + 1 of (B, L, H): the embedding output, then every layer
    attentions: tuple[Tensor, ...]  # S of what `set_attention` records, or none
    pooled: Tensor  # (B, H): E(x)


def mean_over_real_tokens(
    last_hidden_state: Tensor,  # (B, L, H)
    real_mask: Tensor,  # (B, L), 1 for tokens of the text, 0 for special ones and padding
) -> Tensor:  # (B, H)
    """E(x): the last layer averaged over the real tokens of x (zeros for a text of special tokens only)."""
    kept = real_mask.to(last_hidden_state.dtype)[..., None]
    return (last_hidden_state * kept).sum(1) / kept.sum(1).clamp(min=1)


def model_inputs(batch: Batch, prefix: str = "") -> dict[str, Tensor]:
    """What a model reads of a batch: its keys that begin with `prefix`, without it."""
    return {name: batch[prefix + name] for name in MODEL_INPUTS if prefix + name in batch}


def forward(model: Callable[..., Any], batch: Batch, *, attentions: bool = False, prefix: str = "") -> EncoderOutputs:
    """Run `model` on the batch's keys that begin with `prefix`; `attentions` needs `attention.set_attention` first.

    `model` is a sequence classifier, or a function that calls one with other weights.
    """
    outputs = model(**model_inputs(batch, prefix), output_hidden_states=True, output_attentions=attentions)
    return EncoderOutputs(
        logits=outputs.logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions if attentions else (),
        pooled=mean_over_real_tokens(outputs.hidden_states[-1], batch[prefix + "real_mask"]),
    )
