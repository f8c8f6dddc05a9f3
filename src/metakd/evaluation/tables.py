"""results.json as a table, for terminals and for Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Column, Table

OVER_ALL = "accuracy_over_all_labels"  # of a model that was scored among the labels of a text's domain
MEASURES = {"accuracy": "accuracy", "micro_f1": "micro-F1", "macro_f1": "macro-F1"}  # in percent
ALIKE = 1.05  # ratios nearer to 1 count as none
BUSY_NOTE = "† Too high: other processes used the cores while this latency was measured."


def rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one model per row: accuracy by domain and on average, macro-F1, size, median CPU latency.

    If a text may have several labels, micro-F1 comes first, and accuracy last.
    """
    measure, others = measure_of(results), ["macro_f1"]
    others += ["accuracy"] * (measure != "accuracy")
    names = [MEASURES[other] for other in others]
    header = ["model", *results["domains"], "average", "95 % interval", *names, "parameters", "MB", "ms"]
    body = []
    for name, average in results["average"].items():
        domains = [models.get(name) for models in results["domains"].values()]
        by_domain = [percent(scores[measure]) if scores else "-" for scores in domains]
        interval = "-".join(map(percent, average[f"{measure}_interval"]))
        parameters, size = f"{average['parameters'] / 1e6:.2f} M", f"{average['bytes'] / 1e6:.1f}"
        scored = [*by_domain, percent(average[measure]), interval, *(percent(average[other]) for other in others)]
        body.append([name, *scored, parameters, size, milliseconds(average["latency_ms"])])
    if reads_windows(results):
        header.append("windows")
        for row, average in zip(body, results["average"].values(), strict=True):
            row.append(f"{average['windows']:.2f}" if "windows" in average else "-")
    return header, body


def measure_of(results: Mapping[str, Any]) -> str:
    """What models are compared by: accuracy, or micro-F1 if a text may have several labels."""
    return "micro_f1" if any("micro_f1" in average for average in results["average"].values()) else "accuracy"


def by_windows(means: Mapping[str, float]) -> str:
    """Mean milliseconds by the windows that a text fills."""
    return ", ".join(f"{windows}: {ms:.1f}" for windows, ms in means.items())


def reads_windows(results: Mapping[str, Any]) -> bool:
    """Whether a model has read several windows of a text."""
    return any(average.get("windows", 1) > 1 for average in results["average"].values())


def milliseconds(latency: Mapping[str, float]) -> str:
    """The median, with a dagger where other work lengthened it."""
    return f"{latency['median']:.1f}{'†' if latency.get('busy') else ''}"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def markdown_table(results: Mapping[str, Any]) -> str:
    header, body = rows(results)
    return f"{as_markdown([[*map(escaped, header)], *body])}\n{escaped(caption(results))}\n"


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a header and rows; all columns except the first are right-aligned."""
    header, *body = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---", *["---:"] * (len(header) - 1)], *body))


def escaped(text: str) -> str:
    """Text escaped for a column of a Markdown table: no HTML, no named link, no picture, no further column."""
    return re.sub(r"([\\\[\]|])", r"\\\1", re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.split())))


def rich_table(results: Mapping[str, Any], width: int) -> Table:
    """The same for a terminal of `width` columns: one model per column if one per row would not fit."""
    header, body = rows(results)
    columns: list[Sequence[str]] = [*zip(header, *body, strict=True)]
    if sum(max(map(cell_len, column)) + len(" | ") for column in columns) >= width:
        columns = [header, *body]
    (first, *others), *figures = zip(*columns, strict=True)
    headings = [first, *(Column(name, justify="right") for name in others)]
    title = "Accuracy" if measure_of(results) == "accuracy" else "Micro-F1"
    table = Table(*headings, title=f"{title} in percent", caption=caption(results))
    for row in figures:
        table.add_row(*row)
    return table


def caption(results: Mapping[str, Any]) -> str:
    """What the table was scored on, and the averages without leaked rows if there are any."""
    counts = ", ".join(
        f"{domain} {next(iter(models.values()))['examples']}" for domain, models in results["domains"].items() if models
    )
    text = f"Scored on {results['split']} ({counts} examples); intervals are Wilson's."
    if measure_of(results) == "micro_f1":
        text += " A text may have several labels: accuracy is the share of texts whose labels are all right."
    without = {name: average.get("accuracy_without_leaks") for name, average in results["average"].items()}
    scores = ", ".join(f"{name} {percent(value)}" for name, value in without.items() if value is not None)
    if scores:
        what = "averages" if measure_of(results) == "accuracy" else "average accuracies"
        text += f" {results['leaked_rows']} of them are also in train; {what} without them: {scores}."
    if over := results["average"].get("meta_teacher", {}).get(OVER_ALL):
        text += f" Models choose among the labels of a text's domain; among all, meta_teacher is {percent(over)} right."
    way = results.get("run", {}).get("settings", {}).get("long_texts", "first")
    if reads_windows(results) or way in ("longer", "adaptive"):
        text += f" Long texts: {way}."
    if reads_windows(results):
        times = {name: each["latency_ms"].get("by_windows", {}) for name, each in results["average"].items()}
        each = "; ".join(f"{name} {by_windows(means)}" for name, means in times.items() if means)
        text += " windows: read of a text, on average."
        text += f" Mean ms of one text, by the windows that it fills: {each}." * bool(each)
    if any(average["latency_ms"].get("busy") for average in results["average"].values()):
        text += f" {BUSY_NOTE}"
    return text
