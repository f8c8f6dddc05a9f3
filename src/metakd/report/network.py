"""The graph of a run as a picture that can be hovered, clicked, dragged, moved and zoomed.

A Vega specification (https://vega.github.io/vega/docs/). Positions are computed by `lineage`, so that a graph looks the
same every time; `current` (id of the chosen node), `zoom`, `centre`, width and height are the page's to set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 560, 560  # pixels, until the page sets them
EXTENT = {"x": (-1.2, 1.2), "y": (-1.2, 1.4)}  # of the coordinates at first; the zoom's buttons are below
ROOM = 20  # pixels of width that a node needs, if the titles of students are to be read too
SHAPES = {"base": "square", "teacher": "diamond", "domain": "circle", "student": "triangle-up"}
TOOLTIP_KEYS = {"domain": "rows", "base": "is", "teacher": "score", "student": "score"}
BETWEEN = "datum.kind === 'between'"


def specification(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole picture, data included."""
    drag = {"trigger": "place", "modify": "dragged", "values": "{x: place.x, y: place.y}"}
    ends = {"type": "lookup", "from": "nodes", "key": "id", "fields": ["source", "target"], "as": ["from", "to"]}
    return {
        "$schema": "https://vega.github.io/schema/vega/v6.json",
        "description": "The base, the meta-teacher, the domains and their students, and who was built from whom.",
        "width": WIDTH,
        "height": HEIGHT,
        "padding": 0,
        "autosize": "none",
        "signals": _signals(),
        "data": [
            {"name": "nodes", "values": list(nodes), "on": [drag]},
            {"name": "edges", "values": [edge for edge in edges if edge["drawn"]], "transform": [ends]},
        ],
        "scales": [_scale("across", "width", "x"), _scale("down", "height", "y")],
        "marks": [_edges(), _nodes(), *_titles()],
    }


def _scale(name: str, side: str, axis: str) -> dict[str, Any]:
    domain = [{"signal": f"centre.{axis} + {end} / zoom"} for end in EXTENT[axis]]
    return {"name": name, "type": "linear", "domain": domain, "range": [0, {"signal": side}], "zero": False}


def _signals() -> list[dict[str, Any]]:
    moved = ", ".join(
        f"{axis}: grip.{axis} - {EXTENT[axis][1] - EXTENT[axis][0]} * ({axis}() - grip.{axis}At) / zoom / {side}"
        for axis, side in (("x", "width"), ("y", "height"))
    )
    pointed = "dragged ? {x: invert('across', x()), y: invert('down', y())} : null"
    while_pressed = "window:pointerup] > window:pointermove!"
    return [
        _signal("current", "meta_teacher", {"@node:click": "datum.id"}),
        _signal("zoom", 1, {"wheel![event.ctrlKey]": "clamp(zoom * pow(1.003, -event.deltaY), 0.5, 4)"}),
        _signal("dragged", None, {"@node:pointerdown": "datum", "window:pointerup": "null"}),
        _signal("place", None, {"@node:pointerdown": "null", f"[@node:pointerdown, {while_pressed}": pointed}),
        _signal("grip", None, {"pointerdown": "{x: centre.x, y: centre.y, xAt: x(), yAt: y()}"}),
        _signal("centre", {"x": 0, "y": 0}, {f"[pointerdown, {while_pressed}": f"dragged ? centre : {{{moved}}}"}),
        {"name": "chosen", "update": "data('nodes')[indexof(pluck(data('nodes'), 'id'), current)]"},
    ]


def _signal(name: str, value: Any, updates: Mapping[str, str]) -> dict[str, Any]:
    """`updates` has the new value, an expression, by event."""
    return {"name": name, "value": value, "on": [{"events": on, "update": to} for on, to in updates.items()]}


def _colours(first: Mapping[str, str], ancestors: str, descendants: str) -> list[Mapping[str, str]]:
    """The `first` rule, then the colours of what leads to the current node, comes from it, or neither: by two tests."""
    return [
        first,
        {"test": ancestors, "value": "var(--ancestor)"},
        {"test": descendants, "value": "var(--descendant)"},
        {"value": "var(--other)"},
    ]


def _both_ends(kin: str) -> str:
    """Whether each end of an edge is the current node or one of its ancestors (descendants)."""
    ends = ("datum.source", "datum.target")
    return " && ".join(f"({end} === current || indexof(chosen.{kin}, {end}) >= 0)" for end in ends)


def _constants(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in values.items()}


def _at(prefix: str = "", suffix: str = "", **offset: int) -> dict[str, Any]:
    return {
        f"x{suffix}": {"scale": "across", "field": f"{prefix}x"},
        f"y{suffix}": {"scale": "down", "field": f"{prefix}y", **offset},
    }


def _edges() -> dict[str, Any]:
    between = {"test": BETWEEN, "value": "var(--between)"}
    update = {
        **_at("from."),
        **_at("to.", "2"),
        "stroke": _colours(between, _both_ends("ancestors"), _both_ends("descendants")),
        "strokeWidth": {"signal": f"{BETWEEN} ? 1 + 5 * datum.strength : 1.5"},
        "strokeOpacity": {"signal": f"{BETWEEN} ? 0.25 + 0.5 * datum.strength : 0.8"},
        "tooltip": {"signal": "{title: datum.from.title + ' – ' + datum.to.title, edge: datum.summary}"},
    }
    return {"type": "rule", "name": "edge", "aria": False, "from": {"data": "edges"}, "encode": {"update": update}}


def _nodes() -> dict[str, Any]:
    kin = (f"indexof(chosen.{name}, datum.id) >= 0" for name in ("ancestors", "descendants"))
    update = {
        **_at(),
        "shape": [{"test": f"datum.kind === '{kind}'", "value": shape} for kind, shape in SHAPES.items()],
        "size": {"signal": "datum.kind === 'teacher' ? 900 : 480"},
        "fill": _colours({"test": "datum.id === current", "value": "var(--current)"}, *kin),
        "stroke": {"signal": "datum.id === current ? 'var(--ink)' : 'var(--paper)'"},
        **_constants({"strokeWidth": 2, "cursor": "pointer"}),
        "tooltip": [
            {"test": f"datum.kind === '{kind}'", "signal": f"{{title: datum.title, {key}: datum.summary}}"}
            for kind, key in TOOLTIP_KEYS.items()
        ],
        "description": {"signal": "datum.title + ', ' + datum.summary"},
    }
    return {"type": "symbol", "name": "node", "from": {"data": "nodes"}, "encode": {"update": update}}


def _titles() -> list[dict[str, Any]]:
    """Titles below nodes, each upon its own outline in the paper's colour, so that edges do not cross it out."""
    text = {
        **_at(offset=26),
        **_constants({"align": "center", "limit": 120, "fontSize": 13, "lineHeight": 14}),
        "text": {"field": "label"},
        "opacity": {"signal": f"datum.kind === 'student' && width * zoom < {ROOM} * length(data('nodes')) ? 0 : 1"},
    }
    outline = _constants({"stroke": "var(--paper)", "strokeWidth": 4, "strokeJoin": "round"})
    shared = {"type": "text", "interactive": False, "aria": False, "from": {"data": "nodes"}}
    return [shared | {"encode": {"update": text | way}} for way in (outline, _constants({"fill": "var(--ink)"}))]
