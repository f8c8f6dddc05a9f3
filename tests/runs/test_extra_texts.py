"""Extra windows and crops for distilled students, and as many updates for all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TINY, WORDS, as_row, read_json, taught, toy_examples, write_rows
from metakd.config.settings import Settings
from metakd.data.schema import Example
from metakd.data.splits import of_domain
from metakd.data.tokenization import encode
from metakd.methods import BASELINE
from metakd.models.loading import load_tokenizer
from metakd.pipeline.checks import checked_rows
from metakd.pipeline.distill import distill_all
from metakd.pipeline.teacher_outputs import layers_to_keep
from metakd.runs.extra_texts import extra_texts
from metakd.runs.run import Run
from metakd.runs.student_jobs import StudentJob, student_jobs
from metakd.training.teacher_cache import TeacherCache
from metakd.utils.artifacts import read_manifest

Open = Callable[..., Run]


def text_of(count: int) -> str:
    """So many words, each of one token."""
    return " ".join((["page", "blade", "good", "bad"] * count)[:count])


def examples_of(*counts: int) -> list[Example]:
    return [Example(f"r{i}", text_of(n), None, "positive", "books") for i, n in enumerate(counts)]


def extra_of(tokenizer: Any, examples: list[Example], max_length: int, **options: int) -> dict[str, list[Example]]:
    lengths = encode(tokenizer, examples, max_length).lengths
    return extra_texts(tokenizer, examples, lengths, max_length, **{"windows": 0, "crops": 0, "seed": 0} | options)


def test_windows_go_on_where_reading_ended(base: Path) -> None:
    """Of 10 tokens two are special: 8 words are read of 21, the windows have 8 and 5; of 16 words there is one more."""
    tokenizer = load_tokenizer(base, 10)
    extra = extra_of(tokenizer, examples_of(21, 8, 16), 10, windows=5)
    words = text_of(21).split()
    assert [w.text.split() for w in extra["r0"]] == [words[8:16], words[16:21]]
    assert [w.id for w in extra["r0"]] == ["r0#1", "r0#2"]
    assert [len(w.text.split()) for w in extra["r2"]] == [8]
    assert "r1" not in extra
    assert {(w.label, w.domain) for w in extra["r0"]} == {("positive", "books")}


def test_windows_are_limited_in_number_and_none_is_tiny(base: Path) -> None:
    """A remainder of one word of 16 is less than an eighth of a window, one of two is not."""
    tokenizer = load_tokenizer(base, 18)
    extra = extra_of(tokenizer, examples_of(100, 17, 18), 18, windows=2)
    assert {name: len(windows) for name, windows in extra.items()} == {"r0": 2, "r2": 1}
    assert extra_of(tokenizer, examples_of(100), 18, windows=0) == {}


def test_ids_of_windows_are_unique(base: Path) -> None:
    first, second = examples_of(12, 3)
    taken = [first, Example("r0#1", second.text, None, "negative", "books")]
    extra = extra_of(load_tokenizer(base, 10), taken, 10, windows=1)
    assert [w.id for w in extra["r0"]] == ["r0#1#"]


def test_pairs_have_none(base: Path) -> None:
    pair = Example("p", text_of(30), text_of(30), "positive", "books")
    assert extra_of(load_tokenizer(base, 10), [pair], 10, windows=3, crops=3) == {}


def test_crops_are_of_every_length_and_from_everywhere(base: Path) -> None:
    """Of 40 words, each of one token, 16 can be read at a time, and no crop has less than 2."""
    words = [str(place) for place in range(40)]
    long = [Example("a", " ".join(words), None, "positive", "books")]
    tokenizer = load_tokenizer(base, 18)
    extra = extra_of(tokenizer, long, 18, crops=500)["a"]
    crops = [[words.index(word) for word in crop.text.split()] for crop in extra]
    assert all(crop == [*range(crop[0], crop[-1] + 1)] for crop in crops)
    assert {len(crop) for crop in crops} == {*range(2, 17)}
    assert {place for crop in crops for place in crop} == {*range(40)}
    assert [crop.id for crop in extra[:2]] == ["a%1", "a%2"]
    again, other = (extra_of(tokenizer, long, 18, crops=2, seed=seed)["a"] for seed in (0, 1))
    assert extra[:2] == again != other


def test_a_text_that_one_crop_would_be_all_of_has_none(base: Path) -> None:
    extra = extra_of(load_tokenizer(base, 18), examples_of(0, 2, 3), 18, crops=1)
    assert {name: len(crops[0].text.split()) for name, crops in extra.items()} == {"r2": 2}


def test_crops_come_after_windows(base: Path) -> None:
    extra = extra_of(load_tokenizer(base, 10), examples_of(21), 10, windows=5, crops=2)
    assert [text.id for text in extra["r0"]] == ["r0#1", "r0#2", "r0%1", "r0%2"]


@settings(max_examples=100, deadline=None)
@given(
    text=st.lists(st.sampled_from([*WORDS, "unheard", "é", "日本", "!"]), max_size=60).map(" ".join),
    most=st.integers(0, 4),
    crops=st.integers(0, 4),
)
def test_windows_and_crops_are_parts_of_the_text(base: Path, text: str, most: int, crops: int) -> None:
    """Windows in order and apart, crops anywhere; with something to read in each, and an id of its own."""
    example = Example("a", text, None, "", "")
    extra = extra_of(load_tokenizer(base, 10), [example], 10, windows=most, crops=crops).get("a", [])
    windows, drawn = ([e.text for e in extra if sign in e.id] for sign in "#%")
    place = 0
    for window in windows:
        place = text.index(window, place) + len(window)
    assert all(piece.strip() and piece in text for piece in [*windows, *drawn])
    assert len(windows) <= most
    assert len(drawn) in (0, crops)
    assert len({e.id for e in extra}) == len(extra)


def test_crops_that_come_to_nothing_say_so_and_windows_of_short_texts_are_not_missed(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert extra_of(load_tokenizer(base, 18), examples_of(1, 2), 18, windows=2) == {}
    assert not caplog.text
    assert extra_of(load_tokenizer(base, 18), examples_of(1, 2), 18, crops=1) == {}
    assert "crops has no effect" in caplog.text


@pytest.fixture
def open_long(tmp_path: Path, base: Path) -> Open:
    """A run on texts of which every second one is long."""

    def build(**more: Any) -> Run:
        data = tmp_path / "long"
        if not data.is_dir():
            for split, count in (("train", 64), ("dev", 16), ("test", 16)):
                rows = [as_row(e) for e in toy_examples(count, 0, split)]
                for row in rows[::2]:
                    row["text"] = f"{row['text']} {text_of(30)}"
                write_rows(data / f"{split}.jsonl", rows)
        small = {**TINY, "base": str(base), "batch_size": 8, "windows": 2, "stages": "joint"}
        return Run.assemble(tmp_path / "run", Settings.build(small | more), data)

    return build


def job_of(run: Run, domain: str | None, method: str = "meta_kd") -> StudentJob:
    return student_jobs(run, method, [domain])[0]


def test_distilled_students_read_windows_and_crops_and_others_make_as_many_updates(open_long: Open) -> None:
    """32 of 64 texts are long, with two windows each: 128 for 64, so that other students pass twice.

    The short half of the texts has crops too: two of each text are 128 more. Students are checked on whole texts.
    """
    run, plain, cropped = open_long(), open_long(windows=0), open_long(crops=2)
    assert len(job_of(run, None).examples) == 128
    assert len(job_of(run, "books").examples) == 32 + 64
    assert len(job_of(run, "books", BASELINE).examples) == 32
    assert [s.epochs for s in run.stages["meta_kd"]] == [s.epochs for s in plain.stages["meta_kd"]]
    assert [s.epochs for s in run.stages[BASELINE]] == [2 * s.epochs for s in plain.stages[BASELINE]]
    assert len(job_of(cropped, None).examples) == 256
    without_dev = replace(cropped.data, splits={"train": cropped.data.train})
    assert checked_rows(without_dev) == ("train", cropped.data.train)
    assert checked_rows(without_dev, "books") == ("train", of_domain(cropped.data.train, "books"))
    assert len({each.fingerprints.distill("meta_kd", None) for each in (run, plain, cropped)}) == 3
    assert run.fingerprints.teach == plain.fingerprints.teach


def test_a_cache_of_more_crops_serves_for_fewer(open_long: Open) -> None:
    """The cache is of all texts, whichever student comes first, and is not written again for a part of them."""
    run = open_long(baseline=False, keep_cache=True, crops=3, shared_epochs=0, predict_epochs=2, stages="joint").begin()
    taught(run)
    distill_all(run, ["books"], ["meta_kd"])
    cached_ids = run.folders.teacher_cache / "ids.json"
    first = cached_ids.stat().st_mtime_ns
    assert read_json(cached_ids) == [e.id for e in run.features.with_extra_texts(run.data.train)]
    distill_all(run, ["kitchen"], ["meta_kd"])
    fewer = Run(run.folder, run.settings.model_copy(update={"crops": 1}), run.data, by_content=True)
    ids = [e.id for e in fewer.features.with_extra_texts(run.data.train)]
    assert len(ids) == 64 + 2 * 32 + 64
    cache = TeacherCache(run.folders.teacher_cache, layers_to_keep(run.stages["meta_kd"]))
    assert cache.covers(ids, cache.layers, np.ones(len(ids), dtype=bool))
    assert not cache.covers([*ids, "another"], cache.layers, np.ones(len(ids) + 1, dtype=bool))
    assert not cache.covers(ids, cache.layers, np.zeros(len(ids), dtype=bool))
    assert cached_ids.stat().st_mtime_ns == first


def test_windows_have_the_weight_of_their_text_and_separate_teacher_outputs(open_long: Open) -> None:
    run = taught(open_long(baseline=False, keep_cache=True).begin())
    (student,) = distill_all(run, ["books"], ["meta_kd"])
    job = job_of(run, "books")
    weights = dict(zip([e.id for e in job.examples], run.features.instance_weights(job.examples), strict=True))
    assert all(weights[name] == weights[name.partition("#")[0]] for name in weights)
    assert len({*read_json(run.folders.teacher_cache / "ids.json")}) == 128
    manifest = read_manifest(student)
    assert manifest is not None
    assert sum(manifest["expertise"]["histogram"]["counts"]) == len(job.examples) == 96
