"""Tiny decoders, and students with other tokens than theirs."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from conftest import SPECIALS, WORDS, read_json, save_tokenizer

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma": GROUPED,
    "gemma2": GROUPED,
    "gemma3_text": GROUPED,
    "phi3": GROUPED,
    "smollm3": GROUPED | {"no_rope_layers": [1, 0]},
    "gpt_neox": {},
}


def save_decoder(folder: Path, kind: str = "llama", padding: bool = False) -> Path:
    """A tiny decoder; without a token for padding, as most are published."""
    torch.manual_seed(0)
    save_tokenizer(folder)
    tokens = {
        "vocab_size": 40,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0 if padding else None,
    }
    config = AutoConfig.for_model(kind, **SHAPE, **tokens, **DECODERS[kind], initializer_range=0.3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    if not padding:
        file = folder / "tokenizer_config.json"
        named = read_json(file)
        del named["pad_token"]
        file.write_text(json.dumps(named | {"eos_token": "[SEP]"}))
    return folder


def save_student(folder: Path, kind: str) -> Path:
    """A tiny encoder with other tokens than the decoders have."""
    torch.manual_seed(0)
    words = [*WORDS[: len(SPECIALS)], *reversed(WORDS[len(SPECIALS) :])]
    tokens = {"vocab_size": len(words), "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}
    AutoModel.from_config(AutoConfig.for_model(kind, **SHAPE, **tokens)).save_pretrained(folder)
    save_tokenizer(folder, words)
    return folder
