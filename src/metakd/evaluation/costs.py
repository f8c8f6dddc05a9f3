"""The costs of a model: parameters, bytes, milliseconds for one text at a time."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metakd.data.schema import Example
from metakd.inference.classifier import Classifier, Model
from metakd.inference.torch_backend import TorchModel
from metakd.utils.console import notice

SHIPPED_FILES = ("*.safetensors", "tokenizer.json", "config.json")
LATENCY_TEXTS = 100
LATENCY_WARMUP = 10
BUSY = 100  # preemptions per second (and in all) above which the machine counts as busy


def costs_of(path: Path, model: TorchModel, examples: Sequence[Example]) -> dict[str, Any]:
    """Parameters, bytes and latency of the model that was loaded from `path`."""
    return {
        "parameters": model.network.num_parameters(),
        "bytes": shipped_bytes(path),
        "latency_ms": measure_latency(model, examples),
    }


def shipped_bytes(folder: Path) -> int:
    """Bytes of a model's weights, tokenizer and configuration."""
    files = [file for pattern in SHIPPED_FILES for file in folder.glob(pattern)]
    return sum(file.stat().st_size for file in files if file.name != "domain_head.safetensors")


def measure_latency(model: Model, examples: Sequence[Example]) -> dict[str, Any]:
    """The latency of one text at a time, tokenising included."""
    return latency(Classifier(model).predict_examples, examples)


def latency(predict: Callable[[list[Example]], Any], examples: Sequence[Example]) -> dict[str, Any]:
    """Milliseconds that `predict` takes for one text: median and 95th percentile over 100 texts.

    With `busy`, and a notice, if other processes used the cores meanwhile, because the times are then too long.
    """
    times, begun, before = list[float](), time.perf_counter(), _preemptions()
    for i in range(LATENCY_WARMUP + LATENCY_TEXTS):
        started = time.perf_counter()
        predict([examples[i % len(examples)]])
        times.append(1000 * (time.perf_counter() - started))
    busy = _preemptions() - before > BUSY * max(1, time.perf_counter() - begun)
    if busy:
        notice(
            "other processes used the cores while latency was measured, so the latencies are too high; "
            "measure again when the machine is idle"
        )
    median, p95 = np.percentile(times[LATENCY_WARMUP:], [50, 95])
    return {"median": round(float(median), 3), "p95": round(float(p95), 3)} | ({"busy": True} if busy else {})


def _preemptions() -> int:
    """How often this process lost a core to another; 0 if the system does not count it."""
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return 0
