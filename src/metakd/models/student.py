"""A student: cut from some layers of an encoder, or a checkpoint of any width; and which teacher layers it imitates."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from metakd.models.linear import use_quick_linear
from metakd.models.loading import label_maps
from metakd.utils.errors import InputError, raise_faults

CUT = re.compile(r"layers=(\d+)")
PER_LAYER = re.compile("layer|window|block")  # in names of a configuration's lists with an entry for each layer


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
    steps = range(1, student_layers + 1)
    rounded = [max(1, (2 * j * teacher_layers + student_layers) // (2 * student_layers)) for j in steps]
    return rounded if explicit == "auto" else _listed_layers("--layer-map", explicit, teacher_layers, rounded)


def _listed_layers(flag: str, explicit: str, most: int, example: Sequence[int]) -> list[int]:
    """The layers of a list such as '2,4,6'; InputError unless it has as many as `example`, each from 1 to `most`."""
    try:
        layers = [int(part) for part in explicit.split(",")]
    except ValueError:
        layers = []
    if len(layers) != len(example) or any(not 1 <= layer <= most for layer in layers):
        raise InputError(
            f"{flag} = {explicit!r}: expected {len(example)} numbers from 1 to {most}, one for each student layer, "
            f"for instance {','.join(map(str, example))}"
        )
    return layers


def start_layers(source: PreTrainedModel, count: int, explicit: str = "auto", layer_map: str = "auto") -> list[int]:
    """The layers of `source` (1 is the first) that a student of `count` layers starts from.

    By default those of the layer map. Where a layer has other weights than the student's has place for, as the layers
    after ModernBERT's first, which alone has no norm, the nearest layer that fits takes its place.

    Args:
        source: The base or the teacher; its weights are not read.
        count: The student's layers.
        explicit: 'auto', or a list such as '1,2,4'.
        layer_map: The setting of that name, for 'auto'.

    Raises:
        InputError: A list does not fit, or names a layer that cannot be cut to this place.
    """
    depth, kind = source.config.num_hidden_layers, source.config.model_type
    weights = [_weights_of(source, layer) for layer in range(1, depth + 1)]
    fitting = [[n for n in range(1, depth + 1) if weights[n - 1] == weights[place]] for place in range(count)]
    if explicit == "auto":
        mapped = zip(map_layers(count, depth, layer_map), fitting, strict=True)
        return [min(fit, key=lambda layer: abs(layer - wanted)) for wanted, fit in mapped]
    layers = _listed_layers("--start-layers", explicit, depth, map_layers(count, depth))
    faults = [
        f"layer {layer} has other weights than layer {place} of a {kind}; choose one of {', '.join(map(str, fit))}"
        for place, (layer, fit) in enumerate(zip(layers, fitting, strict=True), 1)
        if layer not in fit
    ]
    raise_faults(f"--start-layers = {explicit!r}", faults)
    return layers


def cut_config(config: Any, layers: Sequence[int]) -> Any:
    """The configuration of a model of these layers (1 is the first); lists with an entry for each layer are cut too."""
    cut, depth = copy.deepcopy(config), config.num_hidden_layers
    cut.num_hidden_layers = len(layers)
    for name, value in vars(config).items():
        if PER_LAYER.search(name) and isinstance(value, list | tuple) and len(value) == depth:
            setattr(cut, name, [value[layer - 1] for layer in layers])
    return cut


def cut_student(source: PreTrainedModel, layers: Sequence[int], labels: Sequence[str] | None = None) -> PreTrainedModel:
    """A new model with the weights of `source`: its embeddings, these layers (1 is the first) and its head.

    Its classes are `labels`, by default those of `source`; several classification heads side by side become their mean.
    """
    config = cut_config(source.config, layers)
    if labels is not None:
        config.update(label_maps(labels))
    student = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    stacks, weights, state = layer_stacks(source), source.state_dict(), student.state_dict()
    for name, new in state.items():
        value = weights[_origin(name, stacks, layers)]
        state[name] = value if value.shape == new.shape else value.view(-1, *new.shape).mean(0)
    student.load_state_dict(state)
    use_quick_linear(student)
    return student


def blank_student(source: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """The same model without weights: to plan with, not to run."""
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(cut_config(source.config, layers))


def layer_stacks(model: PreTrainedModel) -> list[str]:
    """Names of the module lists with an entry for each layer, such as 'bert.encoder.layer'.

    Most models have one, FlauBERT has one for each part of a layer, and ALBERT, whose layers share weights, has none.
    """
    depth = model.config.num_hidden_layers
    lists = {name for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth}
    return sorted(name for name in lists if not any(name.startswith(f"{other}.") for other in lists))


def _origin(name: str, stacks: Sequence[str], layers: Sequence[int]) -> str:
    """The name in the source of a student's parameter."""
    for stack in stacks:
        if name.startswith(f"{stack}."):
            place, _, rest = name.removeprefix(f"{stack}.").partition(".")
            return f"{stack}.{layers[int(place)] - 1}.{rest}"
    return name


def _weights_of(model: PreTrainedModel, layer: int) -> dict[str, torch.Size]:
    """Shapes of the parameters and buffers of a layer (1 is the first), by their names within it."""
    return {
        f"{stack} {name}": value.shape
        for stack in layer_stacks(model)
        for name, value in model.get_submodule(stack)[layer - 1].state_dict().items()
    }
