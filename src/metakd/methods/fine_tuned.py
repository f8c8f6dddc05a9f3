"""The same small model, fine-tuned on its domain's labels by someone who has no teacher."""

from __future__ import annotations

import math
from typing import ClassVar, Self

from torch import nn

from metakd import losses
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage
from metakd.models.encoder import EncoderOutputs
from metakd.models.meta_teacher import TeacherOutputs


class FineTuned:
    """Cross-entropy to the labels, in one stage of as many updates as a taught student has behind it.

    The updates of the shared start, which are made on all domains' text, are made on its own domain's instead.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self, stages: list[Stage]) -> None:
        self._stages = stages

    @classmethod
    def build(cls, setup: Setup) -> Self:
        settings = setup.settings
        epochs = math.ceil(settings.shared_epochs * setup.updates_of_all / setup.updates) + settings.domain_epochs
        return cls([Stage("fine_tune", epochs, settings.baseline_learning_rate, terms=("class",))])

    def stages(self) -> list[Stage]:
        return self._stages

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        return {"class": Term(losses.cross_entropy(student.logits, batch["labels"]))}
