"""A baseline: the same small model, fine-tuned on its domain's labels without a teacher."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from metakd import losses
from metakd.data.samplers import updates_per_epoch
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage, domain_epochs
from metakd.models.encoder import EncoderOutputs
from metakd.models.meta_teacher import TeacherOutputs


@dataclass(eq=False)
class FineTuned:
    """Cross-entropy to the labels, in one stage with as many updates as a distilled student gets.

    The updates of the shared start, on all domains' text, become updates on the student's domain.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    _stages: list[Stage]

    @classmethod
    def build(cls, setup: Setup) -> Self:
        settings = setup.settings
        updates, updates_of_all = (updates_per_epoch(n, settings.batch_size) for n in (setup.rows, setup.rows_of_all))
        epochs = math.ceil(settings.shared_epochs * updates_of_all / updates) + domain_epochs(settings)
        return cls([Stage("fine_tune", epochs, settings.baseline_learning_rate, terms=("class",))])

    def stages(self) -> list[Stage]:
        return self._stages

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        cross_entropy = losses.cross_entropy(student.logits, batch["labels"])
        return {"class": Term(cross_entropy, weights=batch.get("class_weights"))}
