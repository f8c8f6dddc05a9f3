"""The rival: the same small model, fine-tuned on its domain's labels by someone who has no teacher."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import nn

from metakd import losses
from metakd.batching import Batch
from metakd.encoders import EncoderOutputs
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage, updates_of


class FineTuned:
    """Cross-entropy to the labels, in one stage of as many updates as the other methods take."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @classmethod
    def build(cls, setup: Setup) -> Self:
        planned = updates_of(setup.settings)
        fastest = max(learning_rate for _, _, learning_rate in planned)
        return cls(Stage("fine_tune", sum(epochs for _, epochs, _ in planned), fastest, ("class",)))

    def stages(self) -> list[Stage]:
        return [self._stage]

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: EncoderOutputs | None, stage: Stage) -> LossTerms:
        return {"class": Term(losses.cross_entropy(student.logits, batch["labels"]))}
