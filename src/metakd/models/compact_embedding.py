"""A smaller table of embeddings: what a domain reads often keeps a row, all else is put together from parts of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metakd.data.schema import Example
from metakd.data.tokenization import CHUNK

ROWS = 1_800  # that stay
WORDS = 255  # parts to choose from, at each place of a row
WIDEST = 6  # numbers of a part
ROUNDS = 6  # of k-means
UNSEEN = 0.2  # occurrences that a piece counts for which the domain's texts do not have


def counted(tokenizer: Any, examples: Sequence[Example]) -> Counter[int]:
    """How often each piece occurs in the examples, whole texts read; the special ones more often than any other."""
    counts = Counter[int]()
    for start in range(0, len(examples), CHUNK):
        texts = [text for e in examples[start : start + CHUNK] for text in (e.text, e.text_pair) if text is not None]
        for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
            counts.update(ids)
    most = max(counts.values(), default=0)
    return counts + Counter(dict.fromkeys(tokenizer.all_special_ids, most + 1))


def part_width(width: int) -> int:
    """Numbers of one part: as many as WIDEST, or the next fewer that divide a row of `width`."""
    return next(own for own in range(WIDEST, 0, -1) if width % own == 0)


def compact_bytes(pieces: int, width: int, item: int) -> int:
    """Of a compact table whose numbers take `item` bytes each."""
    parts = width // part_width(width)
    return (ROWS + 1) * width * item + pieces * (2 + parts) + (WORDS + 1) * width * item


class CompactEmbedding(nn.Module):
    """Stands for a table of V rows: R of them as they were, the others of P parts that k-means has found.

    Every piece keeps its id, so the tokenizer stays as it is.
    """

    rows: Tensor  # (R + 1, H), the last of zeros
    places: Tensor  # (V,) int: each piece's row
    codes: Tensor  # (V, P) int: each piece's word at each place of a row, the last for pieces with a row
    parts: Tensor  # (P · (W + 1), H / P), of each place the words, and then zeros
    starts: Tensor  # (P,) int: where the words of each place begin

    def __init__(self, table: Tensor, counts: Counter[int], rows: int = ROWS, words: int = WORDS) -> None:
        """Of `table` (V, H), pieces with the highest counts keep their rows; parts fit frequent ones best."""
        super().__init__()
        pieces, width = table.shape
        kept = torch.tensor(sorted(sorted(range(pieces), key=lambda id_: (-counts[id_], id_))[:rows]), dtype=torch.long)
        weights = torch.tensor([(counts[id_] + UNSEEN) ** 0.5 for id_ in range(pieces)])
        others = torch.ones(pieces, dtype=torch.bool)
        others[kept] = False
        found, codes = k_means(table[others], weights[others], part_width(width), words)
        size, words = found.shape[0], found.shape[1]
        all_codes = torch.full((pieces, size), words)
        all_codes[others] = codes
        places = torch.full((pieces,), len(kept))
        places[kept] = torch.arange(len(kept))
        self.register_buffer("rows", F.pad(table[kept], (0, 0, 0, 1)))
        self.register_buffer("places", places.short() if len(kept) < 2**15 else places.int())
        self.register_buffer("codes", all_codes.to(torch.uint8))
        self.register_buffer("parts", F.pad(found, (0, 0, 0, 1)).flatten(0, 1))
        self.register_buffer("starts", torch.arange(size) * (words + 1))

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int -> (B, L, H)"""
        own = F.embedding(ids, self.places[:, None])[..., 0].long()
        words = F.embedding(ids, self.codes).long() + self.starts
        return F.embedding(own, self.rows) + F.embedding(words, self.parts).flatten(-2)


def k_means(
    rows: Tensor,  # (N, H)
    weights: Tensor,  # (N,)
    width: int,
    words: int,
) -> tuple[Tensor, Tensor]:  # (P, W, width) words of each place of a row; (N, P) the word that each row has there
    """Weighted k-means of each stretch of `width` numbers by itself; as many words as there are rows at most."""
    parts = rows.unflatten(1, (-1, width)).transpose(0, 1).contiguous()  # (P, N, width)
    words = min(words, len(rows))
    found = parts[:, torch.multinomial(weights, words, generator=torch.Generator().manual_seed(0))].clone()
    for _ in range(ROUNDS):
        codes = _nearest(parts, found)
        sums = torch.zeros_like(found).scatter_add_(1, codes[..., None].expand(-1, -1, width), parts * weights[:, None])
        mass = torch.zeros(found.shape[:2]).scatter_add_(1, codes, weights.expand(len(parts), -1))
        found = torch.where(mass[..., None] > 0, sums / mass.clamp_min(1e-9)[..., None], found)
    return found, _nearest(parts, found).T


def _nearest(parts: Tensor, words: Tensor) -> Tensor:
    """(P, N, w) and (P, W, w) -> (P, N): the word nearest to each part."""
    offset = words.square().sum(-1)[:, None] / 2
    return torch.cat([(own @ words.transpose(1, 2) - offset).argmax(-1) for own in parts.split(CHUNK, 1)], 1)
