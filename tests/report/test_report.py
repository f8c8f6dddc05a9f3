"""What a report says: no more and no less than the run's files."""

import io
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conftest import Command, passed, read_json, read_rows, refused, write_rows
from metakd.config.settings import DEMO_DATA, Settings
from metakd.config.settings_file import read_settings_file
from metakd.evaluation.predictions import transfer_sample_size
from metakd.evaluation.tables import BUSY_NOTE, escaped, markdown_table, rich_table, rows
from metakd.report import details, lineage, summary
from metakd.report.compare import compare_runs
from metakd.report.facts import KINDS, Findings, calibration_by_chance, calibration_error
from metakd.report.page import markdown, write_tradeoff
from metakd.report.summary import BASELINES, cautions, facts, figures, headline
from metakd.utils.artifacts import write_json
from metakd.utils.errors import InputError
from metakd.utils.hardware import environment


@pytest.fixture(scope="module")
def findings(finished_run: Path) -> Findings:
    return Findings.read(finished_run)


def with_results(findings: Findings, **changes: Any) -> Findings:
    return replace(findings, results={**findings.results, **changes})


def test_without_texts_no_word_of_an_example_is_in_it(run_copy: Path, metakd: Command) -> None:
    (row, *_) = Findings.read(run_copy).mistakes("fine_tuned_shared", "books")
    for flags, shown in (([], True), (["--no-texts"], False)):
        assert str(run_copy / "report.html") in passed(metakd("report", run_copy, *flags))[0]
        page = (run_copy / "report.html").read_text(encoding="utf-8")
        assert (row["texts"][0] in page) is shown
        assert row["id"] in page


def with_gain(findings: Findings, mean: float, **changes: Any) -> Findings:
    """The same with other results, and a student that is ahead of all others by `mean`."""
    changed = with_results(findings, **changes)
    gain = {"mean": mean, "interval": [mean - 0.04, mean + 0.04]}
    vars(changed)["against"] = dict.fromkeys(("meta_teacher", "fine_tuned_shared", "tfidf"), gain)
    return changed


def costs(accuracy: float, megabytes: float, median: float) -> dict[str, Any]:
    latency = {"median": median, "p95": 2 * median}
    return {"accuracy": accuracy, "bytes": int(1e6 * megabytes), "latency_ms": latency, "parameters": 22_700_000}


def test_the_four_figures_by_hand(findings: Findings) -> None:
    """0.873 / 0.9 = 97.0 %; 90 MB / 45 MB = 2; 12 ms / 3 ms = 4; the better of two baselines is the one of 0.85."""
    average = {"meta_teacher": costs(0.9, 90, 12.04), "student": costs(0.873, 45, 3.01)}
    average |= {"fine_tuned_shared": costs(0.85, 45, 3), "tfidf": costs(0.7, 1, 1)}
    changed = with_gain(findings, 0.023, average=average)
    base = Path(findings.run["settings"]["base"]).name
    assert headline(changed) == (
        f"One teacher ({base}, 22.7\u00a0M parameters) became 2 small models, one for each domain."
    )
    interval = "95\u00a0% interval −1.7 to +6.3"
    assert figures(changed) == [
        ("97.0 %", "accuracy kept", f"90.0 → 87.3 percent right: +2.3 percentage points, {interval}."),
        ("2.0", "times smaller", "90.0 → 45.0 MB"),
        ("4.0", "times faster", "12.0 → 3.0 ms for one text"),
        (
            "+2.3",
            "points over the best baseline",
            f"{interval}. Baseline: {BASELINES['fine_tuned_shared']}, 85.0 percent right.",
        ),
    ]
    average |= {"student": costs(0.873, 180, 11.9)}
    _, size, speed, _ = figures(with_gain(findings, 0.02, average=average))
    assert size == ("2.0", "times larger", "90.0 → 180.0 MB")
    assert speed[:2] == ("Same", "speed as the teacher")


