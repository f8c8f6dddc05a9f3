"""MetaDistil: a teacher that learns to teach from its student's held-out loss [Zhou, Xu and McAuley, ACL 2022].

arXiv 2106.04570. θ are the student's weights, φ the teacher's, η the stage's learning rate, μ the teacher's. Each
update of the student on a batch is preceded by an update of the teacher (meta-validation):

    θ'(φ) = θ − η ∇θ L_S(θ, φ)          the pilot update of the student, which is discarded
    φ ← φ − μ ∇φ L_val(θ'(φ))           the teacher's update; L_val is the loss on a held-out batch
    θ ← AdamW on L_S(θ, φ)              the real update of the student, by the updated teacher

For every student, and for the shared start, the teacher starts as the meta-teacher again. It is not saved.

Differences from the authors' script: the temperature is the setting's, 1 by default; no layers are matched (their PKD
term); a held-out batch is one batch; AdamW's ε is smaller, because the meta-gradient has a factor of η and
PyTorch's 1e-8 would leave the teacher almost unchanged.
"""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import AdamW
from transformers import PreTrainedModel

from metakd import losses
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage, shared_then_domain
from metakd.models.encoder import EncoderOutputs, forward
from metakd.models.meta_teacher import TeacherOutputs
from metakd.utils.hardware import autocast

# As in the authors' training script for text, except for ε.
SOFT_SHARE = 0.5  # α: weight of the teacher's soft targets in the loss; the labels have the rest
TEACHER_LEARNING_RATE = 1e-5  # μ, of AdamW without weight decay
MAX_GRADIENT_NORM = 1.0  # of the teacher's gradient
TEACHER_EPSILON = 1e-15  # ε of the teacher's AdamW


class MetaDistil:
    """L_S = mean_i [(1 − α) CE(y_i, student) + α L_pred], by a teacher that is updated before each update of L_S."""

    needs: ClassVar[frozenset[Need]] = frozenset({"live_teacher", "held_out_split"})

    def __init__(self, setup: Setup) -> None:
        assert setup.teacher is not None
        self.settings, self.precision, self.teacher = setup.settings, setup.precision, setup.teacher
        self.teacher_weights = [*self.teacher.encoder.requires_grad_(True).parameters()]  # φ: all but the domain head
        self.optimizer = AdamW(self.teacher_weights, TEACHER_LEARNING_RATE, eps=TEACHER_EPSILON, weight_decay=0.0)

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup)

    def stages(self) -> list[Stage]:
        return shared_then_domain(self.settings, ("class", "prediction"))

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        assert teacher is not None
        several, temperature = batch["labels"].dim() > 1, self.settings.temperature
        soft = losses.prediction_loss(student.logits, teacher.logits, temperature, several=several)
        hard = losses.cross_entropy(student.logits, batch["labels"])
        return {
            "class": Term(hard, coefficient=1 - SOFT_SHARE, weights=batch.get("class_weights")),
            "prediction": Term(soft, coefficient=SOFT_SHARE),
        }

    def before_update(self, student: PreTrainedModel, batch: Batch, held_out: Batch, stage: Stage) -> Tensor:
        """φ ← φ − μ ∇φ L_val(θ'(φ)), by AdamW; returns L_val. The student stays as it is."""
        loss = self.meta_validation_loss(student, batch, held_out, stage)
        for weight, gradient in zip(self.teacher_weights, self.meta_gradient(loss), strict=True):
            weight.grad = gradient
        nn.utils.clip_grad_norm_(self.teacher_weights, MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def meta_validation_loss(self, student: PreTrainedModel, batch: Batch, held_out: Batch, stage: Stage) -> Tensor:
        """L_val(θ'(φ)) -> scalar: cross-entropy on the held-out batch after the pilot update, without dropout."""
        weights, training = self.pilot(student, batch, stage), student.training
        student.eval()
        with autocast(self.precision):
            outputs = forward(lambda **inputs: functional_call(student, weights, kwargs=inputs), held_out)
        student.train(training)
        return losses.cross_entropy(outputs.logits, held_out["labels"]).mean()

    def pilot(self, student: PreTrainedModel, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """The pilot update θ'(φ) = θ − η ∇θ L_S(θ, φ), by name, as a function of φ.

        It is one plain gradient step, while the real update is AdamW's. Attention uses PyTorch's plain kernel, because
        fused attention has no second derivative.
        """
        weights = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
        with autocast(self.precision):
            targets = self.teacher.outputs(batch)
            with sdpa_kernel(SDPBackend.MATH):
                outputs = forward(student, batch)
            loss = losses.reduce(self.loss(outputs, batch, targets, stage))
        gradients = torch.autograd.grad(loss, [*weights.values()], create_graph=True, materialize_grads=True)
        steps = zip(weights.items(), gradients, strict=True)
        return {name: weight - stage.learning_rate * gradient for (name, weight), gradient in steps}

    def meta_gradient(self, loss: Tensor) -> tuple[Tensor, ...]:
        """∇φ L_val(θ'(φ)), exact, through θ': one tensor per weight of the teacher."""
        return torch.autograd.grad(loss, self.teacher_weights, materialize_grads=True)
