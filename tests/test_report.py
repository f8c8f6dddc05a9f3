"""The report, in a real browser: it says what the files say, answers the hand, and stays text."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from conftest import FAST, as_row, toy_examples, write_rows
from metakd.answers import transfer_between
from metakd.artifacts import write_json
from metakd.errors import InputError
from metakd.report import network
from metakd.report.compare import compare_runs
from metakd.report.facts import Findings
from metakd.report.network import graph
from metakd.report.page import write_report
from metakd.report.summary import sentences

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a report; when the test ends, nothing may have been asked of a network or said on the console."""
    pages, told = [], []

    def open_page(report: Path, **settings: Any) -> Page:
        page = browser.new_page(**settings)
        page.on("console", lambda message: told.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: told.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-drawn]")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not told


@pytest.fixture(scope="module")
def report(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "toy"
    shutil.copytree(finished_run, folder)
    return write_report(folder)


def places(page: Page) -> list[tuple[float, float]]:
    """Middles of the graph's nodes: base, teacher, then a domain and its student in turn."""
    boxes = page.locator("#graph .mark-symbol path").all()
    found = [box.bounding_box() for box in boxes]
    return [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in found if box]


@in_browser
def test_hover_click_drag_and_zoom_do_what_is_said(report: Path, opened: Callable[..., Page]) -> None:
    page = opened(report, viewport={"width": 1200, "height": 900})
    page.locator("#graph").scroll_into_view_if_needed()
    base, teacher, books, student, *_ = places(page)
    page.mouse.move(*student)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "percent right" in page.inner_text("#vg-tooltip-element")

    lines = page.locator("#graph .mark-rule line")
    before = [line.get_attribute("transform") for line in lines.all()]
    page.mouse.move(*books)
    page.mouse.down()
    page.mouse.move(books[0] + 60, books[1] + 30, steps=4)
    page.mouse.up()
    moved = places(page)[2]
    assert moved == pytest.approx((books[0] + 60, books[1] + 30), abs=2)
    assert [line.get_attribute("transform") for line in lines.all()] != before  # its edges come along
    assert not page.locator("dialog").is_visible()

    page.mouse.click(*student)
    assert page.inner_text("#details-title") == "student, books"
    assert "Most confident mistakes" in page.inner_text("#details-body")
    page.keyboard.press("Escape")
    colours = [path.get_attribute("fill") for path in page.locator("#graph .mark-symbol path").all()]
    assert colours[:4] == ["#2f6fb7", "#2f6fb7", "#2f6fb7", "#3a3a3a"]  # base, teacher and domain; itself

    page.click("[aria-label='Zoom in']")
    page.wait_for_timeout(100)
    distance = (abs(places(page)[0][0] - places(page)[1][0]), abs(base[0] - teacher[0]))
    assert distance[0] == pytest.approx(1.25 * distance[1], rel=0.02)
    page.click("[aria-label='Zoom back']")
    page.wait_for_timeout(100)
    assert places(page)[0] == pytest.approx(base, abs=1)


@in_browser
def test_the_table_sorts_and_opens_by_keyboard(report: Path, opened: Callable[..., Page]) -> None:
    page = opened(report)
    accuracies = "#scores tbody tr td:nth-child(3)"
    page.locator("#scores thead button", has_text="accuracy").focus()
    page.keyboard.press("Enter")
    rising = [float(text) for text in page.locator(accuracies).all_inner_texts()]
    assert rising == sorted(rising)
    page.keyboard.press("Enter")
    assert [float(text) for text in page.locator(accuracies).all_inner_texts()] == sorted(rising, reverse=True)
    page.locator("#scores .open", has_text="TF-IDF").first.focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#details-title").startswith("TF-IDF rival")


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(report: Path, opened: Callable[..., Page], scheme: str) -> None:
    page = opened(report, color_scheme=scheme)
    for open_details in (False, True):
        if open_details:
            page.locator("#scores .open").first.click()
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


@in_browser
def test_it_fits_a_phone(report: Path, opened: Callable[..., Page]) -> None:
    page = opened(report, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@in_browser
def test_names_and_texts_of_strangers_stay_text(
    metakd: Callable[..., Any], checkpoint: Callable[..., Path], tmp_path: Path, opened: Callable[..., Page]
) -> None:
    """A domain, a label and texts full of HTML: no dialog opens, no element comes of them."""
    hostile = {"books": EVIL, "kitchen": "</script><img src=x onerror=alert(2)>"}
    for split, count in (("train", 64), ("test", 16)):
        rows = [as_row(e) for e in toy_examples(count, count, split)]
        for row in rows:
            row["domain"] = hostile[row["domain"]]
            row["label"] = {"positive": "<b>good</b>"}.get(row["label"], row["label"])
            row["text"] += " <img src=x onerror=alert(3)> {{ 7 * 7 }}"
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    folder = tmp_path / "run"
    code, out, err = metakd(
        "run", "--data", tmp_path / "data", "--base", checkpoint(), "--output", folder, "--no-rival", *FAST
    )
    assert code == 0, err
    assert f"report:   {folder / 'report.html'}" in out
    page = opened(folder / "report.html")
    assert page.locator("img").count() == 0
    assert page.locator("main b").count() == 0
    assert EVIL in page.inner_text("main")
    page.locator("#scores .open").first.click()
    assert "<b>good</b>" in page.inner_text("#details-body")
    assert "49" not in re.sub(r"\d+\.\d+|\d{3,}", "", page.inner_text("#terms"))


@in_browser
def test_sixteen_domains_and_ten_thousand_examples_open_at_once(
    finished_run: Path, tmp_path: Path, opened: Callable[..., Page]
) -> None:
    """The finished run's files, as they would be of a larger one."""
    folder = tmp_path / "large"
    shutil.copytree(finished_run, folder)
    names = [f"domain {i:02}" for i in range(16)]
    run, results, corpus = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("run.json", "results.json", "corpus.json")
    )
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for i in range(10_000):
        row = json.loads(lines[i % len(lines)])
        wrong = {name: ["negative" if row["label"] == "positive" else "positive", 0.9] for name in row["models"]}
        models = wrong if i % 7 == 0 else row["models"]
        rows.append(row | {"id": str(i), "domain": names[i % 16], "texts": ["word " * 100], "models": models})
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    results["domains"] = dict.fromkeys(names, results["domains"]["books"])
    run["domains"] = names
    results["transfer"] = {a: {b: 0.9 - 0.02 * abs(i - j) for j, b in enumerate(names)} for i, a in enumerate(names)}
    corpus["similarity"] = [[1 - abs(i - j) / 16 for i in range(16)] for j in range(16)]
    corpus["terms"] = {name: [[f"term{i}", 0.01] for i in range(20)] for name in names}
    points = [[i % 37, i % 23] for i in range(1000)]
    corpus["maps"] = {
        "ids": [str(i) for i in range(1000)],
        "by_h": ["student"],
        "meta_teacher": points,
        "student": points,
    }
    for name, value in (("run.json", run), ("results.json", results), ("corpus.json", corpus)):
        write_json(folder / name, value)
    report = write_report(folder)
    assert report.stat().st_size < 10e6
    page = opened(report)
    taken = []
    for _ in range(3):
        page.reload()
        page.wait_for_selector("html[data-drawn]")
        taken.append(page.evaluate("performance.now()"))
    assert min(taken) < 2000


def test_without_texts_no_word_of_an_example_is_in_it(
    finished_run: Path, metakd: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    with_texts, _, _ = metakd("report", folder)
    assert with_texts == 0
    (row, *_) = Findings.read(folder).mistakes("fine_tuned", "books")
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
    assert f"{100 * average['student']['accuracy']:.1f} percent right" in first
    assert "2 domains" in first
    assert "is not established" in second  # TF-IDF is right every time as well


def test_calibration_mistakes_and_doubts_by_hand() -> None:
    """Four examples of one domain: two right at 0.95 and 0.97, one wrong at 0.92, one wrong at 0.55."""
    said = [("a", "a", 0.95), ("b", "b", 0.97), ("a", "b", 0.92), ("b", "a", 0.55)]
    rows = [
        {"id": str(i), "domain": "x", "label": label, "texts": [], "models": {"meta_teacher": [guess, sure]}}
        for i, (label, guess, sure) in enumerate(said)
    ]
    findings = Findings(Path(), {"labels": ["a", "b"]}, {"domains": {"x": {}}, "average": {}}, {}, rows)
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


def test_the_graph_knows_who_was_built_from_whom(finished_run: Path) -> None:
    nodes, edges = graph(Findings.read(finished_run))
    by_id = {node["id"]: node for node in nodes}
    assert by_id["student:books"]["ancestors"] == ["base", "domain:books", "domain:kitchen", "meta_teacher"]
    assert by_id["base"]["descendants"] == ["meta_teacher", "student:books", "student:kitchen"]
    (between,) = [edge for edge in edges if edge["kind"] != "built from"]
    assert {between["source"], between["target"]} == {"domain:books", "domain:kitchen"}


def test_domains_are_joined_as_strongly_as_measured(finished_run: Path) -> None:
    """Of 1.0 on its own, a's model keeps half on b; of 0.8, b's keeps all of a's 1.0: (0.5/0.8 + 1.0/1.0) / 2."""
    findings = Findings.read(finished_run)
    known = {
        "a": {"a": 1.0, "b": 0.5, "c": 0.8},
        "b": {"a": 1.0, "b": 0.8, "c": 0.8},
        "c": {"a": 1.0, "b": 0.8, "c": 0.8},
    }
    found = network._transfer(known)
    assert [(a, b, round(kept, 4)) for a, b, kept, _ in found] == [
        ("a", "b", 0.8125),
        ("a", "c", 1.0),
        ("b", "c", 1.0),
    ]
    assert found[0][3] == "a on b 50.0 percent right, b on a 100.0"
    measured = replace(findings, results=findings.results | {"transfer": known})
    strengths = [edge["strength"] for edge in graph(measured)[1] if edge["kind"] != "built from"]
    assert strengths == [0.0, 1.0, 1.0]
    alike = replace(findings, results=findings.results | {"transfer": {}})
    assert [edge["kind"][:6] for edge in graph(alike)[1] if edge["kind"] != "built from"] == ["alike:"]


def test_what_passes_between_domains_is_what_the_rivals_get_right(finished_run: Path) -> None:
    """12 test examples of each domain, so all are asked; the diagonal is the rival's own score."""
    results = json.loads((finished_run / "results.json").read_text(encoding="utf-8"))
    for domain, own in results["transfer"].items():
        assert set(own) == {"books", "kitchen"}
        assert own[domain] == pytest.approx(results["domains"][domain]["fine_tuned"]["accuracy"], abs=1e-4)
    assert transfer_between(dict.fromkeys(map(str, range(20)), Path()), [], [], 0) == {}  # 10,000 / 380 < 30


EXPERIMENTS = {
    "main": {"meta_kd": 0.9, "single_kd": 0.88},
    "scarce-5": {"meta_kd": 0.85, "single_kd": 0.7},
    "scarce-all-20": {"meta_kd": 0.8},
    "unseen": {"meta_kd": 0.9, "meta_kd (domain unseen)": 0.87},
}


@in_browser
def test_experiments_are_drawn_where_they_have_run(
    finished_run: Path, tmp_path: Path, metakd: Callable[..., Any], opened: Callable[..., Page]
) -> None:
    folder, experiments = tmp_path / "run", tmp_path / "experiments"
    shutil.copytree(finished_run, folder)
    for name, means in EXPERIMENTS.items():
        students = {
            method: {"mean": mean, "domains": {"books": mean, "kitchen": mean}} for method, mean in means.items()
        }
        write_json(experiments / f"{name}.json", {"students": students})
    code, _, err = metakd("report", folder, "--experiments", experiments)
    assert code == 0, err
    page = opened(folder / "report.html")
    assert page.locator("#scarce svg").count() == page.locator("#unseen svg").count() == 1
    shown = page.locator("figure", has=page.locator("#scarce"))
    shown.locator("summary").click()
    lines = [row.inner_text().split("\t") for row in shown.locator("tbody tr").all()]
    assert ["own domain's", "5", "single_kd", "70.0"] in lines
    assert ["all domains'", "100", "meta_kd", "90.0"] in lines
    (experiments / "main.json").write_text("[]", encoding="utf-8")
    code, _, err = metakd("report", folder, "--experiments", experiments)
    assert (code, "not what `metakd experiment main` writes" in err) == (2, True)
    code, _, err = metakd("report", folder, "--experiments", tmp_path)
    assert code == 2
    assert "none of main, unseen" in err


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
    code, out, err = metakd("compare", finished_run, other)
    assert code == 0, err
    assert "| other |" in out
    (other / "predictions.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="scored on the same examples"):
        compare_runs([finished_run, other])


@pytest.mark.parametrize("command", [("report",), ("report", "--format", "markdown")])
def test_a_folder_without_a_finished_run_is_refused(
    metakd: Callable[..., Any], tmp_path: Path, command: tuple[str, ...]
) -> None:
    code, _, err = metakd(*command, tmp_path)
    assert code == 2
    assert "metakd evaluate" in err
    assert "Traceback" not in err


def test_markdown_for_a_pull_request(finished_run: Path, metakd: Callable[..., Any]) -> None:
    code, out, err = metakd("report", finished_run, "--format", "markdown")
    assert code == 0, err
    assert out.startswith(f"# {finished_run.name}")
    assert "| student |" in out
    assert "- students less TF-IDF rival: " in out
