"""What a report says: no more and no less than the run's files."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from metakd.evaluation.predictions import transfer_sample_size
from metakd.evaluation.tables import markdown_table, rich_table, rows
from metakd.report import lineage
from metakd.report.compare import compare_runs
from metakd.report.facts import KINDS, Findings, calibration_error
from metakd.report.lineage import graph
from metakd.report.summary import cautions, facts, sentences
from metakd.utils.artifacts import write_json
from metakd.utils.environment import environment
from metakd.utils.errors import InputError


def test_without_texts_no_word_of_an_example_is_in_it(
    finished_run: Path, metakd: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    with_texts, _, _ = metakd("report", folder)
    assert with_texts == 0
    (row, *_) = Findings.read(folder).mistakes("fine_tuned_shared", "books")
    assert row["texts"][0] in (folder / "report.html").read_text(encoding="utf-8")
    code, out, err = metakd("report", folder, "--no-texts")
    assert code == 0, err
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert row["texts"][0] not in page
    assert row["id"] in page
    assert str(folder / "report.html") in out


def test_the_summary_says_what_the_figures_say(finished_run: Path) -> None:
    findings = Findings.read(finished_run)
    average = findings.results["average"]
    first, second = sentences(findings)
    ratio = average["meta_teacher"]["bytes"] / average["student"]["bytes"]
    assert f"{ratio:.1f} times smaller" in first
    assert f"right on {100 * average['student']['accuracy']:.1f} percent of test on average" in first
    assert "one teacher of 2 domains" in first
    assert "2 small models, one for each" in first
    assert "is not established" in second  # TF-IDF is right every time as well
    caution = cautions(findings)[0]
    assert "paired over the 24 scored examples" in caution
    assert "3 comparisons" in caution
    larger = average | {"student": average["student"] | {"bytes": 2 * average["meta_teacher"]["bytes"]}}
    on_dev = replace(findings, results=findings.results | {"average": larger, "split": "dev", "leaked_rows": 3})
    assert "2.0 times larger" in sentences(on_dev)[0]
    assert "choose nothing by them" in " ".join(cautions(on_dev))
    without = larger | {"student": average["student"] | {"accuracy_without_leaks": 0.5}}
    assert (
        "3 scored examples stand in train as well"
        in cautions(replace(on_dev, results=on_dev.results | {"average": without}))[-1]
    )


@pytest.mark.parametrize(
    ("mean", "p", "said"),
    [
        (
            0.05,
            0.01,
            "Their gain over the best simple rival, TF-IDF with logistic regression (60.0 percent), is established",
        ),
        (-0.05, 0.01, "They are worse than the best simple rival"),
        (0.05, 0.2, "A difference from the best simple rival"),
    ],
)
def test_the_summary_claims_no_more_than_the_test_does(finished_run: Path, mean: float, p: float, said: str) -> None:
    findings = Findings.read(finished_run)
    average = findings.results["average"]
    known = (("fine_tuned_shared", 0.5), ("tfidf", 0.6))
    best = {name: average[name] | {"accuracy": accuracy} for name, accuracy in known}
    findings = replace(findings, results=findings.results | {"average": average | best})
    gain = {"mean": mean, "interval": [mean - 0.04, mean + 0.04], "p_holm": p, "established": p < 0.05}
    vars(findings)["against"] = {"meta_teacher": gain, "fine_tuned_shared": gain, "tfidf": gain}
    assert sentences(findings)[1].startswith(said)
    assert f"p\u00a0=\u00a0{p:.3f}" in sentences(findings)[1]


def test_a_command_is_kept_as_it_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/metakd", "run", "--data", "my reviews", "--seed", "1"])
    assert environment()["command"] == "metakd run --data 'my reviews' --seed 1"
    monkeypatch.setattr("sys.argv", ["/lib/metakd/__main__.py", "demo"])
    assert environment()["command"] == "python -m metakd demo"


def test_the_command_names_no_folder_that_leads_to_its_files(finished_run: Path) -> None:
    findings = Findings.read(finished_run)
    told = dict(facts(findings))
    assert told["Base"] == Path(findings.run["settings"]["base"]).name
    assert str(finished_run.parent) not in told["Command"]
    assert f"--output {finished_run.name}" in told["Command"]


def test_calibration_mistakes_and_doubts_by_hand() -> None:
    """Four examples of one domain: two right at 0.95 and 0.97, one wrong at 0.92, one wrong at 0.55."""
    said = [("a", "a", 0.95), ("b", "b", 0.97), ("a", "b", 0.92), ("b", "a", 0.55)]
    rows = [
        {"id": str(i), "domain": "x", "label": label, "texts": [], "models": {"meta_teacher": [guess, sure]}}
        for i, (label, guess, sure) in enumerate(said)
    ]
    run = {"labels": ["a", "b"], "settings": {"method": "meta_kd"}}
    findings = Findings(Path(), run, {"domains": {"x": {}}, "average": {}}, {}, rows)
    low, high = findings.calibration("meta_teacher", "x")
    assert low == {"examples": 1, "confidence": 0.55, "accuracy": 0}
    assert high == {
        "examples": 3,
        "confidence": pytest.approx((0.95 + 0.97 + 0.92) / 3),
        "accuracy": pytest.approx(2 / 3),
    }
    assert findings.confusion("meta_teacher", "x") == [[1, 1], [1, 1]]
    assert [row["id"] for row in findings.mistakes("meta_teacher", "x")] == ["2", "3"]
    assert [row["id"] for row in findings.doubtful] == ["2"]
    assert findings.sure == 3
    error = (1 * (0.55 - 0) + 3 * ((0.95 + 0.97 + 0.92) / 3 - 2 / 3)) / 4
    assert calibration_error(findings.calibration("meta_teacher", "x")) == pytest.approx(error)


def test_of_doubtful_labels_those_come_first_that_most_models_contradict() -> None:
    said = [{"meta_teacher": ["b", 0.99], "tfidf": ["a", 0.6]}, {"meta_teacher": ["b", 0.91], "tfidf": ["b", 0.6]}]
    rows = [{"id": str(i), "domain": "x", "label": "a", "texts": [], "models": own} for i, own in enumerate(said)]
    run = {"labels": ["a", "b"], "settings": {"method": "meta_kd"}}
    findings = Findings(Path(), run, {"domains": {"x": {}}, "average": {"meta_teacher": {}, "tfidf": {}}}, {}, rows)
    assert [row["id"] for row in findings.doubtful] == ["1", "0"]
    assert [findings.siding(row) for row in findings.doubtful] == [["TF-IDF rival"], []]


def test_the_graph_knows_who_was_built_from_whom(finished_run: Path) -> None:
    nodes, edges = graph(Findings.read(finished_run))
    by_id = {node["id"]: node for node in nodes}
    assert by_id["student:books"]["ancestors"] == ["base", "domain:books", "domain:kitchen", "meta_teacher"]
    assert by_id["base"]["descendants"] == ["meta_teacher", "student:books", "student:kitchen"]
    (between,) = [edge for edge in edges if edge["kind"] == "between"]
    assert {between["source"], between["target"]} == {"domain:books", "domain:kitchen"}
    assert between["strength"] == 1  # the most that passes, also where it is the only pair


def test_domains_are_joined_as_strongly_as_measured(finished_run: Path) -> None:
    """Of 1.0 on its own, a's model keeps half on b; of 0.8, b's keeps all of a's 1.0: (0.5/0.8 + 1.0/1.0) / 2."""
    findings = Findings.read(finished_run)
    known = {
        "a": {"a": 1.0, "b": 0.5, "c": 0.8},
        "b": {"a": 1.0, "b": 0.8, "c": 0.8},
        "c": {"a": 1.0, "b": 0.8, "c": 0.8},
    }
    found = lineage._transfer(known)
    assert [(a, b, round(kept, 4)) for a, b, kept, _ in found] == [
        ("a", "b", 0.8125),
        ("a", "c", 1.0),
        ("b", "c", 1.0),
    ]
    assert found[0][3] == "a on b 50.0 percent right, b on a 100.0"
    measured = replace(findings, results=findings.results | {"transfer": known})
    found = [(edge["target"], edge["strength"]) for edge in graph(measured)[1] if edge["kind"] == "between"]
    assert found == [("domain:c", 1.0), ("domain:c", 1.0), ("domain:b", 0.0)]  # the strongest first
    assert "81 percent the thinnest, 100 percent the thickest" in lineage.widths(measured)
    alike = replace(findings, results=findings.results | {"transfer": {}})
    assert [edge["told"][:6] for edge in graph(alike)[1] if edge["kind"] == "between"] == ["alike:"]
    assert "cosine" in lineage.widths(alike)


