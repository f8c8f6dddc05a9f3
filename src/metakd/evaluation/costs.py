"""The costs of a model: parameters, bytes, milliseconds for one text at a time."""

import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from metakd.data.schema import Example
from metakd.data.windows import Reading, following_windows
from metakd.evaluation.metrics import Floats, Ints
from metakd.inference.torch_backend import TorchModel
from metakd.utils.console import notice

SHIPPED_FILES = ("*.safetensors", "tokenizer.json", "config.json")
LATENCY_TEXTS = 100
LATENCY_WARMUP, TURN = 10, 5
LONGEST_REST = 0.1  # seconds
MANY = 3  # windows of a text from which all count as one kind
BUSY = 100  # preemptions per second (and in all) above which the machine counts as busy

Predict = Callable[[list[Example]], Any]


def costs_of(path: Path, model: TorchModel) -> dict[str, Any]:
    """Parameters and bytes of the model that was loaded from `path`, and its architecture, which sets its latency."""
    network, parameters = model.network, model.network.num_parameters()
    shape = f"{network.config.num_hidden_layers} layers of width {network.config.hidden_size}"
    long = {"reading": model.reading.model_dump()} if model.reading.most_windows > 1 else {}
    return long | {
        "parameters": parameters,
        "bytes": shipped_bytes(path),
        "architecture": f"{type(network).__name__}, {shape}, {parameters} parameters",
    }


def shipped_bytes(folder: Path) -> int:
    """Bytes of a model's weights, tokenizer and configuration."""
    files = [file for pattern in SHIPPED_FILES for file in folder.glob(pattern)]
    return sum(file.stat().st_size for file in files if file.name != "domain_head.safetensors")


# --- Latency


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one text at a time, tokenising included."""

    milliseconds: Floats  # (LATENCY_TEXTS,)
    busy: bool  # whether other processes used the cores meanwhile, so that the times are too long
    texts: int = LATENCY_TEXTS  # how many of the texts are different; they come round again in the same order

    def summary(self, windows: Ints | None = None) -> dict[str, Any]:
        """Median and 95th percentile; `busy` only if it is true.

        With the `windows` that each text fills (LATENCY_TEXTS,), if any fills several, the mean of all, and of those
        that fill 1, 2, ... and MANY or more.
        """
        median, p95 = np.percentile(self.milliseconds, [50, 95])
        summary: dict[str, Any] = {"median": round(float(median), 3), "p95": round(float(p95), 3)}
        if windows is not None and windows.max() > 1:
            several = {n: self.milliseconds[windows.clip(max=MANY) == n] for n in range(1, MANY + 1)}
            means = {
                f"{n}{'+' * (n == MANY)}": round(float(times.mean()), 3) for n, times in several.items() if len(times)
            }
            summary |= {"mean": round(float(self.milliseconds.mean()), 3), "by_windows": means}
        return summary | ({"busy": True} if self.busy else {})

    def times(self, other: "Latency") -> tuple[float, float]:
        """The 95 % interval of the median, over texts, of this latency divided by the other's; of order statistics."""
        ratios = self.milliseconds / other.milliseconds
        ratios = np.array([ratios[text :: self.texts].mean() for text in range(min(self.texts, len(ratios)))])
        low, high = stats.quantile_test(ratios, p=0.5).confidence_interval(0.95)
        return float(low), float(high)


def measure_latencies(contenders: Mapping[Any, Predict], examples: Sequence[Example], seed: int) -> dict[Any, Latency]:
    """The latency of each contender, on the same sample of the examples' texts, with a notice if the machine is busy.

    They are timed alternately, TURN texts each, so that whatever slows the machine down slows all of them down. None is
    slowed down by the one before: that one's threads have come to rest, and each reads another text first, which is not
    timed, and so finds its weights in the processor's caches.
    """
    texts = timed_texts(examples, seed)
    milliseconds = {name: list[float]() for name in contenders}
    for predict in contenders.values():
        for text in texts[:LATENCY_WARMUP]:
            predict([text])
    preempted, seconds = 0, 0.0
    for turn in range(LATENCY_TEXTS // TURN):
        for name in [*contenders][:: 1 if turn % 2 else -1]:
            if len(contenders) > 1:
                _rest()
            contenders[name]([texts[turn * TURN - 1]])
            before = _preemptions()
            for text in texts[turn * TURN : (turn + 1) * TURN]:
                started = time.perf_counter()
                contenders[name]([text])
                milliseconds[name].append(1000 * (time.perf_counter() - started))
                seconds += milliseconds[name][-1] / 1000
            preempted += _preemptions() - before
    if busy := preempted > BUSY * max(1, seconds):
        notice(
            "other processes used the cores while latency was measured, so the latencies are too high; "
            "measure again when the machine is idle"
        )
    different = min(LATENCY_TEXTS, len(examples))
    return {name: Latency(np.array(times), busy, different) for name, times in milliseconds.items()}


def _rest() -> None:
    """Wait until no thread of this process works: those of ONNX Runtime spin for up to 50 ms after a call."""
    begun, working = time.perf_counter(), True
    while working and time.perf_counter() - begun < LONGEST_REST:
        before = time.process_time()
        time.sleep(0.001)
        working = time.process_time() - before > 0.0005


def timed_texts(examples: Sequence[Example], seed: int) -> list[Example]:
    """The texts whose milliseconds `measure_latencies` returns: (LATENCY_TEXTS,)."""
    return list(islice(cycle(latency_sample(examples, seed)), LATENCY_TEXTS))


def windows_filled(model: TorchModel, examples: Sequence[Example]) -> Ints:
    """How many windows of `max_length` tokens each example fills, at most MANY + 1: (N,)."""
    windows = Reading(max_length=model.max_length, most_windows=MANY, stride=model.reading.stride)
    further = following_windows(model.untruncated, [e.inputs for e in examples], windows)
    return np.array([1 + len(each) for each in further], np.int64)


def latency_sample(examples: Sequence[Example], seed: int) -> list[Example]:
    """Texts of all lengths in random order: one drawn from each of LATENCY_TEXTS strata, or all if there are fewer.

    The texts do not depend on the order of the examples.
    """
    ordered = sorted(examples, key=lambda e: (len(e.text) + len(e.text_pair or ""), e.text, e.text_pair or ""))
    draw, count = random.Random(seed), min(LATENCY_TEXTS, len(ordered))
    ends = [i * len(ordered) // count for i in range(count + 1)]
    sample = [ordered[draw.randrange(*stratum)] for stratum in pairwise(ends)]
    draw.shuffle(sample)
    return sample


def _preemptions() -> int:
    """How often this process lost a core to another; 0 if the system does not count it."""
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return 0
