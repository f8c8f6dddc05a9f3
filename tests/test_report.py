"""The report, in a real browser: it says what the files say, answers the hand, and stays text."""

import json
import re
import runpy
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
from metakd.report import lineage
from metakd.report.compare import compare_runs
from metakd.report.facts import Findings, calibration_error
from metakd.report.lineage import graph
from metakd.report.page import write_report
from metakd.report.summary import cautions, facts, sentences
from metakd.results import markdown_table

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "report.py"))
CHROMIUM = BENCHMARK["CHROMIUM"]
PATIENCE = 120_000  # milliseconds, where other tests keep the machine busy
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a report; when the test ends, nothing may have been asked of a network or said on the console."""
    pages, told = [], []

    def open_page(report: Path, **settings: Any) -> Page:
        page = browser.new_page(**settings)
        page.set_default_timeout(PATIENCE)
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


SETTLED = "network.runAsync().then(() => null)"  # what was asked of the graph has been drawn


def places(page: Page) -> list[tuple[float, float]]:
    """Middles of the graph's nodes: base, teacher, then a domain and its student in turn."""
    page.evaluate(SETTLED)
    boxes = page.locator("#graph .mark-symbol path").all()
    found = [box.bounding_box() for box in boxes]
    return [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in found if box]


NAMED = {"rgb(58, 58, 58)": "dark grey", "rgb(47, 111, 183)": "blue", "rgb(46, 139, 87)": "green"}


def colours(page: Page) -> list[str]:
    """Of the graph's nodes, as a reader sees them by day."""
    page.evaluate(SETTLED)
    script = "(nodes) => nodes.map((node) => getComputedStyle(node).fill)"
    return [NAMED[found] for found in page.eval_on_selector_all("#graph .mark-symbol path", script)]


@in_browser
def test_hover_click_drag_and_zoom_do_what_is_said(report: Path, opened: Callable[..., Page]) -> None:
    page = opened(report, viewport={"width": 1200, "height": 900})
    page.locator("#graph").scroll_into_view_if_needed()
    base, teacher, books, student, *_ = places(page)
    page.mouse.move(*student)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert page.inner_text("#vg-tooltip-element h2") == "books student"
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
    assert colours(page)[:4] == ["blue", "blue", "blue", "dark grey"]  # base, teacher and domain; itself
    page.mouse.click(*teacher)
    assert page.inner_text("#details-title") == "meta-teacher"
    page.keyboard.press("Escape")
    assert colours(page)[:4] == ["blue", "dark grey", "blue", "green"]

    page.click("[aria-label='Zoom in']")
    distance = (abs(places(page)[0][0] - places(page)[1][0]), abs(base[0] - teacher[0]))
    assert distance[0] == pytest.approx(1.25 * distance[1], rel=0.02)
    page.click("[aria-label='Zoom back']")
    assert places(page)[0] == pytest.approx(base, abs=1)


@in_browser
def test_the_ground_moves_and_the_wheel_zooms_with_ctrl_alone(report: Path, opened: Callable[..., Page]) -> None:
    page = opened(report, viewport={"width": 1200, "height": 900})
    page.locator(".plane").scroll_into_view_if_needed()
    plane, buttons = (page.locator(name).bounding_box() for name in (".plane", ".zoom"))
    assert plane is not None
    assert buttons is not None
    margin = (plane["x"] + plane["width"] - buttons["x"] - buttons["width"], plane["y"] + plane["height"])
    assert 0 < margin[0] < 20  # at the bottom right
    assert 0 < margin[1] - buttons["y"] - buttons["height"] < 20
    before = places(page)
    corner = (plane["x"] + plane["width"] - 40, plane["y"] + 40)
    page.mouse.move(*corner)
    page.mouse.down()
    page.mouse.move(corner[0] - 50, corner[1] + 20, steps=4)
    page.mouse.up()
    for (x, y), place in zip(before, places(page), strict=True):
        assert place == pytest.approx((x - 50, y + 20), abs=2)
    page.mouse.wheel(0, -100)  # the page scrolls, the graph does not zoom
    page.wait_for_timeout(300)
    assert places(page)[0][0] - places(page)[1][0] == pytest.approx(before[0][0] - before[1][0], abs=1)
    plane = page.locator(".plane").bounding_box()
    assert plane is not None
    page.mouse.move(plane["x"] + 40, plane["y"] + plane["height"] / 2)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_function("network.signal('zoom') > 1")
    assert places(page)[0][0] - places(page)[1][0] == pytest.approx(
        1.003**100 * (before[0][0] - before[1][0]), rel=0.02
    )


