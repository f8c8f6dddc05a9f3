"""What a model has answered, on disk as soon as it is there: work that was paid for is never lost."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from metakd.utils.artifacts import fingerprint
from metakd.utils.errors import InputError


class Answers:
    """Scores of the labels by prompt, in a file with a row for each; what is there is not asked again.

    Rows of other models or other words stay in the file, unused.
    """

    def __init__(self, path: Path, model: str, words: Mapping[str, str]) -> None:
        """`model` stands for all that the scores depend on besides prompt and words."""
        self.path = path
        self._asked = fingerprint(model, [*words.items()])
        self._scores: dict[str, list[float]] = {}
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # a process ended while it wrote
            path.write_bytes(whole)
        for number, row in enumerate(whole.splitlines(), 1):
            try:
                self._scores |= {json.loads(row)["key"]: json.loads(row)["scores"]}
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path}, row {number}: not an answer; delete the file to ask again") from None

    def scores(self, prompt: str) -> list[float] | None:
        """The scores (M,) for a prompt, or None if it has not been answered."""
        return self._scores.get(self._key(prompt))

    def add(self, answered: Mapping[str, Sequence[float]]) -> None:
        """Write the scores for some prompts."""
        rows = {self._key(prompt): [*scores] for prompt, scores in answered.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"key": key, "scores": scores}) + "\n" for key, scores in rows.items())
        self._scores |= rows

    def _key(self, prompt: str) -> str:
        return fingerprint(self._asked, prompt)
