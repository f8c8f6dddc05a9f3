"""Tokenise once, batch by length, pad to the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from metakd.errors import InputError
from metakd.examples import Example

Features = dict[str, Any]
Batch = dict[str, Tensor]

POOL = 16  # batches whose texts are sorted by length together; more pads less and shuffles less


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[Features]:
    """Token ids of each example, and `real_mask`: 1 for each token of the text, 0 for each special one."""
    if not examples:
        return []
    pairs = [e.text_pair for e in examples]
    if len({pair is None for pair in pairs}) > 1:
        lone = [e.id for e in examples if e.text_pair is None]
        raise InputError(f"text_pair is missing on {len(lone)} rows ({', '.join(lone[:3])}, ...) and there on others")
    encoded = tokenizer(
        [e.text for e in examples],
        pairs if pairs[0] is not None else None,  # never the string "None" for a second text that is not there
        truncation=True,
        max_length=max_length,
        return_special_tokens_mask=True,
        return_attention_mask=False,
    )
    special = encoded.pop("special_tokens_mask")
    features = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    for feature, mask in zip(features, special, strict=True):
        feature["real_mask"] = [1 - m for m in mask]
    return features


class Collator:
    """Features -> tensors (B, L), padded to the longest of the batch; numbers and tensors are stacked.

    Keys that begin with `teacher_` are the same texts in the teacher's tokens, padded with its own id.
    """

    def __init__(self, pad_id: int, teacher_pad_id: int = 0) -> None:
        self.pad_ids = {"input_ids": pad_id, "teacher_input_ids": teacher_pad_id}

    def __call__(self, features: Sequence[Features]) -> Batch:
        batch = {}
        for name, first in features[0].items():
            values = [feature[name] for feature in features]
            if not isinstance(first, list):
                batch[name] = torch.stack([torch.as_tensor(value) for value in values])
                continue
            tensors = [torch.tensor(value, dtype=torch.long) for value in values]
            pad = self.pad_ids.get(name, 0)
            batch[name] = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=pad)
            if name in self.pad_ids:
                lengths = torch.tensor([len(value) for value in values])
                mask = torch.arange(batch[name].shape[1])[None] < lengths[:, None]
                batch[name.replace("input_ids", "attention_mask")] = mask.long()
        return batch


def updates_a_pass(num_examples: int, batch_size: int) -> int:
    return math.ceil(num_examples / batch_size)


class LengthBatches(Sampler[list[int]]):
    """Batches of texts of like length, in an order that depends on seed and epoch alone, so that resuming is exact."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return updates_a_pass(len(self.lengths), self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        pool = self.batch_size * POOL
        batches = []
        for start in range(0, len(order), pool):
            part = sorted(order[start : start + pool], key=lambda i: self.lengths[i])
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[index]


def ordered_batches(features: Sequence[Features], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches from the shortest text to the longest, for passes without learning."""
    order = sorted(range(len(features)), key=lambda i: len(features[i]["input_ids"]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
