"""The schema of the data: names of splits and fields, and a checked example."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

SPLITS = ("train", "dev", "test")
LEAST_CLASSES = 2  # of a classifier
MOST_LABELS = 10_000  # a class each; more are ids or texts in a wrong column
SOFT = ("probabilities", "teacher_label")
FIELDS = ("text", "text_pair", "label", "labels", "domain", "id", *SOFT)
LABELLED = ("text", "label", "domain")  # fields of every row to learn from
WINDOWS_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)

SoftLabel = tuple[tuple[str, float], ...]  # labels and their probabilities; empty if there are none
Inputs = str | tuple[str, str]  # a text, or a pair


@dataclass(frozen=True, slots=True)
class Example:
    """One text (or pair of texts) of one domain; `label` is empty in a file without labels.

    Without a gold label, it is the likeliest of the soft label. Of a text that may have several `labels`, it is the
    list of them in words.
    """

    id: str
    text: str
    text_pair: str | None
    label: str
    domain: str
    soft_label: SoftLabel = ()
    gold: bool = True
    hard: bool = False  # whether the soft label is a `teacher_label`
    labels: tuple[str, ...] | None = None  # sorted; None for a text that has exactly one, or whose labels are unknown

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that it has."""
        return self.labels if self.labels is not None else (self.label,) if self.label else ()

    @property
    def inputs(self) -> Inputs:
        """What a model reads of it: its text, or both texts of a pair."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


def several_labels(examples: Iterable[Example]) -> bool:
    """Whether one of these texts may have several labels, or none."""
    return any(e.labels is not None for e in examples)


def folder_name(domain: str) -> str:
    """The domain's name as one safe path component: percent-encoded except letters, digits, blanks and '_-'.

    Domains that would share a folder on disks that ignore case are refused by `data.faults.faults_across`.
    """
    name = quote(domain, safe=" ").replace(".", "%2E").replace("~", "%7E")
    return f"%{ord(name[0]):02X}{name[1:]}" if WINDOWS_DEVICES.fullmatch(name) else name
