"""A saved Hugging Face sequence classifier on PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from metakd.data.schema import Example
from metakd.data.tokenization import Collator, TokenStore, encode
from metakd.models.forward_passes import predict
from metakd.models.loading import load_classifier, load_tokenizer, usable_length
from metakd.utils import hardware


class TorchModel:
    """A saved student (or teacher) with its tokenizer; in eval mode and float32."""

    def __init__(self, network: PreTrainedModel, tokenizer: Any) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.collator = Collator(tokenizer.pad_token_id)
        self.store: TokenStore | None = None  # keeps the tokens of texts that other models read too

    @classmethod
    def load(cls, folder: Path, device: torch.device | str | None = None) -> Self:
        """The model in `folder`, on `device`: by default a GPU if there is one.

        Raises InputError if it is not a text classifier.
        """
        network, tokenizer = load_classifier(folder), load_tokenizer(folder)
        tokenizer.model_max_length = min(tokenizer.model_max_length, usable_length(network.config))
        return cls(network.to(device or hardware.device()), tokenizer)

    @property
    def labels(self) -> list[str]:
        return [self.network.config.id2label[i] for i in range(self.network.config.num_labels)]

    def probabilities(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """(N, M), columns in the order of `labels`."""
        store, length = self.store, self.tokenizer.model_max_length
        features = store.encode(examples) if store else encode(self.tokenizer, examples, length)
        return predict(self.network, features, self.collator).numpy()
