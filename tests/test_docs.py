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
RESULTS = ROOT / "benchmarks" / "results"


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
    metakd: Callable[..., Any], checkpoint: Any, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr("metakd.Settings.build", lambda values: build(values | small))
    exec(compile((ROOT / "examples" / "four_steps.py").read_text(encoding="utf-8"), "four_steps.py", "exec"), {})
    assert (tmp_path / "runs" / "example" / "results.json").is_file()


def text_of(name: str) -> str:
    """A page with single spaces."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def results_of(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("docs/performance.md", "speed"),
        ("docs/performance.md", "weighing"),
        ("docs/performance.md", "fused_attention"),
        ("docs/reliability.md", "kills"),
        ("docs/scaling.md", "scaling"),
        ("docs/howto/deploy.md", "budget"),
    ],
)
def test_a_table_is_that_of_the_committed_results(page: str, name: str) -> None:
    assert script(name)["table"](results_of(name)) in (ROOT / page).read_text(encoding="utf-8")


def test_the_tables_of_the_readme_are_those_of_the_committed_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    demo, amazon, benchmark = results_of("demo"), results_of("amazon"), script("amazon")
    assert markdown_table(demo).split("\n\n")[0] in readme
    assert f"in {demo['wall_seconds'] / 60:.1f} minutes" in readme
    assert demo["run"]["data_fingerprint"] == load_dataset(DEMO).fingerprint
    assert benchmark["table"](benchmark["over_seeds"](amazon["seeds"])) in readme
    results = [*amazon["seeds"].values()]
    assert len(results) == 3
    clean = [100 * mean(seed["average"][m]["accuracy_without_leaks"] for seed in results) for m in amazon["summary"]]
    assert f"{results[0]['leaked_rows']} of these 720 reviews" in readme
    text = "Without them the averages are {:.1f}, {:.1f}, {:.1f} and {:.1f}."
    assert text.format(*clean) in text_of("README.md")


def test_the_figures_of_performance_are_those_of_the_committed_results() -> None:
    page = text_of("docs/performance.md")
    differences = results_of("amazon-students")["before"]["differences"]
    for model in ("meta_teacher", "student"):
        moved = [round(100 * value, 1) + 0.0 for value in differences[model].values()]
        row = " | ".join(f"{value:+.1f}" if value else "0.0" for value in moved)
        assert f"| {model} | {row} |" in page
    whole, run = results_of("whole_run"), results_of("amazon-authors")["seeds"]["0"]
    assert run["seconds"] == whole["metakd_seconds"]
    ours = sum(run["seconds"].values()) / 60
    theirs = sum(loop["whole_seconds"] for loop in whole["textbrewer"].values()) / 60
    assert f"took {ours:.1f} minutes" in page
    assert f"take {theirs:.1f} minutes, {theirs / ours:.1f} times as long" in page
    scores = [100 * run["average"][name]["accuracy"] for name in ("student", "meta_teacher", "fine_tuned")]
    text = "Students of that run have {:.1f} percent on dev, their teacher {:.1f}, baselines {:.1f}"
    assert text.format(*scores) in page


def test_the_fit_of_scaling_is_that_of_the_committed_results() -> None:
    results, benchmark = results_of("scaling"), script("scaling")
    assert benchmark["size_table"](results) in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert benchmark["fit"](results["measured"]) == results["fit"]
    assert [size["domains"] for size in results["measured"]] == [25, 50, 100, 200]
    assert all(step["seconds"]["exponent"] < 1.25 for step in results["fit"].values())  # rows times domains would be 2


def test_the_figures_of_deployment_are_those_of_the_committed_results() -> None:
    page, readme, results = text_of("docs/howto/deploy.md"), text_of("README.md"), results_of("budget")
    three = {row["name"]: row for row in results["accepted"]}["layers=3"]
    sizes = {name.removeprefix("times_"): value for name, value in three.items() if name.startswith("times_")}
    smaller, faster = "{smaller:.1f} times smaller than the teacher, ", "{faster:.1f} times faster than it in PyTorch"
    faster += " float32 and {faster_than_int8_teacher:.1f} times faster"
    exported = "and {faster_than_exported_teacher:.1f} times faster than its float32 export ("
    lost = [-three[f"points_from_{name}"] for name in ("itself", "teacher")]
    for text, figures in ((page, smaller + faster), (readme, smaller + exported + faster)):
        assert figures.format(**sizes) in text
        assert "{:.1f} points for it and {:.1f} in all".format(*lost) in text
    predict = results["predict"]
    fastest = max(max(rates.values()) for rates in predict["runtime_alone"])
    assert f"{predict['predict_100000']['texts_a_second']:.0f} texts a second" in page
    assert f"{100 * predict['share']:.0f} percent of the {fastest:.0f}" in page


EVIDENCE_PAGES = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("evidence.md", "evidence-more.md")]


def evidence(name: str) -> Any:
    return results_of(f"evidence/{name}")


def evidence_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (RESULTS / f"evidence/{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_tables_of_the_evidence_are_those_of_the_committed_reports() -> None:
    others = ("retention", "retention-gpu", "factors")
    for report in sorted(path.stem for path in (RESULTS / "evidence").glob("*.json") if path.stem not in others):
        shown = markdown(evidence(report) | {"checks": {}}).rstrip("\n")
        (page,) = (page for page in EVIDENCE_PAGES if shown in page)
        assert report in page
    page = "".join(EVIDENCE_PAGES)
    assert markdown(evidence("main-windows")) in page  # with what weights and domain loss came to
    gpu = evidence("retention-gpu")
    for retention in (evidence("retention")["soft"], gpu["soft"], gpu["none"]):
        assert script("retention")["table"](retention) in page
    assert script("factors")["shown"](evidence("factors")["splits"]) in page


def test_the_figures_of_exploratory_runs_are_those_of_the_committed_rows() -> None:
    page = "".join(EVIDENCE_PAGES)
    last = next(row for row in evidence_rows("rows") if row["variant"] == "meta_kd")
    means = [f"{_mean(row['right']['dev']):.1f}" for row in (*evidence_rows("looks"), last)]
    assert re.findall(r"^\| \d+ pass[^|]*\|[^|]*\| ([\d.]+) \|$", page, re.M) == means
    shared = [(f"{r['dev']:.1f}", f"{r['agreement']:.1f}", f"{r['kl']:.3f}") for r in evidence_rows("shared-looks")]
    shown = re.findall(r"^\| [^|]*pass[^|]*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)
    assert sorted(shown) == sorted(shared)
    (windows,) = evidence_rows("windows")
    scores = {split: _mean(right) for split, right in windows["right"].items()}
    assert "has {dev:.1f} on dev and {test:.1f} on test".format(**scores) in page
    budget = {(row["name"], row["form"]): row["accuracy"] for row in results_of("budget")["rows"]}
    teacher, *students = (budget[name, "transformers"] for name in ("teacher", "layers=3", "layers=2"))
    assert "| {:.1f} | {:.1f} |".format(*(100 * student / teacher for student in students)) in page


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
    assert text.format(100 * gain.mean, 100 * gain.low, 100 * gain.high) in text_of("docs/evidence.md")


def test_what_students_keep_is_as_it_was_measured() -> None:
    page, readme, retention = text_of("docs/evidence.md"), text_of("README.md"), evidence("retention")["soft"]
    texts = {"3 layers": "of three layers keep {:.1f} percent of their teachers' accuracy", "2 layers": "of two {:.1f}"}
    for layers, text in texts.items():
        student = retention[layers]
        lost, low, high = (100 * value for value in _estimate(student["minus_teacher"]))
        ends = [100 * end for end in student["minus_teacher"]["over_folds"]]
        assert text.format(100 * student["kept"]) + f" ({lost:+.1f}" in readme
        assert "{:+.1f} to {:+.1f})".format(*ends) in readme
        assert f"{100 * student['kept']:.1f} percent" in page
        for one, two in ((low, high), ends):
            assert f"between {one:+.1f} and {two:+.1f}" in page
        pairs = zip(student["by_fold"], retention["meta teacher"]["by_fold"], strict=True)
        shares = [100 * kept / whole for kept, whole in pairs]
        assert f"{min(shares):.1f} to {max(shares):.1f}" in page
    report = evidence("defaults")
    for variant, text, sign in (
        ("single_kd", "are {:.1f} points better than those of a teacher for each domain ({:.1f} to {:.1f};", 1),
        ("fine_tuned_shared", "and {:.1f} better than all domains' labels alone ({:.1f} to {:.1f};", 1),
        ("mix_kd", "({:.1f} points ahead, {:+.1f} to {:+.1f};", -1),
    ):
        gain, *ends = (sign * 100 * value for value in _estimate(report["against"][variant]))
        assert text.format(gain, *sorted(ends)) in readme
    lost, low, high = _estimate(report["minus_teacher"]["meta_kd"])
    accuracy = report["students"]["meta_kd"]["mean"]
    values = (100 * value for value in (accuracy / (accuracy - lost), lost, low, high))
    assert "keep {:.1f} ({:+.1f} points, {:+.1f} to {:+.1f})".format(*values) in readme


def _estimate(gain: dict[str, Any]) -> tuple[float, float, float]:
    return gain["mean"], *gain["interval"]


def _mean(right: dict[str, str]) -> float:
    """Percent right, the plain mean over domains."""
    return 100 * mean(digits.count("1") / len(digits) for digits in right.values())


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


def test_the_demo_corpus_is_as_documented() -> None:
    """Four domains, classes even in every split, at least 250 reviews and 50 test reviews each, of 15 to 60 words."""
    data = load_dataset(DEMO)
    assert data.domains == ["books", "electronics", "films", "kitchen"]
    rows = [e for examples in data.splits.values() for e in examples]
    assert len({e.text for e in rows}) == len({e.id for e in rows}) == len(rows) == 2480
    for domain in data.domains:
        assert sum(e.domain == domain for e in rows) >= 250
        for split, least in (("train", 150), ("dev", 50), ("test", 100)):
            examples = of_domain(data.splits[split], domain)
            assert len(examples) >= least
            assert sum(e.label == "positive" for e in examples) * 2 == len(examples)
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
        examples = of_domain(data.splits["test"], domain)
        labels = TfidfBaseline(of_domain(data.train, domain)).predict(examples)
        right += [label == example.label for label, example in zip(labels, examples, strict=True)]
    assert sum(right) / len(right) < 0.85
