"""The temperature of a trained model, in a file beside it, by which its logits are divided when it is loaded."""

import json
from pathlib import Path

from transformers import PreTrainedModel

from metakd.models.class_head import find_head
from metakd.utils.artifacts import write_json
from metakd.utils.errors import InputError

CALIBRATION_FILE = "calibration.json"


def write_temperature(folder: Path, temperature: float) -> None:
    """Say in a trained model's folder by what its logits are divided; 1 is not written."""
    path = folder / CALIBRATION_FILE
    if temperature == 1:
        path.unlink(missing_ok=True)
    else:
        write_json(path, {"temperature": temperature})


def load_temperature(folder: Path) -> float:
    """What `write_temperature` wrote, or 1; InputError if that is damaged."""
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return 1.0
    try:
        temperature = json.loads(path.read_bytes())["temperature"]
        if not (type(temperature) in (int, float) and 0 < temperature < float("inf")):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} is damaged; delete it, and run `metakd evaluate`, or again `metakd fit`") from None
    return float(temperature)


def divide_logits(network: PreTrainedModel, temperature: float) -> None:
    """Fold a temperature into the layer that computes the logits, so that all that is made of the model has it."""
    head = find_head(network)
    if temperature == 1 or head is None:
        return
    head.weight.data /= temperature
    if head.bias is not None:
        head.bias.data /= temperature
