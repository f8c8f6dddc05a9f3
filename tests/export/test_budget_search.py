"""A budget in, models out: measured before trained, delivered only if they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import FAST, as_row, save_checkpoint, toy_examples, write_rows
from metakd import Classifier, Settings
from metakd.data.dataset import folder_name, load_dataset
from metakd.export import budget_search, candidates
from metakd.export.candidates import Budget, Candidate, measure_all
from metakd.runs.run import Run
from metakd.utils.artifacts import read_run

Command = Callable[..., Any]


def test_excess_says_which_demand_fails_and_by_how_much() -> None:
    """5.5 ms where 5 are allowed, 12.25 MB of 12, 0.85 where 0.86 is demanded."""
    budget = Budget(p95_ms=5, max_mb=12, min_accuracy=0.86)
    assert budget.excess(5.5, 12.25e6, 0.85) == {
        "p95 5.50 ms, 0.50 too slow": pytest.approx(0.1),
        "12.25 MB, 0.25 too large": pytest.approx(1 / 48),
        "accuracy 0.850, 0.010 too low": pytest.approx(1 / 86),
    }
    assert budget.excess(5, 12e6, 0.86) == budget.excess(5, 12e6) == {}
    assert Budget().excess(1e9, 1e12, 0.0) == {}


def test_the_most_accurate_is_delivered_then_the_smallest(finished_run: Path, tmp_path: Path) -> None:
    """Of 0.9 in 9 MB, 0.9 in 5 MB, and 0.95 in 20 MB that is above the budget, the second."""
    described = read_run(finished_run)
    run = Run.assemble(finished_run, Settings.build(described["settings"]), described["data"])
    forms = []
    for place, (score, size) in enumerate(((0.9, 9e6), (0.9, 5e6), (0.95, 20e6))):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "model.json").write_text(json.dumps({"max_length": 16, "place": place}), encoding="utf-8")
        candidate = Candidate(f"layers={place}", True, False, 8, 2.0, 1.5, size)
        forms.append(budget_search.Form("books", candidate, score, folder, run))
    data = budget_search.MultiDomainDataset("toy", None, {"train": [], "dev": []}, ["a", "b"], ["books"])
    found, faults = budget_search._deliver(data, tmp_path / "out", Budget(max_mb=10), {}, forms)
    assert not faults
    assert found["delivered"]["books"]["student"] == "layers=1"
    shipped = json.loads((tmp_path / "out" / "books" / "model.json").read_text(encoding="utf-8"))
    assert shipped == {"max_length": 8, "place": 1}
    assert "layers=1, int8, whole table, 8 tokens" in (tmp_path / "out" / "books" / "README.md").read_text("utf-8")
    _, faults = budget_search._deliver(data, tmp_path / "out", Budget(max_mb=1), {}, forms)
    assert faults == ["books: 5.00 MB, 4.00 too large (layers=1, int8, whole table, 8 tokens)"]
    assert not (tmp_path / "out" / "books").exists()  # it was delivered by the other budget


def test_no_domain_has_the_folder_that_fit_works_in() -> None:
    assert all(
        folder_name(name) != budget_search.WORK_FOLDER for name in (budget_search.WORK_FOLDER, "work", "fit work")
    )


@pytest.fixture(scope="module")
def fast() -> list[str]:
    flags = dict(zip(FAST[1::2], FAST[2::2], strict=True))
    for decided in ("--student", "--bootstrap"):
        flags.pop(decided)
    return [FAST[0], *(word for pair in flags.items() for word in pair)]


def test_a_budget_becomes_models_and_the_same_again_costs_nothing(
    metakd: Command, toy_data: Path, checkpoint: Callable[..., Path], tmp_path: Path, fast: list[str]
) -> None:
    command = ["fit", "--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "fit", *fast]
    demands = ["--p95-ms", "500", "--max-mb", "50", "--min-accuracy", "0.7", "--most", "1"]
    code, out, err = metakd(*command, *demands)
    assert code == 0, err
    assert "The best that the budget allows" in out
    assert "measuring layers=3 (2 of 4)" in err
    assert re.search(r"training layers=4 \(1 of 1\), about \d+\.\d minutes left", err)
    (one,) = Classifier.load(tmp_path / "fit" / "books").predict(["a lovely page"])
    assert one.label == "positive"
    found = json.loads((tmp_path / "fit" / "fit.json").read_text(encoding="utf-8"))
    assert {own["student"] for own in found["candidates"]} == {f"layers={n}" for n in range(1, 5)}
    assert {own["student"] for own in found["tried"]} == {"layers=4"}
    assert set(found["delivered"]) == {"books", "kitchen"}
    assert found["delivered"]["books"]["test_accuracy"] > 0.7
    assert (tmp_path / "fit" / "fit.html").stat().st_size > 100_000

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "fit" / "fit.work").rglob("manifest.json")}
    code, _, err = metakd(*command, *demands)
    assert code == 0, err
    assert "measuring" not in err
    assert "training" not in err
    assert {path: path.stat().st_mtime_ns for path in made} == made

    code, _, err = metakd(*command, "--max-mb", "0.0001")
    assert code == 2
    assert "no candidate meets the budget on this machine; the nearest, layers=" in err
    assert "too large" in err
    assert not (tmp_path / "fit" / "books").exists()  # what a more generous budget delivered
    assert not (tmp_path / "fit" / "fit.html").exists()
    found = json.loads((tmp_path / "fit" / "fit.json").read_text(encoding="utf-8"))
    assert found["delivered"] == {}
    assert found["candidates"]


def test_what_a_stopped_fit_has_measured_is_not_measured_again(
    metakd: Command, toy_data: Path, checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while it measures the third of four students; the next call begins with that one."""
    measure, seen = candidates._measure, list[str]()

    def stop_once(data: Any, settings: Settings, work: Path, student: str) -> list[Candidate]:
        seen.append(student)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return measure(data, settings, work, student)

    monkeypatch.setattr(candidates, "_measure", stop_once)
    command = ["fit", "--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "fit", "--max-length", "16"]
    code, _, _ = metakd(*command, "--max-mb", "0.0001")
    assert code == 130
    assert seen == ["layers=4", "layers=3", "layers=2"]
    code, _, err = metakd(*command, "--max-mb", "0.0001")
    assert code == 2
    assert "no candidate meets the budget" in err
    assert seen[3:] == ["layers=2", "layers=1"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--student", "layers=2"], "--student: fit tries students of several sizes"),
        (["--p95-ms", "soon"], "p95"),
        (["--also", "no/such"], "no/such"),
        (["--min-accuracy", "86"], "min-accuracy"),
        (["--method", "magic"], "method = 'magic': there are meta_kd"),
        (["--max-length", "100000"], "max_length"),
    ],
)
def test_bad_demands_are_refused(
    metakd: Command, toy_data: Path, checkpoint: Callable[..., Path], tmp_path: Path, more: list[str], told: str
) -> None:
    command = ["fit", "--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "fit", "--max-length", "16"]
    code, _, err = metakd(*command, *more)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_what_would_fail_after_training_is_refused_before_anything_is_measured(
    metakd: Command, toy_data: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Dev has rows of books alone; and a folder of somebody's own lies where a domain's model would."""
    data, output = tmp_path / "data", tmp_path / "out"
    for split in ("train", "dev"):
        rows = [as_row(e) for e in toy_examples(40, 0, split)]
        write_rows(data / f"{split}.jsonl", rows if split == "train" else [r for r in rows if r["domain"] == "books"])
    code, _, err = metakd("fit", "--data", data, "--base", checkpoint(), "--output", output)
    assert code == 2
    assert "dev has no rows of kitchen" in err
    assert not output.exists()
    own = output / "books" / "mine.txt"
    own.parent.mkdir(parents=True)
    own.touch()
    code, _, err = metakd("fit", "--data", toy_data, "--base", checkpoint(), "--output", output)
    assert code == 2
    assert "no model of `metakd fit`; choose another --output" in " ".join(err.split())
    assert [*output.rglob("*.*")] == [own]


def test_the_largest_come_first_whatever_their_names(
    toy_data: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """A checkpoint of one layer comes after what is cut from the base in four, three and two."""
    small = save_checkpoint(tmp_path / "small", num_hidden_layers=1)
    settings = Settings(base=str(checkpoint()), max_length=16)
    found = measure_all(load_dataset(toy_data), settings, tmp_path / "work", [str(small)])
    order = list(dict.fromkeys(candidate.student for candidate in found))
    assert order[:3] == ["layers=4", "layers=3", "layers=2"]
    assert set(order[3:]) == {"layers=1", str(small)}


def test_without_dev_there_is_nothing_to_choose_by(
    metakd: Command, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        write_rows(data / f"{split}.jsonl", [as_row(replace(e, id="")) for e in toy_examples(40, 0, split)])
    code, _, err = metakd("fit", "--data", data, "--base", checkpoint(), "--output", tmp_path / "fit")
    assert code == 2
    assert "no dev split to choose by" in err
