"""What a model says of a whole text: the mean of the log-probabilities of its windows."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from metakd.data.schema import Example
from metakd.data.windows import Reading
from metakd.utils.artifacts import write_json
from metakd.utils.console import notice
from metakd.utils.errors import InputError

READING_FILE = "reading.json"  # beside a trained model
SLICE = 256  # long texts whose windows are in memory at a time
FURTHEST = 16.0  # logit of one of several labels beyond which probabilities in float32 are rounded to 1
LEAST = 1e-30  # probability that the logarithm of a smaller one is taken of

Probabilities = NDArray[np.float32]  # (N, M), columns in the order of a model's labels


class Answers(NamedTuple):
    """What a model says of N texts."""

    probabilities: Probabilities  # (N, M)
    windows: dict[int, NDArray[np.float32]]  # row -> (W, M), `logs` of its windows' probabilities if it read several

    @property
    def windows_read(self) -> NDArray[np.int64]:
        """Windows read of each text: (N,)."""
        counts = np.ones(len(self.probabilities), np.int64)
        counts[[*self.windows]] = [len(windows) for windows in self.windows.values()]
        return counts


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers to all texts, of those to several parts of them."""
    starts = np.cumsum([0, *(len(part.probabilities) for part in parts)])[:-1].tolist()
    windows = {
        start + row: read for start, part in zip(starts, parts, strict=True) for row, read in part.windows.items()
    }
    return Answers(np.concatenate([part.probabilities for part in parts]), windows)


class Model(Protocol):
    """The model behind a Classifier: `torch_backend.TorchModel`, or `onnx_backend.OnnxModel` without torch."""

    @property
    def labels(self) -> list[str]: ...

    @property
    def several_labels(self) -> bool:
        """Whether a text may have several of its labels, each with a probability by itself."""

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """The probability of each label above which a text is given it, if it may have several: (M,)."""

    @property
    def pairs(self) -> bool | None:
        """Whether it reads pairs of texts; None if that is unknown."""

    @property
    def max_length(self) -> int:
        """Tokens of a text that it was trained to read at once."""

    @property
    def reading(self) -> Reading: ...

    def read_as(self, reading: Reading) -> None: ...

    def readable_tokens(self, wanted: int) -> int:
        """The most tokens, up to `wanted`, that it has positions for."""

    def answers(self, examples: Sequence[Example]) -> Answers:
        """The probabilities of each example's classes; of long texts as `reading` says."""


def read_on(
    first: Probabilities,
    full: NDArray[np.bool_],
    reading: Reading,
    cut: Callable[[Sequence[int]], list[list[Encoding]]],
    predict: Callable[[Sequence[Encoding]], Probabilities],
    several: bool = False,
) -> Answers:
    """The answers from further windows, where the first ones are `full` and leave the model unsure.

    Args:
        first: (N, M), of the first windows. The rows of texts of which no more is read stay as they are.
        full: (N,), whether a first window has no room for more tokens.
        reading: How many windows are read. With `enough`, they are read one after the other, else all at once.
        cut: Rows -> the windows after the first of each [`data.windows.following_windows`].
        predict: Windows -> the class probabilities of each.
        several: Whether a text may have several labels; then `reading` has no `enough`.
    """
    answers = Answers(first.copy(), {})
    long = full & (first.max(-1) < _enough(reading))
    unsure = np.flatnonzero(long).tolist() if reading.most_windows > 1 else []
    for start in range(0, len(unsure), SLICE):
        rows = unsure[start : start + SLICE]
        _read_further(answers, dict(zip(rows, cut(rows), strict=True)), reading, predict, several)
    return answers


def _read_further(
    answers: Answers,
    windows: dict[int, list[Encoding]],
    reading: Reading,
    predict: Callable[[Sequence[Encoding]], Probabilities],
    several: bool,
) -> None:
    """Add the further `windows` of some rows to the answers."""
    most = reading.most_windows - 1
    if any(len(further) > most for further in windows.values()):
        notice(
            f"some texts are longer than {reading.most_windows} windows of {reading.max_length} tokens, and are read "
            "up to there; --most-windows reads more"
        )
    rows, enough, step = [*windows], _enough(reading), 1 if reading.enough is not None else most
    for start in range(0, most, step):
        pieces = {row: part for row in rows if (part := windows[row][start : min(start + step, most)])}
        if not pieces:
            break
        log_p = logs(predict([piece for part in pieces.values() for piece in part]), several)
        ends = np.cumsum([len(part) for part in pieces.values()])[:-1]
        for row, added in zip(pieces, np.split(log_p, ends), strict=True):
            before = answers.windows.get(row, logs(answers.probabilities[row : row + 1], several))
            answers.windows[row] = np.concatenate([before, added])
            answers.probabilities[row] = combined(answers.windows[row], several)[-1]
        rows = [row for row in pieces if confidences(answers.windows[row])[-1] < enough]


def combined(log_p: NDArray[np.float32], several: bool = False) -> Probabilities:
    """The probabilities after each of W windows, by the mean of their `logs` so far: (W, M) -> (W, M)."""
    return probabilities(log_p.cumsum(0) / np.arange(1, len(log_p) + 1)[:, None], several)


def confidences(log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of the likeliest class after each of W windows, as if these were independent: (W, M) -> (W,).

    It decides whether a further window is read: it grows with each that agrees, as the mean does not.
    """
    return np.asarray(softmax(log_p.cumsum(0)).max(-1))


def softmax(logits: NDArray[np.floating[Any]]) -> Probabilities:
    """Over the last axis, without SciPy, which a light install does not have."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def probabilities(logits: NDArray[np.floating[Any]], several: bool) -> Probabilities:
    """Of classes that exclude each other, or of `several` labels: (..., M) -> (..., M)."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float32) if several else softmax(logits)


def logs(p: NDArray[Any], several: bool) -> NDArray[Any]:
    """Logarithms of probabilities, or of their odds if a text may have several labels: (..., M) -> (..., M)."""
    if not several:
        return np.log(p.clip(LEAST))
    return (np.log(p.clip(LEAST)) - np.log((1 - p).clip(LEAST))).clip(-FURTHEST, FURTHEST)


def _enough(reading: Reading) -> float:
    return np.inf if reading.enough is None else reading.enough


def reading_by(settings: Mapping[str, Any], max_length: int, readable_tokens: Callable[[int], int]) -> Reading:
    """What `--long-texts`, `--most-windows`, `--stride` and `--read-length` ask of a model; adaptive is as mean.

    `max_length` and `readable_tokens` are the model's.
    """
    if settings["long_texts"] == "first":
        return Reading(max_length=max_length)
    if settings["long_texts"] == "longer":
        wanted = settings["read_length"]
        length = max(max_length, readable_tokens(wanted))
        if length != wanted:
            limit = "the model is known to read no more" if length < wanted else "the model reads as many in any case"
            notice(f"--read-length {wanted:,}: {length:,} tokens are read, as {limit}")
        return Reading(max_length=length)
    return Reading(max_length=max_length, most_windows=settings["most_windows"], stride=settings["stride"])


def write_reading(folder: Path, reading: Reading) -> None:
    """Say in a trained model's folder how it reads long texts."""
    write_json(folder / READING_FILE, reading.model_dump())


def load_reading(folder: Path) -> Reading | None:
    """What `write_reading` wrote; None for a model that reads the beginning of a text alone."""
    path = folder / READING_FILE
    if not path.is_file():
        return None
    try:
        return Reading.model_validate_json(path.read_bytes())
    except ValueError:
        raise InputError(f"{path} is damaged; delete it, and score its run again with `metakd evaluate RUN`") from None
