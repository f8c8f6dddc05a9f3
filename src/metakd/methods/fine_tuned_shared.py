"""The baseline: the same small model, trained on labels only, first on all domains, then on one."""

from typing import Self

from metakd.methods.base import Setup, Stage, domain_epochs
from metakd.methods.fine_tuned import FineTuned


class FineTunedShared(FineTuned):
    """Cross-entropy to the labels, for as many epochs as a distilled student."""

    @classmethod
    def build(cls, setup: Setup) -> Self:
        settings, terms = setup.settings, ("class",)
        rate = settings.predict_learning_rate if settings.shared_epochs else settings.baseline_learning_rate
        stages = [
            Stage("share", settings.shared_epochs, settings.baseline_learning_rate, terms, shared=True),
            Stage("fine_tune", domain_epochs(settings), rate, terms),
        ]
        return cls([stage for stage in stages if stage.epochs])
