"""What a language model is asked of a text, and the words by which it answers with each label."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metakd.config.settings_file import read_texts_by_key
from metakd.data.schema import Example
from metakd.utils.errors import InputError, listed, raise_faults, shown

FIELDS = ("text", "text_pair", "domain", "labels")  # that a prompt may name in braces
FIELD = re.compile(r"\{(\w+)\}")
SINGLE = "Text: {text}\nLabel:"
CHAT = "Which label fits the text below: {labels}? Answer with the label alone.\n\n"
PAIR = "First text: {text}\nSecond text: {text_pair}\nLabel:"


@dataclass(frozen=True)
class Task:
    """A prompt with fields in braces, and the words for each label."""

    prompt: str
    words: Mapping[str, str]  # by label, in the order of labels

    def ask(self, e: Example) -> str:
        """The prompt for an example."""
        values = {"text": e.text, "text_pair": e.text_pair or "", "domain": e.domain}
        values["labels"] = ", ".join(self.words.values())
        return FIELD.sub(lambda match: values.get(match[1], match[0]), self.prompt)


def read_task(
    labels: Sequence[str], prompt: Path | None, words: Path | None, examples: Sequence[Example], chat: bool
) -> Task:
    """The task of telling `labels` apart.

    Args:
        labels: At least two.
        prompt: A text file with {text}, and if wanted {text_pair}, {domain} and {labels}; None for the default.
        words: A YAML file with the words for each label; None: the label itself.
        examples: The texts, all pairs or none; a prompt names only fields that all of them have.
        chat: Whether the prompt is a message to a chat model, not a text to continue.

    Raises:
        InputError: With all faults of both files.
    """
    faults, pairs = list[str](), examples[0].text_pair is not None
    template = PAIR if pairs else SINGLE
    if chat:
        template = CHAT + template.removesuffix("\nLabel:")
    if prompt is not None:
        template = _read(prompt).rstrip()
        named = {*FIELD.findall(template)}
        needed = ("text", "text_pair") if pairs else ("text",)
        faults += [f"{prompt}: has no {{{name}}}, where the text goes" for name in needed if name not in named]
        faults += [f"{prompt}: {{{n}}} is unknown; fields are {', '.join(FIELDS)}" for n in sorted(named - {*FIELDS})]
        absent = {"text_pair": not pairs, "domain": not all(e.domain for e in examples)}
        faults += [f"{prompt}: names {{{n}}}, which some rows do not have" for n in absent if absent[n] and n in named]
    by_label = {label: label for label in labels} if words is None else _read_words(words, labels, faults)
    raise_faults("the prompt or the words of the labels cannot be used", faults)
    return Task(template, by_label)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None


def _read_words(path: Path, labels: Sequence[str], faults: list[str]) -> dict[str, str]:
    words = {label: text.strip() for label, text in read_texts_by_key(path).items()}
    faults += [f"{path}: no words for the label {shown(label)}" for label in labels if not words.get(label)]
    if unknown := sorted({*words} - {*labels}):
        faults.append(f"{path}: labels that the data do not have: {listed(unknown)}")
    if len({*words.values()}) < len(words):
        faults.append(f"{path}: two labels have the same words")
    return {label: words.get(label, "") for label in labels}
