"""A student: cut from some layers of an encoder, or a checkpoint of any width; and which teacher layers it imitates."""

import copy
import re
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from metakd.config.settings import Settings
from metakd.models.hub import resolve
from metakd.models.linear import use_quick_linear
from metakd.models.loading import check_length, label_maps, load_config
from metakd.utils.errors import InputError

CUT = re.compile(r"layers=(\d+)")


def layers_to_cut(spec: str) -> int | None:
    """N of 'layers=N', or None if the spec names a checkpoint; raises InputError for anything in between."""
    if match := CUT.fullmatch(spec.replace(" ", "")):
        return int(match.group(1))
    if "=" in spec:
        raise InputError(f"--student = {spec!r}: expected 'layers=N' (N is a number), a folder or a model id")
    return None


def map_layers(student_layers: int, teacher_layers: int, explicit: str = "auto") -> list[int]:
    """The teacher layer (1 is the first) that each student layer imitates: round(j · T / S), halves up.

    An explicit map such as '2,4,6' overrides this; raises InputError if it does not fit.
    """
    if explicit == "auto":
        steps = range(1, student_layers + 1)
        return [max(1, (2 * j * teacher_layers + student_layers) // (2 * student_layers)) for j in steps]
    try:
        layers = [int(part) for part in explicit.split(",")]
    except ValueError:
        layers = []
    if len(layers) != student_layers or any(not 1 <= layer <= teacher_layers for layer in layers):
        raise InputError(
            f"--layer-map = {explicit!r}: expected {student_layers} numbers from 1 to {teacher_layers}, "
            f"one for each student layer, for instance {','.join(map(str, map_layers(student_layers, teacher_layers)))}"
        )
    return layers


def cut_student(source: PreTrainedModel, layers: Sequence[int], labels: Sequence[str] | None = None) -> PreTrainedModel:
    """A new model with the weights of `source`: its embeddings, these layers (1 is the first) and its class head.

    Its classes are `labels`, by default those of `source`; several class heads side by side become their mean.
    """
    config = copy.deepcopy(source.config)
    config.num_hidden_layers = len(layers)
    if labels is not None:
        config.update(label_maps(labels))
    student = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    path, weights, state = _layer_path(source), source.state_dict(), student.state_dict()
    for name, new in state.items():
        origin = name
        if path is not None and name.startswith(path):
            index, _, rest = name.removeprefix(path).partition(".")
            origin = f"{path}{layers[int(index)] - 1}.{rest}"
        value = weights[origin]
        state[name] = value if value.shape == new.shape else value.view(-1, *new.shape).mean(0)
    student.load_state_dict(state)
    use_quick_linear(student)
    return student


def _layer_path(model: PreTrainedModel) -> str | None:
    """Prefix of the stacked layers' parameters, such as 'bert.encoder.layer.'; None where layers share weights."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return f"{name}."
    return None


def check_models(settings: Settings) -> None:
    """Raise InputError unless base and student exist, are long and deep enough, and fit the layer map."""
    base = load_config(resolve(settings.base))
    check_length(base, settings.max_length)
    num_layers = layers_to_cut(settings.student)
    if num_layers is None:
        student = load_config(resolve(settings.student))
        check_length(student, settings.max_length)
        num_layers = student.num_hidden_layers
    elif not 1 <= num_layers <= base.num_hidden_layers:
        most = base.num_hidden_layers
        raise InputError(f"--student = {settings.student!r}: the base has {most} layers; choose 1 to {most}")
    map_layers(num_layers, base.num_hidden_layers, settings.layer_map)
