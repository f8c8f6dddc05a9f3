"""Teacher, student and batch that the tests of all methods start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from conftest import WORDS, encoded
from metakd.config.settings import Settings
from metakd.data.tokenization import Batch, Collator
from metakd.methods.base import Method, Setup
from metakd.models.loading import load_encoder
from metakd.models.meta_teacher import MetaTeacher, TeacherOutputs, freeze
from metakd.models.student import cut_student
from metakd.training.distillation_module import Distillation

LABELS = ["a", "b"]
OTHER_WORDS = [*WORDS[:5], *reversed(WORDS[5:])]
Numbers = Sequence[int]


def setup_of(folder: Path, student: Path | None = None, same_tokens: bool = True, **settings: Any) -> Setup:
    """A two-layer cut of an untrained teacher of two domains in `folder`, or the checkpoint `student`."""
    torch.manual_seed(0)
    teacher = freeze(MetaTeacher(load_encoder(folder, LABELS), 2, "false", 0.5))
    model = load_encoder(student, LABELS) if student else cut_student(teacher.encoder, [2, 4])
    built = Settings.build({"precision": "float32", **settings})
    return Setup(built, model.eval(), student is None, teacher, same_tokens, 2, 320, 800, built.precision)


def batch_of(folder: Path, domains: Numbers = (0, 1, 1, 0), labels: Numbers = (0, 1, 0, 1), seed: int = 0) -> Batch:
    weights = [0.5, 1.0, 2.0, 0.5]
    return Collator(0)(encoded(folder, 4, seed, labels=labels, domains=domains, instance_weights=weights))


def learner_of(method: type[Method], setup: Setup) -> Distillation:
    return Distillation(setup.student, method.build(setup), setup.teacher, None).eval()


def teacher_outputs(learner: Distillation, batch: Batch) -> TeacherOutputs:
    outputs = learner.teacher_outputs(batch)
    assert outputs is not None
    return outputs
