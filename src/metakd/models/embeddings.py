"""Token embeddings: train only those that the texts use, and replace a full table by a compact one.

In a compact table, tokens that are frequent in a domain keep their rows; the others share parts of rows.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.data.schema import Example
from metakd.data.tokenization import CHUNK

ROWS = 1_800  # that stay as they are
WORDS = 256  # vectors to choose from, for each part of a row: as many as a byte tells apart
WIDEST = 6  # numbers of a part
ROUNDS = 6  # of k-means
UNSEEN = 0.2  # added to every count, so that tokens that are not in the domain's texts count a little


def count_tokens(tokenizer: Any, examples: Sequence[Example]) -> Counter[int]:
    """How often each token occurs in the untruncated texts; special tokens count more than any other."""
    counts = Counter[int]()
    for start in range(0, len(examples), CHUNK):
        texts = [text for e in examples[start : start + CHUNK] for text in (e.text, e.text_pair) if text is not None]
        for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
            counts.update(ids)
    return counts + Counter(dict.fromkeys(tokenizer.all_special_ids, max(counts.values(), default=0) + 1))


def part_width(width: int) -> int:
    """Numbers in one part: the largest divisor of `width` that is at most WIDEST."""
    return next(size for size in range(WIDEST, 0, -1) if width % size == 0)


def place_type(tokens: int) -> torch.dtype:
    """The smallest integers that number so many tokens."""
    return torch.int16 if tokens <= 2**15 else torch.int32


def compact_bytes(tokens: int, width: int, item: int) -> int:
    """Bytes of a compact table of `tokens` tokens, more than ROWS, whose numbers take `item` bytes each."""
    others, parts = tokens - ROWS, width // part_width(width)
    return (ROWS + min(WORDS, others)) * width * item + tokens * place_type(tokens).itemsize + others * parts


class CompactEmbedding(nn.Module):
    """Replaces a table of V rows: R rows stay exact, every other row consists of P words, one for each part.

    Token ids are unchanged, and so is the tokenizer.
    """

    rows: Tensor  # (R, H)
    places: Tensor  # (V,) int: each token's row in `rows`; for the V - R others, R + their row in `codes`
    codes: Tensor  # (V - R, P) int: the word for each part
    parts: Tensor  # (P · W, H / P): for each part its words
    starts: Tensor  # (P,) int: where the words of each part begin

    def __init__(self, table: Tensor, counts: Counter[int], rows: int = ROWS, words: int = WORDS) -> None:
        """Of `table` (V, H), the `rows` tokens with the highest counts stay exact; words fit frequent tokens best."""
        super().__init__()
        frequencies = torch.tensor([counts[token] for token in range(len(table))])
        kept = frequencies.argsort(descending=True, stable=True)[:rows].sort().values
        others = torch.ones(len(table), dtype=torch.bool)
        others[kept] = False
        weights = (frequencies[others] + UNSEEN).sqrt()
        centers, nearest = cluster_parts(table[others], weights, part_width(table.shape[1]), words)
        places = torch.cat([kept, others.nonzero()[:, 0]]).argsort()
        self.register_buffer("rows", table[kept])
        self.register_buffer("places", places.to(place_type(len(table))))
        self.register_buffer("codes", nearest.to(torch.uint8))
        self.register_buffer("parts", centers.flatten(0, 1))
        self.register_buffer("starts", torch.arange(len(centers)) * centers.shape[1])

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int -> (B, L, H); only tokens without a row, few in the domain's text, are put together from words."""
        places = F.embedding(ids.flatten(), self.places[:, None]).flatten().long()
        vectors = F.embedding(places.clamp(max=len(self.rows) - 1), self.rows)  # of rare tokens any row, for now
        rare = (places >= len(self.rows)).nonzero().flatten()
        words = F.embedding(places[rare] - len(self.rows), self.codes).long() + self.starts
        vectors = vectors.index_put((rare,), F.embedding(words, self.parts).flatten(-2))
        return vectors.unflatten(0, ids.shape)


def cluster_parts(
    rows: Tensor,  # (N, H)
    weights: Tensor,  # (N,)
    width: int,
    words: int,
) -> tuple[Tensor, Tensor]:  # (P, W, width) the words of each part; (N, P) int: the nearest word for each row and part
    """Weighted k-means for each part of `width` numbers separately; at most as many words as there are rows."""
    k_means = KMeans(min(words, len(rows)), init="random", n_init=1, max_iter=ROUNDS, random_state=0)
    centers, nearest = list[Any](), list[Any]()
    # several threads sum in varying order, and are not faster
    with threadpool_limits(1, "openmp"), warnings.catch_warnings(action="ignore"):  # rows may repeat
        for part in rows.split(width, 1):
            nearest.append(k_means.fit_predict(part.numpy(), sample_weight=weights.numpy()))
            centers.append(k_means.cluster_centers_)
    return torch.from_numpy(np.stack(centers)), torch.from_numpy(np.stack(nearest, 1)).long()


def embedding_scale(table: nn.Module) -> float:
    """What a row is multiplied by when it is looked up: the square root of its width in Gemma, 1 in most families.

    Raises ValueError for a table that does something else with its rows.
    """
    scale = getattr(table, "embed_scale", None)
    if scale is None and type(table).forward not in (nn.Embedding.forward, CompactEmbedding.forward):
        raise ValueError(f"metakd does not know what its {type(table).__name__} does with token embeddings")
    return 1.0 if scale is None else float(scale)


class _RowsInUse(nn.Module):
    """Some rows of an embedding table, looked up by their ids in the full table."""

    places: Tensor

    def __init__(self, whole: nn.Embedding, rows: Tensor) -> None:
        super().__init__()
        self.scale = embedding_scale(whole)
        self.weight = nn.Parameter(whole.weight.detach()[rows], requires_grad=whole.weight.requires_grad)
        places = torch.full((whole.num_embeddings,), len(rows))  # out of range, so that a missing id is an error
        places[rows] = torch.arange(len(rows))
        self.register_buffer("places", places, persistent=False)
        self.padding = None if whole.padding_idx is None else int(places[whole.padding_idx])

    def forward(self, ids: Tensor) -> Tensor:
        rows = F.embedding(self.places[ids], self.weight, padding_idx=self.padding)
        return rows if self.scale == 1 else rows * self.scale


@contextlib.contextmanager
def only_rows_in_use(model: PreTrainedModel, token_ids: Sequence[int]) -> Iterator[None]:
    """Inside, only the embeddings of `token_ids` are weights of `model`; the others stay as they were.

    The row of a token that occurs in no text gets no gradient, yet it would take part in every update, and in the
    optimizer's moments and checkpoints: 11.7 of all-MiniLM-L6-v2's 22.7 million parameters are in this table.
    """
    whole = model.get_input_embeddings()
    padding = [] if whole.padding_idx is None else [whole.padding_idx]
    rows = torch.from_numpy(np.union1d(token_ids, padding).astype(np.int64))
    used = _RowsInUse(whole, rows)
    model.set_input_embeddings(used)
    try:
        yield
    finally:
        with torch.no_grad():
            whole.to(used.weight.device).weight[rows] = used.weight
        model.set_input_embeddings(whole)