def test_several_labels_are_kept_by_micro_f1_and_gained_by_texts_that_are_right(findings: Findings) -> None:
    """0.84 / 0.8 = 105 %; of two baselines, the gain is over the one of better accuracy, not micro-F1."""
    f1s = {"meta_teacher": 0.8, "student": 0.84, "fine_tuned_shared": 0.7, "tfidf": 0.75}
    accuracies = {"meta_teacher": 0.6, "student": 0.65, "fine_tuned_shared": 0.5, "tfidf": 0.4}
    average = {name: costs(accuracies[name], 90, 12) | {"micro_f1": f1} for name, f1 in f1s.items()}
    kept, *_, gain = figures(with_gain(findings, 0.05, average=average))
    exact = "texts with exactly their labels: +5.0 percentage points"
    assert kept == (
        "105.0 %",
        "micro-F1 kept",
        f"80.0 → 84.0 percent micro-F1; {exact}, 95\u00a0% interval +1.0 to +9.0.",
    )
    assert gain[1] == "points of texts with exactly their labels over the best baseline"
    assert gain[2].endswith(f"Baseline: {BASELINES['fine_tuned_shared']}, 70.0 percent micro-F1.")


def test_an_unfinished_run_is_to_be_resumed_before_it_is_reported(run_copy: Path, metakd: Command) -> None:
    (run_copy / "results.json").unlink()
    assert f"run `metakd evaluate {run_copy}`" in refused(metakd("report", run_copy))
    (run_copy / "students" / "books" / "manifest.json").unlink()
    assert f"run `metakd run --resume --output {run_copy}`" in refused(metakd("report", run_copy))


def test_cautions_say_how_far_the_figures_hold(findings: Findings) -> None:
    caution = cautions(findings)[0]
    assert "paired over the 24 scored examples" in caution
    assert "seed 0 alone" in caution
    average = findings.results["average"]
    student = average["student"] | {"accuracy_without_leaks": 0.5}
    on_dev = with_results(findings, average=average | {"student": student}, split="dev", leaked_rows=3)
    assert "if you choose by them, do not report them" in cautions(on_dev)[1]
    assert "Scored examples that are also in train: 3" in cautions(on_dev)[2]


@pytest.mark.parametrize(
    ("mean", "value", "advice"),
    [
        (0.05, "+5.0", "+1.0 to +9.0. Base"),
        (-0.05, "−5.0", "−9.0 to −1.0; use the baseline, unless other seeds disagree. Base"),
        (-0.03, "−3.0", "−7.0 to +1.0; the baseline may be enough. Base"),
        (0.0, "+0.0", "−4.0 to +4.0; the baseline may be enough. Base"),
    ],
)
def test_the_gain_of_one_seed_has_no_verdict(findings: Findings, mean: float, value: str, advice: str) -> None:
    gain = figures(with_gain(findings, mean))[3]
    assert gain[0] == value
    assert advice in gain[2]
    assert "significant" not in gain[2]


def of_settings(settings: dict[str, Any], data: str) -> Findings:
    """A run of 500 training texts."""
    run = {"data": data, "settings": settings, "labels": ["bad", "good"]}
    return Findings(Path("runs/toy"), run, {}, {"texts": {"train": {"books": 500}}}, [])


def test_the_command_of_few_texts_has_what_was_chosen_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """With batches of 32, 500 texts get 16 epochs; with 16, 8, which here were chosen for 32."""
    monkeypatch.setattr("metakd.config.few_texts.FEW_TEXTS", 4_000)
    usual = Settings().sized_for(500, 2).model_dump(mode="json")
    assert summary.command(of_settings(usual, "org/x")) == "metakd run --data org/x --output toy --seed 0"
    chosen = Settings(batch_size=32, teacher_epochs=8).sized_for(500, 2).model_dump(mode="json")
    made = summary.command(of_settings(chosen, "org/x"))
    assert made.endswith("--seed 0 --teacher-epochs 8 --batch-size 32")


@pytest.mark.parametrize(
    ("data", "settings", "command"),
    [
        ("/x/my reviews", {}, "run --data 'my reviews' --output toy --seed 3"),
        ("org/reviews", {"baseline": False, "drop_leaks": True}, "run --data org/reviews --output toy --seed 3"),
        ("/other/src/metakd/demo_data", {"windows": 0, "batch_size": 16}, "demo --output toy --seed 3"),
    ],
)
def test_the_command_makes_the_run_again(data: str, settings: dict[str, Any], command: str) -> None:
    """What differs from the defaults, or for the demo from its file of settings, whatever the last command was."""
    chosen = {"seed": 3, "base": "/models/small", "terms": ["hidden", "prediction"], "cache_budget": 7.5, **settings}
    chosen |= {"columns": {"text": "a b", "label": "stars"}, "precision": "float32", "layer_map": "2,4,6"}
    in_demo = read_settings_file(DEMO_DATA / "settings.yaml") if "demo" in data else {}
    saved = Settings.build(in_demo).model_dump(mode="json") | chosen
    made = summary.command(of_settings(saved, data))
    assert made.startswith(f"metakd {command} --columns ")
    words = shlex.split(made)
    assert words[words.index("--columns") + 1] == "text=a b,label=stars"
    assert words[words.index("--terms") + 1] == "hidden,prediction"
    assert words[words.index("--base") + 1] == "small"
    assert ("--no-baseline" in words, "--drop-leaks" in words) == ("baseline" in settings,) * 2
    assert not {"--cache-budget", "--windows", "--batch-size"} & set(words)


