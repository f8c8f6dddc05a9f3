"""Student, method and teacher as one module whose forward gives the loss terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.data.tokenization import Batch
from metakd.losses import LossTerms
from metakd.methods.base import MetaValidatedMethod, Method, Stage
from metakd.models.attention import attend_here
from metakd.models.encoder import forward
from metakd.models.meta_teacher import MetaTeacher, TeacherOutputs, assert_frozen
from metakd.training.teacher_cache import TeacherCache

CACHE_ROW = "cache_row"  # column of features: the example's row in the teacher's cache


class Distillation(nn.Module):
    """Student and the method's trainable modules; the teacher stays outside of what is trained with them and saved.

    What the teacher says is read from `cache` where that holds it, and asked of `teacher` else; each may be None.
    """

    def __init__(
        self, student: PreTrainedModel, method: Method, teacher: MetaTeacher | None, cache: TeacherCache | None
    ) -> None:
        super().__init__()
        self.student = student
        self.extras = nn.ModuleDict(dict(method.trainable_modules()))
        self.method = method
        self._teacher = (teacher,)  # in a tuple, so that it is no submodule: never trained, never saved
        self._cache = cache
        self.enter(method.stages()[0])

    @property
    def backbone(self) -> PreTrainedModel:
        return self.student

    @property
    def teacher(self) -> MetaTeacher | None:
        return self._teacher[0]

    def enter(self, stage: Stage) -> None:
        """Compute the terms of `stage` from now on, with what attention is matched by in both models or without."""
        self.stage = stage
        matched = bool(stage.layers.attention)
        attend_here(self.student, "scores" if matched else "nothing")
        if self.teacher is not None:
            attend_here(self.teacher.encoder, "factors" if matched else "nothing")

    @torch.no_grad()
    def taught(self, batch: Batch) -> TeacherOutputs | None:
        """What the teacher says of a batch; it is frozen, unless the method has it learn."""
        layers = self.stage.layers
        if self._cache is not None and self._cache.holds(batch[CACHE_ROW], layers):
            return self._cache.read(batch[CACHE_ROW], layers)
        if self.teacher is None:
            return None
        if "live_teacher" not in self.method.needs:
            assert_frozen(self.teacher)
        return self.teacher.outputs(batch, layers)

    def before_update(self, batch: Batch, held_out: Batch) -> Tensor:
        """What the method does with a quiz before the student learns from `batch`; the loss of it."""
        assert isinstance(self.method, MetaValidatedMethod)
        return self.method.before_update(self.student, batch, held_out, self.stage)

    def forward(self, **batch: Tensor) -> LossTerms:
        taught = self.taught(batch)
        student = forward(self.student, batch, attentions=bool(self.stage.layers.attention))
        return self.method.loss(student, batch, taught, self.stage)
