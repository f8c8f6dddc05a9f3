"""An inspection's report as tables and lines for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Column, Table

from metakd.utils.errors import listed

SHOWN_FINDINGS, SHOWN_CHARACTERS, SHOWN_LABELS = 20, 300, 10


def short_form(report: Mapping[str, Any]) -> list[str]:
    """The few lines that `metakd run` prints before it starts."""
    sizes = ", ".join(f"{split} {sum(domains.values())}" for split, domains in report["rows_by_domain"].items())
    summary = f"domains: {listed(report['domains'])}; labels: {listed(report['labels'])}; rows: {sizes}"
    return [summary, *findings(report)]


def findings(report: Mapping[str, Any]) -> list[str]:
    """What may weaken or distort the results, one line each, with what can be done."""
    messages: list[str] = [
        f"{_counted(n, f'row of {split} repeats', f'rows of {split} repeat')} the text of another row of {split}; "
        "`metakd run --drop-duplicates` keeps one of each label and domain"
        for split, n in report["duplicates"].items()
        if n
    ]
    for leak in report["leaks"]:
        later, earlier = leak["of"], leak["also_in"]
        flatters = ", which inflates every score" if earlier == "train" else ""
        messages.append(
            f"{_counted(leak['rows'], f'row of {later} is', f'rows of {later} are')} also in "
            f"{earlier}{flatters}; `metakd run --drop-leaks` removes them from {earlier}"
        )
    torn = report["contradictions"]
    if torn["texts"]:
        places = "; ".join(" and ".join(rows) for rows in torn["rows"])
        more = ", ..." if torn["texts"] > len(torn["rows"]) else ""
        where = f" ({places}{more})" if places else " (`metakd inspect` lists the rows)"
        messages.append(
            f"{_counted(torn['texts'], 'text is', 'texts are')} on several rows with different labels{where}"
        )
    messages += report["remarks"]
    if faults := len(report["faults"]):
        messages.append(
            f"{_counted(faults, 'fault', 'faults')} to fix before `metakd run` accepts the data"
            + "; --skip-bad-rows leaves out rows with faults" * report["skippable"]
        )
    rest = len(messages) - SHOWN_FINDINGS
    shown = [m if len(m) <= SHOWN_CHARACTERS else f"{m[:SHOWN_CHARACTERS]}..." for m in messages[:SHOWN_FINDINGS]]
    return [*shown, f"and {rest} more findings (--json of `metakd inspect` lists all)"] if rest > 0 else shown


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Rows by domain, split and label; lengths by domain; the terms that are characteristic of the domains."""
    return [_counts(report), _lengths(report["lengths"]), *([_terms(report["terms"])] if report["terms"] else [])]


def _counts(report: Mapping[str, Any]) -> Table:
    table = _table(f"Rows of {report['data']}", "domain", *report["counts"], "labels")
    for domain in report["domains"]:
        by_split = [domains.get(domain, {}) for domains in report["counts"].values()]
        by_label = {label: sum(counts.get(label, 0) for counts in by_split) for label in report["labels"]}
        rows = [domains.get(domain, 0) for domains in report["rows_by_domain"].values()]
        table.add_row(domain, *map(str, rows), _shares(by_label, sum(rows)))
    return table


def _shares(by_label: Mapping[str, int], total: int) -> str:
    """The share of the rows with each label that a domain has, or with the largest."""
    present = {label: f"{label} {100 * count / total:.0f} %" for label, count in by_label.items() if count}
    largest = sorted(present, key=lambda label: -by_label[label])[:SHOWN_LABELS]
    rest = len(present) - len(largest)
    shown = [text for label, text in present.items() if not rest or label in largest]
    return ", ".join(shown) + (f" and {rest} more labels" if rest else "")


def _lengths(lengths: Mapping[str, Any]) -> Table:
    title = f"Lengths in {lengths['unit']}, of {lengths['sampled_rows']} rows"
    table = _table(title, "domain", "median", "95 %", "longest", f"over {lengths['limit']}")
    for domain, values in lengths["domains"].items():
        cut = f"{100 * values['over_limit']:.1f} %"
        table.add_row(domain, *(str(values[name]) for name in ("median", "p95", "longest")), cut)
    return table


def _terms(by_domain: Mapping[str, Sequence[str]]) -> Table:
    table = Table("domain", "terms", title="Characteristic terms of the domains (TF-IDF)")
    for domain, terms in by_domain.items():
        table.add_row(domain, ", ".join(terms))
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    others = [Column(name, justify="left" if name == "labels" else "right") for name in columns]
    return Table(first, *others, title=title)
