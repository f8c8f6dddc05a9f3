"""Batches of texts of similar length, in an order set by seed and epoch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Self

import numpy as np
import torch
from torch.utils.data import Sampler

from metakd.data.tokenization import Array, Batch, Collator, Encoded
from metakd.utils.batch_shares import local_share

POOL = 16  # batches whose texts are sorted by length together; more pads less and shuffles less


def updates_per_epoch(num_examples: int, batch_size: int) -> int:
    return math.ceil(num_examples / batch_size)


@dataclass(eq=False)
class LengthBatches(Sampler[list[int]]):
    """Batches of texts of similar length, in an order that depends only on seed and epoch, so that resuming is exact.

    With `groups` (one per text), each batch has every group in the proportions of the data: a group with at least as
    many texts as there are batches is in every batch. Each of several processes gets its share of each batch.
    """

    lengths: Sequence[int] | Array
    batch_size: int
    seed: int
    groups: Sequence[int] | Array | None = None
    epoch: int = 0

    @classmethod
    def of(cls, features: Encoded, batch_size: int, seed: int, all_domains: bool) -> Self:
        """Batches of `features`; with `all_domains`, each has text of every domain if there are several."""
        domains = features.column("domains").numpy() if all_domains else np.zeros(1)
        return cls(features.lengths, batch_size, seed, domains if len(np.unique(domains)) > 1 else None)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return updates_per_epoch(len(self.lengths), self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).numpy()
        batches = self._mixed(order) if self.groups is None else self._proportional(order, np.asarray(self.groups))
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield local_share(batches[index].tolist())

    def _mixed(self, order: Array) -> list[Array]:
        """Batches that ignore groups: pools of `order`, each sorted by length and cut."""
        pools = np.arange(len(order)) // (self.batch_size * POOL)
        rows = order[np.lexsort((np.asarray(self.lengths)[order], pools))]
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]

    def _proportional(self, order: Array, groups: Array) -> list[Array]:
        """Batches with each group spread evenly; its remainder starts where that of the previous group ended.

        So two batches differ by at most one text, in each group and in total.
        """
        order = order[groups[order].argsort(kind="stable")]
        numbers, parts, begin = np.arange(len(self)), list[Array](), 0
        for size in np.unique(groups, return_counts=True)[1].tolist():
            each, remainder = divmod(size, len(self))
            parts.append(numbers.repeat(each + ((numbers - begin) % len(self) < remainder)))
            begin += remainder
        batches = np.concatenate(parts)  # that of each row, in the order of `order`
        rows = order[np.lexsort((np.asarray(self.lengths)[order], batches // POOL, groups[order]))]
        return np.split(rows[batches.argsort(kind="stable")], np.bincount(batches).cumsum()[:-1])


def endless_batches(features: Encoded, collator: Collator, batch_size: int, seed: int) -> Iterator[Batch]:
    """Batches of `features`, epoch after epoch, each in another order."""
    batches = LengthBatches(features.lengths, batch_size, seed)
    for epoch in count():
        batches.set_epoch(epoch)
        for indices in batches:
            yield collator([features[i] for i in indices])


def ordered_batches(lengths: Array, batch_size: int, most_tokens: int) -> Iterator[list[int]]:
    """Indices in batches from the shortest text to the longest, for forward passes without gradients.

    A batch has at most `batch_size` texts and, padding included, `most_tokens` tokens, or one text.
    """
    order, start = lengths.argsort(kind="stable"), 0
    while start < len(order):
        longest = int(lengths[order[min(start + batch_size, len(order)) - 1]])
        size = max(1, min(batch_size, most_tokens // longest))
        yield order[start : start + size].tolist()
        start += size
