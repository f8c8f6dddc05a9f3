"""The graph of a run as a picture that can be hovered, clicked, dragged, moved and zoomed.

A Vega specification (https://vega.github.io/vega/docs/). Positions are computed by `lineage`, so that a graph looks the
same every time; `current` (id of the chosen node), `zoom`, `centre`, width and height are the page's to set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 560, 560  # pixels, until the page sets them
EXTENT = {"x": (-1.2, 1.2), "y": (-1.35, 1.5)}  # of the coordinates at first
ROOM = 20  # pixels of width that a node needs, if the titles of students are to be read too
SCALES = {"x": "across", "y": "down"}
SHAPES = {"base": "square", "teacher": "diamond", "domain": "circle", "student": "triangle-up"}
TOOLTIP_KEYS = {"domain": "rows", "base": "is", "teacher": "score", "student": "score"}
BETWEEN, DOMAIN = "datum.kind === 'between'", "datum.kind === 'domain'"
BESIDE = 25  # pixels from the middle of a node to the nearest of its title
# edges of a domain run outward, or to the inside: an angle between those
ASIDE = "(atan2(datum.y * height, datum.x * width) + PI / 4)"


def specification(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole picture, data included."""
    drag = {"trigger": "place", "modify": "dragged", "values": "{x: place.x, y: place.y}"}
    measured, grounds, titles = _titles()
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
        "marks": [measured, _edges(), grounds, _nodes(), titles],
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


def _at(prefix: str = "", suffix: str = "") -> dict[str, Any]:
    return {f"{axis}{suffix}": {"scale": scale, "field": f"{prefix}{axis}"} for axis, scale in SCALES.items()}


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
    """Titles beside nodes where fewest edges run, and behind each a ground in the paper's colour.

    The first titles are invisible and measure the grounds, which lie above the edges.
    """
    above = f"({BESIDE} + 15 * (length(datum.label) - 1))"
    hidden = f"=== 'student' && width * zoom < {ROOM} * length(data('nodes')) ? 0 : 1"
    text = {
        **_at(),
        **_constants({"baseline": "middle", "limit": 140, "fontSize": 13, "lineHeight": 15}),
        "text": {"field": "label"},
        "dx": {"signal": f"{DOMAIN} ? {BESIDE} * cos({ASIDE}) : 0"},
        "dy": {"signal": f"{DOMAIN} ? {BESIDE} * sin({ASIDE}) : datum.y < 0 ? -{above} : {BESIDE}"},
        "align": {"signal": f"!({DOMAIN}) || abs(cos({ASIDE})) < 0.4 ? 'center' : cos({ASIDE}) > 0 ? 'left' : 'right'"},
        "opacity": {"signal": f"datum.kind {hidden}"},
    }
    ground = {
        **{f"{axis}{end}": {"field": f"bounds.{axis}{end or 1}"} for axis in "xy" for end in ("", 2)},
        **_constants({"fill": "var(--paper)", "stroke": "var(--paper)", "strokeWidth": 4}),
        "opacity": {"signal": f"datum.datum.kind {hidden}"},
    }
    shared = {"interactive": False, "aria": False}
    titles = shared | {"type": "text", "from": {"data": "nodes"}}
    return [
        titles | {"name": "measured", "encode": {"update": text | _constants({"fill": "transparent"})}},
        shared | {"type": "rect", "from": {"data": "measured"}, "encode": {"update": ground}},
        titles | {"encode": {"update": text | _constants({"fill": "var(--ink)"})}},
    ]
