"""Who taught whom: base, meta-teacher, domains and students as a graph that can be hovered, clicked, dragged, zoomed.

A Vega specification (https://vega.github.io/vega/docs/). Places are computed here, so that a graph looks the same every
time; the signals `current` (id of the chosen node) and `zoom` are the page's to set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from metakd.report.facts import Findings

SIZE = 560  # width and height of the plane, in pixels
Edge = tuple[str, str, float, str]  # between two domains: how strong, in words
ROLES = {"current": "#3a3a3a", "ancestor": "#2f6fb7", "descendant": "#2e8b57", "other": "#9aa3ad"}


def graph(findings: Findings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Nodes with their ancestors and descendants, and edges: from what something was built of, or between domains."""
    domains, average = findings.domains, findings.results["average"]
    base = str(findings.run["settings"]["base"]).rstrip("/").rsplit("/", 1)[-1]
    nodes = [
        _node("base", "base", base, f"pretrained encoder {base}", (-0.95, -0.75)),
        _node("meta_teacher", "teacher", "meta-teacher", _score(average["meta_teacher"]), (0.0, 0.0)),
    ]
    links = [("base", "meta_teacher")]
    for place, domain in enumerate(domains):
        x, y = _direction(place, len(domains))
        score = _score(findings.results["domains"][domain]["student"])
        nodes.append(_node(f"domain:{domain}", "domain", domain, _counts(findings, domain), (0.55 * x, 0.55 * y)))
        nodes.append(_node(f"student:{domain}", "student", f"{domain} student", score, (x, y)))
        links += [
            (f"domain:{domain}", "meta_teacher"),
            (f"domain:{domain}", f"student:{domain}"),
            ("meta_teacher", f"student:{domain}"),
        ]
    for node in nodes:
        node["ancestors"] = sorted(_reached(node["id"], [(b, a) for a, b in links]))
        node["descendants"] = sorted(_reached(node["id"], links))
    edges = [{"source": a, "target": b, "kind": "built from", "strength": 0.5} for a, b in links]
    return nodes, edges + _between_domains(findings)


def _node(name: str, kind: str, title: str, told: str, place: tuple[float, float]) -> dict[str, Any]:
    return {"id": name, "kind": kind, "title": title, "told": told, "x": place[0], "y": place[1]}


def _direction(place: int, count: int) -> tuple[float, float]:
    """Of one of `count` domains around the teacher; the corner of the base stays free."""
    angle = math.radians(-90 + 300 * place / max(count, 1))
    return math.cos(angle), math.sin(angle)


def _score(scores: dict[str, Any]) -> str:
    low, high = scores["accuracy_interval"]
    return f"{100 * scores['accuracy']:.1f} percent right ({100 * low:.1f} to {100 * high:.1f})"


def _counts(findings: Findings, domain: str) -> str:
    counts = {split: sum(own.get(domain, {}).values()) for split, own in findings.corpus["rows"].items()}
    return ", ".join(f"{split} {count}" for split, count in counts.items())


