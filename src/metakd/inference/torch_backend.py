"""A saved Hugging Face sequence classifier on PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from metakd.data.examples import check_pairs
from metakd.data.schema import Example
from metakd.data.tokenization import Collator, TokenStore, encode
from metakd.models.forward_passes import predict
from metakd.models.loading import load_classifier, load_tokenizer
from metakd.models.model_checks import readable_length
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
        positions = getattr(network.config, "max_position_embeddings", None)
        if positions and getattr(network.config, "text_pairs", None) is None:  # not a model of ours, whose length fits
            most = min(tokenizer.model_max_length, positions)
            tokenizer.model_max_length = readable_length(network.eval(), tokenizer, most)
        return cls(network.to(device or hardware.device()), tokenizer)

    @property
    def labels(self) -> list[str]:
        return [self.network.config.id2label[i] for i in range(self.network.config.num_labels)]

    @property
    def pairs(self) -> bool | None:
        """Whether it reads pairs of texts; None if its folder does not say so."""
        return getattr(self.network.config, "text_pairs", None)

    def probabilities(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """(N, M), columns in the order of `labels`."""
        check_pairs(examples, self.pairs)
        store, length = self.store, self.tokenizer.model_max_length
        features = store.encode(examples) if store else encode(self.tokenizer, examples, length)
        return predict(self.network, features, self.collator).numpy()
