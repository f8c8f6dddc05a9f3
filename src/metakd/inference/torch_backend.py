"""A saved Hugging Face sequence classifier on PyTorch."""

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedModel

from metakd.data.examples import check_pairs
from metakd.data.schema import Example
from metakd.data.tokenization import Collator, Encoded, TokenStore, encode, encoded_windows, untruncated
from metakd.data.windows import Reading, following_windows
from metakd.inference.calibration import Calibration, divide_logits, load_calibration
from metakd.inference.long_texts import Answers, Probabilities, load_reading, read_on
from metakd.inference.thresholds import HALF
from metakd.models.class_head import has_several_labels
from metakd.models.forward_passes import predict
from metakd.models.loading import load_classifier, load_tokenizer
from metakd.models.model_checks import readable_length
from metakd.utils import hardware


class TorchModel:
    """A saved student (or teacher) with its tokenizer; in eval mode and float32.

    `reading` is how much of a text it reads: by default as many tokens as its tokenizer has as `model_max_length`.
    """

    def __init__(self, network: PreTrainedModel, tokenizer: Any, reading: Reading | None = None) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.reading = reading or Reading(max_length=tokenizer.model_max_length)
        self.thresholds = np.full(network.config.num_labels, HALF)
        self.collator = Collator(tokenizer.pad_token_id)
        self.store: TokenStore | None = None  # keeps the tokens of texts that other models read too

    @classmethod
    def load(cls, folder: Path, device: torch.device | str | None = None, *, calibrated: bool = True) -> Self:
        """The model in `folder`, on `device`: by default a GPU if there is one.

        Its logits are divided by its temperature and its labels have their thresholds, unless it is not to be
        `calibrated`. Raises InputError if it is not a text classifier.
        """
        network, tokenizer = load_classifier(folder), load_tokenizer(folder)
        labels = network.config.num_labels
        temperature, thresholds = load_calibration(folder, labels) if calibrated else Calibration()
        divide_logits(network, temperature)
        positions = getattr(network.config, "max_position_embeddings", None)
        if positions and getattr(network.config, "text_pairs", None) is None:  # not a model of ours, whose length fits
            most = min(tokenizer.model_max_length, positions)
            tokenizer.model_max_length = readable_length(network.eval(), tokenizer, most)
        model = cls(network.to(device or hardware.device()), tokenizer, load_reading(folder))
        if thresholds:
            model.thresholds = np.array(thresholds)
        return model

    def read_as(self, reading: Reading) -> None:
        """Read texts in another way from now on."""
        if reading.max_length != self.reading.max_length:
            self.store = None
        self.reading = reading

    def readable_tokens(self, wanted: int) -> int:
        """The most tokens, up to `wanted`, that it has positions for; tried on a CPU, where one more does no harm."""
        network = self.network if self.network.device.type == "cpu" else copy.deepcopy(self.network).cpu()
        return readable_length(network, self.tokenizer, wanted)

    @cached_property
    def untruncated(self) -> Tokenizer:
        """Its tokenizer's backend without truncation, which other threads do not change."""
        return self.store.untruncated if self.store else untruncated(self.tokenizer)

    @property
    def max_length(self) -> int:
        """Tokens of a text that it was trained to read at once."""
        return int(self.tokenizer.model_max_length)

    @property
    def labels(self) -> list[str]:
        return [self.network.config.id2label[i] for i in range(self.network.config.num_labels)]

    @property
    def several_labels(self) -> bool:
        """Whether a text may have several of its labels."""
        return has_several_labels(self.network)

    @property
    def pairs(self) -> bool | None:
        """Whether it reads pairs of texts; None if its folder does not say so."""
        return getattr(self.network.config, "text_pairs", None)

    def answers(self, examples: Sequence[Example]) -> Answers:
        """Class probabilities, in the order of `labels`; of long texts as `reading` says."""
        check_pairs(examples, self.pairs)
        features = self._first_windows(examples)
        first = predict(self.network, features, self.collator).numpy()

        def cut(rows: Sequence[int]) -> list[list[Encoding]]:
            return following_windows(self.untruncated, [examples[row].inputs for row in rows], self.reading)

        full = features.lengths >= self.reading.max_length
        return read_on(first, full, self.reading, cut, self._of_windows, self.several_labels)

    def fills_a_window(self, examples: Sequence[Example]) -> NDArray[np.bool_]:
        """Whether a first window has no room for more tokens: (N,)."""
        return np.asarray(self._first_windows(examples).lengths >= self.reading.max_length)

    def _first_windows(self, examples: Sequence[Example]) -> Encoded:
        store, length = self.store, self.reading.max_length
        return store.encode(examples) if store else encode(self.tokenizer, examples, length)

    def _of_windows(self, windows: Sequence[Encoding]) -> Probabilities:
        return predict(self.network, encoded_windows(self.tokenizer, windows), self.collator).numpy()
