"""Any BERT-like Hugging Face encoder -> one EncoderOutputs; layer maps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    PreTrainedModel,
)

from metakd.attention import attend_here
from metakd.batching import Batch
from metakd.errors import InputError, listed, refusing
from metakd.linear import quick_linear
from metakd.progress import notice
from metakd.strangers import check_numbers, check_weights, read_config

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions begin after the padding token's id


@dataclass(frozen=True)
class EncoderOutputs:
    """What an encoder says of a batch of B texts of L tokens; S layers, width H, A heads, M classes."""

    logits: Tensor  # (B, M)
    hidden_states: tuple[Tensor, ...]  # S + 1 of (B, L, H): the embedding output, then every layer
    attentions: tuple[Tensor, ...]  # S of what `attention.attend_here` had recorded; empty unless asked for
    pooled: Tensor  # (B, H): E(x)


def mean_over_real_tokens(
    last_hidden_state: Tensor,  # (B, L, H)
    real_mask: Tensor,  # (B, L), 1 for tokens of the text, 0 for special ones and padding
) -> Tensor:  # (B, H)
    """E(x): the last layer averaged over the real tokens of x (zeros for a text of special tokens alone)."""
    kept = real_mask.to(last_hidden_state.dtype)[..., None]
    return (last_hidden_state * kept).sum(1) / kept.sum(1).clamp(min=1)


def forward(model: Callable[..., Any], batch: Batch, *, attentions: bool = False, prefix: str = "") -> EncoderOutputs:
    """Run `model` on the batch's keys that begin with `prefix`; `attentions` needs `attention.attend_here` first.

    `model` is a sequence classifier, or what calls one with weights that are not its own.
    """
    inputs = {name: batch[prefix + name] for name in MODEL_INPUTS if prefix + name in batch}
    with quick_linear(model):
        outputs = model(**inputs, output_hidden_states=True, output_attentions=attentions)
    return EncoderOutputs(
        logits=outputs.logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions if attentions else (),
        pooled=mean_over_real_tokens(outputs.hidden_states[-1], batch[prefix + "real_mask"]),
    )


# --- Layers -----------------------------------------------------------------------------------------------------


def map_layers(student_layers: int, teacher_layers: int, explicit: str = "auto") -> list[int]:
    """The teacher layer (1 is the first) that each student layer imitates: round(j · T / S), halves up.

    An explicit map such as '2,4,6' overrides; raises InputError where it does not fit.
    """
    if explicit == "auto":
        halves_up = [
            (2 * j * teacher_layers + student_layers) // (2 * student_layers) for j in range(1, student_layers + 1)
        ]
        return [max(1, layer) for layer in halves_up]
    try:
        layers = [int(part) for part in explicit.split(",")]
    except ValueError:
        layers = []
    if len(layers) != student_layers or any(not 1 <= layer <= teacher_layers for layer in layers):
        raise InputError(
            f"layer_map = {explicit!r}: expected {student_layers} numbers from 1 to {teacher_layers}, "
            f"one for each student layer, for instance {','.join(map(str, map_layers(student_layers, teacher_layers)))}"
        )
    return layers


# --- Loading ----------------------------------------------------------------------------------------------------


def load_config(folder: Path, labels: Sequence[str] | None = None) -> Any:
    """The checkpoint's configuration, with these class names; old ones without `model_type` are read as BERT.

    What it says of how attention is computed is not heeded, as that may name code on the hub.
    """
    typed = "model_type" in read_config(folder)
    names: dict[str, Any] = {}
    if labels is not None:
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    plain = {"attn_implementation": None, "experts_implementation": None}
    with refusing(f"{folder}: its configuration cannot be used"):
        if typed:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **plain, **names)
        else:
            config = BertConfig.from_pretrained(folder, **plain, **names)
    check_numbers(folder, lambda name: getattr(config, name, None))
    return config


def load_encoder(folder: Path, labels: Sequence[str], whole: bool = False) -> PreTrainedModel:
    """A float32 sequence classifier with the checkpoint's weights and a class for each of `labels`.

    The class head is new where the checkpoint has none of that size, unless `whole`; the encoder never is:
    InputError names the weights that the checkpoint lacks.
    """
    if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        notice(f"{folder.name} has old .bin weights; they are read with weights_only, so no code in them runs")
    blank = blank_encoder(folder, labels)
    check_weights(folder, sum(parameter.numel() for parameter in blank.parameters()))
    config = load_config(folder, labels)
    with refusing(f"{folder}: not an encoder that can classify text"):
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            weights_only=True,
            local_files_only=True,
            ignore_mismatched_sizes=not whole,
            output_loading_info=True,
        )
    encoder = f"{model.base_model_prefix}."
    absent = [*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])]
    absent = [name for name in absent if whole or (name.startswith(encoder) and ".pooler." not in name)]
    if absent:
        raise InputError.collect(f"{folder}: weights that its {config.model_type} needs are missing", sorted(absent))
    attend_here(model)
    return model


def blank_encoder(folder: Path, labels: Sequence[str], num_layers: int | None = None) -> PreTrainedModel:
    """The checkpoint's architecture without weights, of `num_layers` if given: for decisions, not for use."""
    config = load_config(folder, labels)
    if num_layers is not None:
        config.num_hidden_layers = num_layers
    with refusing(f"{folder}: not an encoder that can classify text"), torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def load_classifier(folder: Path) -> PreTrainedModel:
    """A float32 sequence classifier with the labels that it was saved with; InputError where it has none."""
    config = load_config(folder)
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise InputError(f"{folder}: not a text classifier; its config.json names {config.architectures}")
    if sorted(config.id2label) != [*range(config.num_labels)]:
        names = listed([*map(str, config.id2label)])
        raise InputError(f"{folder}: id2label in its config.json names classes {names}; they have to be 0, 1 and so on")
    return load_encoder(folder, [config.id2label[i] for i in range(config.num_labels)], whole=True)


