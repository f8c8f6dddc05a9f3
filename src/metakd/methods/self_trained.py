"""A baseline: the small model of `fine_tuned_shared` labels the text without labels, and learns from both."""

from typing import ClassVar

from metakd.methods.base import Need
from metakd.methods.fine_tuned_shared import FineTunedShared


class SelfTrained(FineTunedShared):
    """Cross-entropy to labels and to the classes that a first model, trained on labels alone, finds likeliest."""

    needs: ClassVar[frozenset[Need]] = frozenset({"pseudo_labels"})
