"""Build a student: cut from an encoder's layers, or from a checkpoint of any width."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from metakd.config.settings import Settings
from metakd.models.hub import resolve
from metakd.models.layer_map import map_layers
from metakd.models.loading import check_length, load_config
from metakd.utils.errors import InputError

CUT = re.compile(r"layers=(\d+)")


def layers_to_cut(spec: str) -> int | None:
    """N of 'layers=N', or None where the spec names a checkpoint; raises InputError for anything between."""
    match = CUT.fullmatch(spec.replace(" ", ""))
    if match:
        return int(match.group(1))
    if "=" in spec:
        raise InputError(f"student = {spec!r}: expected 'layers=N' with a whole number, a folder or a model id")
    return None


def cut_student(source: PreTrainedModel, layers: Sequence[int], labels: Sequence[str] | None = None) -> PreTrainedModel:
    """A new model with the weights of `source`: its embeddings, the given layers (1 is the first), its classifier.

    It knows the classes `labels`, by default those of `source`; of several class heads side by side it gets the mean.
    """
    config = copy.deepcopy(source.config)
    config.num_hidden_layers = len(layers)
    if labels is not None:
        config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    student = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    weights = source.state_dict()
    path = _layer_path(source)

    def source_name(name: str) -> str:
        if path is None or not name.startswith(path):
            return name
        index, _, rest = name.removeprefix(path).partition(".")
        return f"{path}{layers[int(index)] - 1}.{rest}"

    def value(name: str, shape: torch.Size) -> Tensor:
        found = weights[source_name(name)]
        if labels is None or found.shape == shape or len(found) != source.config.num_labels:
            return found
        return found.view(-1, *shape).mean(0)

    student.load_state_dict({name: value(name, own.shape) for name, own in student.state_dict().items()})
    return student


def _layer_path(model: PreTrainedModel) -> str | None:
    """Prefix of the stacked layers' parameters, such as 'bert.encoder.layer.'; None where layers share weights."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return f"{name}."
    return None


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_models(settings: Settings) -> None:
    """Find base and student; InputError where one is nowhere, too deep or too short, or the layer map does not fit."""
    base = load_config(resolve(settings.base))
    check_length(base, settings.max_length)
    num_layers = layers_to_cut(settings.student)
    if num_layers is None:
        student = load_config(resolve(settings.student))
        check_length(student, settings.max_length)
        num_layers = student.num_hidden_layers
    elif not 1 <= num_layers <= base.num_hidden_layers:
        limit = base.num_hidden_layers
        raise InputError(f"student = {settings.student!r}: the base has {limit} layers; choose 1 to {limit}")
    map_layers(num_layers, base.num_hidden_layers, settings.layer_map)
