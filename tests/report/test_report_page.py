"""The report in a real browser: mouse and keyboard work, texts stay text, and no network is used."""

import re
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from conftest import FAST, Command, as_row, passed, read_json, read_rows, refused, toy_examples, write_rows
from metakd.evaluation.tables import BUSY_NOTE
from metakd.report.facts import Findings
from metakd.report.page import write_report
from metakd.report.summary import figures
from metakd.utils.artifacts import write_json
from other_clients import missing

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "report.py"))
CHROMIUM = BENCHMARK["CHROMIUM"]
PATIENCE = 120_000  # milliseconds, where other tests keep the machine busy
EVIL = "<script>alert(1)</script>"
Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Open a report; when the test ends, no request may have gone to a network and no message to the console."""
    pages, messages = [], []

    def open_page(report: Path, **settings: Any) -> Page:
        page = browser.new_page(**settings)
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: messages.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: (messages.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda sent: messages.append(sent.url) if sent.url.startswith("http") else None)
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-drawn]")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not messages


@pytest.fixture(scope="module")
def report(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("report") / "toy")))


SETTLED = "network.runAsync().then(() => null)"  # the graph has been drawn


def places(page: Page) -> list[tuple[float, float]]:
    """Middles of the graph's nodes: base, teacher, then a domain and its student in turn."""
    page.evaluate(SETTLED)
    boxes = [path.bounding_box() for path in page.locator("#graph .mark-symbol path").all()]
    return [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes if box]


NAMED = {
    "rgb(27, 30, 35)": "dark",
    "rgb(63, 111, 209)": "blue",
    "rgb(43, 138, 87)": "green",
    "rgb(117, 125, 136)": "grey",
}


def colours(page: Page) -> list[str]:
    """Of the graph's nodes, as a reader sees them by day."""
    page.evaluate(SETTLED)
    script = "(nodes) => nodes.map((node) => getComputedStyle(node).fill)"
    return [NAMED[fill] for fill in page.eval_on_selector_all("#graph .mark-symbol path", script)]


def box(page: Page, selector: str) -> dict[str, float]:
    bounds = page.locator(selector).bounding_box()
    return dict(**bounds)


def drag(page: Page, start: tuple[float, float], right: float, down: float) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + right, start[1] + down, steps=4)
    page.mouse.up()


def test_hover_click_drag_and_zoom(report: Path, opened: Opened) -> None:
    page = opened(report, viewport={"width": 1200, "height": 900})
    page.locator("#graph").scroll_into_view_if_needed()
    base, teacher, books, student, *_ = places(page)
    page.mouse.move(*student)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert page.inner_text("#vg-tooltip-element h2") == "books student"
    assert "percent right" in page.inner_text("#vg-tooltip-element")

    edges = page.locator("#graph .mark-rule line")
    before = [edge.get_attribute("transform") for edge in edges.all()]
    drag(page, books, 60, 30)
    moved = places(page)[2]
    assert moved == pytest.approx((books[0] + 60, books[1] + 30), abs=2)
    assert [edge.get_attribute("transform") for edge in edges.all()] != before  # its edges come along
    assert not page.locator("dialog").is_visible()

    page.mouse.click(*student)
    assert page.inner_text("#details-title") == "student, books"
    assert "Most confident mistakes" in page.inner_text("#details-body")
    page.keyboard.press("Escape")
    assert colours(page)[:4] == ["blue", "blue", "blue", "dark"]  # base, teacher and domain; itself
    page.mouse.click(*teacher)
    assert page.inner_text("#details-title") == "meta-teacher"
    page.keyboard.press("Escape")
    assert colours(page)[:4] == ["blue", "dark", "blue", "green"]

    page.click("[aria-label='Zoom in']")
    distance = (abs(places(page)[0][0] - places(page)[1][0]), abs(base[0] - teacher[0]))
    assert distance[0] == pytest.approx(1.25 * distance[1], rel=0.02)
    page.click("[aria-label='Zoom back']")
    assert places(page)[0] == pytest.approx(base, abs=1)


def test_the_ground_moves_and_the_wheel_zooms_with_ctrl_alone(report: Path, opened: Opened) -> None:
    page = opened(report, viewport={"width": 1200, "height": 900})
    page.locator(".plane").scroll_into_view_if_needed()
    plane, buttons = box(page, ".plane"), box(page, ".zoom")
    for start, length in (("x", "width"), ("y", "height")):  # at the bottom right
        assert 0 < plane[start] + plane[length] - buttons[start] - buttons[length] < 20
    before = places(page)
    drag(page, (plane["x"] + plane["width"] - 40, plane["y"] + 40), -50, 20)
    for (x, y), place in zip(before, places(page), strict=True):
        assert place == pytest.approx((x - 50, y + 20), abs=2)
    page.mouse.wheel(0, -100)  # the page scrolls, the graph does not zoom
    page.wait_for_timeout(300)
    assert places(page)[0][0] - places(page)[1][0] == pytest.approx(before[0][0] - before[1][0], abs=1)
    plane = box(page, ".plane")
    page.mouse.move(plane["x"] + 40, plane["y"] + plane["height"] / 2)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_function("network.signal('zoom') > 1")
    assert places(page)[0][0] - places(page)[1][0] == pytest.approx(
        1.003**100 * (before[0][0] - before[1][0]), rel=0.02
    )


