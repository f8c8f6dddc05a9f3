"""What a model has answered, on disk as soon as it is there: work that was paid for is never lost."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from metakd.utils.artifacts import fingerprint
from metakd.utils.console import notice
from metakd.utils.errors import InputError


class AllRefusedError(InputError):
    """The model refuses every text that it was asked for, though it may have answered others before."""


class Answers:
    """Scores of the labels by prompt, in a file with a row for each; what is there is not asked again.

    An answer that named no label is None. Rows of other models or other words stay in the file, unused.
    """

    def __init__(self, path: Path, model: str, words: Mapping[str, str]) -> None:
        """`model` stands for all that the scores depend on besides prompt and words."""
        self.path = path
        self._asked = fingerprint(model, [*words.items()])
        self._scores: dict[str, list[float] | None] = {}
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # a process ended while it wrote
            os.truncate(path, len(whole))
        damaged = 0
        for row in whole.splitlines():
            try:
                self._scores |= {json.loads(row)["key"]: json.loads(row)["scores"]}
            except (ValueError, KeyError, TypeError):
                damaged += 1
        if damaged and not self._scores:
            raise InputError(f"{path}: not answers of `metakd label`; move the file, or delete it to ask again")
        if damaged:
            notice(f"{path}: {damaged:,} of its rows are damaged; those texts are asked again")

    def __contains__(self, prompt: str) -> bool:
        return self._key(prompt) in self._scores

    def scores(self, prompt: str) -> list[float] | None:
        """The scores (M,) for a prompt; None if it has no answer, or one that named no label."""
        return self._scores.get(self._key(prompt))

    def add(self, answered: Mapping[str, Sequence[float] | None]) -> None:
        """Write the scores for some prompts; InputError for numbers that are not finite."""
        if not all(math.isfinite(value) for scores in answered.values() for value in scores or ()):
            raise InputError("the model's scores are not finite, as those of float16 weights may be; use another model")
        rows = {self._key(prompt): None if scores is None else [*scores] for prompt, scores in answered.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"key": key, "scores": scores}) + "\n" for key, scores in rows.items())
            file.flush()
            os.fsync(file.fileno())
        self._scores |= rows

    def _key(self, prompt: str) -> str:
        return fingerprint(self._asked, prompt)
