"""A run's texts as its models read them: tokens, labels and domains as numbers, extra windows, instance weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.labels import NO_LABEL, accuracy_of_hard_labels, balanced_weights, several_columns, soft_label_columns
from metakd.data.schema import Example
from metakd.data.tokenization import TOKENIZER_FILES, Array, Collator, Encoded, TokenStore
from metakd.models.class_head import all_right
from metakd.models.hub import resolve
from metakd.models.loading import load_tokenizer
from metakd.models.meta_teacher import UNKNOWN_DOMAIN
from metakd.models.student import layers_to_cut
from metakd.runs.extra_texts import extra_texts
from metakd.runs.folders import WEIGHTS_FILE, Folders
from metakd.runs.student_classes import classes_by_domain, student_classes
from metakd.utils.artifacts import digest_files, is_done, remedy
from metakd.utils.errors import InputError

_STORES = WeakValueDictionary[tuple[Any, ...], TokenStore]()


def _token_store(folder: Path, max_length: int) -> TokenStore:
    """The texts in the tokens of the tokenizer in `folder`; open runs share it."""
    key = folder, max_length, *digest_files(folder, TOKENIZER_FILES).items()
    store = _STORES.get(key)
    if store is None:
        store = _STORES[key] = TokenStore(load_tokenizer(folder, max_length), max_length)
    return store


@dataclass(frozen=True)
class Features:
    """The model inputs of a run; `teacher_domains` are the domains that its teachers know."""

    settings: Settings
    data: MultiDomainDataset
    folders: Folders
    teacher_domains: list[str]

    @cached_property
    def _store(self) -> TokenStore:
        return _token_store(resolve(self.settings.base), self.settings.max_length)

    @cached_property
    def _student_store(self) -> TokenStore:
        is_cut = layers_to_cut(self.settings.student) is not None
        return self._store if is_cut else _token_store(resolve(self.settings.student), self.settings.max_length)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the base."""
        return self._store.tokenizer

    @property
    def student_tokenizer(self) -> Any:
        """The tokenizer of the students: that of the base, unless they are a checkpoint with another."""
        return self._student_store.tokenizer

    @property
    def collator(self) -> Collator:
        return Collator(self.tokenizer.pad_token_id)

    @cached_property
    def extra_texts(self) -> dict[str, list[Example]]:
        """Extra windows and crops of the texts that models learn from, by the texts' ids."""
        texts = [*self.data.train, *self.data.unlabelled]
        return self._extra_texts(texts, self.settings.windows, self.settings.crops)

    @cached_property
    def texts_of_windows(self) -> dict[str, str]:
        """The id of the text of each extra window or crop, by its own id."""
        return {window.id: name for name, windows in self.extra_texts.items() for window in windows}

    @property
    def student_texts(self) -> list[Example]:
        """All that students of a cached teacher learn from: training texts, texts without labels, and their windows."""
        return self.with_extra_texts([*self.data.train, *self.data.unlabelled])

    def teacher_texts(self, texts: Sequence[Example]) -> tuple[list[Example], Array]:
        """What weights are computed from and the teacher learns from, and the row in `texts` of each (N + W,).

        That is, the N texts, and then W further windows of the long ones (`teacher_windows`).
        """
        further = self._windows_of_train if texts is self.data.train else self._windows_for_teacher(texts)
        windows = [(row, window) for row, e in enumerate(texts) for window in further.get(e.id, ())]
        rows = [*range(len(texts)), *(row for row, _ in windows)]
        return [*texts, *(window for _, window in windows)], np.array(rows)

    @cached_property
    def _windows_of_train(self) -> dict[str, list[Example]]:
        return self._windows_for_teacher(self.data.train)

    def _windows_for_teacher(self, texts: Sequence[Example]) -> dict[str, list[Example]]:
        return self._extra_texts(texts, self.settings.teacher_windows)

    def _extra_texts(self, texts: Sequence[Example], windows: int, crops: int = 0) -> dict[str, list[Example]]:
        settings = self.settings
        if not (windows or crops):
            return {}
        # not `self.tokenizer`: models are saved with it, and so with the truncation of its last call
        tokenizer = load_tokenizer(resolve(settings.base), settings.max_length)
        how = {"windows": windows, "crops": crops, "seed": settings.seed}
        return extra_texts(tokenizer, texts, self.encode(texts).lengths, settings.max_length, **how)

    def with_extra_texts(self, examples: Sequence[Example]) -> list[Example]:
        """The training `examples` with their extra windows and crops: what students of a cached teacher learn from."""
        return [*examples, *(text for e in examples for text in self.extra_texts.get(e.id, ()))]

    def encode(self, examples: Sequence[Example], tokenizer: Any = None, student_of: str | None = None) -> Encoded:
        """Token ids, with labels and domains as indices into the sorted lists.

        −1 is no label, or a domain that is unknown to the teacher. If a text may have several labels, they are (N, M),
        1 for each that it has.

        Args:
            examples: Texts of any domain.
            tokenizer: That of the base (the default) or of the students; each text is tokenised once for each.
            student_of: Labels are indices into the classes of this domain's student; −1 for one that it does not have.
        """
        stores = {store.tokenizer: store for store in (self._store, self._student_store)}
        places = {domain: place for place, domain in enumerate(self.teacher_domains)}
        classes = {label: place for place, label in enumerate(self.classes(student_of))}
        encoded = stores[self.tokenizer if tokenizer is None else tokenizer].encode(examples)
        several = self.data.several_labels
        return encoded.with_columns(
            labels=several_columns(examples, classes)
            if several
            else np.array([classes.get(e.label, NO_LABEL) for e in examples]),
            domains=np.array([places.get(e.domain, UNKNOWN_DOMAIN) for e in examples]),
        )

    def classes(self, domain: str | None) -> list[str]:
        """The classes of the student of `domain`, or of the shared start (None)."""
        return student_classes(self.settings, self.data, domain)

    @property
    def classes_by_domain(self) -> dict[str, Any]:
        """The entry of run.json on the classes of each domain's student; none where all have all labels."""
        classes = classes_by_domain(self.settings, self.data)
        return {"classes": classes} if classes else {}

    def places(self, domain: str | None) -> list[int]:
        """Their places among all labels."""
        return [self.data.label_ids[label] for label in self.classes(domain)]

    def likeliest(self, logits: Tensor, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """The highest probability among the classes of each example's domain, (N,), and its place among all labels.

        If a text may have several labels, the probability that all answers, yes or no, are right, and (N, M), 1 for
        each yes.
        """
        logits = logits.float()
        if self.classes_by_domain:
            among = {e.domain: torch.full(logits.shape[1:], -torch.inf) for e in examples}
            for domain, allowed in among.items():
                allowed[self.places(domain)] = 0.0
            logits = logits + torch.stack([among[e.domain] for e in examples])
        if self.data.several_labels:
            return all_right(logits, logits > 0), (logits > 0).float()
        confidences, places = logits.softmax(-1).max(-1)
        return confidences, places

    def of_classes(self, examples: Sequence[Example], domain: str) -> list[Example]:
        """Those of the examples from which the student of `domain` can learn: its domain's, or of its classes."""
        classes = self.classes(domain)
        if classes == self.data.labels:
            return [*examples]
        return [e for e in examples if e.domain == domain or {*e.classes} & {*classes}]

    def shares(self, examples: Sequence[Example], student_of: str | None = None) -> Tensor:
        """The share of the texts that have each of several labels, (M,), as if two more had any with one half."""
        places = {label: place for place, label in enumerate(self.classes(student_of))}
        has = torch.from_numpy(several_columns([e for e in examples if e.labels is not None], places))
        return (has.sum(0) + 1) / (len(has) + 2)

    def are_gold(self, examples: Sequence[Example]) -> Tensor:
        """Which of the examples are texts of `data.gold`, or windows of them: (N,) bool."""
        gold = {e.id for e in self.data.gold}
        return torch.tensor([self.texts_of_windows.get(e.id, e.id) in gold for e in examples])

    def class_weights(self, labels: Tensor, counted: Array | None = None) -> dict[str, Array]:
        """The weight of each text's class, (N,) for labels (N,), if the settings ask for it [`balanced_weights`]."""
        balanced = self.settings.class_weights == "balanced"
        return {"class_weights": balanced_weights(labels.numpy(), counted)} if balanced else {}

    def soft_labels(self, examples: Sequence[Example], student_of: str | None = None) -> dict[str, Array]:
        """q and β of each example [`data.labels.soft_label_columns`]; nothing if train has no soft labels.

        q is over the classes of the student of `student_of`.
        """
        if not self.data.has_soft_labels:
            return {}
        accuracy = accuracy_of_hard_labels(self.data.train)
        columns = soft_label_columns(examples, self.data.label_ids, accuracy, self.settings.gold_weight)
        if self.classes(student_of) != self.data.labels:
            q = columns["soft_labels"][:, self.places(student_of)]
            columns["soft_labels"] = q / np.maximum(q.sum(1, keepdims=True), np.finfo(q.dtype).tiny)
            elsewhere = (q.sum(1) == 0) & [e.gold for e in examples]  # only their gold labels say something here
            columns["gold_weights"] = np.where(elsewhere, np.float32(1), columns["gold_weights"])
        return {**columns}

    def instance_weights(self, examples: Sequence[Example]) -> list[float]:
        """The instance weight of each example by `weigh`, 1 without weights; InputError if `weigh` has not run."""
        if self.settings.weights == "none":
            return [1.0] * len(examples)
        if not is_done(self.folders.weights, self.folders.fingerprints.weigh):
            how = remedy(self.folders.root, "weigh", self.data.place)
            raise InputError(f"{self.folders.weights}: no instance weights; {how} first")
        names = [self.texts_of_windows.get(e.id, e.id) for e in examples]
        return [weight if (weight := self._weights.get(name)) is not None else self._others[name] for name in names]

    @cached_property
    def _weights(self) -> dict[str, float]:
        return _read_weights(self.folders.weights)

    @cached_property
    def _others(self) -> dict[str, float]:
        """The weights of texts without labels, which there are once the teacher has read these."""
        return _read_weights(self.folders.unlabelled_weights)


def _read_weights(folder: Path) -> dict[str, float]:
    with (folder / WEIGHTS_FILE).open(encoding="utf-8") as file:
        return {row["id"]: row["weight"] for row in map(json.loads, file)}
