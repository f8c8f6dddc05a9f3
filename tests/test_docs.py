"""What the docs show is what happens."""

import json
import re
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from conftest import FAST
from metakd import Settings, methods
from metakd.config.yaml_file import read_settings_file
from metakd.data.dataset import load_dataset
from metakd.data.splits import of_domain
from metakd.evaluation.baselines import TfidfBaseline
from metakd.evaluation.statistics import difference
from metakd.evaluation.tables import markdown_table
from metakd.experiments.tables import markdown

ROOT = Path(__file__).parents[1]


def test_the_settings_page_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "settings_table.py")]
    made = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")})
    assert made.stdout == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", ["amazon", "multinli"])
def test_the_papers_settings_can_be_planned(
    metakd: Callable[..., Any], checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path, setting: str
) -> None:
    """A student narrower than its teacher, with another number of heads, stands for the paper's two models."""
    config = ROOT / "examples" / f"paper-{setting}.yaml"
    settings = Settings.build(read_settings_file(config))
    assert (settings.base, settings.student) == ("bert-base-uncased", "huawei-noah/TinyBERT_General_4L_312D")
    assert (settings.shared_epochs, settings.match_epochs, settings.predict_epochs) == (0, 10, 3)
    models = ("--base", checkpoint(), "--student", checkpoint(hidden_size=8, num_hidden_layers=2), "--max-length", "16")
    where = ("--data", toy_data, "--output", tmp_path / "run")
    code, out, err = metakd("run", "--dry-run", "--config", config, *where, *models)
    assert code == 0, err
    assert "distill (meta_kd)" in out
    assert not (tmp_path / "run").exists()


def test_a_method_is_added_in_one_file_as_the_docs_show(
    metakd: Callable[..., Any],
    checkpoint: Callable[..., Path],
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The class in docs/methods.md, put into the dict, runs through every step; the pipeline is not touched."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), re.S)
    namespace: dict[str, Any] = {"__name__": "example"}
    monkeypatch.setitem(sys.modules, "example", sys.modules[__name__])
    exec(compile(code, "methods.md", "exec"), namespace)
    monkeypatch.setitem(methods.METHODS, "logit_kd", namespace["LogitKD"])
    base = ("--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "run", "--method", "logit_kd")
    code_, out, err = metakd("run", *base, *FAST, "--no-baseline")
    assert code_ == 0, err
    assert "student" in out
    assert (tmp_path / "run" / "students" / "books" / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "shared_student").exists()


def test_every_link_and_file_in_the_docs_is_there() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_example_runs(checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """examples/four_steps.py word for word, but with a tiny encoder as the default base."""
    monkeypatch.chdir(tmp_path)
    small = {"base": str(checkpoint()), "max_length": 40, "student": "layers=2", "allow_weak_teacher": True}
    build = Settings.build
    monkeypatch.setattr("metakd.Settings.build", lambda given: build(given | small))
    exec(compile((ROOT / "examples" / "four_steps.py").read_text(encoding="utf-8"), "four_steps.py", "exec"), {})
    assert (tmp_path / "runs" / "example" / "results.json").is_file()


def test_the_tables_of_the_readme_are_those_of_the_committed_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    demo, amazon = (
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("demo", "amazon")
    )
    assert markdown_table(demo).split("\n\n")[0] in readme
    assert f"in {demo['wall_seconds'] / 60:.1f} minutes" in readme
    assert demo["run"]["data_fingerprint"] == load_dataset(DEMO).fingerprint
    script = runpy.run_path(str(ROOT / "benchmarks" / "amazon.py"))
    assert script["table"](script["over_seeds"](amazon["seeds"])) in readme
    assert len(amazon["seeds"]) == 3
    results = [*amazon["seeds"].values()]
    clean = [mean(own["average"][m]["accuracy_without_leaks"] for own in results) for m in amazon["summary"]]
    told = "Without them the averages are {:.1f}, {:.1f}, {:.1f} and {:.1f}.".format(*(100 * own for own in clean))
    assert f"{results[0]['leaked_rows']} of these 720 reviews" in readme
    assert told in " ".join(readme.split())


def test_the_tables_of_performance_are_those_of_the_committed_results() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for name in ("speed", "weighing", "fused_attention"):
        results = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        assert runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))["table"](results) in page
    students = json.loads((ROOT / "benchmarks" / "results" / "amazon-students.json").read_text(encoding="utf-8"))
    for model in ("meta_teacher", "student"):
        moved = [round(100 * value, 1) + 0.0 for value in students["before"]["differences"][model].values()]
        row = " | ".join(f"{value:+.1f}" if value else "0.0" for value in moved)
        assert f"| {model} | {row} |" in page


def test_the_figures_of_a_whole_run_are_those_of_the_committed_results() -> None:
    page = " ".join((ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split())
    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "whole_run.json").read_text(encoding="utf-8"))
    run = json.loads((results / "amazon-authors.json").read_text(encoding="utf-8"))["seeds"]["0"]
    assert run["seconds"] == found["metakd_seconds"]
    ours = sum(run["seconds"].values()) / 60
    theirs = sum(loop["whole_seconds"] for loop in found["textbrewer"].values()) / 60
    assert f"took {ours:.1f} minutes" in page
    assert f"take {theirs:.1f} minutes, {theirs / ours:.1f} times as long" in page
    scores = [100 * run["average"][name]["accuracy"] for name in ("student", "meta_teacher", "fine_tuned")]
    told = "Students of that run have {:.1f} percent on dev, their teacher {:.1f}, rivals {:.1f}"
    assert told.format(*scores) in page