@in_browser
def test_each_node_opens_what_is_known_of_it(report: Path, opened: Callable[..., Page]) -> None:
    """By keyboard, from the table that stands beside the graph; then on to a model."""
    page = opened(report)
    page.locator("#network summary").press("Enter")
    told = {}
    for button in page.locator("#network .choose").all():
        button.press("Enter")
        told[page.inner_text("#details-title")] = page.inner_text("#details-body")
        page.keyboard.press("Escape")
    assert "Licences" in told["bert0"]
    assert "Domain can be told" in told["meta-teacher"]
    assert "Rows by label" in told["domain books"]
    assert "its rival on books, %" in told["domain books"]
    assert "Most confident mistakes" in told["student, kitchen"]
    page.locator("#network .choose", has_text="meta-teacher").press("Enter")
    page.locator("#details-body .open").first.press("Enter")
    assert page.inner_text("#details-title") == "meta-teacher, books"
    assert page.locator("#calibration svg").count() == 1


@in_browser
def test_the_table_sorts_and_opens_by_keyboard(report: Path, opened: Callable[..., Page]) -> None:
    page = opened(report)
    accuracies = "#scores tbody:last-of-type tr td:nth-child(3)"
    before = [float(text) for text in page.locator(accuracies).all_inner_texts()]
    page.locator("#scores thead button", has_text="accuracy").focus()
    for falling in (True, False, True):  # numbers from the top, then in turn
        page.keyboard.press("Enter")
        found = [float(text) for text in page.locator(accuracies).all_inner_texts()]
        assert found == sorted(before, reverse=falling)
        said = page.locator("#scores th[aria-sort]").get_attribute("aria-sort")
        assert said == ("descending" if falling else "ascending")
    page.locator("#scores thead button", has_text="minus teacher").press("Enter")
    models = page.locator("#scores tbody:last-of-type .open").all_inner_texts()
    assert models[-2:] == ["meta-teacher"] * 2  # which has no difference from itself
    assert page.locator("#scores .averages tr").count() == 4
    page.locator("#scores .open", has_text="TF-IDF").first.focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#details-title").startswith("TF-IDF rival")


@in_browser
def test_what_a_run_lacks_is_said_and_nothing_warns(
    finished_run: Path, tmp_path: Path, opened: Callable[..., Page]
) -> None:
    """One domain, no weights, no rival, nothing passed: fewer pictures, no picture of nothing."""
    folder = tmp_path / "one"
    shutil.copytree(finished_run, folder, ignore=shutil.ignore_patterns("instance_weights", "kitchen"))
    run, results, corpus = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("run.json", "results.json", "corpus.json")
    )
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["domain"] == "books"]
    for row in rows:
        del row["models"]["fine_tuned"], row["models"]["tfidf"]
    for found in (results["average"], *results["domains"].values()):
        del found["fine_tuned"], found["tfidf"]
    results["domains"].pop("kitchen")
    corpus |= {"similarity": [], "terms": {}, "turning": []}
    ids = {row["id"] for row in rows}
    kept = [place for place, name in enumerate(corpus["maps"]["ids"]) if name in ids]
    corpus["maps"] |= {k: [corpus["maps"][k][i] for i in kept] for k in ("ids", "meta_teacher", "student")}
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    results = {key: value for key, value in results.items() if not key.startswith("transfer")}
    for name, value in (("run", run | {"domains": ["books"]}), ("results", results), ("corpus", corpus)):
        write_json(folder / f"{name}.json", value)
    page = opened(write_report(folder))
    text = page.inner_text("body")
    assert "one teacher of one domain" in text
    assert "is not known: none was trained" in text
    assert "They are joined by nothing" in text
    assert "None: what tells a domain shows only beside another one." in text
    assert page.locator("#transfer").count() == 0
    assert page.locator("#scores .averages").count() == 0


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(report: Path, opened: Callable[..., Page], scheme: str) -> None:
    page = opened(report, color_scheme=scheme)
    page.locator("summary").first.click()
    openings = ["", "#scores .open >> nth=-1", "#network .choose >> nth=0", "#network .choose >> nth=2"]
    for opening in openings:
        if opening:
            page.click(opening)
        found = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
        if opening:
            page.keyboard.press("Escape")


