"""`Classifier`: a saved or exported model that predicts labels of texts, with probabilities."""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

from metakd.config.settings import LONGEST, Settings
from metakd.data.examples import open_file, stream
from metakd.data.schema import Example
from metakd.data.windows import Reading
from metakd.inference.long_texts import Model, reading_by
from metakd.models.hub import resolve
from metakd.utils.artifacts import MANIFEST, changed_files, move_into_place, read_manifest
from metakd.utils.console import notice, progress_bar
from metakd.utils.errors import Faults, InputError, flag, raise_faults, require

CHUNK = 2048  # rows of a file that are read and labelled at a time


class Prediction(NamedTuple):
    """The likeliest label of a text, and its probability from 0 to 1."""

    label: str
    probability: float


class Classifier:
    """A saved or exported student (or teacher) with its tokenizer and labels."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        long_texts: str | None = None,
        most_windows: int | None = None,
        stride: int | None = None,
        read_length: int | None = None,
    ) -> Self:
        """The student or teacher in a folder, as trained or exported, or any Hugging Face sequence classifier.

        Args:
            folder: The model's folder, or a model id. An exported folder needs no torch.
            long_texts: How it reads long texts, as the setting; by default as it was scored.
            most_windows: The most windows of a text.
            stride: Tokens that a window repeats of the one before.
            read_length: Tokens read at once with `long_texts="longer"`.

        Raises:
            InputError: It is no classifier, a file differs from its manifest, it needs torch, which is missing, or one
                of the values on long texts has no effect or cannot be used.
        """
        model = _load(folder)
        wanted = {"most_windows": most_windows, "stride": stride, "read_length": read_length, "long_texts": long_texts}
        if changes := {name: value for name, value in wanted.items() if value is not None}:
            model.read_as(changed_reading(model, changes))
        return cls(model)

    @property
    def labels(self) -> list[str]:
        """The names of its classes."""
        return self.model.labels

    @property
    def reading(self) -> Reading:
        """How much of a long text it reads."""
        return self.model.reading

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Prediction]:
        """The likeliest label of each text (or pair of texts) and its probability, in order.

        Args:
            texts: Strings, or pairs of them. Long ones are read as far as `reading` says.

        Raises:
            InputError: `texts` is a string or holds something else, or are single texts for a model that reads pairs,
                or the other way round.
        """
        if isinstance(texts, str):
            raise InputError("predict takes a list of texts; for one text, call predict([text])")
        return self.predict_examples([_as_example(text) for text in texts])

    def predict_examples(self, examples: Sequence[Example]) -> list[Prediction]:
        """The same for examples.

        Args:
            examples: Rows of a dataset; their labels and domains are not read.
        """
        labels, probabilities = self.labels, self.model.answers(examples).probabilities
        best = probabilities.argmax(-1) if len(probabilities) else []
        return [Prediction(labels[i], float(row[i])) for i, row in zip(best, probabilities, strict=True)]


def _load(folder: str | Path) -> Model:
    _refuse_changed(Path(folder))
    if (Path(folder) / "model.onnx").is_file():
        from metakd.inference.onnx_backend import OnnxModel

        return OnnxModel.load(Path(folder))
    if (Path(folder) / "model.json").is_file():
        raise InputError(f"{folder}: model.onnx is missing from this export; copy it or export it again")
    for module in ("torch", "transformers", "accelerate"):
        require(module, "train")
    from metakd.inference.torch_backend import TorchModel

    return TorchModel.load(resolve(str(folder)))


def changed_reading(model: Model, changes: Mapping[str, Any]) -> Reading:
    """The reading of a model with these changes, which are settings of a run.

    Raises InputError for values that cannot be used, or that have no effect on how the model reads.
    """
    now, length = model.reading, model.max_length
    way = "first" if now.most_windows == 1 else "mean" if now.enough is None else "adaptive"
    way = changes.get("long_texts", "longer" if now.max_length > length else way)
    before: dict[str, Any] = {"max_length": min(length, LONGEST), "stride": now.stride, "long_texts": way}
    before |= {"most_windows": now.most_windows} if now.most_windows > 1 else {}
    settings = Settings.build({**before, **changes}, "how long texts are read")
    effective = {"first": (), "longer": ("read_length",)}.get(way, ("most_windows", "stride"))
    if idle := [flag(name) for name in changes if name not in ("long_texts", *effective)]:
        raise InputError(f"{', '.join(idle)}: no effect with --long-texts {way}; leave it out, or choose another")
    reading = reading_by(settings.model_dump(), length, model.readable_tokens)
    if way == "adaptive" and now.enough is None:
        notice("--long-texts adaptive: this model has no threshold, so it reads all windows")
    return reading.model_copy(update={"enough": now.enough}) if way == "adaptive" else reading


def _as_example(text: object) -> Example:
    match text:
        case str():
            return Example("", text, None, label="", domain="")
        case [str() as first, str() as second]:
            return Example("", first, second, label="", domain="")
    raise InputError("predict takes strings or pairs of strings; some of these texts are neither")


def _refuse_changed(folder: Path) -> None:
    """Raise InputError if a file that metakd wrote has changed since; model cards may be edited."""
    manifest = read_manifest(folder)
    remedy = f"copy or create it again, or delete its {MANIFEST} to use it as it is"
    if manifest is None and (folder / MANIFEST).exists():
        raise InputError(f"{folder}: {MANIFEST} is damaged; {remedy}")
    if manifest and "step" in manifest:
        changed = [name for name in changed_files(folder, manifest) if not name.endswith(".md")]
        if changed:
            raise InputError(f"{folder}: differs from its {MANIFEST}: {', '.join(changed)}; {remedy}")


def label_file(
    classifier: Classifier, source: Path, output: Path, *, columns: Mapping[str, str], encoding: str = "utf-8"
) -> int:
    """Write a line with id, label and probability for each row of a file, in order; returns the number of rows.

    Only CHUNK rows are in memory at a time. Raises InputError with every fault (`errors.Faults`), and then writes no
    `output`.
    """
    faults, kinds, count = Faults(str(source)), set[bool](), 0
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    rows = stream(open_file(source, encoding), faults, columns=columns)
    try:
        with partial.open("w", encoding="utf-8") as file, progress_bar("label texts", None) as progress:
            while chunk := list(islice(rows, CHUNK)):
                kinds |= {example.text_pair is not None for example in chunk}
                if faults or len(kinds) > 1:
                    continue  # after a fault, only more faults are collected
                for example, (label, probability) in zip(chunk, classifier.predict_examples(chunk), strict=True):
                    row = {"id": example.id, "label": label, "probability": round(probability, 6)}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += len(chunk)
                progress(advance=len(chunk))
        if len(kinds) > 1:
            faults.append("text_pair: some rows have it and others do not; add it to all rows or to none")
        raise_faults(str(source), faults)
        move_into_place(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    return count
