"""The schema of the data: names of splits and fields, and a checked example."""

from dataclasses import dataclass

SPLITS = ("train", "dev", "test")
FIELDS = ("text", "text_pair", "label", "domain", "id")
LABELLED = ("text", "label", "domain")  # fields of every row to learn from


@dataclass(frozen=True, slots=True)
class Example:
    """One text (or pair of texts) of one domain; `label` is empty in a file without labels."""

    id: str
    text: str
    text_pair: str | None
    label: str
    domain: str

    @property
    def inputs(self) -> str | tuple[str, str]:
        """What a model reads of it: its text, or both texts of a pair."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)
