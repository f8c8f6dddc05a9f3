"""Each domain's student also learns from the other domains' examples, weighted by transfer (metakd's own method)."""

from typing import ClassVar

from metakd.data.tokenization import Batch
from metakd.losses import LossTerms
from metakd.methods.base import Need, Stage
from metakd.methods.meta_kd import MetaKD
from metakd.models.encoder import EncoderOutputs
from metakd.models.meta_teacher import TeacherOutputs


class CrossDomain(MetaKD):
    """L_S = mean_i λ_i · w_i [MetaKD's terms], over all domains' examples, after the same shared start.

    w_i is 1 for the domain's examples, and `prototypes.transfer_weights` for those of other domains.
    """

    needs: ClassVar[frozenset[Need]] = MetaKD.needs | {"foreign_text"}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        terms = super().loss(student, batch, teacher, stage)
        if stage.shared:
            return terms
        transfer = batch["transfer"]
        return {
            name: term._replace(weights=transfer if term.weights is None else transfer * term.weights)
            for name, term in terms.items()
        }
