"""What a stranger's text and model may hold: checked before anything is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metakd.utils.errors import InputError, refusing, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MEGABYTE = 10**6
PLAIN = (".json", ".txt", ".model", ".md", ".jinja")  # all that is no weights, and that libraries read whole
LONGEST = {"config.json": 10 * MEGABYTE, "tokenizer.json": 100 * MEGABYTE}  # XLM-R's tokenizer, a large one, has 17
LONGEST_OTHER = 50 * MEGABYTE
MOST = {
    "num_hidden_layers": 1_000,
    "num_attention_heads": 10_000,
    "num_labels": 10_000,
    "type_vocab_size": 10_000,
    "hidden_size": 100_000,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 10_000_000,
    "vocab_size": 10_000_000,
}  # what a configuration may ask for: more than any encoder has
NEW_WEIGHTS = 50_000_000  # that need not be in the files: a class head, for the most part


def damage(text: str) -> str | None:
    """What shows that the text is not as it was written."""
    if "\0" in text:
        return "holds a NUL character; the file is damaged, or of another encoding (--encoding utf-16)"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds a lone surrogate, half of a character; mend it where the file was written, or drop the row"
    return None


def check_files(folder: Path) -> None:
    """InputError for a folder with a configuration or tokenizer that is far larger than any has to be."""
    check_sizes(str(folder), {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()})


def check_sizes(name: str, sizes: Mapping[str, int]) -> None:
    """The same for the files of the model `name`, by their sizes in bytes, before they are fetched."""
    faults = []
    for file, size in sizes.items():
        most = LONGEST.get(file, LONGEST_OTHER)
        if Path(file).suffix in PLAIN and size > most:
            faults.append(f"{file} has {size:,} bytes, and {most:,} is the most")
    if faults:
        raise InputError.collect(f"{name}: no model needs such large files beside its weights", faults)


def open_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer.json of a model; InputError for what is none."""
    from tokenizers import Tokenizer

    with refusing(f"{file}: no tokenizer that can be used"):
        return Tokenizer.from_file(str(file))


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json states; InputError for anything but an object, for quantised weights, and beyond MOST."""
    with refusing(f"{folder}/config.json: cannot be read"):
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(stated, dict):
            raise ValueError(f"expected an object, found {type(stated).__name__}")
    if "quantization_config" in stated:
        raise InputError(f"{folder}: its weights are quantised; give the checkpoint that they were made of")
    check_numbers(folder, stated.get)
    return stated


def check_numbers(folder: Path, value: Callable[[str], Any]) -> None:
    """InputError where one of a configuration's values, by its name, is beyond MOST."""
    faults = [
        f"{name} = {shown(found)}, and {most:,} is the most"
        for name, most in MOST.items()
        if isinstance(found := value(name), int | float) and found > most
    ]
    if faults:
        raise InputError.collect(f"{folder}/config.json: asks for more than any encoder has", faults)


def check_weights(folder: Path, promised: int) -> None:
    """InputError where the files have less than a byte for each weight `promised`, or an index names others' files.

    A configuration of a few lines can ask for more memory than the machine has.
    """
    for index in folder.glob("*.index.json"):
        with refusing(f"{index}: cannot be read"):
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            strange = [file for file in files if Path(file).name != file]
        if strange:
            raise InputError(f"{index}: names {shown(strange[0])}, which is not a file of this folder")
    weights = [path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern)]
    held = sum(path.stat().st_size for path in weights)
    if promised > held + NEW_WEIGHTS:
        raise InputError(
            f"{folder}: config.json promises {promised:,} weights, and there are {held:,} bytes of them; fetch the "
            "whole checkpoint"
        )
