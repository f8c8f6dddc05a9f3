"""Use a saved classifier: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from transformers import PreTrainedModel

from metakd.batching import Collator, encode
from metakd.checkpoints import resolve
from metakd.encoders import load_classifier, load_tokenizer, usable_length
from metakd.engine import predict
from metakd.errors import InputError
from metakd.examples import Example


class Prediction(NamedTuple):
    label: str
    probability: float


class Classifier:
    """A student (or teacher) as it was saved, with its tokenizer and the names of its labels."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.collator = Collator(tokenizer.pad_token_id)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load what `metakd distill` saved, or any Hugging Face sequence classifier. Raises InputError."""
        path = resolve(str(folder))
        model, tokenizer = load_classifier(path), load_tokenizer(path)
        tokenizer.model_max_length = min(tokenizer.model_max_length, usable_length(model.config))
        return cls(model, tokenizer)

    @property
    def labels(self) -> list[str]:
        return [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]

    def probabilities(self, examples: Sequence[Example]) -> torch.Tensor:
        """(N, M), columns in the order of `labels`; texts are cut to the length that the model was trained with."""
        features = encode(self.tokenizer, examples, self.tokenizer.model_max_length)
        return predict(self.model, features, self.collator)

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Prediction]:
        """The likeliest label of each text (or pair of texts) and its probability, in order."""
        if isinstance(texts, str):
            raise InputError("predict takes a list of texts; for one text, predict([text])")
        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        examples = [Example("", first, second, label="", domain="") for first, second in pairs]
        return self.predict_examples(examples)

    def predict_examples(self, examples: Sequence[Example]) -> list[Prediction]:
        labels = self.labels
        best = self.probabilities(examples).max(-1)
        return [Prediction(labels[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
