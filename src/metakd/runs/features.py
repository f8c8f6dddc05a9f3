"""A run's texts as its models read them: tokens, labels and domains as numbers, extra windows, instance weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.long_texts import extra_texts
from metakd.data.schema import Example
from metakd.data.tokenization import Collator, Encoded, encode
from metakd.models.hub import resolve
from metakd.models.loading import load_tokenizer
from metakd.models.meta_teacher import UNKNOWN_DOMAIN
from metakd.runs.folders import WEIGHTS_FILE, Folders
from metakd.utils.artifacts import is_done
from metakd.utils.errors import InputError


@dataclass(frozen=True)
class Features:
    """The model inputs of a run; `teacher_domains` are the domains that its teachers know."""

    settings: Settings
    data: MultiDomainDataset
    folders: Folders
    teacher_domains: list[str]

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the base."""
        return load_tokenizer(resolve(self.settings.base), self.settings.max_length)

    @property
    def collator(self) -> Collator:
        return Collator(self.tokenizer.pad_token_id)

    @cached_property
    def extra_texts(self) -> dict[str, list[Example]]:
        """Extra windows and crops of the training texts, by the texts' ids."""
        options = {name: getattr(self.settings, name) for name in ("windows", "crops", "seed")}
        return extra_texts(self.tokenizer, self.data.train, self.settings.max_length, **options)

    def with_extra_texts(self, examples: Sequence[Example]) -> list[Example]:
        """The training `examples` with their extra windows and crops: what students of a cached teacher learn from."""
        return [*examples, *(text for e in examples for text in self.extra_texts.get(e.id, ()))]

    def encode(self, examples: Sequence[Example], tokenizer: Any = None) -> Encoded:
        """Token ids, with labels and domains as indices into the sorted lists; −1 for a domain unknown to the teacher.

        `tokenizer` is by default that of the base.
        """
        places = {domain: place for place, domain in enumerate(self.teacher_domains)}
        return encode(tokenizer or self.tokenizer, examples, self.settings.max_length).with_columns(
            labels=np.array([self.data.labels.index(e.label) for e in examples]),
            domains=np.array([places.get(e.domain, UNKNOWN_DOMAIN) for e in examples]),
        )

    def instance_weights(self, examples: Sequence[Example]) -> list[float]:
        """The instance weight of each example by `weigh`, 1 without weights; InputError if `weigh` has not run."""
        if self.settings.weights == "none":
            return [1.0] * len(examples)
        if not is_done(self.folders.weights, self.folders.fingerprints.weigh):
            remedy = f"run `metakd weigh --output {self.folders.root}` first"
            raise InputError(f"{self.folders.weights}: no instance weights; {remedy}")
        return [self._weights[e.id] for e in examples]

    @cached_property
    def _weights(self) -> dict[str, float]:
        with (self.folders.weights / WEIGHTS_FILE).open(encoding="utf-8") as file:
            weights = {row["id"]: row["weight"] for row in map(json.loads, file)}
        return weights | {text.id: weights[name] for name, texts in self.extra_texts.items() for text in texts}