def test_every_kind_of_model_has_a_colour() -> None:
    style = (Path(lineage.__file__).parent / "style.css").read_text(encoding="utf-8")
    for kind in KINDS:
        colour = f"--{kind.replace('_', '-')}"
        assert f".{kind} {{ --kind: var({colour}); }}" in style
        assert style.count(f"{colour}: #") == 2  # by day and by night


def test_what_passes_between_domains_is_what_tfidf_of_one_gets_right_of_another(finished_run: Path) -> None:
    """12 test examples of each domain, so all are asked; the diagonal is its own score."""
    results = json.loads((finished_run / "results.json").read_text(encoding="utf-8"))
    for domain, own in results["transfer"].items():
        assert set(own) == {"books", "kitchen"}
        assert own[domain] == pytest.approx(results["domains"][domain]["tfidf"]["accuracy"], abs=1e-4)
    assert transfer_sample_size(20) == 0  # 10,000 / 380 < 30


def test_runs_are_compared_on_the_same_examples(finished_run: Path, metakd: Callable[..., Any], tmp_path: Path) -> None:
    """A copy whose student of books errs on three of twelve more is behind by (3/12 + 0/12) / 2."""
    other = tmp_path / "other"
    shutil.copytree(finished_run, other)
    rows = [json.loads(line) for line in (other / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    right = [row for row in rows if row["domain"] == "books" and row["models"]["student"][0] == row["label"]]
    for row in right[:3]:
        row["models"]["student"][0] = "negative" if row["label"] == "positive" else "positive"
    rows.reverse()  # an order of its own
    (other / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = compare_runs([finished_run, other])
    assert found["against"]["other"]["mean"] == pytest.approx(3 / 24)
    run = json.loads((other / "run.json").read_text(encoding="utf-8"))
    write_json(other / "run.json", run | {"settings": run["settings"] | {"seed": 7}})
    code, out, err = metakd("compare", finished_run, other)
    assert code == 0, err
    assert "| other |" in out
    assert "| `seed` | 0 | 7 |" in out  # and no other setting
    assert out.count("| `") == 1
    assert "| MB of a student |" in out
    fewer = "".join(json.dumps(row) + "\n" for row in (rows[0], rows[-1]))  # one of each domain
    (other / "predictions.jsonl").write_text(fewer, encoding="utf-8")
    with pytest.raises(InputError, match="scored on the same examples"):
        compare_runs([finished_run, other])


@pytest.mark.parametrize("command", [("report",), ("report", "--format", "markdown")])
def test_a_folder_without_a_finished_run_is_refused(
    metakd: Callable[..., Any], tmp_path: Path, command: tuple[str, ...]
) -> None:
    code, _, err = metakd(*command, tmp_path)
    assert code == 2
    assert "no run here" in err
    assert "Traceback" not in err


def test_files_that_do_not_belong_together_are_refused_in_one_message(
    finished_run: Path, metakd: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(finished_run, folder)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    del results["domains"]["kitchen"], results["split"]
    write_json(folder / "results.json", results)
    write_json(folder / "corpus.json", [])
    code, _, err = metakd("report", folder)
    told = " ".join(err.split())
    assert code == 2
    assert "results.json: no split" in told
    assert "corpus.json: no terms" in told
    assert "domain 'kitchen' is not in both files" in told
    (folder / "predictions.jsonl").write_text("[]\n", encoding="utf-8")
    code, _, err = metakd("report", folder)
    assert code == 2
    assert "1 lines are no scored examples" in " ".join(err.split())


def test_markdown_for_a_pull_request(finished_run: Path, metakd: Callable[..., Any]) -> None:
    code, out, err = metakd("report", finished_run, "--format", "markdown")
    assert code == 0, err
    assert out.startswith(f"# {finished_run.name}")
    assert "| student |" in out
    assert "- students minus TF-IDF rival: " in out
    assert "Established means" in out


def test_markdown_stays_text_and_one_table(finished_run: Path) -> None:
    """A domain's name full of signs that Markdown and HTML know is one cell of one line."""
    results = json.loads((finished_run / "results.json").read_text(encoding="utf-8"))
    results["domains"] = {"a|b\n<img src=x>": results["domains"]["books"]}
    header = markdown_table(results).splitlines()[0]
    assert header.startswith("| model | a\\|b &lt;img src=x> | average |")
    assert "<img" not in markdown_table(results)


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_the_terminal(width: int) -> None:
    """A line a model where there is room, else a column a model; every name and figure whole."""
    results = json.loads((Path(__file__).parents[2] / "benchmarks/results/demo.json").read_text(encoding="utf-8"))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(results, width))
    shown = console.export_text()
    header, body = rows(results)
    assert all(cell in shown for cell in (*header, *(cell for line in body for cell in line)))
    assert (sum("fine_tuned_shared" in line and "80.7" in line for line in shown.splitlines()) == 1) == (width == 200)
