"""results.json as a table, for terminals and for Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table


def rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a model a row; accuracy by domain and on average, macro-F1, size, median CPU latency."""
    header = ["model", *results["domains"], "average", "95 % interval", "macro-F1", "parameters", "MB", "ms"]
    body = []
    for name, average in results["average"].items():
        by_domain = [models.get(name, {}).get("accuracy") for models in results["domains"].values()]
        body.append(
            [
                name,
                *("-" if value is None else _percent(value) for value in by_domain),
                _percent(average["accuracy"]),
                "-".join(map(_percent, average["accuracy_interval"])),
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
    table = [[escaped(name) for name in header], ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in table) + "\n\n" + escaped(caption(results)) + "\n"


def escaped(text: str) -> str:
    """Text that fits one column of a Markdown table and is shown as it is, without markup."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.split())).replace("|", "\\|")


def rich_table(results: Mapping[str, Any], width: int) -> Table:
    """The same for a terminal of `width` columns: a model a column where a model a row would not fit."""
    header, body = rows(results)
    columns: list[Sequence[str]] = [*zip(header, *body, strict=True)]
    if sum(max(map(cell_len, column)) + len(" | ") for column in columns) >= width:
        columns = [header, *body]
    table = Table(title="Accuracy in percent", caption=caption(results))
    for i, (name, *_) in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    for row in [*zip(*columns, strict=True)][1:]:
        table.add_row(*row)
    return table


def caption(results: Mapping[str, Any]) -> str:
    """What the table was scored on, and the averages without leaked rows where there are any."""
    counts = ", ".join(
        f"{domain} {next(iter(models.values()))['examples']}" for domain, models in results["domains"].items() if models
    )
    text = f"Scored on {results['split']} ({counts} examples); intervals are bootstrap percentiles."
    without = {name: average.get("accuracy_without_leaks") for name, average in results["average"].items()}
    scores = ", ".join(f"{name} {_percent(value)}" for name, value in without.items() if value is not None)
    if scores:
        text += f" {results['leaked_rows']} of them stand in train as well; averages without those: {scores}."
    return text
