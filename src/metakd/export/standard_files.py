"""Configuration and tokenizer of an exported model, as other libraries read them.

transformers, transformers.js and the package tokenizers each look for other entries.
"""

import json
from pathlib import Path
from typing import Any

from metakd.inference.layout import TOKENIZER_FILE
from metakd.inference.torch_backend import TorchModel
from metakd.models.class_head import SEVERAL, SINGLE
from metakd.models.loading import load_tokenizer, same_tokenizer
from metakd.utils.artifacts import write_json, write_text

ANY_TOKENIZER = "PreTrainedTokenizerFast"  # a class that older versions of transformers and transformers.js know
NEW_NAMES = ("TokenizersBackend",)  # those that transformers 5 alone knows
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
OPTIONS = (  # of a tokenizer's class, by which some versions build it, whatever tokenizer.json says
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "trim_offsets"),
    *("keep_accents", "remove_space", "split_by_punct"),
)
KEPT = ("tokenizer_class", "model_max_length", "padding_side", "truncation_side", *OPTIONS, *SPECIAL)
PRECISIONS = {False: "fp32", True: "q8"}  # which of the files transformers.js loads, unless it is asked for another


def write_standard_files(model: TorchModel, folder: Path, int8: bool) -> None:
    """Write config.json, tokenizer.json, tokenizer_config.json and special_tokens_map.json into `folder`."""
    model.tokenizer.save_pretrained(folder)
    model.network.config.save_pretrained(folder)
    config = _read(folder / "config.json") | {"problem_type": SEVERAL if model.several_labels else SINGLE}
    config["architectures"] = [type(model.network).__name__]
    write_json(folder / "config.json", config | {"transformers.js_config": {"dtype": PRECISIONS[int8]}})
    saved = _read(folder / "tokenizer_config.json")
    kept = {name: saved[name] for name in KEPT if saved.get(name) is not None}
    if kept.get("tokenizer_class") in NEW_NAMES:
        kept["tokenizer_class"] = ANY_TOKENIZER
    write_json(folder / "tokenizer_config.json", kept)
    set_max_length(folder, model.reading.max_length)
    write_json(folder / "special_tokens_map.json", {name: kept[name] for name in SPECIAL if name in kept})
    whole = _read(folder / TOKENIZER_FILE) | {"truncation": None, "padding": None}
    # without white space, which is a third of the file
    write_text(folder / TOKENIZER_FILE, json.dumps(whole, ensure_ascii=False, separators=(",", ":")))
    if not same_tokenizer(load_tokenizer(folder), model.tokenizer):  # its class makes another of the same files
        write_json(folder / "tokenizer_config.json", kept | {"tokenizer_class": ANY_TOKENIZER})
        set_max_length(folder, model.reading.max_length)


def set_max_length(folder: Path, length: int) -> None:
    """Say how many tokens of a text the tokenizer of an exported model keeps."""
    path = folder / "tokenizer_config.json"
    write_json(path, _read(path) | {"model_max_length": length})


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
