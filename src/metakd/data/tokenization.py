"""Texts as token ids, tokenized once and padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from metakd.data.schema import Example
from metakd.utils.errors import InputError

TextFeatures = dict[str, Any]  # of one text
Batch = dict[str, Tensor]
Array = NDArray[Any]

TEACHER_TOKENS = "teacher_"  # prefix of the same texts in tokens of a teacher with another tokenizer
TOKENIZER_FILES = (  # two tokenizers with the same files give the same tokens
    *("tokenizer*.json", "*vocab.*", "merges.txt", "*.model", "added_tokens.json", "special_tokens_map.json"),
)
CHUNK = 4096  # texts tokenised at a time


class Tokens(NamedTuple):
    """The tokens of texts, side by side in an array for each chunk of texts: six bytes per token."""

    values: Mapping[str, Sequence[Array]]  # token ids and what belongs to each token, chunk by chunk
    places: Array  # (N, 3) int: the chunk of each text, where it starts there, and its length

    def of_text(self, row: int) -> TextFeatures:
        chunk, start, length = self.places[row].tolist()
        return {name: chunks[chunk][start : start + length] for name, chunks in self.values.items()}

    def joined(self, other: Tokens) -> Tokens:
        """These texts and then the others', without copying a token."""
        chunks = len(self.values["input_ids"])
        values = {name: [*self.values.get(name, ()), *added] for name, added in other.values.items()}
        return Tokens(values, np.concatenate([self.places, other.places + np.array([chunks, 0, 0])]))


