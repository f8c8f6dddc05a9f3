"""A checkpoint's folder -> configuration, sequence classifier and tokenizer, checked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    PreTrainedModel,
)

from metakd.models.attention import set_attention
from metakd.models.class_head import SEVERAL, SINGLE, find_head, keep_rows, rows_of_labels
from metakd.models.linear import use_quick_linear
from metakd.utils.console import notice
from metakd.utils.errors import InputError, as_input_error, listed, raise_faults, shown
from metakd.utils.hardware import limit_threads
from metakd.utils.validation import check_numbers, check_weights, read_config

RATES = ("dropout", "hidden_dropout", "attention_dropout")  # attributes in place of a dropout layer
OF_ATTENTION = ("attention_dropout", "attn_dropout")
UNHEEDED: dict[str, Any] = {  # entries of a configuration that would change what a model is, or what it returns
    "output_hidden_states": False,
    "output_attentions": False,
    "return_dict": True,
    "torchscript": False,
    "use_cache": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "problem_type": SINGLE,
}


def load_config(folder: Path, labels: Sequence[str] | None = None) -> Any:
    """The checkpoint's configuration, with these class names; old ones without `model_type` are read as BERT.

    Its choice of attention is ignored, because it may name code on the hub, and so is what UNHEEDED names.
    """
    kind = AutoConfig if "model_type" in read_config(folder) else BertConfig
    options: dict[str, Any] = {"attn_implementation": None, "experts_implementation": None}
    if labels is not None:
        options |= label_maps(labels)
    with as_input_error(f"{folder}: its configuration cannot be used"):
        config = kind.from_pretrained(folder, trust_remote_code=False, **options)
    if config.is_encoder_decoder:
        raise InputError(f"{folder}: a {config.model_type} has an encoder and a decoder; choose an encoder, like BERT")
    check_numbers(folder, lambda name: getattr(config, name, None))
    for name, value in UNHEEDED.items():
        kept = (None, value, SEVERAL) if name == "problem_type" else (None, value)
        if getattr(config, name, None) not in kept:
            setattr(config, name, value)
    return config


def label_maps(labels: Sequence[str]) -> dict[str, Any]:
    """The entries of a configuration that name its classes."""
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def load_encoder(folder: Path, labels: Sequence[str], whole: bool = False) -> PreTrainedModel:
    """A float32 sequence classifier with the checkpoint's weights and a class for each of `labels`.

    If the checkpoint has no classifier of that size, the head is new, unless `whole`. Unless it is `whole`, a text has
    one label, until `set_problem`. Raises InputError with the names of any other missing weights.
    """
    limit_threads()  # here, because every model is loaded here before it computes
    if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        notice(f"{folder.name} has old .bin weights; they are read with weights_only, so no code in them runs")
    check_weights(folder, blank_encoder(folder, labels).num_parameters())
    with as_input_error(f"{folder}: not an encoder that can classify text"):
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=load_config(folder, labels),
            dtype=torch.float32,
            trust_remote_code=False,
            weights_only=True,
            local_files_only=True,
            ignore_mismatched_sizes=not whole,
            output_loading_info=True,
        )
    if model.config.pad_token_id is None:  # without it, some models read one text at a time
        model.config.pad_token_id = load_tokenizer(folder).pad_token_id
    encoder = f"{model.base_model_prefix}."
    if not whole and hasattr(model.config, "text_pairs"):
        model.config.text_pairs = None  # whether the data has pairs is not known here
    new = [*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])]
    absent = [name for name in new if whole or (name.startswith(encoder) and ".pooler." not in name)]
    raise_faults(f"{folder}: missing weights of its architecture, {model.config.model_type}", sorted(absent))
    if not whole:
        set_problem(model, several=False)
    if all(name.startswith(encoder) for name in new):
        _match_head(model, folder, labels)
    set_attention(model)
    use_quick_linear(model)
    return model


def _match_head(model: PreTrainedModel, folder: Path, labels: Sequence[str]) -> None:
    """Give each label the row of the checkpoint's head that has its name; without such rows, the head is new."""
    by_place, head = load_config(folder).id2label, find_head(model)
    classes = [by_place[place] for place in sorted(by_place)]
    if classes == [*labels]:
        return
    if head is None:
        notice(
            f"{folder.name}: its classes are {listed(classes)}; its classification head is kept as it is, in that order"
        )
        return
    with torch.no_grad():
        if sorted(classes) == sorted(labels):
            keep_rows(model, head, [classes.index(label) for label in labels])
            return
        notice(f"{folder.name}: its classes are {listed(classes)}, not the data's, so its classification head is new")
        nn.init.normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def blank_encoder(folder: Path, labels: Sequence[str]) -> PreTrainedModel:
    """The checkpoint's architecture without weights: to plan with, not to run."""
    config = load_config(folder, labels)
    with as_input_error(f"{folder}: not an encoder that can classify text"), torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def load_classifier(folder: Path) -> PreTrainedModel:
    """A float32 sequence classifier with its saved labels; InputError if it has none."""
    config = classifier_config(folder)
    if config.num_labels < 2 and config.problem_type != SEVERAL:
        raise InputError(f"{folder}: a model of one class, as for regression or ranking; metakd reads classifiers")
    return load_encoder(folder, [config.id2label[i] for i in range(config.num_labels)], whole=True)