def test_the_table_of_kills_is_that_of_the_committed_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "kills.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "benchmarks" / "kills.py"))["table"](results) in page


def test_the_tables_of_scaling_are_those_of_the_committed_results() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "benchmarks" / "results" / "scaling.json").read_text(encoding="utf-8"))
    script = runpy.run_path(str(ROOT / "benchmarks" / "scaling.py"))
    assert script["table"](results) in page
    assert script["size_table"](results) in page
    assert script["fit"](results["measured"]) == results["fit"]
    assert [size["domains"] for size in results["measured"]] == [25, 50, 100, 200]
    assert all(step["seconds"]["exponent"] < 1.25 for step in results["fit"].values())  # rows times domains would be 2


def test_the_table_of_deployment_is_that_of_the_committed_results() -> None:
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/howto/deploy.md", "README.md"))
    results = json.loads((ROOT / "benchmarks" / "results" / "budget.json").read_text(encoding="utf-8"))
    assert runpy.run_path(str(ROOT / "benchmarks" / "budget.py"))["table"](results) in page
    three = {row["name"]: row for row in results["accepted"]}["layers=3"]
    sizes = {name.removeprefix("times_"): value for name, value in three.items() if name.startswith("times_")}
    smaller, faster = "{smaller:.1f} times smaller than the teacher, ", "{faster:.1f} times faster than it in PyTorch"
    faster += " float32 and {faster_than_int8_teacher:.1f} times faster"
    exported = "and {faster_than_exported_teacher:.1f} times faster than its float32 export ("
    lost = [-three[f"points_from_{name}"] for name in ("itself", "teacher")]
    for text, told in ((page, smaller + faster), (readme, smaller + exported + faster)):
        assert told.format(**sizes) in " ".join(text.split())
        assert "{:.1f} points for it and {:.1f} in all".format(*lost) in " ".join(text.split())
    rates = [max(found.values()) for found in results["predict"]["runtime_alone"]]
    rate = results["predict"]["predict_100000"]
    assert f"{rate['texts_a_second']:.0f} texts a second" in page
    assert f"{100 * results['predict']['share']:.0f} percent of the {max(rates):.0f}" in " ".join(page.split())


EVIDENCE = ROOT / "benchmarks" / "results" / "evidence"
EVIDENCE_PAGES = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("evidence.md", "evidence-more.md")]


def evidence(name: str) -> Any:
    return json.loads((EVIDENCE / f"{name}.json").read_text(encoding="utf-8"))


