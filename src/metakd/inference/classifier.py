"""`Classifier`: a saved or exported model that predicts labels of texts, with probabilities."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from metakd.config.settings import LONGEST, Settings
from metakd.data.schema import Example
from metakd.data.windows import Reading
from metakd.inference.layout import DESCRIPTION_FILE, EXPORT, FIT_FILE, QUANTIZED, WHOLE, onnx_file
from metakd.inference.long_texts import Model, Probabilities, reading_by
from metakd.models.hub import resolve
from metakd.utils.artifacts import MANIFEST, RUN_FILE, changed_files, read_manifest
from metakd.utils.console import notice
from metakd.utils.errors import InputError, flag, require, shell_command, shown
from metakd.utils.validation import damage

Texts = Sequence[str] | Sequence[tuple[str, str]]


class Prediction(NamedTuple):
    """A label of a text, and its probability from 0 to 1."""

    label: str
    probability: float


class Classifier:
    """A saved or exported student (or teacher) with its tokenizer and labels."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def from_pretrained(
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

    @property
    def several_labels(self) -> bool:
        """Whether a text may have several of its labels, or none."""
        return self.model.several_labels

    @property
    def thresholds(self) -> dict[str, float]:
        """The probability of each label above which a text is given it, if it may have several."""
        return dict(zip(self.labels, self.model.thresholds.tolist(), strict=True))

    @overload
    def predict(self, texts: Texts) -> list[Any]: ...

    @overload
    def predict(self, texts: Texts, top_k: int) -> list[list[Prediction]]: ...

    def predict(self, texts: Texts, top_k: int | None = None) -> list[Any]:
        """The likeliest label of each text (or pair of texts) and its probability, in order.

        Args:
            texts: Strings, or pairs of them. Long ones are read as far as `reading` says.
            top_k: So many labels of each text instead, the likeliest first; all if there are fewer.

        Returns:
            A Prediction for each text. With `top_k`, a list of so many, the likeliest first. Without it, if a text may
            have `several_labels`, a list of those with a probability above their `thresholds`, which may be empty.

        Raises:
            InputError: `texts` is a string or holds something else, or are single texts for a model that reads pairs,
                or the other way round; or `top_k` is not positive.
        """
        if top_k is None:
            return self.predict_examples(_as_examples(texts))
        if top_k < 1:
            raise InputError(f"top_k = {top_k}: must be at least 1")
        return [self._ranked(row)[:top_k] for row in self.predict_proba(texts)]

    def _ranked(self, probabilities: NDArray[np.float32]) -> list[Prediction]:
        """All labels of a text, the likeliest first."""
        return [Prediction(self.labels[i], float(probabilities[i])) for i in (-probabilities).argsort(kind="stable")]

    def predict_proba(self, texts: Texts) -> Probabilities:
        """The probabilities of all labels for each text, (N, M), in the order of `labels`.

        Args:
            texts: Strings, or pairs of them.

        Raises:
            InputError: As `predict` does.
        """
        return self.model.answers(_as_examples(texts)).probabilities

    def predict_examples(self, examples: Sequence[Example]) -> list[Any]:
        """The same for examples.

        Args:
            examples: Rows of a dataset; their labels and domains are not read.
        """
        labels, probabilities = self.labels, self.model.answers(examples).probabilities
        if self.several_labels:
            least = self.thresholds
            return [
                [each for each in self._ranked(row) if each.probability > least[each.label]] for row in probabilities
            ]
        best = probabilities.argmax(-1) if len(probabilities) else []
        return [Prediction(labels[i], float(row[i])) for i, row in zip(best, probabilities, strict=True)]


def _load(folder: str | Path) -> Model:
    _refuse_changed(Path(folder))
    if onnx_file(Path(folder)):
        from metakd.inference.onnx_backend import OnnxModel

        return OnnxModel.load(Path(folder))
    if (Path(folder) / DESCRIPTION_FILE).is_file():
        raise InputError(
            f"{folder}: {WHOLE} (or, in int8, {QUANTIZED}) is missing from this export; copy it or export it again"
        )
    is_run, is_exports = (Path(folder) / RUN_FILE).is_file(), (read_manifest(Path(folder)) or {}).get("step") == EXPORT
    if is_run or is_exports or (Path(folder) / FIT_FILE).is_file():
        raise InputError(
            f"{folder}: has a model for each domain; load {folder}/{'students/' * is_run}DOMAIN, or label a file by "
            f"all of them with {shell_command('predict', folder, '--input', 'FILE', '--output', 'FILE')}"
        )
    for module in ("torch", "transformers", "accelerate"):
        require(module, "train")
    from metakd.inference.torch_backend import TorchModel

    place = resolve(str(folder))
    _refuse_heads(place)
    return TorchModel.load(place)


def _refuse_heads(folder: Path) -> None:
    """Raise InputError for a run's meta-teacher that has a classification head for each domain."""
    run, heads = folder.resolve().parent, "one"
    if (read_manifest(folder) or {}).get("step") == "teach":
        with contextlib.suppress(OSError, ValueError, LookupError):
            heads = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["settings"]["heads"]
    if heads == "domain":
        students = shell_command("predict", run, "--input", "FILE", "--output", "FILE")
        raise InputError(
            f"{folder}: has a classification head for each domain (--heads domain); use its students: {students}"
        )


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


def _as_examples(texts: Texts) -> list[Example]:
    if isinstance(texts, str):
        raise InputError("expected a list of texts; for one text, put it into a list: [text]")
    return [_as_example(text) for text in texts]


def _as_example(text: object) -> Example:
    match text:
        case str():
            example = Example("", text, None, label="", domain="")
        case [str() as first, str() as second]:
            example = Example("", first, second, label="", domain="")
        case _:
            raise InputError("predict takes strings or pairs of strings; some of these texts are neither")
    if fault := damage(example.text) or damage(example.text_pair or ""):
        raise InputError(f"the text {shown(text)} {fault}")
    return example


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
