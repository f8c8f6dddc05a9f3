"""Build a student: cut from an encoder's layers, or from a checkpoint of any width."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from metakd.errors import InputError

CUT = re.compile(r"layers=(\d+)")


def layers_to_cut(spec: str) -> int | None:
    """N of 'layers=N', or None where the spec names a checkpoint; raises InputError for anything between."""
    match = CUT.fullmatch(spec.replace(" ", ""))
    if match:
        return int(match.group(1))
    if "=" in spec:
        raise InputError(f"student = {spec!r}: expected 'layers=N' with a whole number, a folder or a model id")
    return None


def cut_student(source: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A new model with the weights of `source`: its embeddings, the given layers (1 is the first), its classifier."""
    config = copy.deepcopy(source.config)
    config.num_hidden_layers = len(layers)
    student = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    weights = source.state_dict()
    path = _layer_path(source)

    def source_name(name: str) -> str:
        if path is None or not name.startswith(path):
            return name
        index, _, rest = name.removeprefix(path).partition(".")
        return f"{path}{layers[int(index)] - 1}.{rest}"

    student.load_state_dict({name: weights[source_name(name)] for name in student.state_dict()})
    return student


def _layer_path(model: PreTrainedModel) -> str | None:
    """Prefix of the stacked layers' parameters, such as 'bert.encoder.layer.'; None where layers share weights."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return f"{name}."
    return None


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
