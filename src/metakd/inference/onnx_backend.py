"""An exported classifier on ONNX Runtime; needs no torch."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from metakd.data.examples import check_pairs
from metakd.data.schema import Example
from metakd.data.windows import Reading, first_tokens, following_windows
from metakd.inference.layout import DESCRIPTION_FILE, TOKENIZER_FILE, WHOLE, onnx_file
from metakd.inference.long_texts import Answers, Probabilities, joined, probabilities, read_on
from metakd.inference.thresholds import HALF, are_thresholds
from metakd.utils.errors import InputError, as_input_error
from metakd.utils.hardware import usable_cores
from metakd.utils.validation import check_files, open_tokenizer

ATTRIBUTES = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}  # of an Encoding
BATCH = 16  # texts; larger ones leave the processor's caches, and pad more
SLICE = 16_384  # texts whose tokens are in memory at a time
SLOWER = ["SkipLayerNormFusion"]  # adding and normalising in one node takes longer than in two (docs/performance.md)


class OnnxModel:
    """An ONNX model on all cores: a few texts share them in each matrix product, many texts run one batch per core.

    `description` has the labels, the maximum input length in tokens, how long texts are read, whether it reads pairs of
    texts, and the id of the padding token.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer, description: Mapping[str, Any], threads: int) -> None:
        self.path = path
        self.threads = threads
        self.session = _session(path, threads)
        self.tokenizer = tokenizer
        self.max_length: int = description["max_length"]
        self.reading = Reading(**{"max_length": self.max_length, **description.get("reading", {})})
        self.most_tokens: int = int(description.get("most_tokens", self.reading.max_length))
        self.labels: list[str] = description["labels"]
        classes = self.session.get_outputs()[0].shape[-1]
        wrong = isinstance(classes, int) and classes != len(self.labels)
        if wrong or not all(isinstance(label, str) for label in self.labels):
            raise InputError(f"{DESCRIPTION_FILE}, labels: expected {classes} names")
        self.pairs: bool | None = description.get("pairs")
        if self.pairs not in (None, True, False):
            raise InputError(f"{DESCRIPTION_FILE}, pairs: expected true, false or null")
        self.several_labels: bool = description.get("several_labels", False)
        if self.several_labels not in (True, False):
            raise InputError(f"{DESCRIPTION_FILE}, several_labels: expected true or false")
        thresholds = description.get("thresholds", [HALF] * len(self.labels))
        if not are_thresholds(thresholds, len(self.labels)):
            raise InputError(f"{DESCRIPTION_FILE}, thresholds: expected {len(self.labels)} numbers between 0 and 1")
        self.thresholds = np.array(thresholds, np.float64)
        self.pad_id = int(description["pad_token_id"])
        self.inputs = [entry.name for entry in self.session.get_inputs()]

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> Self:
        """The model that `export` wrote, on `threads` threads (0: one per core); InputError for other folders."""
        with as_input_error(f"{folder}: not a model exported by `metakd export`"):
            check_files(folder)
            description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            tokenizer = read_tokenizer(folder, description["max_length"])
            model = cls(onnx_file(folder) or folder / WHOLE, tokenizer, description, threads or usable_cores())
            model.read_as(model.reading)
            return model

    def read_as(self, reading: Reading) -> None:
        """Read texts in another way from now on."""
        self.reading = reading
        self.tokenizer.enable_truncation(reading.max_length)

    def readable_tokens(self, wanted: int) -> int:
        """The most tokens, up to `wanted`, that it is known to have positions for."""
        return min(wanted, self.most_tokens)

    @cached_property
    def session_of_one_thread(self) -> onnxruntime.InferenceSession:
        return _session(self.path, 1)

    @cached_property
    def untruncated(self) -> Tokenizer:
        """Its tokenizer without truncation."""
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.no_truncation()
        return tokenizer

    def answers(self, examples: Sequence[Example]) -> Answers:
        """Class probabilities, in the order of `labels`; of long texts as `reading` says."""
        check_pairs(examples, self.pairs)
        starts = range(0, max(1, len(examples)), SLICE)
        return joined([self._answers(examples[start : start + SLICE]) for start in starts])

    def _answers(self, examples: Sequence[Example]) -> Answers:
        """Those of so many texts that their tokens are small in memory."""
        texts, length = [e.inputs for e in examples], self.reading.max_length
        encoded = first_tokens(self.tokenizer, texts, length)

        def cut(rows: Sequence[int]) -> list[list[Encoding]]:
            return following_windows(self.untruncated, [texts[row] for row in rows], self.reading)

        full = np.array([len(encoding) >= length for encoding in encoded], bool)
        return read_on(self.of_tokens(encoded), full, self.reading, cut, self.of_tokens, self.several_labels)

    def of_tokens(self, encoded: Sequence[Encoding]) -> Probabilities:
        """(N, M), of windows that are tokenised already."""
        order = np.argsort([len(encoding) for encoding in encoded], kind="stable")
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        p = np.zeros((len(encoded), len(self.labels)), np.float32)

        def fill(session: onnxruntime.InferenceSession, batch: NDArray[np.int64]) -> None:
            (logits,) = session.run(None, self._padded([encoded[i] for i in batch]))
            p[batch] = probabilities(logits, self.several_labels)

        if self.threads == 1 or len(batches) < 2 * self.threads:
            for batch in batches:
                fill(self.session, batch)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(partial(fill, self.session_of_one_thread), batches))  # a list, so that errors are raised
        return p

    def _padded(self, encoded: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        """The network's inputs, each (B, L), padded to the longest text."""
        shape, inputs = (len(encoded), max(map(len, encoded))), {}
        for name in self.inputs:
            inputs[name] = np.full(shape, self.pad_id if name == "input_ids" else 0, np.int64)
            for row, encoding in zip(inputs[name], encoded, strict=True):
                row[: len(encoding)] = getattr(encoding, ATTRIBUTES[name])
        return inputs


def read_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """The tokenizer, set to truncate texts to `max_length` tokens and not to pad them."""
    tokenizer = open_tokenizer(folder / TOKENIZER_FILE)
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER)
