"""Checks of untrusted text and models, made before anything is built from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metakd.utils.errors import InputError, as_input_error, raise_faults, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MEGABYTE = 10**6
TEXT_SUFFIXES = (".json", ".txt", ".model", ".md", ".jinja")  # of all files except weights; libraries load them whole
SIZE_LIMITS = {"config.json": 10 * MEGABYTE, "tokenizer.json": 100 * MEGABYTE}  # XLM-R's large tokenizer has 17
OTHER_SIZE_LIMIT = 50 * MEGABYTE
CONFIG_LIMITS = {  # more than any encoder has
    "num_hidden_layers": 1_000,
    "num_attention_heads": 10_000,
    "num_labels": 10_000,
    "type_vocab_size": 10_000,
    "hidden_size": 100_000,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 10_000_000,
    "vocab_size": 10_000_000,
}
NEW_WEIGHTS = 50_000_000  # that may be missing in the files: mostly a classification head


def damage(text: str) -> str | None:
    """A message if the text is damaged, that is, contains NUL or lone surrogates; else None."""
    if "\0" in text:
        return "contains a NUL character; the file is damaged, or has another encoding (--encoding utf-16)"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "contains a lone surrogate (half a character); fix the program that wrote it, or drop the row"
    return None


def check_files(folder: Path) -> None:
    """InputError for a folder whose configuration or tokenizer is far larger than any model needs."""
    check_sizes(str(folder), {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()})


def check_sizes(name: str, sizes: Mapping[str, int]) -> None:
    """The same for the files of the model `name`, by their sizes in bytes, before they are downloaded."""
    faults = [
        f"{file} has {size:,} bytes; the limit is {limit:,}"
        for file, size in sizes.items()
        if Path(file).suffix in TEXT_SUFFIXES and size > (limit := SIZE_LIMITS.get(file, OTHER_SIZE_LIMIT))
    ]
    raise_faults(f"{name}: files besides the weights are too large", faults)


def open_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, which then neither pads nor truncates; InputError if it has none."""
    from tokenizers import Tokenizer

    with as_input_error(f"{file}: not a usable tokenizer"):
        tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_config(folder: Path) -> dict[str, Any]:
    """The object in config.json; InputError for anything else, for quantised weights, and beyond CONFIG_LIMITS."""
    with as_input_error(f"{folder}/config.json: cannot be read"):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"expected an object, found {type(config).__name__}")
    if "quantization_config" in config:
        raise InputError(f"{folder}: its weights are quantised; use the original checkpoint instead")
    check_numbers(folder, config.get)
    return config


def check_numbers(folder: Path, value_of: Callable[[str], Any]) -> None:
    """InputError if a value of the configuration, looked up by name, exceeds CONFIG_LIMITS."""
    faults = [
        f"{name} = {shown(value)}; the limit is {limit:,}"
        for name, limit in CONFIG_LIMITS.items()
        if isinstance(value := value_of(name), int | float) and value > limit
    ]
    raise_faults(f"{folder}/config.json: larger than any encoder", faults)


def check_weights(folder: Path, expected: int) -> None:
    """InputError if the files have fewer bytes than the config has weights, or an index names files elsewhere.

    A configuration of a few lines can ask for more memory than the machine has; `expected` is its number of weights.
    """
    for index in folder.glob("*.index.json"):
        with as_input_error(f"{index}: cannot be read"):
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            outside = [file for file in files if Path(file).name != file]
        if outside:
            raise InputError(f"{index}: names {shown(outside[0])}, which is not a file in this folder")
    size = sum(path.stat().st_size for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    if expected > size + NEW_WEIGHTS:
        raise InputError(
            f"{folder}: config.json describes {expected:,} weights, but the weight files have {size:,} bytes; download "
            "the complete checkpoint"
        )
