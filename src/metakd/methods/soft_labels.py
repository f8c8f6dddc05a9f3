"""From probabilities in the data, as a large model has given them: no teacher, no layers [Hinton et al., 2015]."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import nn

from metakd import losses
from metakd.config.settings import Settings
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage, shared_then_domain
from metakd.models.encoder import EncoderOutputs
from metakd.models.meta_teacher import TeacherOutputs
from metakd.prototypes import expertise_weights


@dataclass(eq=False)
class SoftLabels:
    """L = β · CE(y) + (1 − β) · λ · L_pred(q): q are a row's probabilities, y its gold label, and λ takes q for p.

    β is --gold-weight where a row has both, 1 without q, 0 without y. The student starts from the base.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"soft_labels", "instance_weights"})

    settings: Settings

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.settings)

    def stages(self) -> list[Stage]:
        return shared_then_domain(self.settings, ("class", "prediction"))

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        labels, beta = batch["labels"], batch["gold_weights"]
        q, weights = batch["soft_labels"], 1 - beta
        logits = torch.where(q.sum(1, keepdim=True) > 0, q, 1.0).log()  # -inf stays 0 at any temperature
        if self.settings.expertise != "none":
            hard = self.settings.expertise == "hard"
            weights = weights * expertise_weights(batch["instance_weights"], logits, labels, hard)
        return {
            "class": Term(losses.cross_entropy(student.logits, labels), weights=beta * batch.get("class_weights", 1)),
            "prediction": Term(
                losses.prediction_loss(student.logits, logits, self.settings.temperature), weights=weights
            ),
        }
