"""Student, method and teacher as one module that Trainer can train: its forward returns the loss terms."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.data.tokenization import Batch
from metakd.losses import LossTerms
from metakd.methods.base import MetaValidatedMethod, Method, Stage
from metakd.models.attention import set_attention
from metakd.models.encoder import forward
from metakd.models.meta_teacher import MetaTeacher, TeacherOutputs, assert_frozen
from metakd.training.teacher_cache import TeacherCache

CACHE_ROW = "cache_row"  # column of the features: the example's row in the teacher cache


class Distillation(nn.Module):
    """The student and the method's trainable modules, which are trained, and a teacher, which is not.

    Teacher outputs are read from `cache` if it has them, and computed by `teacher` otherwise; both may be None.
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
        """Compute the terms of `stage` from now on; attention that it matches is recorded in both models."""
        self.stage = stage
        matched = bool(stage.layers.attention)
        set_attention(self.student, "scores" if matched else "nothing")
        if self.teacher is not None:
            set_attention(self.teacher.encoder, "factors" if matched else "nothing")

    def forward(self, **batch: Tensor) -> LossTerms:
        teacher_outputs = self.teacher_outputs(batch)
        student_outputs = forward(self.student, batch, attentions=bool(self.stage.layers.attention))
        return self.method.loss(student_outputs, batch, teacher_outputs, self.stage)

    @torch.no_grad()
    def teacher_outputs(self, batch: Batch) -> TeacherOutputs | None:
        """Cached outputs of the teacher, or live ones; None without a teacher."""
        layers = self.stage.layers
        if self._cache is not None and self._cache.holds(batch[CACHE_ROW], layers):
            return self._cache.read(batch[CACHE_ROW], layers)
        if self.teacher is None:
            return None
        if "live_teacher" not in self.method.needs:
            assert_frozen(self.teacher)
        return self.teacher.outputs(batch, layers)

    def before_update(self, batch: Batch, held_out: Batch) -> Tensor:
        """Let the method update its teacher before the student learns from `batch`; returns the held-out loss."""
        assert isinstance(self.method, MetaValidatedMethod)
        return self.method.before_update(self.student, batch, held_out, self.stage)