def test_each_node_opens_what_is_known_of_it(report: Path, opened: Opened) -> None:
    """By keyboard, from the table that stands beside the graph; then on to a model."""
    page = opened(report)
    page.locator("#network summary").press("Enter")
    texts = {}
    for button in page.locator("#network .choose").all():
        button.press("Enter")
        texts[page.inner_text("#details-title")] = page.inner_text("#details-body")
        page.keyboard.press("Escape")
    assert "Licences" in texts["bert0"]
    assert "Domain can be told" in texts["meta-teacher"]
    assert "Rows by label" in texts["domain books"]
    assert "TF-IDF of its text on books, %" in texts["domain books"]
    assert "Most confident mistakes" in texts["student, kitchen"]
    page.locator("#network .choose", has_text="meta-teacher").press("Enter")
    page.locator("#details-body .open").first.press("Enter")
    assert page.inner_text("#details-title") == "meta-teacher, books"
    assert page.locator("#calibration svg").count() == 1


def test_the_first_screen_has_four_figures_and_a_chart(report: Path, opened: Opened) -> None:
    page = opened(report, viewport={"width": 1100, "height": 840})
    for (value, label, detail), item in zip(
        figures(Findings.read(report.parent)), page.locator(".figures li").all(), strict=True
    ):
        assert re.split("\n+", item.inner_text()) == [value, label, detail]
    chart = box(page, "#accuracy-latency svg")
    assert 0 < chart["y"] < chart["y"] + chart["height"] < 840
    assert page.locator("header p").first.inner_text().startswith("One teacher (bert0, ")
    assert page.locator("main h2").all_inner_texts() == [
        *("Models", "Charts", "Who taught whom", "Key terms", "Data health", "Facts")
    ]


def test_the_grid_has_models_by_domains(report: Path, opened: Opened) -> None:
    """Accuracies in percent, and below each how far it is from the meta-teacher's."""
    results = Findings.read(report.parent).results
    page = opened(report, viewport={"width": 1100, "height": 840})
    assert page.locator(".grid thead th").all_inner_texts() == ["model", "average", "books", "kitchen"]
    for row, kind in zip(page.locator(".grid tbody tr").all(), results["average"], strict=True):
        accuracies = [row.locator("td").nth(i).inner_text().split()[0] for i in range(3)]
        scored = [results["average"], results["domains"]["books"], results["domains"]["kitchen"]]
        assert accuracies == [f"{100 * models[kind]['accuracy']:.1f}" for models in scored]
        assert row.locator("small").count() == (0 if kind == "meta_teacher" else 3)
    assert not page.locator("#models > .hint").is_visible()  # nothing to scroll to
    page.locator(".grid button").nth(3).press("Enter")
    assert page.inner_text("#details-title") == "student, kitchen"


def test_latencies_that_other_work_lengthened_are_marked_in_every_table(run_copy: Path, opened: Opened) -> None:
    results = read_json(run_copy / "results.json")
    for models in (results["average"], *results["domains"].values()):
        for scores in models.values():
            scores["latency_ms"].pop("busy", None)
    results["domains"]["books"]["student"]["latency_ms"] |= {"median": 9.04, "busy": True}
    results["average"]["student"]["latency_ms"] |= {"median": 7.04, "busy": True}
    write_json(run_copy / "results.json", results)
    page = opened(write_report(run_copy))
    page.eval_on_selector_all("details", "(parts) => parts.forEach((part) => { part.open = true; })")
    assert "†" in page.locator(".figures li").nth(2).inner_text()
    assert page.locator("#scores td", has_text="†").all_inner_texts() == ["7.0†", "9.0†"]
    assert page.locator("header figure td", has_text="†").count() == 2
    assert page.get_by_text(BUSY_NOTE).count() >= 2
    page.locator(".grid button").nth(2).click()
    assert "9.0† ms" in page.inner_text("#details-body")
    page.keyboard.press("Escape")


