"""A baseline: the small model of `fine_tuned_shared` labels the text without labels, and learns from both."""

from typing import ClassVar, Self

from metakd.methods.base import Need, Setup
from metakd.methods.fine_tuned_shared import FineTunedShared
from metakd.utils.errors import InputError


class SelfTrained(FineTunedShared):
    """Cross-entropy to labels and to the classes that a first model, trained on labels alone, finds likeliest."""

    needs: ClassVar[frozenset[Need]] = frozenset({"pseudo_labels"})

    @classmethod
    def build(cls, setup: Setup) -> Self:
        if not setup.settings.shared_epochs:
            remedy = "set --shared-epochs to 1 or more"
            raise InputError(f"--method self_trained: its first model is a shared start; {remedy}")
        return super().build(setup)
