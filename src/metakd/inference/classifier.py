"""Use a saved classifier: texts in, labels and probabilities out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from metakd.data.examples import open_file, stream
from metakd.data.schema import Example
from metakd.models.hub import resolve
from metakd.utils.artifacts import MANIFEST, changed_files, put, read_manifest
from metakd.utils.console import Progress
from metakd.utils.errors import Faults, InputError, require

CHUNK = 2048  # rows of a file that are read and labelled at a time
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

        An exported folder needs no torch. Raises InputError, also where a file is not what its manifest says.
        """
        _refuse_changed(Path(folder))
        if (Path(folder) / "model.onnx").is_file():
            from metakd.inference.onnx_backend import OnnxModel

            return cls(OnnxModel.load(Path(folder)))
        if (Path(folder) / "model.json").is_file():
            raise InputError(f"{folder}: an export that has lost its model.onnx; copy it or export it anew")
        for module in ("torch", "transformers", "accelerate"):
            require(module, "train")
        from metakd.inference.torch_backend import TorchModel

        return cls(TorchModel.load(resolve(str(folder))))

    @property
    def labels(self) -> list[str]:
        return self.model.labels

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Prediction]:
        """The likeliest label of each text (or pair of texts) and its probability, in order."""
        if isinstance(texts, str):
            raise InputError("predict takes a list of texts; for one text, predict([text])")
        if not all(map(_is_text, texts)):
            raise InputError("predict takes strings, or pairs of strings; some of these texts are neither")
        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        return self.predict_examples([Example("", first, second, label="", domain="") for first, second in pairs])

    def predict_examples(self, examples: Sequence[Example]) -> list[Prediction]:
        labels, found = self.labels, self.model.probabilities(examples)
        best = found.argmax(-1) if len(found) else []
        return [Prediction(labels[i], float(own[i])) for i, own in zip(best, found, strict=True)]


def _is_text(given: object) -> bool:
    if isinstance(given, tuple | list):
        return len(given) == 2 and all(isinstance(part, str) for part in given)
    return isinstance(given, str)


def _refuse_changed(folder: Path) -> None:
    """InputError where a file that metakd wrote is another now; cards may be written on."""
    manifest = read_manifest(folder)
    mend = f"copy or make it anew, or delete its {MANIFEST} to use it as it is"
    if manifest is None and (folder / MANIFEST).exists():
        raise InputError(f"{folder}: {MANIFEST} is torn; {mend}")
    if manifest and "step" in manifest:
        changed = [name for name in changed_files(folder, manifest) if not name.endswith(".md")]
        if changed:
            raise InputError(f"{folder}: not what {MANIFEST} says: {', '.join(changed)}; {mend}")


def label_file(
    classifier: Classifier, source: Path, output: Path, *, columns: Mapping[str, str], encoding: str = "utf-8"
) -> int:
    """Write a line with id, label and probability for each row of a file, in order; returns how many there are.

    Reads and writes CHUNK rows at a time and keeps nothing of them, so the file may be larger than memory. Raises
    InputError with every fault (`errors.Faults`), and leaves no `output` then.
    """
    faults, kinds, count = Faults(str(source)), set[bool](), 0
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    rows = stream(open_file(source, encoding), faults, columns=columns)
    try:
        with partial.open("w", encoding="utf-8") as file, Progress("label texts", None) as progress:
            while chunk := list(islice(rows, CHUNK)):
                kinds |= {example.text_pair is not None for example in chunk}
                if faults or len(kinds) > 1:
                    continue  # nothing will come of it but the list of faults
                for example, (label, probability) in zip(chunk, classifier.predict_examples(chunk), strict=True):
                    row = {"id": example.id, "label": label, "probability": round(probability, 6)}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += len(chunk)
                progress.advance(len(chunk))
        if len(kinds) > 1:
            faults.append("text_pair is missing on some rows and there on others; give it to all rows or to none")
        if faults:
            raise InputError.collect(str(source), faults)
        put(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    return count