def test_a_run_of_tables_in_memory_has_no_data_to_name(findings: Findings) -> None:
    changed = replace(findings, run={**findings.run, "data": None})
    assert summary.command(changed).startswith(f"metakd reproduce {findings.folder.name} --data the-same-rows")


def test_the_command_is_the_same_after_a_resume(run_copy: Path, metakd: Command) -> None:
    before = facts(Findings.read(run_copy))["Command"]
    assert before.startswith("metakd run --data ")
    passed(metakd("run", "--output", run_copy, "--resume"))
    assert facts(Findings.read(run_copy))["Command"] == before


def test_latencies_that_other_work_lengthened_are_marked(findings: Findings) -> None:
    idle = {"latency_ms": {"median": 9.0, "p95": 9.5}}
    average = {name: scores | idle for name, scores in findings.results["average"].items()}
    assert "†" not in markdown(with_results(findings, average=average))
    average["student"]["latency_ms"] = {"median": 3.0, "p95": 4.0, "busy": True}
    changed = with_results(findings, average=average)
    assert "→ 3.0† ms" in figures(changed)[2][2]
    assert details.scores(changed, "student")["milliseconds"] == "3.0†"
    (row,) = [row for row in markdown(changed).splitlines() if row.startswith("| student |")]
    assert row.endswith("| 3.0† |")
    assert BUSY_NOTE in markdown(changed)


def test_a_command_is_kept_as_it_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, command in (
        (["/bin/metakd", "run", "--data", "my reviews", "--seed", "1"], "metakd run --data 'my reviews' --seed 1"),
        (["/lib/metakd/__main__.py", "demo"], "python -m metakd demo"),
    ):
        monkeypatch.setattr("sys.argv", arguments)
        assert environment()["command"] == command


def test_the_command_names_no_folder_that_leads_to_its_files(findings: Findings) -> None:
    named = facts(findings)
    assert named["Base"] == Path(findings.run["settings"]["base"]).name
    assert str(findings.folder.parent) not in named["Command"]
    assert f"--output {findings.folder.name}" in named["Command"]


def by_hand(labels: str, predictions: list[dict[str, list[Any]]]) -> Findings:
    """Examples 0, 1, ... of domain x, with labels of one letter."""
    examples = [
        {"id": str(i), "domain": "x", "label": label, "texts": [], "models": models}
        for i, (label, models) in enumerate(zip(labels, predictions, strict=True))
    ]
    run, results = {"labels": ["a", "b"], "settings": {"method": "meta_kd"}}, {"domains": {"x": {}}, "average": KINDS}
    return Findings(Path(), run, results, {}, examples)


def test_calibration_mistakes_and_doubts_by_hand() -> None:
    """Four examples of one domain: two right at 0.95 and 0.97, one wrong at 0.92, one wrong at 0.55."""
    predictions = [["a", 0.95], ["b", 0.97], ["b", 0.92], ["a", 0.55]]
    findings = by_hand("abab", [{"meta_teacher": prediction} for prediction in predictions])
    low, high = findings.calibration("meta_teacher", "x")
    sure = (0.95 + 0.97 + 0.92) / 3
    assert low == {"examples": 1, "confidence": 0.55, "accuracy": 0}
    assert high == {"examples": 3, "confidence": pytest.approx(sure), "accuracy": pytest.approx(2 / 3)}
    assert calibration_error([low, high]) == pytest.approx((1 * (0.55 - 0) + 3 * (sure - 2 / 3)) / 4)
    of_two = {"examples": 2, "confidence": 0.5, "accuracy": 0.5}  # right are 0, 1 or 2, by chance 1/4, 1/2 and 1/4
    assert calibration_by_chance([of_two]) == pytest.approx(0.25)
    assert findings.confusion("meta_teacher", "x") == [[1, 1], [1, 1]]
    assert findings.confused("meta_teacher", "x") == [("a", "b", 1), ("b", "a", 1)]
    assert [row["id"] for row in findings.mistakes("meta_teacher", "x")] == ["2", "3"]
    assert [row["id"] for row in findings.doubtful] == ["2"]
    assert len(findings.sure) == 3


