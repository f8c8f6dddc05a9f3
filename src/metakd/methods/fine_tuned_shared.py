"""The rival: the same small model on labels alone, first all domains', then its own."""

from __future__ import annotations

from typing import Self

from metakd.methods.base import Setup, Stage
from metakd.methods.fine_tuned import FineTuned


class FineTunedShared(FineTuned):
    """Cross-entropy to the labels, pass for pass where a taught student has its teacher's terms."""

    @classmethod
    def build(cls, setup: Setup) -> Self:
        settings, stages = setup.settings, []
        if settings.shared_epochs:
            shared = settings.shared_epochs, settings.baseline_learning_rate
            stages.append(Stage("share", *shared, terms=("class",), shared=True))
        if settings.domain_epochs:
            rate = settings.predict_learning_rate if stages else settings.baseline_learning_rate
            stages.append(Stage("fine_tune", settings.domain_epochs, rate, terms=("class",)))
        return cls(stages)
