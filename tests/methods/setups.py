"""Teacher, student and batch that the tests of all methods start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from conftest import toy_examples
from metakd.config.settings import Settings
from metakd.data.tokenization import Batch, Collator, encode
from metakd.methods.base import Setup
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.models.meta_teacher import MetaTeacher, TeacherOutputs, freeze
from metakd.models.student import cut_student
from metakd.training.distillation_module import Distillation
from metakd.utils.hardware import Precision

LABELS = ["a", "b"]


def setup_of(
    folder: Path,
    student: Path | None = None,
    same_tokens: bool = True,
    precision: Precision = "float32",
    **settings: Any,
) -> Setup:
    """A two-layer cut of an untrained teacher of two domains in `folder`, or the checkpoint `student`."""
    torch.manual_seed(0)
    teacher = freeze(MetaTeacher(load_encoder(folder, LABELS), 2, "false", 0.5))
    model = load_encoder(student, LABELS) if student else cut_student(teacher.encoder, [2, 4])
    built = Settings.build(settings)
    return Setup(built, model.eval(), student is None, teacher, same_tokens, 2, 10, 25, precision)


def batch_of(
    folder: Path, domains: Sequence[int] = (0, 1, 1, 0), labels: Sequence[int] = (0, 1, 0, 1), seed: int = 0
) -> Batch:
    features = encode(load_tokenizer(folder, 16), toy_examples(4, seed, "t"), 16)
    weights = {"instance_weights": torch.tensor([0.5, 1.0, 2.0, 0.5])}
    return Collator(0)([*features]) | weights | {"labels": torch.tensor(labels), "domains": torch.tensor(domains)}


def teacher_outputs(learner: Distillation, batch: Batch) -> TeacherOutputs:
    outputs = learner.teacher_outputs(batch)
    assert outputs is not None
    return outputs
