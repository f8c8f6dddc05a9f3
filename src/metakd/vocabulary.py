"""A smaller table of embeddings for one domain: two thirds of a small model are rows that its domain hardly reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.batching import CHUNK
from metakd.encoders import COUNT_FROM_PADDING
from metakd.errors import InputError
from metakd.examples import Example

ROWS = 7_000  # of the smaller table


def needed_pieces(tokenizer: Any, examples: Sequence[Example], rows: int = ROWS) -> list[int]:
    """Ids, sorted, of the pieces that keep a row of their own: `rows` of them, or as many as there are.

    Special and added tokens come first, then what the `examples` use, the most frequent first, then the vocabulary in
    its own order, which in WordPiece is falling frequency elsewhere. Raises InputError for a tokenizer whose pieces
    depend on each other (anything but WordPiece).
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if (kind := state["model"].get("type")) != "WordPiece":
        raise InputError(f"the vocabulary of a {kind} tokenizer cannot be cut, only that of WordPiece; keep it whole")
    special = {token["id"] for token in state["added_tokens"]} | {state["model"]["vocab"][state["model"]["unk_token"]]}
    counts = _counted(tokenizer, examples)
    used = sorted(counts, key=lambda id_: (-counts[id_], id_))
    rest = sorted(id_ for piece, id_ in state["model"]["vocab"].items() if not piece.startswith("[unused"))
    return sorted([*dict.fromkeys([*special, *used, *rest])][: max(rows, len(special))])


def _counted(tokenizer: Any, examples: Sequence[Example]) -> Counter[int]:
    """How often each piece occurs in the examples, whole texts read."""
    counts = Counter[int]()
    for start in range(0, len(examples), CHUNK):
        texts = [text for e in examples[start : start + CHUNK] for text in (e.text, e.text_pair) if text is not None]
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def nearest_kept(
    embeddings: Tensor,  # (V, H)
    kept: Sequence[int],  # (R,) ids
) -> Tensor:  # (V,) int: for each piece the place, 0 to R − 1, of the kept one whose embedding points most alike
    directions = F.normalize(embeddings.float(), dim=1)
    ids = torch.tensor(kept)
    found = torch.cat([(part @ directions[ids].T).argmax(1) for part in directions.split(CHUNK)])
    found[ids] = torch.arange(len(kept))
    return found


def cut_tokenizer(path: Path, places: Tensor) -> None:
    """Give the pieces of a tokenizer.json new ids, in place: `places` (V,), the same for pieces that share a row.

    Read it as it is: a tokenizer that is loaded and saved again forgets all but one piece of each id.
    """
    state = json.loads(path.read_text(encoding="utf-8"))
    state["model"]["vocab"] = {piece: int(places[id_]) for piece, id_ in state["model"]["vocab"].items()}
    for token in state["added_tokens"]:
        token["id"] = int(places[token["id"]])
    _renumber(state.get("post_processor"), places)
    path.write_text(json.dumps(state, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _renumber(processor: Any, places: Tensor) -> None:
    """Ids of the special tokens that the tokenizer puts around texts, in place."""
    if processor is None:
        return
    if processor["type"] == "Sequence":
        for part in processor["processors"]:
            _renumber(part, places)
    elif processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [int(places[id_]) for id_ in token["ids"]]
    else:  # BertProcessing and RobertaProcessing
        for end in ("sep", "cls"):
            processor[end][1] = int(places[processor[end][1]])


def cut_embeddings(network: PreTrainedModel, kept: Sequence[int], pad_token_id: int) -> None:
    """Leave the network the rows of the `kept` pieces, in place; `pad_token_id` is the new one.

    Raises InputError where that is another one, and the encoder counts positions from it.
    """
    kind = network.config.model_type
    if kind in COUNT_FROM_PADDING and pad_token_id != network.config.pad_token_id:
        raise InputError(
            f"a {kind} model counts positions from its padding token, whose id would change; keep it whole"
        )
    old = network.get_input_embeddings()
    new = nn.Embedding(len(kept), old.embedding_dim, padding_idx=pad_token_id)
    with torch.no_grad():
        new.weight.copy_(old.weight[torch.tensor(kept)])
    network.set_input_embeddings(new)
    network.config.vocab_size = len(kept)
    network.config.pad_token_id = pad_token_id