def test_of_doubtful_labels_those_come_first_that_most_models_contradict() -> None:
    teacher = {"meta_teacher": ["b", 0.99], "tfidf": ["a", 0.6]}
    findings = by_hand("aa", [teacher, {"meta_teacher": ["b", 0.91], "tfidf": ["b", 0.6]}])
    assert [row["id"] for row in findings.doubtful] == ["1", "0"]
    assert [findings.siding(row) for row in findings.doubtful] == [["TF-IDF baseline"], []]


def test_the_graph_knows_who_was_built_from_whom(findings: Findings) -> None:
    nodes, edges = lineage.graph(findings)
    by_id = {node["id"]: node for node in nodes}
    assert by_id["student:books"]["ancestors"] == ["base", "domain:books", "domain:kitchen", "meta_teacher"]
    assert by_id["base"]["descendants"] == ["meta_teacher", "student:books", "student:kitchen"]
    (between,) = [edge for edge in edges if edge["kind"] == "between"]
    assert {between["source"], between["target"]} == {"domain:books", "domain:kitchen"}
    assert between["strength"] == 1  # the most that transfers, also where it is the only pair


def test_a_method_without_a_teacher_is_drawn_without_one(findings: Findings) -> None:
    settings = findings.run["settings"] | {"method": "fine_tuned_shared"}
    changed = replace(findings, run=findings.run | {"settings": settings})
    nodes, edges = lineage.graph(changed)
    by_id = {node["id"]: node for node in nodes}
    assert by_id["student:books"]["ancestors"] == ["base", "domain:books", "domain:kitchen"]
    assert by_id["meta_teacher"]["descendants"] == []
    assert {edge["source"] for edge in edges if edge["target"] == "student:books"} == {"base", "domain:books"}
    assert headline(changed).endswith("became 2 small models, one for each domain, without a teacher.")


