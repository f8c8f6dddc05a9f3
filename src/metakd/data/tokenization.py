"""Texts as token ids, tokenized once and padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from metakd.data.schema import Example
from metakd.utils.errors import InputError

TextFeatures = dict[str, Any]  # of one text
Batch = dict[str, Tensor]
Array = NDArray[Any]

TEACHER_TOKENS = "teacher_"  # prefix of the same texts in tokens of a teacher with another tokenizer
CHUNK = 4096  # texts tokenised at a time


class Ragged(NamedTuple):
    """Rows of different lengths in one flat array: row i is values[offsets[i] : offsets[i + 1]]."""

    values: Array  # (all tokens,)
    offsets: Array  # (N + 1,) int

    def __getitem__(self, row: Any) -> Any:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True, eq=False)
class Encoded(Dataset[TextFeatures]):
    """Texts as token ids, with one value per text in each column: six bytes per token."""

    tokens: Mapping[str, Ragged]
    columns: Mapping[str, Array]

    @property
    def lengths(self) -> Array:
        """Tokens of each text, special ones included: (N,)."""
        return np.diff(self.tokens["input_ids"].offsets)

    @property
    def token_ids(self) -> Array:
        """The token ids that occur, sorted."""
        return np.unique(self.tokens["input_ids"].values)

    def __len__(self) -> int:
        return len(self.tokens["input_ids"].offsets) - 1

    def __getitem__(self, row: int) -> TextFeatures:
        tokens = {name: ragged[row] for name, ragged in self.tokens.items()}
        return tokens | {name: values[row] for name, values in self.columns.items()}

    def __iter__(self) -> Iterator[TextFeatures]:
        return map(self.__getitem__, range(len(self)))

    def column(self, name: str) -> Tensor:
        """One value per example: (N,)."""
        return torch.from_numpy(self.columns[name])

    def with_columns(self, **columns: Sequence[Any] | Array) -> Encoded:
        """The same texts with one value per example (N,) under each name; real numbers become float32."""
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        arrays |= {name: a.astype(np.float32) for name, a in arrays.items() if a.dtype.kind == "f"}
        return Encoded(self.tokens, {**self.columns, **arrays})

    def with_teacher_tokens(self, teacher: Encoded) -> Encoded:
        """The same texts in the teacher's tokens beside the student's."""
        named = {TEACHER_TOKENS + name: ragged for name, ragged in teacher.tokens.items()}
        return Encoded({**self.tokens, **named}, self.columns)


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int) -> Encoded:
    """Token ids of each example, and `real_mask`: 1 for each token of the text, 0 for each special one."""
    paired = {example.text_pair is not None for example in examples}
    if len(paired) > 1:
        ids = [e.id for e in examples if e.text_pair is None]
        raise InputError(f"text_pair is missing on {len(ids)} rows ({', '.join(ids[:3])}, ...) but not on others")
    parts: dict[str, list[Array]] = {"input_ids": [np.zeros(0, np.int32)]}
    lengths = [np.zeros(1, np.int64)]
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        encoded = tokenizer(
            [e.text for e in chunk],
            [e.text_pair for e in chunk] if True in paired else None,  # never the word "None"
            truncation=True,
            max_length=max_length,
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        lengths.append(np.array([len(ids) for ids in encoded["input_ids"]]))
        for name, rows in encoded.items():
            kind = np.int32 if name == "input_ids" else np.uint8
            parts.setdefault(name, []).append(np.fromiter(chain.from_iterable(rows), kind))
    offsets = np.concatenate(lengths).cumsum()
    tokens = {name: Ragged(np.concatenate(values), offsets) for name, values in parts.items()}
    if examples:
        tokens["real_mask"] = Ragged(1 - tokens.pop("special_tokens_mask").values, offsets)
    return Encoded(tokens, {})


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
            padded = np.full(real.shape, self.pad_ids.get(name, 0))
            padded[real] = np.concatenate(values)
            batch[name] = torch.from_numpy(padded)
            if name in self.pad_ids:
                batch[name.replace("input_ids", "attention_mask")] = torch.from_numpy(real.astype(np.int64))
        return batch
