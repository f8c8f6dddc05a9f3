"""The graph of a run: base, meta-teacher, domains and students, and how much transfers between domains."""

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from metakd.methods import METHODS
from metakd.methods.base import has_teacher
from metakd.report.facts import Findings
from metakd.report.summary import base_name


def graph(findings: Findings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Nodes with their ancestors and descendants, and edges: from what something was built of, or between domains."""
    domains, results, settings = findings.domains, findings.results, findings.run["settings"]
    kind = "fine-tuned classifier" if settings.get("teacher") == settings["base"] else "pretrained encoder"
    nodes = [
        _node("base", "base", [base_name(findings)], kind, -0.8, -0.85),
        _node("meta_teacher", "teacher", ["meta-teacher"], score(results["average"]["meta_teacher"]), 0.0, 0.0),
    ]
    teaches = has_teacher(METHODS[settings["method"]])
    links = [("base", "meta_teacher")]
    for place, domain in enumerate(domains):
        angle = math.radians(-90 + 300 * place / len(domains))  # around the teacher; the base's corner stays free
        x, y = math.cos(angle), math.sin(angle)
        source, student = f"domain:{domain}", f"student:{domain}"
        nodes += [
            _node(source, "domain", [domain], _counts(findings, domain), 0.52 * x, 0.52 * y),
            _node(student, "student", [domain, "student"], score(results["domains"][domain]["student"]), x, y),
        ]
        links += [(source, "meta_teacher"), (source, student), ("meta_teacher" if teaches else "base", student)]
    sources = ["base", *(f"domain:{domain}" for domain in sorted(domains))]
    students = [f"student:{domain}" for domain in sorted(domains)]
    kin = {
        "base": ([], ["meta_teacher", *students]),
        "domain": ([], ["meta_teacher", *students]),
        "teacher": (sources, students * teaches),
        "student": ([*sources, *["meta_teacher"] * teaches], []),
    }
    for node in nodes:
        node["ancestors"], node["descendants"] = kin[node["kind"]]
    edges = [{"source": a, "target": b, "kind": "lineage", "summary": "built from", "drawn": True} for a, b in links]
    return nodes, edges + _between_edges(findings)


def _node(name: str, kind: str, label: list[str], summary: str, x: float, y: float) -> dict[str, Any]:
    return {"id": name, "kind": kind, "title": " ".join(label), "label": label, "summary": summary, "x": x, "y": y}


def score(scores: Mapping[str, Any], measure: str = "accuracy") -> str:
    low, high = scores[f"{measure}_interval"]
    unit = "percent right" if measure == "accuracy" else "percent"
    return f"{100 * scores[measure]:.1f} {unit} ({100 * low:.1f} to {100 * high:.1f})"


def _counts(findings: Findings, domain: str) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in findings.texts(domain).items())


def _between_edges(findings: Findings) -> list[dict[str, Any]]:
    """The strongest first: 1 for the pair of domains with the most in common, 0 for that with the least."""
    pairs = sorted(between_domains(findings), key=lambda pair: -pair[2])
    most, span = (pairs[0][2], pairs[0][2] - pairs[-1][2]) if pairs else (0.0, 0.0)
    return [
        {
            "source": f"domain:{a}",
            "target": f"domain:{b}",
            "kind": "between",
            "summary": text,
            "strength": 1 - (most - value) / (span or 1.0),
            "drawn": place < most_drawn(len(findings.domains)),
        }
        for place, (a, b, value, text) in enumerate(pairs)
    ]


def between_domains(findings: Findings) -> list[tuple[str, str, float, str]]:
    """Each two domains, how much they have in common, and that in words.

    What a model of one domain's labels keeps on the other of that domain's own accuracy, averaged both ways; where
    transfer was not measured, the cosine of their prototypes, each class with the same of the other.
    """
    transfer, similarity = findings.results.get("transfer", {}), findings.corpus["similarity"]
    if not transfer:
        known = findings.domains if len(similarity) == len(findings.domains) else []
        pairs = combinations(enumerate(known), 2)
        return [(a, b, similarity[i][j], f"alike: cosine {similarity[i][j]:.2f}") for (i, a), (j, b) in pairs]
    between = []
    for a, b in combinations(transfer, 2):
        kept = (transfer[a][b] / (transfer[b][b] or 1) + transfer[b][a] / (transfer[a][a] or 1)) / 2
        text = f"{a} on {b} {100 * transfer[a][b]:.1f} percent right, {b} on {a} {100 * transfer[b][a]:.1f}"
        between.append((a, b, kept, text))
    return between


def most_drawn(domains: int) -> int:
    """Of the pairs of so many domains, how many can be told apart in a picture: all of up to six."""
    return max(15, 2 * domains)


def widths(findings: Findings) -> str:
    """What the thinnest and the thickest of the edges between domains stand for."""
    values = [value for _, _, value, _ in between_domains(findings)]
    if not values:
        return "No lines join domains: there is one alone, or nothing was measured between them."
    if findings.results.get("transfer"):
        meaning = "how good TF-IDF of the one's text is on the other, as a share of TF-IDF of that one's text"
        least, most = (f"{100 * value:.0f} percent" for value in (min(values), max(values)))
    else:
        meaning = "how alike their prototypes are, class by class (cosine)"
        least, most = (f"{value:.2f}" for value in (min(values), max(values)))
    ends = f"all {most}" if least == most else f"{least} the thinnest, {most} the thickest"
    drawn = most_drawn(len(findings.domains))
    left_out = f" The {drawn} thickest of {len(values)} are drawn." if len(values) > drawn else ""
    return f"Gold lines join domains: {meaning}; {ends}.{left_out}"
