"""MetaDistil: a teacher that learns to teach from how its student does in a quiz [Zhou, Xu and McAuley, ACL 2022].

arXiv 2106.04570. θ are the student's weights, φ the teacher's, η the stage's learning rate, μ the teacher's. Before
each update of the student, on the batch that it is about to learn from:

    θ'(φ) = θ − η ∇θ L_S(θ, φ)          the pilot update, which is thrown away
    φ ← φ − μ ∇φ L_quiz(θ'(φ))          what the teacher learns from it
    θ ← AdamW on L_S(θ, φ)              the real update, by the teacher that has learnt

The teacher starts as the meta-teacher, anew for every student and for the shared start, and is not saved.

Other than in the authors' script: the temperature is the setting's, 1 by default; no layers are matched beside the
predictions (their PKD term); the quiz is one batch; AdamW's ε is smaller. The meta-gradient is η times a loss's
gradient, so that PyTorch's 1e-8 would swallow it and leave the teacher where it was.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import AdamW
from transformers import PreTrainedModel

from metakd import losses
from metakd.config.settings import Settings
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage
from metakd.models.encoder import EncoderOutputs, forward
from metakd.models.meta_teacher import MetaTeacher, TeacherOutputs
from metakd.utils.hardware import Precision, autocast

# As in the authors' training script for text.
SOFT_SHARE = 0.5  # of the teacher's soft targets in the loss; the rest is the labels'
TEACHER_LEARNING_RATE = 1e-5  # μ, of AdamW without weight decay
LARGEST_NORM = 1.0  # to which the teacher's gradient is clipped
SMALLEST_GRADIENT = 1e-15  # ε of the teacher's AdamW; ours


class MetaDistil:
    """L_S = mean_i [(1 − α) CE(y_i, student) + α L_pred], where the teacher of L_pred learns before each update."""

    needs: ClassVar[frozenset[Need]] = frozenset({"live_teacher", "held_out_split"})

    def __init__(self, settings: Settings, precision: Precision, teacher: MetaTeacher) -> None:
        self.settings = settings
        self.precision = precision
        self.teacher = teacher
        self.learning = list(teacher.encoder.requires_grad_(True).parameters())  # φ: all but the head for domains
        self.optimizer = AdamW(self.learning, TEACHER_LEARNING_RATE, eps=SMALLEST_GRADIENT, weight_decay=0.0)

    @classmethod
    def build(cls, setup: Setup) -> Self:
        assert setup.teacher is not None
        return cls(setup.settings, setup.precision, setup.teacher)

    def stages(self) -> list[Stage]:
        settings, terms, stages = self.settings, ("class", "prediction"), []
        if settings.shared_epochs:
            shared = settings.shared_epochs, settings.shared_learning_rate
            stages.append(Stage("share", *shared, terms, shared=True))
        if settings.domain_epochs:
            stages.append(Stage("predict", settings.domain_epochs, settings.predict_learning_rate, terms))
        return stages

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        assert teacher is not None
        soft = losses.prediction_loss(student.logits, teacher.logits, self.settings.temperature)
        return {
            "class": Term(losses.cross_entropy(student.logits, batch["labels"]), coefficient=1 - SOFT_SHARE),
            "prediction": Term(soft, coefficient=SOFT_SHARE),
        }

    def before_update(self, student: PreTrainedModel, batch: Batch, held_out: Batch, stage: Stage) -> Tensor:
        """φ ← φ − μ ∇φ L_quiz(θ'(φ)), by AdamW; the student stays as it is. Gives L_quiz."""
        asked = self.meta_validation_loss(student, batch, held_out, stage)
        for weight, gradient in zip(self.learning, self.meta_gradient(asked), strict=True):
            weight.grad = gradient
        nn.utils.clip_grad_norm_(self.learning, LARGEST_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return asked.detach()

    def meta_validation_loss(self, student: PreTrainedModel, batch: Batch, held_out: Batch, stage: Stage) -> Tensor:
        """L_quiz(θ'(φ)) -> scalar: cross-entropy of the student as `pilot` leaves it, without dropout."""
        weights, training = self.pilot(student, batch, stage), student.training
        student.eval()
        with autocast(self.precision):
            all_predictions = forward(lambda **inputs: functional_call(student, weights, kwargs=inputs), held_out)
        student.train(training)
        return losses.cross_entropy(all_predictions.logits, held_out["labels"]).mean()

    def pilot(self, student: PreTrainedModel, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """The pilot update θ'(φ) = θ − η ∇θ L_S(θ, φ), by name, as a function of φ.

        One plain step down the gradient, where the real update is AdamW's. Attention is written out in it, as fused
        attention has no second derivative.
        """
        weights = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
        with autocast(self.precision):
            taught = self.teacher.outputs(batch)
            with sdpa_kernel(SDPBackend.MATH):
                ours = forward(student, batch)
            loss = losses.reduce(self.loss(ours, batch, taught, stage))
        gradients = torch.autograd.grad(loss, [*weights.values()], create_graph=True, materialize_grads=True)
        steps = zip(weights.items(), gradients, strict=True)
        return {name: weight - stage.learning_rate * gradient for (name, weight), gradient in steps}

    def meta_gradient(self, asked: Tensor) -> tuple[Tensor, ...]:
        """∇φ L_quiz(θ'(φ)), exact, through θ': one tensor a weight of the teacher."""
        return torch.autograd.grad(asked, self.learning, materialize_grads=True)