def test_the_table_sorts_and_opens_by_keyboard(report: Path, opened: Opened) -> None:
    page = opened(report)
    page.locator(".all > summary").press("Enter")
    accuracies = "#scores tbody:last-of-type tr td:nth-child(3)"
    before = [float(text) for text in page.locator(accuracies).all_inner_texts()]
    page.locator("#scores thead button", has_text="accuracy").focus()
    for falling in (True, False, True):  # numbers from the top, then in turn
        page.keyboard.press("Enter")
        after = [float(text) for text in page.locator(accuracies).all_inner_texts()]
        assert after == sorted(before, reverse=falling)
        order = page.locator("#scores th[aria-sort]").get_attribute("aria-sort")
        assert order == ("descending" if falling else "ascending")
    page.locator("#scores thead button", has_text="minus teacher").press("Enter")
    models = page.locator("#scores tbody:last-of-type .open").all_inner_texts()
    assert models[-2:] == ["meta-teacher"] * 2  # which has no difference from itself
    assert page.locator("#scores .averages tr").count() == 4
    page.locator("#scores .open", has_text="TF-IDF").first.focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#details-title").startswith("TF-IDF baseline")


def test_a_run_with_less_has_fewer_pictures_and_nothing_warns(run_copy: Path, opened: Opened) -> None:
    """One domain, no weights, no baseline, no transfer: no picture of nothing."""
    for name in ("instance_weights", "students/kitchen", "fine_tuned_shared/kitchen"):
        shutil.rmtree(run_copy / name)
    run, results, corpus = (read_json(run_copy / f"{name}.json") for name in ("run", "results", "corpus"))
    rows = [row for row in read_rows(run_copy / "predictions.jsonl") if row["domain"] == "books"]
    for row in rows:
        del row["models"]["fine_tuned_shared"], row["models"]["tfidf"]
    for models in (results["average"], *results["domains"].values()):
        del models["fine_tuned_shared"], models["tfidf"]
    results["domains"].pop("kitchen")
    corpus |= {"similarity": [], "terms": {}, "turning": []}
    kept = [place for place, name in enumerate(corpus["maps"]["ids"]) if name in {row["id"] for row in rows}]
    corpus["maps"] |= {k: [corpus["maps"][k][i] for i in kept] for k in ("ids", "meta_teacher", "student")}
    write_rows(run_copy / "predictions.jsonl", rows)
    results = {key: value for key, value in results.items() if not key.startswith("transfer")}
    for name, value in (("run", run | {"domains": ["books"]}), ("results", results), ("corpus", corpus)):
        write_json(run_copy / f"{name}.json", value)
    page = opened(write_report(run_copy))
    text = page.inner_text("body")
    for part in ("became one small model", "no baseline was trained", "No lines join domains", "None: what tells a"):
        assert part in text
    assert page.locator("#transfer, #scores .averages, .grid .average").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(report: Path, opened: Opened, scheme: str) -> None:
    page = opened(report, color_scheme=scheme)
    page.eval_on_selector_all("main details", "(parts) => parts.forEach((part) => { part.open = true; })")
    for opened_by in (
        "",
        ".grid button >> nth=-1",
        "#scores .open >> nth=-1",
        "#network .choose >> nth=0",
        "#network .choose >> nth=2",
    ):
        if opened_by:
            page.click(opened_by)
        violations = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")] == []
        page.keyboard.press("Escape")