@in_browser
def test_it_is_printed_in_black_on_white_also_by_night(report: Path, opened: Callable[..., Page]) -> None:
    page = opened(report, color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    inks = page.eval_on_selector_all(".role-axis-label text", "(words) => words.map((w) => getComputedStyle(w).fill)")
    assert set(inks) == {"rgb(29, 33, 38)"}
    assert not page.locator(".zoom").is_visible()


@in_browser
def test_it_fits_a_phone(report: Path, opened: Callable[..., Page]) -> None:
    page = opened(report, viewport={"width": 390, "height": 844})
    page.locator("#scores .open").first.click()
    assert page.evaluate("document.getElementById('details').scrollWidth") <= 390
    page.keyboard.press("Escape")
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
    page.keyboard.press("Escape")
    page.locator("#network summary").click()
    for button in page.locator("#network .choose").all():
        button.click()
        page.keyboard.press("Escape")
    page.mouse.move(*places(page)[2])
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert page.inner_text("#vg-tooltip-element h2") == EVIL
    assert "49" not in re.sub(r"\d+\.\d+|\d{3,}", "", page.inner_text("#terms"))


@in_browser
def test_a_script_that_is_not_the_pages_own_is_not_run(report: Path, browser: Browser) -> None:
    """Were a text to get in as HTML all the same: neither its scripts nor its handlers would run."""
    page = browser.new_page()
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-drawn]")
    got_in = """() => {
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = true'>");
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
    }"""
    page.evaluate(got_in)
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran === undefined")
    page.close()


@in_browser
def test_sixteen_domains_and_ten_thousand_examples_open_at_once(
    finished_run: Path, tmp_path: Path, opened: Callable[..., Page]
) -> None:
    """The finished run's files, as they would be of a larger one: `benchmarks/report.py` has the time by the clock.

    Here it is that of the page's own thread, so that other tests beside this one do not count.
    """
    folder = tmp_path / "large"
    BENCHMARK["enlarge"](finished_run, folder)
    report = write_report(folder)
    assert report.stat().st_size < 10e6
    page = opened(report)
    asked = page.context.new_cdp_session(page)
    asked.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.reload()
    page.wait_for_selector("html[data-drawn]")
    metrics = asked.send("Performance.getMetrics")["metrics"]
    assert 0 < {metric["name"]: metric["value"] for metric in metrics}["TaskDuration"] < 2
    assert page.locator("#scores tbody:last-of-type tr").count() == 64
    assert "The 32 thickest of 120 are drawn" in page.inner_text("#network")
    assert len(Findings.read(folder).rows) == 10_000


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
    assert f"right on {100 * average['student']['accuracy']:.1f} percent of test on average" in first
    assert "one teacher of 2 domains" in first
    assert "2 small models, one for each" in first
    assert "is not established" in second  # TF-IDF is right every time as well
    (caution,) = cautions(findings)
    assert "paired over the 24 scored examples" in caution
    assert "3 comparisons" in caution
    larger = average | {"student": average["student"] | {"bytes": 2 * average["meta_teacher"]["bytes"]}}
    on_dev = replace(findings, results=findings.results | {"average": larger, "split": "dev", "leaked_rows": 3})
    assert "2.0 times larger" in sentences(on_dev)[0]
    assert "choose nothing by them" in cautions(on_dev)[-1]
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
    best = {"fine_tuned": average["fine_tuned"] | {"accuracy": 0.5}, "tfidf": average["tfidf"] | {"accuracy": 0.6}}
    findings = replace(findings, results=findings.results | {"average": average | best})
    gain = {"mean": mean, "interval": [mean - 0.04, mean + 0.04], "p_holm": p, "established": p < 0.05}
    vars(findings)["against"] = {"meta_teacher": gain, "fine_tuned": gain, "tfidf": gain}
    assert sentences(findings)[1].startswith(said)
    assert f"p = {p:.3f}" in sentences(findings)[1]


