"""The costs of a model: parameters, bytes, latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metakd.data.schema import Example
from metakd.evaluation.latency import latency
from metakd.inference.classifier import Classifier, Model
from metakd.inference.torch_backend import TorchModel
from metakd.models.student import count_parameters

SHIPPED_FILES = ("*.safetensors", "tokenizer.json", "config.json")


def shipped_bytes(folder: Path) -> int:
    """Of a model's weights, tokenizer and configuration."""
    files = [file for pattern in SHIPPED_FILES for file in folder.glob(pattern)]
    return sum(file.stat().st_size for file in files if file.name != "domain_head.safetensors")


def measure_latency(model: Model, examples: Sequence[Example]) -> dict[str, float]:
    """Milliseconds of one text at a time, tokenising included: median and 95th percentile."""
    return latency(Classifier(model).predict_examples, examples)


def costs_of(path: Path, model: TorchModel, examples: Sequence[Example]) -> dict[str, Any]:
    """Parameters, bytes and latency of the model that was loaded from `path`."""
    return {
        "parameters": count_parameters(model.network),
        "bytes": shipped_bytes(path),
        "latency_ms": measure_latency(model, examples),
    }