def test_it_is_printed_in_black_on_white_also_by_night(report: Path, opened: Opened) -> None:
    page = opened(report, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(21, 24, 28)"
    page.emulate_media(media="print")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    inks = page.eval_on_selector_all(".role-axis-label text", "(words) => words.map((w) => getComputedStyle(w).fill)")
    assert set(inks) == {"rgb(90, 98, 109)"}
    assert not page.locator(".zoom").is_visible()


def test_it_fits_a_phone(report: Path, opened: Opened) -> None:
    page = opened(report, viewport={"width": 390, "height": 844})
    page.locator(".grid button").first.click()
    assert page.evaluate("document.getElementById('details').scrollWidth") <= 390
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#models > .hint").inner_text().startswith("Scroll sideways for more domains")
    assert page.locator("#models > .hint").is_visible()


@pytest.mark.slow
def test_untrusted_names_and_texts_stay_text(metakd: Command, base: Path, tmp_path: Path, opened: Opened) -> None:
    """A domain, a label and texts full of HTML: no dialog opens, no element comes of them."""
    hostile = {"books": EVIL, "kitchen": "</script><img src=x onerror=alert(2)>"}
    for split, count in (("train", 64), ("test", 16)):
        rows = [as_row(e) for e in toy_examples(count, count, split)]
        for row in rows:
            row["domain"] = hostile[row["domain"]]
            row["label"] = {"positive": "<b>good</b>"}.get(row["label"], row["label"])
            row["text"] += " <img src=x onerror=alert(3)> {{ 7 * 7 }}"
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    folders = ("--data", tmp_path / "data", "--base", base, "--output", tmp_path / "run")
    out, _ = passed(metakd("run", *folders, "--no-baseline", *FAST))
    assert f"report:   {tmp_path / 'run' / 'report.html'}" in out
    page = opened(tmp_path / "run" / "report.html")
    assert page.locator("img, main b").count() == 0
    assert EVIL in page.inner_text("main")
    page.locator(".grid button").first.click()
    assert "<b>good</b>" in page.inner_text("#details-body")
    page.keyboard.press("Escape")
    page.locator("#network summary").click()
    for button in page.locator("#network .choose").all():
        button.click()
        page.keyboard.press("Escape")
    page.locator("#graph").scroll_into_view_if_needed()
    page.mouse.move(*places(page)[2])
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert page.inner_text("#vg-tooltip-element h2") == min(hostile.values())  # the first domain
    assert "49" not in re.sub(r"\d+\.\d+|\d{3,}", "", page.inner_text("#terms"))


def test_no_other_script_is_run(report: Path, browser: Browser) -> None:
    """Were a text to get in as HTML all the same: neither its scripts nor its handlers would run."""
    page = browser.new_page()
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-drawn]")
    page.evaluate("""() => {
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = true'>");
        document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = true" }));
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran === undefined")
    page.close()


@pytest.mark.slow
def test_sixteen_domains_and_ten_thousand_examples(finished_run: Path, tmp_path: Path, opened: Opened) -> None:
    """The finished run's files, as they would be of a larger one: `benchmarks/report.py` has the time by the clock.

    Here it is that of the page's own thread, so that other tests beside this one do not count.
    """
    folder = tmp_path / "large"
    BENCHMARK["enlarge"](finished_run, folder)
    report = write_report(folder)
    assert report.stat().st_size < 10e6
    page = opened(report)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.reload()
    page.wait_for_selector("html[data-drawn]")
    metrics = session.send("Performance.getMetrics")["metrics"]
    assert 0 < {metric["name"]: metric["value"] for metric in metrics}["TaskDuration"] < 2
    assert page.locator("#scores tbody:last-of-type tr").count() == 64
    assert page.locator(".grid button").count() == 64
    name, last = page.locator(".grid th").first, page.locator(".grid thead th").last
    left, right = name.bounding_box(), last.bounding_box()
    assert page.locator("#models > .hint").is_visible()  # more domains than the page is wide
    page.locator("#models > .wide").evaluate("(table) => { table.scrollLeft = 1e6; }")
    assert name.bounding_box() == left  # the models' names stay
    assert (last.bounding_box() or {})["x"] < (right or {})["x"]
    assert "The 32 thickest of 120 are drawn" in page.inner_text("#network")
    assert len(Findings.read(folder).rows) == 10_000


BOTH = ("books", "kitchen")
EXPERIMENTS = {
    "main": {"meta_kd": 0.9, "single_kd": 0.88},
    "scarce-5": {"meta_kd": 0.85, "single_kd": 0.7},
    "scarce-all-20": {"meta_kd": 0.8},
    "unseen": {"meta_kd": 0.9, "meta_kd (domain unseen)": 0.87},
}


def test_experiments_are_drawn(run_copy: Path, tmp_path: Path, metakd: Command, opened: Opened) -> None:
    experiments = tmp_path / "experiments"
    for name, means in EXPERIMENTS.items():
        students = {
            method: {"mean": mean, "interval": [mean - 0.05, mean + 0.05], "domains": dict.fromkeys(BOTH, mean)}
            for method, mean in means.items()
        }
        write_json(experiments / f"{name}.json", {"students": students})
    passed(metakd("report", run_copy, "--experiments", experiments))
    page = opened(run_copy / "report.html")
    assert page.locator("#scarce svg").count() == page.locator("#unseen svg").count() == 1
    shown = page.locator("figure", has=page.locator("#scarce"))
    shown.locator("summary").click()
    rows = [row.inner_text().split("\t") for row in shown.locator("tbody tr").all()]
    assert ["own domain's", "5", "single_kd", "70.0", "65.0", "75.0"] in rows
    assert ["all domains'", "100", "meta_kd", "90.0", "85.0", "95.0"] in rows
    page.locator("#network summary").click()
    page.locator("#network .choose", has_text="books").first.click()
    assert "With and without a teacher that has seen it" in page.inner_text("#details-body")
    page.keyboard.press("Escape")


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ([], (), "not what `metakd experiment main` writes"),
        ({"students": {}, "data_fingerprint": "other"}, (), "of other data than the run"),
        ({"students": {}}, ("--format", "markdown"), "Markdown does not have"),
        (None, (), "no finished experiment that is drawn (main, unseen"),
    ],
)
def test_experiments_that_do_not_fit_are_refused(
    finished_run: Path, tmp_path: Path, metakd: Command, content: Any, flags: tuple[str, ...], message: str
) -> None:
    if content is not None:
        write_json(tmp_path / "main.json", content)
    assert message in refused(metakd("report", finished_run, "--experiments", tmp_path, *flags))
