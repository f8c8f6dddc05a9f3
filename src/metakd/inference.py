"""Use a saved classifier: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from metakd.checkpoints import resolve
from metakd.errors import InputError, require
from metakd.examples import Example

Probabilities = NDArray[np.float32]  # (N, M), columns in the order of `labels`


class Prediction(NamedTuple):
    label: str
    probability: float


class Model(Protocol):
    """What runs behind a Classifier: `torch_model.TorchModel`, or `onnx_model.OnnxModel` without torch."""

    @property
    def labels(self) -> list[str]: ...

    def probabilities(self, examples: Sequence[Example]) -> Probabilities:
        """Of each example's classes, in order; texts are cut to the length that the model was trained with."""
        ...


class Classifier:
    """A student (or teacher) as it was saved or exported, with its tokenizer and the names of its labels."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load what `metakd export` or `metakd distill` wrote, or any Hugging Face sequence classifier.

        An exported folder needs no torch. Raises InputError.
        """
        if (Path(folder) / "model.onnx").is_file():
            from metakd.onnx_model import OnnxModel

            return cls(OnnxModel.load(Path(folder)))
        for module in ("torch", "transformers", "accelerate"):
            require(module, "train")
        from metakd.torch_model import TorchModel

        return cls(TorchModel.load(resolve(str(folder))))

    @property
    def labels(self) -> list[str]:
        return self.model.labels

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Prediction]:
        """The likeliest label of each text (or pair of texts) and its probability, in order."""
        if isinstance(texts, str):
            raise InputError("predict takes a list of texts; for one text, predict([text])")
        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        return self.predict_examples([Example("", first, second, label="", domain="") for first, second in pairs])

    def predict_examples(self, examples: Sequence[Example]) -> list[Prediction]:
        labels, found = self.labels, self.model.probabilities(examples)
        best = found.argmax(-1) if len(found) else []
        return [Prediction(labels[i], float(own[i])) for i, own in zip(best, found, strict=True)]
