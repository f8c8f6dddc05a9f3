"""results.json as a table, for terminals and for Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table


def rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a model a row; accuracy by domain and on average, macro-F1, size, median CPU latency."""
    domains = list(results["domains"])
    header = ["model", *domains, "average", "95 % interval", "macro-F1", "parameters", "MB", "ms"]
    body = []
    for name, average in results["average"].items():
        by_domain = [results["domains"][domain].get(name, {}).get("accuracy") for domain in domains]
        low, high = average["accuracy_interval"]
        body.append(
            [
                name,
                *("-" if value is None else _percent(value) for value in by_domain),
                _percent(average["accuracy"]),
                f"{_percent(low)}-{_percent(high)}",
                _percent(average["macro_f1"]),
                f"{average['parameters'] / 1e6:.2f} M",
                f"{average['bytes'] / 1e6:.1f}",
                f"{average['latency_ms']['median']:.1f}",
            ]
        )
    return header, body


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def markdown_table(results: Mapping[str, Any]) -> str:
    header, body = rows(results)
    header = [escaped(name) for name in header]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + escaped(caption(results)) + "\n"


def escaped(text: str) -> str:
    """Text that stays one cell of a Markdown table, and text, whatever is in it."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.split())).replace("|", "\\|")


def rich_table(results: Mapping[str, Any], width: int) -> Table:
    """The same for a terminal of `width` columns: a model a column where lines of models would not fit."""
    header, body = rows(results)
    columns: list[Sequence[str]] = [*zip(header, *body, strict=True)]
    if sum(max(map(cell_len, column)) + len(" | ") for column in columns) >= width:
        columns = [header, *body]
    table = Table(title="Accuracy in percent", caption=caption(results))
    for place, (name, *_) in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    for line in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*line)
    return table


def caption(results: Mapping[str, Any]) -> str:
    """What the table is of; a caution where few examples stand behind it."""
    counts = {
        domain: next(iter(models.values()))["examples"] for domain, models in results["domains"].items() if models
    }
    shown = ", ".join(f"{domain} {count}" for domain, count in counts.items())
    told = f"Scored on {results['split']} ({shown} examples); intervals are bootstrap percentiles."
    without = {name: average.get("accuracy_without_leaks") for name, average in results["average"].items()}
    if any(value is not None for value in without.values()):
        scores = ", ".join(f"{name} {_percent(value)}" for name, value in without.items() if value is not None)
        told += f" {results['leaked_rows']} of them stand in train as well; averages without those: {scores}."
    return told
