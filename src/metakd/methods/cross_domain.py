"""Each domain's student learns from the other domains' examples as well, as far as they transfer. metakd's own."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import nn

from metakd.data.tokenization import Batch
from metakd.losses import LossTerms
from metakd.methods.base import Need, Setup, Stage
from metakd.methods.meta_kd import MetaKD
from metakd.models.encoder import EncoderOutputs
from metakd.models.meta_teacher import TeacherOutputs


class CrossDomain:
    """L_S = mean_i λ_i · w_i [MetaKD's terms], over all domains' examples, after the same shared start.

    w_i is 1 for the domain's own examples, and `prototypes.transfer_weights` for the others'.
    """

    needs: ClassVar[frozenset[Need]] = MetaKD.needs | {"foreign_text"}

    def __init__(self, matching: MetaKD) -> None:
        self.matching = matching

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(MetaKD.build(setup))

    def stages(self) -> list[Stage]:
        return self.matching.stages()

    def trainable_modules(self) -> dict[str, nn.Module]:
        return self.matching.trainable_modules()

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        terms = self.matching.loss(student, batch, teacher, stage)
        if stage.shared:
            return terms
        transfer = batch["transfer"]
        return {
            name: term._replace(weights=transfer if term.weights is None else transfer * term.weights)
            for name, term in terms.items()
        }
