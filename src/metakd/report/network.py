"""The graph of a run as a picture that can be hovered, clicked, dragged, moved and zoomed.

A Vega specification (https://vega.github.io/vega/docs/). Places are computed by `lineage`, so that a graph looks the
same every time; `current` (id of the chosen node), `zoom`, `centre`, width and height are the page's to set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 560, 560  # of the plane, in pixels, until the page sets them
ROLES = {
    "current": "var(--current)",
    "ancestor": "var(--ancestor)",
    "descendant": "var(--descendant)",
    "other": "var(--other)",
}
ROOM = 20  # pixels of width that a node needs, if the titles of students are to be read too
SHAPES = {"base": "square", "teacher": "diamond", "domain": "circle", "student": "triangle-up"}


def specification(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole picture, data included."""
    return {
        "$schema": "https://vega.github.io/schema/vega/v6.json",
        "description": "The base, the meta-teacher, the domains and their students, and who was built from whom.",
        "width": WIDTH,
        "height": HEIGHT,
        "padding": 0,
        "autosize": "none",
        "signals": _signals(),
        "data": [
            {"name": "nodes", "values": list(nodes), "on": [_DRAGGED]},
            {"name": "edges", "values": [edge for edge in edges if edge["drawn"]], **_ENDS},
        ],
        "scales": [_scale("across", "width", "x"), _scale("down", "height", "y")],
        "marks": [_edge_marks(), _node_marks(), *_title_marks()],
    }


_DRAGGED = {"trigger": "place", "modify": "dragged", "values": "{x: place.x, y: place.y}"}
_ENDS = {
    "transform": [
        {"type": "lookup", "from": "nodes", "key": "id", "fields": ["source", "target"], "as": ["from", "to"]},
    ]
}


REACH = {"x": (-1.2, 1.2), "y": (-1.2, 1.4)}  # of the plane at first; the zoom's buttons are below


def _scale(name: str, side: str, axis: str) -> dict[str, Any]:
    low, high = REACH[axis]
    return {
        "name": name,
        "type": "linear",
        "domain": [{"signal": f"centre.{axis} + {low} / zoom"}, {"signal": f"centre.{axis} + {high} / zoom"}],
        "range": [0, {"signal": side}],
        "zero": False,
    }


def _signals() -> list[dict[str, Any]]:
    move = "[pointerdown, window:pointerup] > window:pointermove!"
    spans = {axis: high - low for axis, (low, high) in REACH.items()}
    moved = ", ".join(
        f"{axis}: grip.{axis} - {spans[axis]} * ({axis}() - grip.{axis}At) / zoom / {side}"
        for axis, side in (("x", "width"), ("y", "height"))
    )
    held = "{x: centre.x, y: centre.y, xAt: x(), yAt: y()}"
    return [
        {"name": "current", "value": "meta_teacher", "on": [{"events": "@node:click", "update": "datum.id"}]},
        {
            "name": "zoom",
            "value": 1,
            "on": [{"events": "wheel![event.ctrlKey]", "update": "clamp(zoom * pow(1.003, -event.deltaY), 0.5, 4)"}],
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
        {"name": "grip", "value": None, "on": [{"events": "pointerdown", "update": held}]},
        {
            "name": "centre",
            "value": {"x": 0, "y": 0},
            "on": [{"events": move, "update": f"dragged ? centre : {{{moved}}}"}],
        },
        {"name": "chosen", "update": "data('nodes')[indexof(pluck(data('nodes'), 'id'), current)]"},
    ]


def _of_kin(name: str) -> str:
    """Whether the id that an expression gives is the current node's or that of its ancestor (descendant)."""
    return f"({{0}} === current || indexof(chosen.{name}, {{0}}) >= 0)"


def _role() -> list[dict[str, Any]]:
    """Colours by what the node is to the current one."""
    return [
        {"test": "datum.id === current", "value": ROLES["current"]},
        {"test": "indexof(chosen.ancestors, datum.id) >= 0", "value": ROLES["ancestor"]},
        {"test": "indexof(chosen.descendants, datum.id) >= 0", "value": ROLES["descendant"]},
        {"value": ROLES["other"]},
    ]


def _edge_colour() -> list[dict[str, Any]]:
    """As the node at its far end, where it is on the way to or from the current one."""
    kin = {
        name: " && ".join(_of_kin(name).format(f"datum.{end}") for end in ("source", "target"))
        for name in ("ancestors", "descendants")
    }
    return [
        {"test": "datum.kind === 'between'", "value": "var(--between)"},
        {"test": kin["ancestors"], "value": ROLES["ancestor"]},
        {"test": kin["descendants"], "value": ROLES["descendant"]},
        {"value": ROLES["other"]},
    ]


def _edge_marks() -> dict[str, Any]:
    ends = {
        f"{axis}{suffix}": {"scale": scale, "field": f"{end}.{axis}"}
        for axis, scale in (("x", "across"), ("y", "down"))
        for suffix, end in (("", "from"), ("2", "to"))
    }
    between = "datum.kind === 'between'"
    return {
        "type": "rule",
        "name": "edge",
        "aria": False,
        "from": {"data": "edges"},
        "encode": {
            "update": ends
            | {
                "stroke": _edge_colour(),
                "strokeWidth": {"signal": f"{between} ? 1 + 5 * datum.strength : 1.5"},
                "strokeOpacity": {"signal": f"{between} ? 0.25 + 0.5 * datum.strength : 0.8"},
                "tooltip": {"signal": "{title: datum.from.title + ' – ' + datum.to.title, edge: datum.told}"},
            }
        },
    }


def _node_marks() -> dict[str, Any]:
    return {
        "type": "symbol",
        "name": "node",
        "from": {"data": "nodes"},
        "encode": {
            "update": {
                "x": {"scale": "across", "field": "x"},
                "y": {"scale": "down", "field": "y"},
                "shape": [{"test": f"datum.kind === '{kind}'", "value": shape} for kind, shape in SHAPES.items()],
                "size": {"signal": "datum.kind === 'teacher' ? 900 : 480"},
                "fill": _role(),
                "stroke": {"signal": "datum.id === current ? 'var(--ink)' : 'var(--paper)'"},
                "strokeWidth": {"value": 2},
                "cursor": {"value": "pointer"},
                "tooltip": {
                    "signal": "datum.kind === 'domain' ? {title: datum.title, rows: datum.told}"
                    " : datum.kind === 'base' ? {title: datum.title, is: datum.told}"
                    " : {title: datum.title, score: datum.told}"
                },
                "description": {"signal": "datum.title + ', ' + datum.told"},
            }
        },
    }


def _title_marks() -> list[dict[str, Any]]:
    """Titles below nodes, each upon its own outline in the paper's colour, so that lines do not cross it out."""
    drawn = {
        "x": {"scale": "across", "field": "x"},
        "y": {"scale": "down", "field": "y", "offset": 26},
        "align": {"value": "center"},
        "text": {"field": "label"},
        "limit": {"value": 120},
        "fontSize": {"value": 13},
        "lineHeight": {"value": 14},
        "opacity": {"signal": f"datum.kind === 'student' && width * zoom < {ROOM} * length(data('nodes')) ? 0 : 1"},
    }
    outline = {"stroke": {"value": "var(--paper)"}, "strokeWidth": {"value": 4}, "strokeJoin": {"value": "round"}}
    ways: list[dict[str, Any]] = [outline, {"fill": {"value": "var(--ink)"}}]
    return [
        {
            "type": "text",
            "interactive": False,
            "aria": False,
            "from": {"data": "nodes"},
            "encode": {"update": drawn | way},
        }
        for way in ways
    ]