def test_the_picture_of_fit_runs_no_script_that_a_name_holds(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    form = {"domain": name, "student": "layers=1", "name": "layers=1, int8", "p95": 1.0, "bytes": 1e6, "accuracy": 0.5}
    write_tradeoff({"tried": [form], "delivered": {}}, tmp_path / "fit.html")
    page = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert(1)" not in page


def test_domains_are_joined_as_strongly_as_measured(findings: Findings) -> None:
    """Of 1.0 on its own, a's model keeps half on b; of 0.8, b's keeps all of a's 1.0: (0.5/0.8 + 1.0/1.0) / 2."""
    transfer = {"a": {"a": 1.0, "b": 0.5, "c": 0.8}} | {name: {"a": 1.0, "b": 0.8, "c": 0.8} for name in "bc"}
    measured, alike = with_results(findings, transfer=transfer), with_results(findings, transfer={})
    pairs = lineage.between_domains(measured)
    assert [(a, b, round(kept, 4)) for a, b, kept, _ in pairs] == [("a", "b", 0.8125), ("a", "c", 1), ("b", "c", 1)]
    assert pairs[0][3] == "a on b 50.0 percent right, b on a 100.0"
    edges = [(edge["target"], edge["strength"]) for edge in lineage.graph(measured)[1] if edge["kind"] == "between"]
    assert edges == [("domain:c", 1.0), ("domain:c", 1.0), ("domain:b", 0.0)]  # the strongest first
    assert "81 percent the thinnest, 100 percent the thickest" in lineage.widths(measured)
    assert [edge["summary"][:6] for edge in lineage.graph(alike)[1] if edge["kind"] == "between"] == ["alike:"]
    assert "cosine" in lineage.widths(alike)


def test_every_kind_of_model_has_a_colour() -> None:
    style = (Path(lineage.__file__).parent / "style.css").read_text(encoding="utf-8")
    for kind in KINDS:
        colour = f"--{kind.replace('_', '-')}"
        assert f".{kind} {{ --kind: var({colour}); }}" in style
        (hue,) = re.findall(rf"{colour}: var\((--\w+)\)", style)
        assert style.count(f" {hue}: #") == 2  # by day and by night


def test_transfer_is_what_tfidf_of_one_domain_gets_right_of_another(findings: Findings) -> None:
    """12 test examples of each domain, so all are classified; the diagonal is its score if it read no other."""
    for domain, shares in findings.results["transfer"].items():
        assert set(shares) == {"books", "kitchen"}
        scores = findings.results["domains"][domain]["tfidf"]
        assert scores["trained_on"] == "all domains" or shares[domain] == pytest.approx(scores["accuracy"], abs=1e-4)
    assert transfer_sample_size(20) == 0  # 10,000 / 380 < 30


def test_runs_are_compared_on_the_same_examples(finished_run: Path, metakd: Command, run_copy: Path) -> None:
    """A copy whose student of books errs on three of twelve more is behind by (3/12 + 0/12) / 2."""
    predictions = run_copy / "predictions.jsonl"
    examples = read_rows(predictions)
    right = [row for row in examples if row["domain"] == "books" and row["models"]["student"][0] == row["label"]]
    for row in right[:3]:
        row["models"]["student"][0] = "negative" if row["label"] == "positive" else "positive"
    examples.reverse()  # another order
    write_rows(predictions, examples)
    assert compare_runs([finished_run, run_copy])["against"]["copy"]["mean"] == pytest.approx(3 / 24)
    run = read_json(run_copy / "run.json")
    write_json(run_copy / "run.json", run | {"settings": run["settings"] | {"seed": 7}})
    results = read_json(run_copy / "results.json")
    results["average"]["student"]["latency_ms"] = {"median": 5.0, "p95": 6.0, "busy": True}
    write_json(run_copy / "results.json", results)
    out, _ = passed(metakd("compare", finished_run, run_copy))
    for row in ("| copy |", "| `seed` | 0 | 7 |", "| MB of a student |", "5.0† |", BUSY_NOTE):
        assert row in out
    assert out.count("| `") == 1  # no other setting differs
    write_rows(predictions, [examples[0], examples[-1]])  # one of each domain
    other_data = (
        r"copy was scored on other data, toy0 \(seed 7\), than toy, toy0 \(seed 0\): 2 of 2 examples are the same"
    )
    with pytest.raises(InputError, match=other_data):
        compare_runs([finished_run, run_copy])


@pytest.mark.parametrize("flags", [(), ("--format", "markdown")])
def test_a_folder_without_a_finished_run_is_refused(metakd: Command, tmp_path: Path, flags: tuple[str, ...]) -> None:
    assert "no run here" in refused(metakd("report", *flags, tmp_path))


def test_files_that_do_not_belong_together_are_refused_in_one_message(run_copy: Path, metakd: Command) -> None:
    results = read_json(run_copy / "results.json")
    del results["domains"]["kitchen"], results["split"]
    write_json(run_copy / "results.json", results)
    write_json(run_copy / "corpus.json", [])
    message = refused(metakd("report", run_copy))
    for fault in ("results.json: no split", "corpus.json: no terms", "domain 'kitchen' is not in both files"):
        assert fault in message
    (run_copy / "predictions.jsonl").write_text("[]\n", encoding="utf-8")
    assert "1 lines are no scored examples" in refused(metakd("report", run_copy))


def test_markdown_for_a_pull_request(finished_run: Path, metakd: Command) -> None:
    out, _ = passed(metakd("report", finished_run, "--format", "markdown"))
    parts = ("| student |", "- students minus TF-IDF baseline: ", "Intervals of differences are paired")
    for part in (f"# {finished_run.name}", *parts):
        assert part in out


def test_markdown_stays_text_and_one_table(findings: Findings) -> None:
    """A domain's name full of signs that Markdown and HTML know stays within its column and row."""
    domains = {"a|b\n<img src=x>": findings.results["domains"]["books"]}
    assert escaped("![x](http://a/p.png) <b>`*|\\") == r"!\[x\](http://a/p.png) &lt;b>`*\|\\"
    assert escaped("fine_tuned_shared  \n(a < b)") == "fine_tuned_shared (a < b)"
    table = markdown_table({**findings.results, "domains": domains})
    assert table.splitlines()[0].startswith("| model | a\\|b &lt;img src=x> | average |")
    assert "<img" not in table


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_the_terminal(width: int) -> None:
    """A row for each model where there is room, else a column; every name and figure whole."""
    results = read_json(Path(__file__).parents[2] / "benchmarks/results/demo.json")
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(results, width))
    shown = console.export_text()
    header, body = rows(results)
    assert all(value in shown for row in (header, *body) for value in row)
    assert (sum("fine_tuned_shared" in row and "80.7" in row for row in shown.splitlines()) == 1) == (width == 200)
