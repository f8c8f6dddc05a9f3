"""An exported classifier, as ONNX Runtime runs it: numpy, tokenizers and onnxruntime are all that it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from metakd.errors import InputError
from metakd.examples import Example

MODEL_FILE, TOKENIZER_FILE, DESCRIPTION_FILE = "model.onnx", "tokenizer.json", "model.json"
BATCH = 32


class OnnxModel:
    """`description` has the labels, the longest input in tokens, and the id of the padding token."""

    def __init__(
        self, session: onnxruntime.InferenceSession, tokenizer: Tokenizer, description: dict[str, Any]
    ) -> None:
        self.session = session
        self.tokenizer = tokenizer
        self.labels: list[str] = description["labels"]
        self.pad_id = int(description["pad_token_id"])
        self.inputs = [entry.name for entry in session.get_inputs()]
        tokenizer.enable_truncation(description["max_length"])
        tokenizer.no_padding()

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> Self:
        """`threads` of one operator; 0 lets ONNX Runtime choose. Raises InputError for what `export` did not write."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            session = onnxruntime.InferenceSession(folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])
            return cls(session, tokenizer, description)
        except Exception as error:  # tokenizers and ONNX Runtime raise their own, some of them plain Exception
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{folder}: not a model that `metakd export` wrote ({reason})") from None

    def probabilities(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """(N, M), columns in the order of `labels`."""
        texts = [e.text if e.text_pair is None else (e.text, e.text_pair) for e in examples]
        encoded = self.tokenizer.encode_batch_fast(texts)
        found = np.zeros((len(examples), len(self.labels)), np.float32)
        order = np.argsort([len(encoding.ids) for encoding in encoded], kind="stable")
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            (logits,) = self.session.run(None, self._batch([encoded[i] for i in places]))
            found[places] = _softmax(logits)
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


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))
