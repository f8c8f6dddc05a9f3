"""An exported classifier, as ONNX Runtime runs it: numpy, tokenizers and onnxruntime are all that it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from metakd.data.schema import Example
from metakd.utils.errors import InputError, refusing
from metakd.utils.hardware import usable_cores
from metakd.utils.validation import check_files, open_tokenizer

MODEL_FILE, TOKENIZER_FILE, DESCRIPTION_FILE = "model.onnx", "tokenizer.json", "model.json"
BATCH = 16  # texts; larger ones leave the processor's caches, and pad more
CHARACTERS = 6  # for each token that is read: more of a long text is tokenised only if that much has too few tokens
SLOWER = ["SkipLayerNormFusion"]  # adding and normalising in one node takes longer than in two (docs/performance.md)


class OnnxModel:
    """Few texts share the processor's cores within each product; many go to all cores side by side, a batch to each.

    `description` has the labels, the longest input in tokens, and the id of the padding token.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer, description: dict[str, Any], threads: int) -> None:
        self.path = path
        self.threads = threads
        self.session = _session(path, threads)
        self.tokenizer = tokenizer
        self.labels: list[str] = description["labels"]
        classes = self.session.get_outputs()[0].shape[-1]
        wrong = isinstance(classes, int) and classes != len(self.labels)
        if wrong or not all(isinstance(label, str) for label in self.labels):
            raise InputError(f"{DESCRIPTION_FILE}: expected the names of {classes} labels")
        self.pad_id = int(description["pad_token_id"])
        self.inputs = [entry.name for entry in self.session.get_inputs()]

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> Self:
        """`threads` to use, 0 for as many as there are cores. Raises InputError for what `export` did not write."""
        with refusing(f"{folder}: not a model that `metakd export` wrote"):
            check_files(folder)
            description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            tokenizer = read_tokenizer(folder, description["max_length"])
            return cls(folder / MODEL_FILE, tokenizer, description, threads or usable_cores())

    @cached_property
    def session_of_one_thread(self) -> onnxruntime.InferenceSession:
        return _session(self.path, 1)

    def probabilities(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """(N, M), columns in the order of `labels`."""
        texts = [e.text if e.text_pair is None else (e.text, e.text_pair) for e in examples]
        return self.of_tokens(first_tokens(self.tokenizer, texts))

    def of_tokens(self, encoded: Sequence[Encoding]) -> NDArray[np.float32]:
        """The same of texts that are tokens already."""
        order = np.argsort([len(encoding.ids) for encoding in encoded], kind="stable")
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        found = np.zeros((len(encoded), len(self.labels)), np.float32)

        def fill(session: onnxruntime.InferenceSession, places: NDArray[np.int64]) -> None:
            (logits,) = session.run(None, self._batch([encoded[i] for i in places]))
            found[places] = _softmax(logits)

        if self.threads == 1 or len(batches) < 2 * self.threads:
            for places in batches:
                fill(self.session, places)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(partial(fill, self.session_of_one_thread), batches))  # a list, so that errors are raised
        return found

    def _batch(self, encoded: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        """Tensors (B, L), padded to the longest."""
        shape = len(encoded), max(len(encoding.ids) for encoding in encoded)
        batch = {
            "input_ids": np.full(shape, self.pad_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, encoding in enumerate(encoded):
            length = len(encoding.ids)
            batch["input_ids"][row, :length] = encoding.ids
            batch["attention_mask"][row, :length] = 1
            batch["token_type_ids"][row, :length] = encoding.type_ids
        return {name: batch[name] for name in self.inputs}


def read_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Texts are cut to `max_length` tokens and not padded, whatever the file itself says of both."""
    tokenizer = open_tokenizer(folder / TOKENIZER_FILE)
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


def first_tokens(tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]]) -> list[Encoding]:
    """The tokens of texts, as many as `tokenizer` truncates to; of a long text no more is looked at than they need."""
    assert tokenizer.truncation is not None
    most = tokenizer.truncation["max_length"]
    begun = [*texts]
    if _splits_at_spaces(tokenizer):
        begun = [_beginning(text, CHARACTERS * most) if isinstance(text, str) else text for text in texts]
    encoded = tokenizer.encode_batch_fast(begun)
    short = [i for i, own in enumerate(encoded) if begun[i] is not texts[i] and len(own.ids) < most]
    for i, own in zip(short, tokenizer.encode_batch_fast([texts[i] for i in short]), strict=True):
        encoded[i] = own
    return encoded


def _splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether what stands before a space has the same tokens whatever follows, as is sure of BERT's own way."""
    berts = isinstance(tokenizer.normalizer, BertNormalizer) and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
    return berts and not any(" " in token.content for token in tokenizer.get_added_tokens_decoder().values())


def _beginning(text: str, least: int) -> str:
    """At least so many characters, to the next space; the text itself where that is all of it."""
    end = text.find(" ", least)
    return text if end < 0 else text[:end]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER)
