"""What the docs show is what happens."""

import json
import re
import runpy
import sys
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from conftest import FAST, Checkpoint, Command, passed, read_rows
from metakd import Settings, methods
from metakd.config.settings_file import read_settings_file
from metakd.data.dataset import load_dataset
from metakd.data.splits import of_domain
from metakd.evaluation.predictions import predict_by_tfidf
from metakd.evaluation.statistics import difference, points
from metakd.evaluation.tables import markdown_table
from metakd.experiments.tables import markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DEMO = ROOT / "src" / "metakd" / "demo_data"
TABLES = {
    "docs/performance.md": ["speed", "weighing"],
    "docs/evidence-details.md": ["fused_attention"],
    "docs/reliability.md": ["kills"],
    "docs/scaling.md": ["scaling"],
    "docs/howto/deploy.md": ["budget"],
}


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_settings_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "docs" / "settings_table.py"))
    assert capsys.readouterr().out == page("docs/settings.md")


@pytest.mark.parametrize("setting", ["amazon", "multinli"])
def test_the_papers_settings_can_be_planned(
    metakd: Command, checkpoint: Checkpoint, toy_data: Path, tmp_path: Path, setting: str
) -> None:
    """A student narrower than its teacher, with another number of heads, stands for the paper's two models."""
    config = ROOT / "examples" / f"paper-{setting}.yaml"
    settings = Settings.build(read_settings_file(config))
    assert (settings.base, settings.student) == ("bert-base-uncased", "huawei-noah/TinyBERT_General_4L_312D")
    assert (settings.shared_epochs, settings.match_epochs, settings.predict_epochs) == (0, 10, 3)
    models = ("--base", checkpoint(), "--student", checkpoint(hidden_size=8, num_hidden_layers=2), "--max-length", "16")
    where = ("--data", toy_data, "--output", tmp_path / "run")
    assert "distill (meta_kd)" in passed(metakd("run", "--dry-run", "--config", config, *where, *models))[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_method_is_added_in_one_file_as_the_docs_show(
    metakd: Command, base: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class in docs/methods.md, put into the dict, runs through every step; the pipeline is not touched."""
    (code,) = re.findall(r"```python\n(.*?)```", page("docs/methods.md"), re.S)
    namespace: dict[str, Any] = {"__name__": "example"}
    monkeypatch.setitem(sys.modules, "example", sys.modules[__name__])
    exec(compile(code, "methods.md", "exec"), namespace)
    monkeypatch.setitem(methods.METHODS, "logit_kd", namespace["LogitKD"])
    flags = ("--data", toy_data, "--base", base, "--output", tmp_path / "run", "--method", "logit_kd")
    assert "student" in passed(metakd("run", *flags, *FAST, "--no-baseline"))[0]
    assert (tmp_path / "run" / "students" / "books" / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "shared_student").exists()


def test_every_link_and_file_in_the_docs_is_there() -> None:
    for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target, part in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", file.read_text(encoding="utf-8")):
            place = file.parent / target if target else file
            assert target.startswith("http") or place.exists(), f"{file.name}: {target}"
            if part and place.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.M)
                anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert part in anchors, f"{file.name}: {target}#{part}"


@pytest.mark.slow
def test_the_example_runs(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """examples/four_steps.py word for word, but with a tiny encoder as the default base."""
    monkeypatch.chdir(tmp_path)
    small = {"base": str(base), "max_length": 40, "student": "layers=2", "allow_weak_teacher": True}
    build = Settings.build
    monkeypatch.setattr("metakd.Settings.build", lambda values: build(values | small))
    exec(compile(page("examples/four_steps.py"), "four_steps.py", "exec"), {})
    assert (tmp_path / "runs" / "example" / "results.json").is_file()


def text_of(name: str) -> str:
    """A page with single spaces."""
    return " ".join(page(name).split())


def results_of(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def script(name: str) -> dict[str, Any]:
    if (folder := str(ROOT / "benchmarks")) not in sys.path:
        sys.path.append(folder)  # where a script finds another
    return runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))


@pytest.mark.parametrize(("where", "names"), TABLES.items())
def test_a_table_is_that_of_the_committed_results(where: str, names: list[str]) -> None:
    assert all(script(name)["table"](results_of(name)) in page(where) for name in names)


def test_the_products_without_avx512_are_those_of_the_committed_results() -> None:
    rows = script("fused_attention")["table"](results_of("fused_attention-avx2")).splitlines()[-3:]
    assert "\n".join(rows) in page("docs/evidence-details.md")


def test_the_tables_of_readme_and_tutorial_are_those_of_the_committed_results() -> None:
    tutorial, demo, amazon, benchmark = (
        page("docs/tutorial.md"),
        results_of("demo"),
        results_of("amazon"),
        script("amazon"),
    )
    assert markdown_table(demo).split("\n\n")[0] in tutorial
    assert f"took {demo['wall_seconds'] / 60:.1f} minutes" in tutorial
    assert demo["run"]["data_fingerprint"] == load_dataset(DEMO).fingerprint
    assert benchmark["table"](benchmark["over_seeds"](amazon["seeds"])) in page("README.md")
    teacher, student, labels_alone, tfidf = amazon["summary"].values()
    shorter = student["latency_ms"]["median"] / teacher["latency_ms"]["median"]
    ahead = [100 * (student["accuracy"] - other["accuracy"]) for other in (labels_alone, tfidf)]
    text = "in {:.0f} percent of its time. They are {:.1f} percentage points more accurate than the same models "
    text += "without a teacher, and {:.1f} more than logistic regression"
    assert text.format(100 * shorter, *ahead) in text_of("README.md")
    first_window = benchmark["over_seeds"](results_of("amazon-first-window")["seeds"])
    assert benchmark["table"](first_window) in page("docs/evidence-details.md")
    results = [*amazon["seeds"].values()]
    clean = [100 * mean(seed["average"][m]["accuracy_without_leaks"] for seed in results) for m in amazon["summary"]]
    assert f"{results[0]['leaked_rows']} of the 720 reviews" in text_of("docs/evidence.md")
    text = "Without them the four averages are {:.1f}, {:.1f}, {:.1f} and {:.1f}."
    assert text.format(*clean) in text_of("docs/evidence.md")


def test_the_figures_of_performance_are_those_of_the_committed_results() -> None:
    text = text_of("docs/performance.md")
    differences = results_of("amazon-students")["before"]["differences"]
    for model in ("meta_teacher", "student"):
        moved = [round(100 * value, 1) + 0.0 for value in differences[model].values()]
        row = " | ".join(f"{value:+.1f}" if value else "0.0" for value in moved)
        assert f"| {model} | {row} |" in text
    whole, run = results_of("whole_run"), results_of("amazon-authors")["seeds"]["0"]
    assert run["seconds"] == whole["metakd_seconds"]
    ours = sum(run["seconds"].values()) / 60
    theirs = sum(loop["whole_seconds"] for loop in whole["textbrewer"].values()) / 60
    assert f"took {ours:.1f} minutes" in text
    assert f"take {theirs:.1f} minutes, {theirs / ours:.1f} times as long" in text
    scores = [100 * run["average"][name]["accuracy"] for name in ("student", "meta_teacher", "fine_tuned")]
    figures = "Students of that run have {:.1f} percent on dev, their teacher {:.1f}, baselines {:.1f}"
    assert figures.format(*scores) in text


def test_the_figures_of_a_gpu_are_those_of_the_committed_results() -> None:
    items, text = results_of("gpu")["items"], page("docs/performance.md")
    for name, stage in (
        ("teach", "teach all domains"),
        ("distill meta_kd", "meta_kd all domains: share"),
        ("distill fine_tuned_shared", "fine_tuned_shared all domains: share"),
    ):
        training = items[name]["trainings"][stage]
        row = " | {:.0f} | {:,.0f} | {:.1f} % |\n"
        figures = 1000 * training["seconds_per_step"], training["examples_per_second"], 100 * training["share_of_peak"]
        assert f" | {items[name]['seconds']:.0f} | " in text
        assert f"{training['steps']:,} updates{row.format(*figures)}" in text


def test_the_figures_of_whole_texts_are_those_of_the_committed_results() -> None:
    results = results_of("long_texts")
    assert script("long_texts")["table"](results) in page("docs/evidence-details.md")
    seeds, times, names = results["seeds"].values(), results["latency_ms"], ("teacher", "layers=3")
    scores = [100 * mean(seed[name][way]["accuracy"] for seed in seeds) for name in names for way in ("first", "mean")]
    (ratio,) = {f"{times[name]['mean']['mean'] / times[name]['first']['mean']:.1f}" for name in names}
    text = "the teacher from {:.1f} to {:.1f} and students from {:.1f} to {:.1f}, in {} times the milliseconds"
    assert text.format(*scores, ratio) in text_of("README.md")
    gains = scores[1] - scores[0], scores[3] - scores[2]
    assert "brought {:.1f} points for the teacher and {:.1f} for students".format(*gains) in text_of(
        "docs/evidence-details.md"
    )


def test_the_fit_of_scaling_is_that_of_the_committed_results() -> None:
    results, benchmark = results_of("scaling"), script("scaling")
    assert benchmark["size_table"](results) in page("docs/scaling.md")
    assert benchmark["fit"](results["measured"]) == results["fit"]
    assert all(step["seconds"]["exponent"] < 1.25 for step in results["fit"].values())  # rows times domains would be 2


def test_the_figures_of_deployment_are_those_of_the_committed_results() -> None:
    howto, readme, results = text_of("docs/howto/deploy.md"), text_of("README.md"), results_of("budget")
    three = {row["name"]: row for row in results["accepted"]}["layers=3"]
    sizes = {name.removeprefix("times_"): value for name, value in three.items() if name.startswith("times_")}
    exported = (
        "{smaller:.1f} times smaller than the teacher and {faster_than_exported_teacher:.1f} times faster than its"
    )
    smaller, faster = "{smaller:.1f} times smaller than the teacher, ", "{faster:.1f} times faster than it in PyTorch"
    faster += " float32 and {faster_than_int8_teacher:.1f} times faster"
    assert (smaller + faster).format(**sizes) in howto
    assert exported.format(**sizes) in readme
    changed = f"Compression changes accuracy by {three['points_from_itself']:+.1f} points"
    assert f"{changed}; in all they lose {-three['points_from_teacher']:.1f}" in howto
    assert f"for {-three['points_from_teacher']:.1f} percentage points of accuracy" in readme
    predict = results["predict"]
    fastest = max(max(rates.values()) for rates in predict["runtime_alone"])
    assert f"{predict['predict_100000']['texts_a_second']:.0f} texts a second" in howto
    assert f"{100 * predict['share']:.0f} percent of the {fastest:.0f}" in howto


EVIDENCE = "".join(page(f"docs/{path.name}") for path in sorted((ROOT / "docs").glob("evidence*.md")))


def evidence(name: str) -> Any:
    return results_of(f"evidence/{name}")


def evidence_rows(name: str) -> list[dict[str, Any]]:
    return read_rows(RESULTS / f"evidence/{name}.jsonl")


def test_the_tables_of_the_evidence_are_those_of_the_committed_reports() -> None:
    others = ("retention", "retention-gpu", "factors")
    for report in sorted(path.stem for path in (RESULTS / "evidence").glob("*.json") if path.stem not in others):
        assert report in EVIDENCE
        assert EVIDENCE.count(markdown(evidence(report) | {"checks": {}}).rstrip("\n")) == 1
    assert markdown(evidence("main-windows")) in EVIDENCE  # with what weights and domain loss came to
    gpu = evidence("retention-gpu")
    for retention in (evidence("retention")["soft"], gpu["soft"], gpu["none"]):
        assert script("retention")["table"](retention) in EVIDENCE
    assert script("factors")["shown"](evidence("factors")["splits"]) in EVIDENCE


def test_the_figures_of_exploratory_runs_are_those_of_the_committed_rows() -> None:
    last = next(row for row in evidence_rows("rows") if row["variant"] == "meta_kd")
    means = [f"{_mean(row['right']['dev']):.1f}" for row in (*evidence_rows("looks"), last)]
    assert re.findall(r"^\| \d+ pass[^|]*\|[^|]*\| ([\d.]+) \|$", EVIDENCE, re.M) == means
    shared = [(f"{r['dev']:.1f}", f"{r['agreement']:.1f}", f"{r['kl']:.3f}") for r in evidence_rows("shared-looks")]
    shown = re.findall(r"^\| [^|]*pass[^|]*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", EVIDENCE, re.M)
    assert sorted(shown) == sorted(shared)
    (windows,) = evidence_rows("windows")
    scores = {split: _mean(right) for split, right in windows["right"].items()}
    assert "has {dev:.1f} on dev and {test:.1f} on test".format(**scores) in EVIDENCE
    budget = {(row["name"], row["form"]): row["accuracy"] for row in results_of("budget")["rows"]}
    names = ("teacher", "layers=3", "layers=2", "layers=1")
    teacher, *students = (budget[name, "PyTorch float32"] for name in names)
    assert "| {:.1f} | {:.1f} | {:.1f} |".format(*(100 * student / teacher for student in students)) in EVIDENCE


def test_two_tuned_variants_are_compared_on_the_split_that_was_chosen_by_as_well() -> None:
    """No report is made of that split, so the figures are of rows: trials of seed 0, tuned variants of seeds 1, 2."""
    best = evidence("tune-stsb")["best"]
    right = {(row["variant"], row["seed"]): row["right"]["dev"] for row in evidence_rows("tune-stsb")}
    rights = {}
    for variant in ("meta_kd", "mix_kd"):
        seeds = [right[best[variant]["chosen"], 0], right[variant, 1], right[variant, 2]]
        rights[variant] = {domain: np.array([[*map(int, seed[domain])] for seed in seeds]) for domain in seeds[0]}
    gain = difference(rights["meta_kd"], rights["mix_kd"])
    text = "on dev by {:.1f}** ({:+.1f} to {:+.1f})"
    assert text.format(100 * gain.mean, *(100 * end for end in gain.interval)) in " ".join(EVIDENCE.split())


def test_what_students_keep_is_as_it_was_measured() -> None:
    text, retention = " ".join(EVIDENCE.split()), evidence("retention")["soft"]
    for layers in ("3 layers", "2 layers"):
        student = retention[layers]
        _, low, high = (100 * value for value in _estimate(student["minus_teacher"]))
        ends = [100 * end for end in student["minus_teacher"]["over_folds"]]
        assert f"{100 * student['kept']:.1f} percent" in text
        for one, two in ((low, high), ends):
            assert f"between {one:+.1f} and {two:+.1f}" in text
        shares = 100 * np.divide(student["by_fold"], retention["meta teacher"]["by_fold"])
        assert f"{min(shares):.1f} to {max(shares):.1f}" in text


def test_what_meta_kd_is_worth_is_as_it_was_measured() -> None:
    """README, and the one screen of the evidence: its table, its plot and its sentences."""
    readme, text, report = text_of("README.md"), text_of("docs/evidence.md"), evidence("defaults")
    assert script("differences")["table"](report) in page("docs/evidence.md")
    plot = (ROOT / "docs" / "differences.svg").read_text(encoding="utf-8")
    for variant, other in report["against"].items():
        assert points(other) in plot, variant
    for variant in ("single_kd", "fine_tuned_shared"):
        gain, *ends = (100 * value for value in _estimate(report["against"][variant]))
        assert re.search(rf"{gain:.1f}( percentage points there)? \({ends[0]:.1f} to {ends[1]:.1f}[,)]", readme), (
            variant
        )
        assert f"({ends[0]:.1f} to {ends[1]:.1f})" in text
    lost, low, high = _estimate(report["minus_teacher"]["meta_kd"])
    kept = report["students"]["meta_kd"]["mean"] / (report["students"]["meta_kd"]["mean"] - lost)
    values = (100 * value for value in (kept, lost, low, high))
    assert "keep {:.1f} % of their teachers' accuracy ({:+.1f} points, {:+.1f} to {:+.1f})".format(*values) in readme
    folds = evidence("retention")["soft"]
    assert f"keep {100 * kept:.1f} to {100 * folds['3 layers']['kept']:.1f} percent" in text
    assert f"to {100 * folds['2 layers']['kept']:.1f}" in text


def _estimate(gain: dict[str, Any]) -> tuple[float, float, float]:
    return gain["mean"], *gain["interval"]


def _mean(right: dict[str, str]) -> float:
    """Percent right, the plain mean over domains."""
    return 100 * mean(digits.count("1") / len(digits) for digits in right.values())


def test_the_demo_corpus_is_as_documented() -> None:
    """Four domains, classes even in every split, 15 to 60 words a review; TF-IDF is not enough for it.

    What a fine-tuned base reaches on the same rows is in test_real_encoder.py.
    """
    data = load_dataset(DEMO)
    assert data.domains == ["books", "electronics", "films", "kitchen"]
    rows = [e for examples in data.splits.values() for e in examples]
    assert len({e.text for e in rows}) == len({e.id for e in rows}) == len(rows) == 2480
    assert all(15 <= len(e.text.split()) <= 60 for e in rows)
    for domain in data.domains:
        parts = {split: of_domain(examples, domain) for split, examples in data.splits.items()}
        assert all(len(parts[split]) >= least for split, least in (("train", 150), ("dev", 50), ("test", 100)))
        assert all(sum(e.label == "positive" for e in part) * 2 == len(part) for part in parts.values())
    predictions = predict_by_tfidf(data.train, data.labels, data.splits["test"], 0).predictions.values()
    assert mean(float((p.truth == p.predicted).mean()) for p in predictions) < 0.85


def test_no_demo_review_repeats_another_or_gives_its_label_away() -> None:
    """But for eight runs of seven everyday words, such as 'for the first time in six years'."""
    runs: Counter[str] = Counter()
    for example in (e for examples in load_dataset(DEMO).splits.values() for e in examples):
        words = re.findall(r"[\w']+", example.text.lower())
        runs.update({" ".join(words[i : i + 7]) for i in range(len(words) - 6)})
        assert not {"positive", "negative"} & set(words), example.id
    assert sum(count > 1 for count in runs.values()) == 8
