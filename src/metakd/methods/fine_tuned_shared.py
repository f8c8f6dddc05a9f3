"""The rival: the same small model on labels alone, first all domains', then its own."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import nn

from metakd import losses
from metakd.batching import Batch
from metakd.config import Settings
from metakd.encoders import EncoderOutputs
from metakd.losses import LossTerms, Term
from metakd.meta_teacher import TeacherOutputs
from metakd.methods.base import Need, Setup, Stage


class FineTunedShared:
    """Cross-entropy to the labels, pass for pass where a taught student has its teacher's terms."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.settings)

    def stages(self) -> list[Stage]:
        settings, stages = self.settings, []
        if settings.shared_epochs:
            shared = settings.shared_epochs, settings.rival_learning_rate
            stages.append(Stage("share", *shared, terms=("class",), shared=True))
        own = settings.predict_epochs + (settings.match_epochs if settings.stages == "two" else 0)
        if own:
            rate = settings.predict_learning_rate if stages else settings.rival_learning_rate
            stages.append(Stage("fine_tune", own, rate, terms=("class",)))
        return stages

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        return {"class": Term(losses.cross_entropy(student.logits, batch["labels"]))}