def load_tokenizer(folder: Path, max_length: int | None = None) -> Any:
    """The checkpoint's tokenizer, without padding and truncation that its file may have baked in.

    `max_length` becomes its `model_max_length`; without it, the checkpoint's own stays.
    """
    typed = "model_type" in read_config(folder)
    with refusing(f"{folder}: its tokenizer cannot be used"):
        if typed:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        else:
            tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: its tokenizer has no fast form (tokenizer.json), which batching needs")
    if tokenizer.pad_token_id is None:
        raise InputError(f"{folder}: its tokenizer has no padding token; choose an encoder such as BERT")
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a folder without its files
        raise InputError(f"{folder}: its tokenizer knows no words; its files (tokenizer.json or vocab.txt) are missing")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if max_length is not None:
        tokenizer.model_max_length = max_length
    return tokenizer


def usable_length(config: Any) -> int:
    """The tokens that the encoder has positions for, special ones included (RoBERTa and its kin reserve two)."""
    positions = getattr(config, "max_position_embeddings", None)
    reserved = 2 if config.model_type in COUNT_FROM_PADDING else 0
    return sys.maxsize if positions is None else positions - reserved


def check_length(config: Any, max_length: int) -> None:
    """Raise InputError where the encoder has fewer positions than `max_length`."""
    if max_length > usable_length(config):
        raise InputError(
            f"max_length = {max_length}: this encoder has positions for {usable_length(config)} tokens at most"
        )


def set_dropout(model: PreTrainedModel, hidden: float, attention: float) -> None:
    """Give every dropout layer its rate; the configuration, which is saved, keeps the checkpoint's."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                in_attention = "SelfAttention" in type(parent).__name__ or name == "attention_dropout"
                child.p = attention if in_attention else hidden


def same_tokenizer(one: Any, other: Any) -> bool:
    """Whether two tokenizers turn every text into the same ids."""
    states = []
    for tokenizer in (one, other):
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        states.append(
            {name: state[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "model", "post_processor")}
        )
    return bool(states[0] == states[1])