def test_the_command_names_no_folder_that_leads_to_its_files(finished_run: Path) -> None:
    findings = Findings.read(finished_run)
    told = dict(facts(findings))
    assert told["Base"] == "bert0"
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


def test_what_passes_between_domains_is_what_the_rivals_get_right(finished_run: Path) -> None:
    """12 test examples of each domain, so all are asked; the diagonal is the rival's own score."""
    results = json.loads((finished_run / "results.json").read_text(encoding="utf-8"))
    for domain, own in results["transfer"].items():
        assert set(own) == {"books", "kitchen"}
        assert own[domain] == pytest.approx(results["domains"][domain]["fine_tuned"]["accuracy"], abs=1e-4)
    assert transfer_between(dict.fromkeys(map(str, range(20)), Path()), [], [], 0) == {}  # 10,000 / 380 < 30


BOTH = ("books", "kitchen")
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
            method: {"mean": mean, "interval": [mean - 0.05, mean + 0.05], "domains": dict.fromkeys(BOTH, mean)}
            for method, mean in means.items()
        }
        write_json(experiments / f"{name}.json", {"students": students})
    code, _, err = metakd("report", folder, "--experiments", experiments)
    assert code == 0, err
    page = opened(folder / "report.html")
    assert page.locator("#scarce svg").count() == page.locator("#unseen svg").count() == 1
    shown = page.locator("figure", has=page.locator("#scarce"))
    shown.locator("summary").click()
    lines = [row.inner_text().split("\t") for row in shown.locator("tbody tr").all()]
    assert ["own domain's", "5", "single_kd", "70.0", "65.0", "75.0"] in lines
    assert ["all domains'", "100", "meta_kd", "90.0", "85.0", "95.0"] in lines
    page.locator("#network summary").click()
    page.locator("#network .choose", has_text="books").first.click()
    assert "With and without a teacher that has seen it" in page.inner_text("#details-body")
    page.keyboard.press("Escape")
    (experiments / "main.json").write_text("[]", encoding="utf-8")
    code, _, err = metakd("report", folder, "--experiments", experiments)
    assert (code, "not what `metakd experiment main` writes" in err) == (2, True)
    write_json(experiments / "main.json", {"students": {}, "data_fingerprint": "other"})
    code, _, err = metakd("report", folder, "--experiments", experiments)
    assert (code, "of other data than the run" in err) == (2, True)
    code, _, err = metakd("report", folder, "--experiments", experiments, "--format", "markdown")
    assert (code, "Markdown has not" in err) == (2, True)
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
    run = json.loads((other / "run.json").read_text(encoding="utf-8"))
    write_json(other / "run.json", run | {"settings": run["settings"] | {"seed": 7}})
    code, out, err = metakd("compare", finished_run, other)
    assert code == 0, err
    assert "| other |" in out
    assert "| `seed` | 0 | 7 |" in out  # and no other setting
    assert out.count("| `") == 1
    assert "| MB of a student |" in out
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
    assert "- students minus TF-IDF rival: " in out
    assert "Established means" in out


def test_markdown_stays_text_and_one_table(finished_run: Path) -> None:
    """A domain's name full of signs that Markdown and HTML know is one cell of one line."""
    results = json.loads((finished_run / "results.json").read_text(encoding="utf-8"))
    results["domains"] = {"a|b\n<img src=x>": results["domains"]["books"]}
    header = markdown_table(results).splitlines()[0]
    assert header.startswith("| model | a\\|b &lt;img src=x&gt; | average |")
    assert "<img" not in markdown_table(results)
