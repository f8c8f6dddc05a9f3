"""How long a report takes to draw up and to open, and how large it is: a finished run's, and one of 16 domains.

    python benchmarks/report.py runs/demo
    python benchmarks/report.py runs/demo --pictures docs

Opens each page in Chromium, and writes benchmarks/results/report.json; --pictures takes those of docs/ instead.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from metakd.data.schema import folder_name
from metakd.report.page import write_report
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "report.json"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REPETITIONS, TIMEOUT = 3, 300_000  # for each page; milliseconds for one, where the machine is busy
PHONE = {"width": 390, "height": 844}


def enlarge(folder: Path, larger: Path, domains: int = 16, examples: int = 10_000) -> None:
    """The files of a finished run, as a larger one would have left them: its scores, every seventh prediction wrong.

    Stored texts are as long as they may be, and all different.
    """
    shutil.copytree(folder, larger, ignore=shutil.ignore_patterns("*.safetensors", "report.html", "tensorboard"))
    names, draw = [f"domain {i:02}" for i in range(domains)], random.Random(0)
    run, results, corpus = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("run", "results", "corpus")
    )
    first = run["domains"][0]
    for name in names:
        shutil.copytree(larger / "students" / folder_name(first), larger / "students" / folder_name(name))
    rows = [_row(i, names[i % domains], run["labels"], draw) for i in range(examples)]
    (larger / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    results["domains"] = dict.fromkeys(names, results["domains"][first])
    results["transfer"] = {a: {b: 0.9 - 0.02 * abs(i - j) for j, b in enumerate(names)} for i, a in enumerate(names)}
    corpus["rows"] = {split: dict.fromkeys(names, counts[first]) for split, counts in corpus["rows"].items()}
    corpus["similarity"] = [[1 - abs(i - j) / domains for i in range(domains)] for j in range(domains)]
    corpus["terms"] = {name: [[f"term{i}", 0.01] for i in range(20)] for name in names}
    points = [[draw.gauss(i % 2, 1), draw.gauss(0, 1)] for i in range(1000)]
    corpus["maps"] |= {"ids": [row["id"] for row in rows[:1000]], "meta_teacher": points, "student": points}
    for name, value in (("run", run | {"domains": names}), ("results", results), ("corpus", corpus)):
        write_json(larger / f"{name}.json", value)


def _row(place: int, domain: str, labels: list[str], draw: random.Random) -> dict[str, Any]:
    label, *others = draw.sample(labels, len(labels))
    models = {
        name: [others[0] if draw.random() < 1 / 7 else label, round(draw.uniform(1 / len(labels), 1), 4)]
        for name in ("meta_teacher", "student", "fine_tuned_shared", "tfidf")
    }
    text = "".join(draw.choices("abcdefghij ", k=500))
    return {"id": f"test-{place}", "domain": domain, "label": label, "texts": [text], "models": models}


def time_opening(browser: Browser, report: Path, **settings: Any) -> dict[str, Any]:
    """Milliseconds until all is drawn: by the clock from the opening of the file on, and of the page's own thread."""
    clock, thread = [], []
    for _ in range(REPETITIONS):
        page = browser.new_page(**settings)
        page.set_default_timeout(TIMEOUT)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-drawn]")
        clock.append(page.evaluate("performance.now()"))
        metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
        thread.append(1000 * metrics["TaskDuration"])
        page.close()
    return {"ms_by_the_clock": sorted(map(round, clock)), "ms_of_its_thread": sorted(map(round, thread))}


def measure(browser: Browser, folder: Path) -> dict[str, Any]:
    """Drawn up (by the clock, and of this process alone), and opened as wide as a desk's and as a phone's screen."""
    started, worked = time.perf_counter(), time.process_time()
    report = write_report(folder)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    return {
        "seconds_to_draw_up": round(seconds, 2),
        "seconds_of_its_process": round(worked, 2),
        "file_bytes": report.stat().st_size,
        "open": time_opening(browser, report),
        "open_as_wide_as_a_phone": time_opening(browser, report, viewport=PHONE),
    }


def take_pictures(browser: Browser, report: Path, folder: Path) -> None:
    """By day the first screen, by night the graph."""
    for scheme, part, height in (("light", "html", 825), ("dark", "#network", 900)):
        page = browser.new_page(viewport={"width": 1100, "height": height}, color_scheme=scheme)
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-drawn]")
        page.eval_on_selector(part, "(place) => place.scrollIntoView()")
        page.screenshot(path=folder / f"report-{scheme}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--pictures", type=Path, help="folder that the pictures go to")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as parent, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        if options.pictures:
            take_pictures(browser, write_report(options.run).absolute(), options.pictures)
            return
        results["as it is"] = measure(browser, options.run.absolute())
        for domains, examples in ((16, 10_000), (16, 100_000)):
            name = f"{domains} domains, {examples:,} scored examples"
            enlarge(options.run, Path(parent) / name, domains, examples)
            results[name] = measure(browser, Path(parent) / name)
        busy = [round(load, 1) for load in os.getloadavg()]  # of the machine, in the last 1, 5 and 15 minutes
        results |= {
            "browser": f"Chromium {browser.version}",
            "load": busy,
            "environment": {**environment(), "command": "benchmarks/report.py runs/demo"},
        }
        browser.close()
    write_json(RESULT, results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
