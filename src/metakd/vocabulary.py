"""A student's vocabulary, cut to the pieces that its domain uses: most of a small model is its embeddings."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from metakd.batching import CHUNK
from metakd.errors import InputError
from metakd.examples import Example

TOKENIZER_FILE = "tokenizer.json"
COMMON = 5  # occurrences in all domains' texts that keep a piece for a domain that never used it
FIRST = 20_000  # pieces at the head of a vocabulary that stay: WordPiece's are written in falling frequency


def needed_pieces(tokenizer: Any, own: Sequence[Example], others: Sequence[Example]) -> list[int]:
    """Ids, sorted, of what stays: special and added tokens, pieces of one character, pieces that `own` texts use, those
    that are common in others' texts, and the head of the vocabulary, since new texts of the domain use other words than
    known ones. With every single character, any text of theirs can still be spelled.

    Raises InputError for a tokenizer whose pieces depend on each other (anything but WordPiece).
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if (kind := state["model"].get("type")) != "WordPiece":
        raise InputError(f"the vocabulary of a {kind} tokenizer cannot be cut, only that of WordPiece; keep it whole")
    prefix = state["model"]["continuing_subword_prefix"]
    kept = {token["id"] for token in state["added_tokens"]}
    vocabulary = state["model"]["vocab"]
    kept |= {id_ for piece, id_ in vocabulary.items() if id_ < FIRST or len(piece.removeprefix(prefix)) == 1}
    kept.add(vocabulary[state["model"]["unk_token"]])
    elsewhere = _counted(tokenizer, others)
    return sorted(kept | set(_counted(tokenizer, own)) | {id_ for id_, n in elsewhere.items() if n >= COMMON})


def _counted(tokenizer: Any, examples: Sequence[Example]) -> Counter[int]:
    """How often each piece occurs in the examples, whole texts read."""
    counts = Counter[int]()
    for start in range(0, len(examples), CHUNK):
        texts = [text for e in examples[start : start + CHUNK] for text in (e.text, e.text_pair) if text is not None]
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def cut_tokenizer(tokenizer: Any, kept: Sequence[int]) -> Any:
    """The tokenizer with the `kept` pieces alone, numbered anew in their old order; texts made of them stay as cut."""
    places = {old: new for new, old in enumerate(kept)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        (folder / "vocab.txt").unlink(missing_ok=True)
        state = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
        vocabulary = state["model"]["vocab"]
        state["model"]["vocab"] = {piece: places[id_] for piece, id_ in vocabulary.items() if id_ in places}
        for token in state["added_tokens"]:
            token["id"] = places[token["id"]]
        _renumber(state.get("post_processor"), places)
        (folder / TOKENIZER_FILE).write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        return type(tokenizer).from_pretrained(folder)


def _renumber(processor: Any, places: dict[int, int]) -> None:
    """Ids of the special tokens that the tokenizer puts around texts, in place."""
    if processor is None:
        return
    if processor["type"] == "Sequence":
        for part in processor["processors"]:
            _renumber(part, places)
    elif processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [places[id_] for id_ in token["ids"]]
    else:  # BertProcessing and RobertaProcessing
        for end in ("sep", "cls"):
            processor[end][1] = places[processor[end][1]]


def cut_embeddings(network: PreTrainedModel, kept: Sequence[int], pad_token_id: int) -> None:
    """Leave the network the rows of the `kept` pieces, in place; `pad_token_id` is the new one."""
    old = network.get_input_embeddings()
    new = nn.Embedding(len(kept), old.embedding_dim, padding_idx=pad_token_id)
    with torch.no_grad():
        new.weight.copy_(old.weight[torch.tensor(kept)])
    network.set_input_embeddings(new)
    network.config.vocab_size = len(kept)
    network.config.pad_token_id = pad_token_id
