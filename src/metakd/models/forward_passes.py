"""Forward passes without gradients, from the shortest text to the longest: predictions, E(x), teacher outputs."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.data.samplers import ordered_batches
from metakd.data.tokenization import Batch, Collator, Encoded
from metakd.models.attention import set_attention
from metakd.models.class_head import probabilities
from metakd.models.encoder import forward, model_inputs
from metakd.models.meta_teacher import MetaTeacher, TeacherLayers, TeacherOutputs, assert_frozen
from metakd.utils.console import progress_bar
from metakd.utils.hardware import Precision, allocator_tuned, autocast

EVALUATION_BATCH, MOST_TOKENS = 64, 64 * 512  # texts, and tokens, of a batch


def batches_in_order(model: nn.Module, features: Encoded, collator: Collator) -> Iterator[tuple[list[int], Batch]]:
    """Batches on the model's device, each with the rows of its texts."""
    device = next(model.parameters()).device
    for rows in ordered_batches(features.lengths, EVALUATION_BATCH, MOST_TOKENS):
        yield rows, {name: value.to(device) for name, value in collator([features[row] for row in rows]).items()}


def predict(model: PreTrainedModel, features: Encoded, collator: Collator) -> Tensor:
    """Class probabilities (N, M), in the order of `features`."""
    p = torch.zeros(len(features), model.config.num_labels)
    model.eval()
    for rows, batch in batches_in_order(model, features, collator):
        with torch.no_grad():
            p[rows] = probabilities(model, model(**model_inputs(batch)).logits).cpu()
    return p


def embed(
    model: PreTrainedModel, features: Encoded, collator: Collator, name: str, precision: Precision, vectors: Tensor
) -> Tensor:
    """Write E(x) into `vectors` (N, H), in the order of `features`, and return it; `name` labels the progress bar."""
    model.eval()
    with progress_bar(name, len(features)) as progress:
        for rows, batch in batches_in_order(model, features, collator):
            with torch.no_grad(), autocast(precision):
                pooled = forward(model, batch).pooled
            vectors[rows] = pooled.float().cpu()
            progress(advance=len(rows))
    return vectors


def teacher_outputs_in_order(
    teacher: MetaTeacher, features: Encoded, collator: Collator, layers: TeacherLayers, precision: Precision
) -> Iterator[tuple[list[int], Batch, TeacherOutputs]]:
    """Outputs of the frozen teacher, batch by batch, each with the rows of its texts."""
    assert_frozen(teacher)
    set_attention(teacher.encoder, "factors" if layers.attention else "nothing")
    with progress_bar("cache the teacher's outputs", len(features)) as progress, allocator_tuned():
        for rows, batch in batches_in_order(teacher, features, collator):
            with torch.no_grad(), autocast(precision):
                outputs = teacher.outputs(batch, layers)
            yield rows, batch, outputs
            progress(advance=len(rows))
