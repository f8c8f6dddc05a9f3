"""What `inspection` found, as tables and lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

SHOWN_NAMES, SHOWN_FINDINGS, LONGEST_LINE = 12, 20, 300


def short_form(report: Mapping[str, Any]) -> list[str]:
    """The few lines that `metakd run` prints before it starts."""
    rows = {split: sum(sum(own.values()) for own in domains.values()) for split, domains in report["counts"].items()}
    sizes = ", ".join(f"{split} {count}" for split, count in rows.items())
    domains, labels = _listed(report["domains"]), _listed(report["labels"])
    return [f"domains: {domains}; labels: {labels}; rows: {sizes}", *findings(report)]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN_NAMES])
    return shown if len(names) <= SHOWN_NAMES else f"{shown} and {len(names) - SHOWN_NAMES} more"


def findings(report: Mapping[str, Any]) -> list[str]:
    """Whatever should give pause, one line each, with what can be done."""
    found: list[str] = [
        f"{_told(n, f'row of {split} repeats', f'rows of {split} repeat')} the text of another row of {split}"
        for split, n in report["duplicates"].items()
        if n
    ]
    for leak in report["leaks"]:
        flatters = ", which flatters every score" if leak["stand_in"] == "train" else ""
        stand = _told(leak["rows"], f"row of {leak['of']} stands", f"rows of {leak['of']} stand")
        found.append(
            f"{stand} word for word in {leak['stand_in']}{flatters}; "
            f"`metakd run --drop-leaks` takes them out of {leak['stand_in']}"
        )
    torn = report["contradictions"]
    if torn["texts"]:
        places = "; ".join(" and ".join(rows) for rows in torn["rows"])
        more = ", ..." if torn["texts"] > len(torn["rows"]) else ""
        where = f" ({places}{more})" if places else " (`metakd inspect` names the rows)"
        found.append(f"{_told(torn['texts'], 'text stands', 'texts stand')} with more than one label{where}")
    found += report["remarks"]
    if report["faults"]:
        found.append(f"{_told(len(report['faults']), 'fault', 'faults')}, for which `metakd run` would refuse the data")
    rest = len(found) - SHOWN_FINDINGS
    last = [f"and {rest} findings more (--json has all)"] if rest > 0 else []
    return [_clipped(line) for line in found[:SHOWN_FINDINGS]] + last


def _told(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _clipped(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Rows by domain, split and label; lengths by domain; the terms that tell the domains."""
    return [_counts(report), _lengths(report["lengths"]), *([_terms(report["terms"])] if report["terms"] else [])]


def _counts(report: Mapping[str, Any]) -> Table:
    table = _table(f"Rows of {report['data']}", "domain", *report["counts"], "labels")
    for domain in report["domains"]:
        own = [report["counts"][split].get(domain, {}) for split in report["counts"]]
        shares = {label: sum(counts.get(label, 0) for counts in own) for label in report["labels"]}
        total = sum(shares.values())
        shown = ", ".join(f"{label} {100 * count / total:.0f} %" for label, count in shares.items())
        table.add_row(domain, *(str(sum(counts.values())) for counts in own), shown)
    return table


def _lengths(found: Mapping[str, Any]) -> Table:
    title = f"Lengths in {found['unit']}, of {found['sampled_rows']} rows"
    table = _table(title, "domain", "median", "95 %", "longest", f"over {found['limit']}")
    for domain, own in found["domains"].items():
        cut = f"{100 * own['over_limit']:.1f} %"
        table.add_row(domain, str(own["median"]), str(own["p95"]), str(own["longest"]), cut)
    return table


def _terms(found: Mapping[str, Any]) -> Table:
    table = Table("domain", "terms", title="Terms that tell the domains (TF-IDF)")
    for domain, terms in found.items():
        table.add_row(domain, ", ".join(terms))
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="left" if column == "labels" else "right")
    return table