@dataclass(frozen=True, eq=False)
class Encoded(Dataset[TextFeatures]):
    """Texts as token ids, with one value per text in each column."""

    tokens: Tokens
    columns: Mapping[str, Array]
    teacher_tokens: Tokens | None = None  # the same texts in tokens of a teacher with another tokenizer

    @property
    def lengths(self) -> Array:
        """Tokens of each text, special ones included: (N,)."""
        return self.tokens.places[:, 2]

    @property
    def token_ids(self) -> Array:
        """The token ids that occur, sorted."""
        chunks = self.tokens.values["input_ids"]
        occurs = np.zeros(max((chunk.max() for chunk in chunks), default=0) + 1, bool)
        for text in map(self.tokens.of_text, range(len(self))):
            occurs[text["input_ids"]] = True
        return occurs.nonzero()[0]

    def __len__(self) -> int:
        return len(self.tokens.places)

    def __getitem__(self, row: int) -> TextFeatures:
        features = self.tokens.of_text(row) | {name: values[row] for name, values in self.columns.items()}
        if self.teacher_tokens is not None:
            features |= {TEACHER_TOKENS + name: ids for name, ids in self.teacher_tokens.of_text(row).items()}
        return features

    def __iter__(self) -> Iterator[TextFeatures]:
        return map(self.__getitem__, range(len(self)))

    def column(self, name: str) -> Tensor:
        """One value, or one row of them, per example: (N,) or (N, M)."""
        return torch.from_numpy(self.columns[name])

    def with_columns(self, **columns: Sequence[Any] | Array) -> Encoded:
        """The same texts with (N,) values, or (N, M), under each name; real numbers become float32."""
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        arrays |= {name: a.astype(np.float32, copy=False) for name, a in arrays.items() if a.dtype.kind == "f"}
        return replace(self, columns={**self.columns, **arrays})

    def with_teacher_tokens(self, teacher: Encoded) -> Encoded:
        """The same texts in the teacher's tokens beside the student's."""
        return replace(self, teacher_tokens=teacher.tokens)


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int) -> Encoded:
    """Token ids of each example, and `real_mask`: 1 for each token of the text, 0 for each special one."""
    paired = {example.text_pair is not None for example in examples}
    if len(paired) > 1:
        ids = [e.id for e in examples if e.text_pair is None]
        raise InputError(f"text_pair is missing on {len(ids)} rows ({', '.join(ids[:3])}, ...) but not on others")
    values: dict[str, list[Array]] = {"input_ids": []}
    places = [np.zeros((0, 3), int)]
    for number, start in enumerate(range(0, len(examples), CHUNK)):
        chunk = examples[start : start + CHUNK]
        encoded = tokenizer(
            [e.text for e in chunk],
            [e.text_pair for e in chunk] if True in paired else None,  # never the word "None"
            truncation=True,
            max_length=max_length,
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        places.append(np.stack([np.full_like(lengths, number), lengths.cumsum() - lengths, lengths], axis=1))
        for name, rows in encoded.items():
            kind = np.int32 if name == "input_ids" else np.uint8
            values.setdefault(name, []).append(np.fromiter(chain.from_iterable(rows), kind))
    if examples:
        values["real_mask"] = [1 - mask for mask in values.pop("special_tokens_mask")]
    return Encoded(Tokens(values, np.concatenate(places)), {})


def encoded_windows(tokenizer: Any, windows: Sequence[Encoding]) -> Encoded:
    """Windows [`data.windows.following_windows`] as `encode` has texts."""
    lengths = np.array([len(window) for window in windows])
    places = np.stack([np.zeros_like(lengths), lengths.cumsum() - lengths, lengths], axis=1)
    columns = {"input_ids": [window.ids for window in windows]}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = [window.type_ids for window in windows]
    columns["real_mask"] = [[1 - special for special in window.special_tokens_mask] for window in windows]
    values = {name: [np.fromiter(chain.from_iterable(rows), np.int32)] for name, rows in columns.items()}
    return Encoded(Tokens(values, places), {})


def untruncated(tokenizer: Any) -> Tokenizer:
    """A copy of the tokenizer's backend that does not truncate."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    return backend


class TokenStore:
    """Texts in the tokens of one tokenizer: each is tokenised when it is first read, and then kept."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self._encode = partial(encode, tokenizer, max_length=max_length)
        self._tokens = self._encode([]).tokens
        self._rows: dict[str | tuple[str, str], int] = {}

    @cached_property
    def untruncated(self) -> Tokenizer:
        """The tokenizer's backend without truncation."""
        return untruncated(self.tokenizer)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """What the function `encode` returns for these examples; only texts that are new are tokenised."""
        texts = [e.inputs for e in examples]
        if new := {text: e for text, e in zip(texts, examples, strict=True) if text not in self._rows}:
            self._tokens = self._tokens.joined(self._encode([*new.values()]).tokens)
            self._rows |= zip(new, range(len(self._rows), len(self._rows) + len(new)), strict=True)
        return Encoded(self._tokens._replace(places=self._tokens.places[[self._rows[text] for text in texts]]), {})


class Collator:
    """Features of texts -> tensors (B, L), padded to the longest of the batch; single values are stacked to (B,).

    Names that begin with TEACHER_TOKENS are the same texts in the teacher's tokens, padded with the teacher's id.
    """

    def __init__(self, pad_id: int, teacher_pad_id: int = 0) -> None:
        self.pad_ids = {"input_ids": pad_id, TEACHER_TOKENS + "input_ids": teacher_pad_id}

    def __call__(self, features: Sequence[TextFeatures]) -> Batch:
        batch = {}
        for name, first in features[0].items():
            values = [feature[name] for feature in features]
            if np.ndim(first) == 0:
                batch[name] = torch.from_numpy(np.array(values))
                continue
            lengths = np.array([len(value) for value in values])
            real = np.arange(lengths.max()) < lengths[:, None]
            is_real = isinstance(first, np.ndarray) and first.dtype.kind == "f"
            padded = np.full(real.shape, self.pad_ids.get(name, 0), np.float32 if is_real else None)
            padded[real] = np.concatenate(values)
            batch[name] = torch.from_numpy(padded)
            if name in self.pad_ids:
                batch[name.replace("input_ids", "attention_mask")] = torch.from_numpy(real.astype(np.int64))
        return batch
