"""Latency: which texts are timed, in which order, and what counts as slower."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import read_json, reopen, toy_examples
from metakd.data.schema import Example
from metakd.data.windows import Reading
from metakd.evaluation import costs
from metakd.evaluation.costs import (
    LATENCY_TEXTS,
    LATENCY_WARMUP,
    TURN,
    Latency,
    latency_sample,
    measure_latencies,
    windows_filled,
)
from metakd.inference.torch_backend import TorchModel
from metakd.pipeline.evaluate import evaluate


@pytest.fixture(autouse=True)
def _whole_sample(_afresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "LATENCY_TEXTS", LATENCY_TEXTS)


def of_lengths(lengths: list[int]) -> list[Example]:
    return [Example(str(i), "x" * length, None, "", "") for i, length in enumerate(lengths)]


class Clock:
    """In place of the module `time`: only `read` lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Example], float]) -> None:
        self.now, self.seconds = 0.0, seconds
        monkeypatch.setattr(costs, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def read(self, examples: list[Example]) -> None:
        self.now += self.seconds(examples[0])


def test_the_order_of_the_rows_does_not_matter() -> None:
    """Ascending, descending and shuffled: the same texts in the same order; another seed draws others."""
    lengths = random.Random(0).choices(range(1, 2000), k=750)
    samples = [
        [e.text for e in latency_sample(of_lengths(order), 0)]
        for order in (lengths, sorted(lengths), sorted(lengths, reverse=True))
    ]
    assert samples[0] == samples[1] == samples[2]
    assert samples[0] != [e.text for e in latency_sample(of_lengths(lengths), 1)]
    assert [*map(len, samples[0])] != sorted(map(len, samples[0]))


def test_the_sample_is_as_long_as_the_texts_are() -> None:
    """Of the lengths 1 to 1000 each stratum of ten gives one, so that no quantile is off by more than ten."""
    sample = sorted(len(e.text) for e in latency_sample(of_lengths([*range(1, 1001)]), 0))
    assert len(sample) == LATENCY_TEXTS
    assert all(10 * i < length <= 10 * i + 10 for i, length in enumerate(sample))
    few = of_lengths([3, 1, 2])
    assert sorted(e.id for e in latency_sample(few, 0)) == ["0", "1", "2"]


def test_latency_does_not_depend_on_how_a_file_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of a millisecond for each character: up to 5 ms, in the median 2.5."""
    clock = Clock(monkeypatch, lambda e: len(e.text) / 1e5)
    medians = [
        measure_latencies({"it": clock.read}, of_lengths(order), 0)["it"].summary()["median"]
        for order in ([*range(1, 501, 1)], [*range(500, 0, -1)])
    ]
    assert medians[0] == medians[1] == pytest.approx(2.5, abs=0.06)


def test_contenders_take_turns() -> None:
    """After its warm-up each reads a text untimed and five timed, in the one order and in the other."""
    calls = list[str]()
    contenders = {name: lambda _, name=name: calls.append(name) for name in "abc"}
    latencies = measure_latencies(contenders, toy_examples(3, 0, "t"), 0)
    assert calls[: 3 * LATENCY_WARMUP] == [*("a" * 10 + "b" * 10 + "c" * 10)]
    assert calls[3 * LATENCY_WARMUP :] == [*("c" * 6 + "b" * 6 + "a" * 12 + "b" * 6 + "c" * 6)] * 10
    assert all(latency.milliseconds.shape == (LATENCY_TEXTS,) for latency in latencies.values())


def test_warm_up_and_the_first_text_of_a_turn_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which each of these takes a second, and any other text a millisecond."""
    now, calls = [0.0], count(-LATENCY_WARMUP)

    def predict(_: list[Example]) -> None:
        call = next(calls)
        now[0] += 1 if call < 0 or call % (TURN + 1) == 0 else 0.001

    monkeypatch.setattr(costs, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    latency = measure_latencies({"it": predict}, toy_examples(3, 0, "t"), 0)["it"]
    assert latency.milliseconds == pytest.approx(np.ones(LATENCY_TEXTS))


@pytest.mark.parametrize("preempted", [0, 0.9, 1000])
def test_latency_and_whether_other_work_lengthened_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, preempted: float
) -> None:
    """In milliseconds, with a notice if other work took the cores: more often than BUSY."""
    calls = count()
    monkeypatch.setattr(costs, "_preemptions", lambda: preempted * next(calls))
    clock = Clock(monkeypatch, lambda _: 0.002)
    latency = measure_latencies({"it": clock.read}, toy_examples(3, 0, "t"), 0)["it"]
    summary = latency.summary()
    assert summary["median"] == summary["p95"] == 2
    assert ("latencies are too high" in caplog.text) is (preempted > 1)
    assert summary.get("busy", False) is latency.busy is (preempted > 1)


def test_the_interval_of_a_ratio_by_hand() -> None:
    """Order statistics 40 and 61 of 100 ratios hold the median with 95 %: here 1.40 and 1.61."""
    ones, more = np.ones(100), 1 + np.arange(1, 101) / 100
    assert Latency(more, False).times(Latency(ones, False)) == pytest.approx((1.40, 1.61), abs=0.011)


def test_texts_that_are_timed_several_times_count_once_in_an_interval() -> None:
    """Of ten texts, the order statistics 2 and 9 hold the median with 95 %: here 1.2 and 1.9."""
    more = Latency(np.tile(1 + np.arange(1, 11) / 10, 10), False, texts=10)
    assert more.times(Latency(np.ones(100), False, texts=10)) == pytest.approx((1.2, 1.9))


def test_the_windows_that_a_text_fills_are_those_that_are_read(finished_run: Path) -> None:
    """At 16 tokens, 14 words fill a window, and one more begins another; a stride repeats tokens."""
    model = TorchModel.load(finished_run / "meta_teacher")
    assert model.max_length == 16
    texts = [replace(toy_examples(1, 0, "t")[0], text=" ".join(["good"] * n)) for n in (3, 14, 15, 16, 28, 300)]
    assert windows_filled(model, texts).tolist() == [1, 1, 2, 2, 2, 4]
    model.read_as(Reading(max_length=16, most_windows=8, stride=6))
    assert windows_filled(model, texts).tolist() == [1, 1, 2, 2, 3, 4]


def test_one_model_of_each_architecture_is_timed(
    finished_run: Path, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a teacher, two students and two baselines of their shape two are timed, with TF-IDF, all in one loop."""
    timed, loaded = list[dict[str, Any]](), list[Path]()
    measure, load = costs.measure_latencies, TorchModel.load.__func__  # type: ignore[attr-defined]

    def measured(contenders: Any, *arguments: Any) -> Any:
        timed.append(contenders)
        return measure(contenders, *arguments)

    def loads(cls: Any, folder: Path, device: Any = None, **how: Any) -> Any:
        if device == "cpu":
            loaded.append(folder)
        return load(cls, folder, device, **how)

    monkeypatch.setattr("metakd.evaluation.predictions.measure_latencies", measured)
    monkeypatch.setattr(TorchModel, "load", classmethod(loads))
    results = evaluate(reopen(run_copy))
    assert [folder.name for folder in loaded] == ["meta_teacher", "books"]
    (contenders,) = timed
    kinds = {results["domains"][domain]["tfidf"]["trained_on"] for domain in ("books", "kitchen")}
    assert len(contenders) == 2 + len(kinds)
    for scores in results["domains"].values():
        assert scores["student"]["latency_ms"] == scores["fine_tuned_shared"]["latency_ms"]
    assert read_json(run_copy / "results.json")["domains"] == results["domains"]
