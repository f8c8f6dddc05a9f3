"""What dev has decided of a trained model, in a file beside it: its temperature, and the thresholds of its labels."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from metakd.inference.thresholds import are_thresholds
from metakd.models.class_head import find_head
from metakd.utils.artifacts import write_json
from metakd.utils.errors import InputError

CALIBRATION_FILE = "calibration.json"


class Calibration(NamedTuple):
    """What dev has decided of a model; by default nothing."""

    temperature: float = 1.0  # by which its logits are divided
    thresholds: tuple[float, ...] = ()  # of its labels, if a text may have several; none: one half


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Say in a trained model's folder what dev has decided; defaults are not written."""
    path, usual = folder / CALIBRATION_FILE, Calibration()
    decided = {n: value for n, value in calibration._asdict().items() if value != getattr(usual, n)}
    if decided:
        write_json(path, decided)
    else:
        path.unlink(missing_ok=True)


def load_calibration(folder: Path, labels: int | None = None) -> Calibration:
    """What `write_calibration` wrote; InputError if that is damaged, or not of a model with so many `labels`."""
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return Calibration()
    try:
        values = json.loads(path.read_bytes())
        if not values or {*values} - {*Calibration._fields}:
            raise ValueError
        temperature, thresholds = values.get("temperature", 1.0), values.get("thresholds", [])
        if not (type(temperature) in (int, float) and 0 < temperature < float("inf")):
            raise ValueError
        if not are_thresholds(thresholds, labels if "thresholds" in values else None):
            raise ValueError
    except (ValueError, TypeError, AttributeError):
        again = "score its run again with `metakd evaluate RUN`, or repeat your `metakd fit` command"
        raise InputError(f"{path} is damaged; delete it, and {again}") from None
    return Calibration(float(temperature), tuple(thresholds))


def recorded_calibration(figures: Mapping[str, Any], domain: str) -> Calibration:
    """That of a domain's student by a run's `calibration`; in fit.json there is one for each size of students."""
    thresholds = figures.get("thresholds", {}).get("student", {}).get(domain, {})
    return Calibration(figures.get("temperatures", {}).get(domain, 1.0), tuple(thresholds.values()))


def divide_logits(network: PreTrainedModel, temperature: float) -> None:
    """Fold a temperature into the layer that computes the logits, so that all that is made of the model has it."""
    head = find_head(network)
    if temperature == 1 or head is None:
        return
    head.weight.data /= temperature
    if head.bias is not None:
        head.bias.data /= temperature