def evidence_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EVIDENCE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_tables_of_the_evidence_are_those_of_the_committed_reports() -> None:
    others = ("retention", "retention-gpu", "factors")
    for report in sorted(path.stem for path in EVIDENCE.glob("*.json") if path.stem not in others):
        shown = markdown(evidence(report) | {"checks": {}}).rstrip("\n")
        (page,) = (page for page in EVIDENCE_PAGES if shown in page)
        assert report in page
    page = "".join(EVIDENCE_PAGES)
    assert markdown(evidence("main-windows")) in page  # with what weights and domain loss came to
    table = runpy.run_path(str(ROOT / "benchmarks" / "retention.py"))["table"]
    for found in (evidence("retention")["soft"], *(evidence("retention-gpu")[kind] for kind in ("soft", "none"))):
        assert table(found) in page
    assert runpy.run_path(str(ROOT / "benchmarks" / "factors.py"))["shown"](evidence("factors")["splits"]) in page


def test_the_figures_of_single_looks_are_those_of_the_committed_rows() -> None:
    page = "".join(EVIDENCE_PAGES)
    last = next(row for row in evidence_lines("rows") if row["variant"] == "meta_kd")
    found = [row["right"]["dev"] for row in (*evidence_lines("looks"), last)]
    assert re.findall(r"^\| \d+ pass[^|]*\|[^|]*\| ([\d.]+) \|$", page, re.M) == [f"{_mean(own):.1f}" for own in found]
    looks = [(f"{r['dev']:.1f}", f"{r['agreement']:.1f}", f"{r['kl']:.3f}") for r in evidence_lines("shared-looks")]
    shown = re.findall(r"^\| [^|]*pass[^|]*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)
    assert sorted(shown) == sorted(looks)
    (windows,) = evidence_lines("windows")
    assert (
        "has {dev:.1f} on dev and {test:.1f} on test".format(**{s: _mean(o) for s, o in windows["right"].items()})
        in page
    )
    rows = json.loads((EVIDENCE.parent / "budget.json").read_text(encoding="utf-8"))["rows"]
    budget = {(row["name"], row["form"]): row["accuracy"] for row in rows}
    teacher, *ours = (budget[name, "transformers"] for name in ("teacher", "layers=3", "layers=2"))
    three, two = (100 * own / teacher for own in ours)
    assert f"| {three:.1f} | {two:.1f} |" in page


def test_two_tuned_lines_are_compared_on_the_split_that_was_chosen_by_as_well() -> None:
    """Of that split no report is made, so the figures are of rows: trials of seed 0, tuned lines of seeds 1 and 2."""
    rows, best = evidence_lines("tune-stsb"), evidence("tune-stsb")["best"]
    right = {(row["variant"], row["seed"]): row["right"]["dev"] for row in rows}
    marks = {}
    for line in ("meta_kd", "mix_kd"):
        own = [right[best[line]["trial"], 0], right[line, 1], right[line, 2]]
        marks[line] = {domain: np.array([[int(mark) for mark in seed[domain]] for seed in own]) for domain in own[0]}
    found = difference(marks["meta_kd"], marks["mix_kd"])
    told = "on dev by {:.1f}** ({:+.1f} to {:+.1f})".format(*(100 * v for v in (found.mean, found.low, found.high)))
    assert told in " ".join(EVIDENCE_PAGES[0].split())


def test_what_students_keep_is_said_as_it_was_found() -> None:
    page, readme = (
        " ".join((ROOT / name).read_text(encoding="utf-8").split()) for name in ("docs/evidence.md", "README.md")
    )
    found = evidence("retention")["soft"]
    for layers, words in (
        ("3 layers", "of three layers keep {:.1f} percent of their teachers' accuracy"),
        ("2 layers", "of two {:.1f}"),
    ):
        own = found[layers]["minus_teacher"]
        lost, low, high = (100 * value for value in (own["mean"], *own["interval"]))
        ends = [100 * end for end in own["over_folds"]]
        assert words.format(100 * found[layers]["kept"]) + f" ({lost:+.1f}" in readme
        assert "{:+.1f} to {:+.1f})".format(*ends) in readme
        assert f"{100 * found[layers]['kept']:.1f} percent" in page
        for one, two in ((low, high), ends):
            assert f"between {one:+.1f} and {two:+.1f}" in page
        shares = [
            100 * own / theirs
            for own, theirs in zip(found[layers]["by_fold"], found["meta teacher"]["by_fold"], strict=True)
        ]
        assert f"{min(shares):.1f} to {max(shares):.1f}" in page
    report = evidence("defaults")
    lost = report["minus_teacher"]["meta_kd"]
    own = report["students"]["meta_kd"]["mean"]
    for line, words in (
        ("single_kd", "are {:.1f} points better than those of a teacher for each domain ({:.1f} to {:.1f};"),
        ("fine_tuned_shared", "and {:.1f} better than all domains' labels alone ({:.1f} to {:.1f};"),
    ):
        against = report["against"][line]
        assert words.format(*(100 * value for value in (against["mean"], *against["interval"]))) in readme
    mixture = report["against"]["mix_kd"]
    ahead = "({:.1f} points ahead, {:+.1f} to {:+.1f};"
    assert ahead.format(*(-100 * value for value in (mixture["mean"], *reversed(mixture["interval"])))) in readme
    told = "keep {:.1f} ({:+.1f} points, {:+.1f} to {:+.1f})"
    values = (own / (own - lost["mean"]), lost["mean"], *lost["interval"])
    assert told.format(*(100 * value for value in values)) in readme


def _mean(right: dict[str, str]) -> float:
    """Percent right, the plain mean over domains."""
    return 100 * mean(own.count("1") / len(own) for own in right.values())


DEMO = ROOT / "src" / "metakd" / "demo_data"
EVERYDAY = {  # runs of seven words that two reviews may share
    "and i would not be without it",
    "i asked for a refund the same",
    "and it turned out to be a",
    "for the first time in six years",
    "it went straight to the charity shop",
    "went straight to the charity shop where",
    "thermometer it reads in two seconds the",
    "was sold to me as new the",
}


def test_the_demo_corpus_is_what_it_is_said_to_be() -> None:
    """Four domains, classes even in every split, at least 250 reviews and 50 test reviews each, of 15 to 60 words."""
    data = load_dataset(DEMO)
    assert data.domains == ["books", "electronics", "films", "kitchen"]
    rows = [e for examples in data.splits.values() for e in examples]
    assert len({e.text for e in rows}) == len({e.id for e in rows}) == len(rows) == 2480
    for domain in data.domains:
        assert sum(e.domain == domain for e in rows) >= 250
        for split, least in (("train", 150), ("dev", 50), ("test", 100)):
            own = of_domain(data.splits[split], domain)
            assert len(own) >= least
            assert sum(e.label == "positive" for e in own) * 2 == len(own)
    assert all(15 <= len(e.text.split()) <= 60 for e in rows)


def test_no_demo_review_repeats_another_or_gives_its_label_away() -> None:
    rows = [e for examples in load_dataset(DEMO).splits.values() for e in examples]
    runs: Counter[str] = Counter()
    for example in rows:
        words = re.findall(r"[\w']+", example.text.lower())
        runs.update({" ".join(words[i : i + 7]) for i in range(len(words) - 6)})
        assert not {"positive", "negative"} & set(words), example.id
    assert {run for run, count in runs.items() if count > 1} == EVERYDAY
    assert len(EVERYDAY) <= 20


def test_counting_words_is_not_enough_for_the_demo() -> None:
    """What a fine-tuned base reaches on the same rows is in test_real_encoder.py."""
    data = load_dataset(DEMO)
    right = []
    for domain in data.domains:
        own = of_domain(data.splits["test"], domain)
        found = TfidfBaseline(of_domain(data.train, domain)).predict(own)
        right += [label == example.label for label, example in zip(found, own, strict=True)]
    assert sum(right) / len(right) < 0.85