def _reached(start: str, links: list[tuple[str, str]]) -> set[str]:
    """All that can be come to from `start` along links."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        here = ahead.pop()
        ahead += [b for a, b in links if a == here and b not in found]
        found |= {b for a, b in links if a == here}
    return found


def _between_domains(findings: Findings) -> list[dict[str, Any]]:
    """Edges as strong as what passes between two domains: 1 for the pair with the most, 0 for that with the least."""
    measured = _transfer(findings.results.get("transfer", {}))
    found = measured or _likeness(findings.corpus["similarity"], findings.domains)
    values = [value for _, _, value, _ in found]
    least, span = min(values, default=0.0), (max(values, default=0.0) - min(values, default=0.0)) or 1.0
    return [
        {"source": f"domain:{a}", "target": f"domain:{b}", "kind": told, "strength": (value - least) / span}
        for a, b, value, told in found
    ]


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


def specification(findings: Findings) -> dict[str, Any]:
    """The whole picture, data included."""
    nodes, edges = graph(findings)
    return {
        "$schema": "https://vega.github.io/schema/vega/v6.json",
        "description": "The base, the meta-teacher, the domains and their students, and who was built from whom.",
        "width": SIZE,
        "height": SIZE,
        "padding": 4,
        "autosize": "none",
        "signals": _signals(),
        "data": [{"name": "nodes", "values": nodes, "on": [_DRAGGED]}, {"name": "edges", "values": edges, **_ENDS}],
        "scales": [_scale("across", "width"), _scale("down", "height")],
        "marks": [_edge_marks(), _node_marks(), _title_marks()],
    }


_DRAGGED = {"trigger": "place", "modify": "dragged", "values": "{x: place.x, y: place.y}"}
_ENDS = {
    "transform": [
        {"type": "lookup", "from": "nodes", "key": "id", "fields": ["source", "target"], "as": ["from", "to"]},
    ]
}


def _scale(name: str, side: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "linear",
        "domain": [{"signal": "-1.2 / zoom"}, {"signal": "1.2 / zoom"}],
        "range": [0, {"signal": side}],
        "zero": False,
    }


def _signals() -> list[dict[str, Any]]:
    return [
        {
            "name": "current",
            "value": "meta_teacher",
            "on": [{"events": "@node:click", "update": "datum.id"}],
        },
        {
            "name": "zoom",
            "value": 1,
            "on": [{"events": "wheel!", "update": "clamp(zoom * pow(1.001, -event.deltaY), 0.5, 4)"}],
        },
        {
            "name": "dragged",
            "value": None,
            "on": [
                {"events": "@node:pointerdown", "update": "datum"},
                {"events": "window:pointerup", "update": "null"},
            ],
        },
        {
            "name": "place",
            "value": None,
            "on": [
                {"events": "@node:pointerdown", "update": "null"},
                {
                    "events": "[@node:pointerdown, window:pointerup] > window:pointermove!",
                    "update": "dragged ? {x: invert('across', x()), y: invert('down', y())} : null",
                },
            ],
        },
        {"name": "ink", "value": "#222222"},
        {"name": "chosen", "update": "data('nodes')[indexof(pluck(data('nodes'), 'id'), current)]"},
    ]


def _role() -> list[dict[str, Any]]:
    """Colours by what the node is to the current one."""
    return [
        {"test": "datum.id === current", "value": ROLES["current"]},
        {"test": "indexof(chosen.ancestors, datum.id) >= 0", "value": ROLES["ancestor"]},
        {"test": "indexof(chosen.descendants, datum.id) >= 0", "value": ROLES["descendant"]},
        {"value": ROLES["other"]},
    ]


def _edge_marks() -> dict[str, Any]:
    ends = {
        f"{axis}{suffix}": {"scale": scale, "field": f"{end}.{axis}"}
        for axis, scale in (("x", "across"), ("y", "down"))
        for suffix, end in (("", "from"), ("2", "to"))
    }
    between = "datum.kind !== 'built from'"
    return {
        "type": "rule",
        "name": "edge",
        "aria": False,
        "from": {"data": "edges"},
        "encode": {
            "update": ends
            | {
                "stroke": [{"test": between, "value": "#c9822b"}, {"value": ROLES["other"]}],
                "strokeWidth": {"signal": f"{between} ? 0.5 + 5 * datum.strength : 1.2"},
                "strokeOpacity": {"signal": f"{between} ? 0.15 + 0.6 * datum.strength : 0.7"},
                "tooltip": {"signal": "{title: datum.from.title + ' – ' + datum.to.title, edge: datum.kind}"},
            }
        },
    }


def _node_marks() -> dict[str, Any]:
    shapes = {"base": "square", "teacher": "diamond", "domain": "circle", "student": "triangle-up"}
    return {
        "type": "symbol",
        "name": "node",
        "from": {"data": "nodes"},
        "encode": {
            "update": {
                "x": {"scale": "across", "field": "x"},
                "y": {"scale": "down", "field": "y"},
                "shape": [{"test": f"datum.kind === '{kind}'", "value": shape} for kind, shape in shapes.items()],
                "size": {"signal": "datum.kind === 'teacher' ? 900 : 480"},
                "fill": _role(),
                "stroke": {"signal": "ink"},
                "strokeWidth": {"signal": "datum.id === current ? 2 : 0"},
                "cursor": {"value": "pointer"},
                "tooltip": {"signal": "{title: datum.title, score: datum.told}"},
                "description": {"signal": "datum.title + ', ' + datum.told"},
            }
        },
    }


def _title_marks() -> dict[str, Any]:
    return {
        "type": "text",
        "interactive": False,
        "aria": False,
        "from": {"data": "nodes"},
        "encode": {
            "update": {
                "x": {"scale": "across", "field": "x"},
                "y": {"scale": "down", "field": "y", "offset": 24},
                "align": {"value": "center"},
                "text": {"field": "title"},
                "limit": {"value": 130},
                "fontSize": {"value": 13},
                "fill": {"signal": "ink"},
            }
        },
    }
