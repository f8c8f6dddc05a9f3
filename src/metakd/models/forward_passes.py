"""Passes without learning, from the shortest text to the longest: predictions, E(x), and what a teacher says."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.data.samplers import ordered_batches
from metakd.data.tokenization import Batch, Collator, Encoded
from metakd.models.attention import attend_here
from metakd.models.encoder import EncoderOutputs, forward
from metakd.models.meta_teacher import MetaTeacher, TeacherLayers, TeacherOutputs, assert_frozen
from metakd.utils.console import Progress
from metakd.utils.hardware import Precision, allocator_tuned, autocast

EVALUATION_BATCH = 64


def batches_in_order(model: nn.Module, features: Encoded, collator: Collator) -> Iterator[tuple[list[int], Batch]]:
    """Batches on the model's device, from the shortest text to the longest, with their indices."""
    device = next(model.parameters()).device
    for indices in ordered_batches(features.lengths, EVALUATION_BATCH):
        yield indices, {name: value.to(device) for name, value in collator([features[i] for i in indices]).items()}


def outputs_in_order(
    model: PreTrainedModel, features: Encoded, collator: Collator, precision: Precision = "float32"
) -> Iterator[tuple[list[int], EncoderOutputs]]:
    """What `model` says in eval mode, batch by batch from the shortest text to the longest, with their indices."""
    model.eval()
    for indices, batch in batches_in_order(model, features, collator):
        with torch.no_grad(), autocast(precision):
            outputs = forward(model, batch)
        yield indices, outputs


def predict(model: PreTrainedModel, features: Encoded, collator: Collator) -> Tensor:
    """Class probabilities (N, M), in the order of `features`."""
    found = torch.zeros(len(features), model.config.num_labels)
    for indices, outputs in outputs_in_order(model, features, collator):
        found[indices] = outputs.logits.softmax(-1).cpu()
    return found


def embed(
    model: PreTrainedModel, features: Encoded, collator: Collator, name: str, precision: Precision, found: Tensor
) -> Tensor:
    """Write E(x) into `found` (N, H), in the order of `features`, and return it."""
    with Progress(name, len(features)) as progress:
        for indices, outputs in outputs_in_order(model, features, collator, precision):
            found[indices] = outputs.pooled.float().cpu()
            progress.advance(len(indices))
    return found


def teacher_outputs_in_order(
    teacher: MetaTeacher, features: Encoded, collator: Collator, layers: TeacherLayers, precision: Precision
) -> Iterator[tuple[list[int], Batch, TeacherOutputs]]:
    """What the frozen teacher says of every example, batch by batch from the shortest text to the longest."""
    assert_frozen(teacher)
    attend_here(teacher.encoder, "factors" if layers.attention else "nothing")
    with Progress("remember what the teacher says", len(features)) as progress, allocator_tuned():
        for indices, batch in batches_in_order(teacher, features, collator):
            with torch.no_grad(), autocast(precision):
                outputs = teacher.outputs(batch, layers)
            yield indices, batch, outputs
            progress.advance(len(indices))