def classifier_config(folder: Path) -> Any:
    """The configuration of a classifier; InputError for that of anything else."""
    config = load_config(folder)
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise InputError(f"{folder}: not a text classifier; its config.json names {config.architectures}")
    if (kind := read_config(folder).get("problem_type")) not in (None, SINGLE, SEVERAL):
        raise InputError(f"{folder}: a model of the kind {shown(kind)}; metakd reads classifiers")
    if sorted(config.id2label) != [*range(config.num_labels)]:
        names = listed([*map(str, config.id2label)])
        raise InputError(f"{folder}: id2label in its config.json has the classes {names}; they must be 0, 1 and so on")
    return config


def load_fine_tuned(folder: Path, labels: Sequence[str], classes: Sequence[str] = ()) -> PreTrainedModel:
    """A classifier as it is, with the rows of its classification head that belong to `labels`, in their order.

    `classes` are the names of all its rows, if they are other than in its config.json. Raises InputError as
    `head_rows` does.
    """
    rows, model = head_rows(folder, labels, classes), load_classifier(folder)
    if left := [name for place, name in sorted(model.config.id2label.items()) if place not in rows]:
        notice(f"{folder.name}: its classes {listed(left)} are not among the data's labels, and are left out")
    keep_classes(model, rows, labels)
    return model


def set_problem(model: PreTrainedModel, several: bool) -> None:
    """Say in a model's configuration whether a text may have several labels."""
    if several or model.config.problem_type == SEVERAL:
        model.config.problem_type = SEVERAL if several else SINGLE


def keep_classes(model: PreTrainedModel, rows: Sequence[int], labels: Sequence[str]) -> None:
    """Reduce a classifier to these rows of its head, whose classes are `labels`; InputError if it has none."""
    if (head := find_head(model)) is None:
        raise InputError(
            f"the classification head of a {model.config.model_type} is not known to metakd; choose another model"
        )
    keep_rows(model, head, rows)
    for name, value in label_maps(labels).items():
        setattr(model.config, name, value)


def head_rows(folder: Path, labels: Sequence[str], classes: Sequence[str] = ()) -> list[int]:
    """The row for each label in the head of the classifier in `folder`, by name; InputError if one has none."""
    config = classifier_config(folder)
    count = config.num_labels
    if classes and len(classes) != count:
        raise InputError(
            f"--teacher-labels: {len(classes)} names, but the classification head of {folder} has {count} rows"
        )
    classes = classes or [config.id2label[place] for place in range(count)]
    rows = rows_of_labels(classes, labels)
    if rows is None:
        raise InputError(
            f"{folder}: its classes are {listed([*classes])}, but the data's labels are {listed([*labels])}; name its "
            "classes by the data's labels with --teacher-labels, each once and in the order of its outputs, or "
            "fine-tune it with a new classification head: --base instead of --teacher"
        )
    return rows


def load_tokenizer(folder: Path, max_length: int | None = None) -> Any:
    """The checkpoint's tokenizer, without the padding and truncation that its file may set.

    `max_length` becomes its `model_max_length`; without it, the checkpoint's stays.
    """
    kind = AutoTokenizer if "model_type" in read_config(folder) else BertTokenizer
    with as_input_error(f"{folder}: its tokenizer cannot be used"):
        tokenizer = kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: its tokenizer has no fast version (tokenizer.json), which metakd needs")
    if tokenizer.pad_token_id is None:  # padding is masked; but decoders find their last token by the model's
        known = read_config(folder).get("pad_token_id")
        named = tokenizer.convert_ids_to_tokens(known) if type(known) is int else None
        tokenizer.pad_token = named or tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise InputError(f"{folder}: its tokenizer has no token for padding; set its pad_token and save it")
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a folder without its files
        raise InputError(f"{folder}: its tokenizer is empty; its files (tokenizer.json or vocab.txt) are missing")
    if tokenizer.truncation_side != "right":
        notice(f"{folder.name}: its tokenizer keeps the end of long texts; here, models read their beginning")
    tokenizer.truncation_side = tokenizer.padding_side = "right"  # as exports, windows and batches have it
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if max_length is not None:
        tokenizer.model_max_length = max_length
    return tokenizer


def set_dropout(model: PreTrainedModel, hidden: float, attention: float) -> None:
    """Set the rate of all dropout, of layers and as numbers; the saved configuration keeps the checkpoint's rates."""
    for parent in model.modules():
        kind = type(parent).__name__
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                child.p = attention if "SelfAttention" in kind or name in OF_ATTENTION else hidden
        for name, value in vars(parent).items():
            if name in RATES and isinstance(value, int | float):
                in_attention = name in OF_ATTENTION or (name == "dropout" and "Attention" in kind)
                setattr(parent, name, attention if in_attention else hidden)


def same_tokenizer(one: Any, other: Any) -> bool:
    """Whether two tokenizers turn every text into the same ids."""
    parts = ("added_tokens", "normalizer", "pre_tokenizer", "model", "post_processor")
    states = [json.loads(tokenizer.backend_tokenizer.to_str()) for tokenizer in (one, other)]
    return all(states[0][part] == states[1][part] for part in parts)
