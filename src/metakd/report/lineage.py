"""Who was built from whom: base, meta-teacher, domains and students, and how much passes between domains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from metakd.report.facts import Findings
from metakd.report.summary import base_name

Edge = tuple[str, str, float, str]  # between two domains: how strong, in words


def graph(findings: Findings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Nodes with their ancestors and descendants, and edges: from what something was built of, or between domains."""
    domains, base = findings.domains, base_name(findings)
    nodes = [
        _node("base", "base", base, "pretrained encoder", (-0.8, -0.85)),
        _node(
            "meta_teacher", "teacher", "meta-teacher", score(findings.results["average"]["meta_teacher"]), (0.0, 0.0)
        ),
    ]
    links = [("base", "meta_teacher")]
    for place, domain in enumerate(domains):
        x, y = _direction(place, len(domains))
        scored = score(findings.results["domains"][domain]["student"])
        nodes.append(_node(f"domain:{domain}", "domain", domain, _counts(findings, domain), (0.52 * x, 0.52 * y)))
        nodes.append(_node(f"student:{domain}", "student", f"{domain} student", scored, (x, y)))
        nodes[-1]["label"] = [domain, "student"]
        links += [
            (f"domain:{domain}", "meta_teacher"),
            (f"domain:{domain}", f"student:{domain}"),
            ("meta_teacher", f"student:{domain}"),
        ]
    for node in nodes:
        node["ancestors"] = sorted(_reached(node["id"], [(b, a) for a, b in links]))
        node["descendants"] = sorted(_reached(node["id"], links))
    between = sorted(_as_edges(between_domains(findings)), key=lambda edge: -edge["strength"])
    for place, edge in enumerate(between):
        edge["drawn"] = place < most_drawn(len(domains))
    edges = [{"source": a, "target": b, "kind": "lineage", "told": "built from", "drawn": True} for a, b in links]
    return nodes, edges + between


def _node(name: str, kind: str, title: str, told: str, place: tuple[float, float]) -> dict[str, Any]:
    return {"id": name, "kind": kind, "title": title, "label": [title], "told": told, "x": place[0], "y": place[1]}


def _direction(place: int, count: int) -> tuple[float, float]:
    """Of one of `count` domains around the teacher; the corner of the base stays free."""
    angle = math.radians(-90 + 300 * place / max(count, 1))
    return math.cos(angle), math.sin(angle)


def score(scores: Mapping[str, Any]) -> str:
    low, high = scores["accuracy_interval"]
    return f"{100 * scores['accuracy']:.1f} percent right ({100 * low:.1f} to {100 * high:.1f})"


def _counts(findings: Findings, domain: str) -> str:
    counts = {split: sum(own.get(domain, {}).values()) for split, own in findings.corpus["rows"].items()}
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


def _reached(start: str, links: list[tuple[str, str]]) -> set[str]:
    """All that can be come to from `start` along links."""
    ahead: dict[str, list[str]] = {}
    for a, b in links:
        ahead.setdefault(a, []).append(b)
    found, left = set[str](), [start]
    while left:
        new = set(ahead.get(left.pop(), [])) - found
        found |= new
        left += new
    return found


def _as_edges(found: Sequence[Edge]) -> list[dict[str, Any]]:
    """As strong as what passes between two domains: 1 for the pair with the most, 0 for that with the least."""
    values = [value for _, _, value, _ in found]
    most, span = max(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)
    return [
        {
            "source": f"domain:{a}",
            "target": f"domain:{b}",
            "kind": "between",
            "told": told,
            "strength": 1 - (most - value) / (span or 1.0),
        }
        for a, b, value, told in found
    ]


def between_domains(findings: Findings) -> list[Edge]:
    """What passes between each two domains, where it was measured, or else how alike they are."""
    measured = _transfer(findings.results.get("transfer", {}))
    return measured or _likeness(findings.corpus["similarity"], findings.domains)


def most_drawn(domains: int) -> int:
    """Of the pairs of so many domains, how many can be told apart in a picture: all of up to six."""
    return max(15, 2 * domains)


def widths(findings: Findings) -> str:
    """What the thinnest and the thickest of the edges between domains stand for."""
    values = [value for _, _, value, _ in between_domains(findings)]
    if not values:
        return "No lines join domains: there is one alone, or nothing was measured between them."
    if findings.results.get("transfer"):
        what = "how good a TF-IDF rival trained on the one is on the other, as a share of what that one's own rival is"
        least, most = (f"{100 * value:.0f} percent" for value in (min(values), max(values)))
    else:
        what = "how alike their prototypes are, class by class (cosine)"
        least, most = (f"{value:.2f}" for value in (min(values), max(values)))
    ends = f"all {most}" if least == most else f"{least} the thinnest, {most} the thickest"
    drawn = most_drawn(len(findings.domains))
    left_out = f" The {drawn} thickest of {len(values)} are drawn." if len(values) > drawn else ""
    return f"Orange lines join domains: {what}; {ends}.{left_out}"


def _transfer(known: Mapping[str, Mapping[str, float]]) -> list[Edge]:
    """As measured: what a model of one domain's labels alone keeps on the other of that domain's own, on average."""
    found = []
    for a, b in combinations(known, 2):
        kept = (known[a][b] / (known[b][b] or 1) + known[b][a] / (known[a][a] or 1)) / 2
        told = f"{a} on {b} {100 * known[a][b]:.1f} percent right, {b} on {a} {100 * known[b][a]:.1f}"
        found.append((a, b, kept, told))
    return found


def _likeness(known: Sequence[Sequence[float]], domains: Sequence[str]) -> list[Edge]:
    """Where nothing was measured: cosine of their prototypes, each class with the same of the other."""
    if len(known) != len(domains):
        return []
    pairs = combinations(range(len(domains)), 2)
    return [(domains[i], domains[j], known[i][j], f"alike: cosine {known[i][j]:.2f}") for i, j in pairs]
