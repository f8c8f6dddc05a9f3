"""The pictures of a report, each with the table that it was drawn from (Vega-Lite, by Altair)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from metakd.evaluation.tables import BUSY_NOTE
from metakd.report.facts import KINDS, Findings

HEIGHT = 290  # pixels of a picture
STRIP = 44  # height of one histogram of several
FEW_COLOURS, FEW_NAMES = 8, 8  # that can be told apart; longer axes have upright names
SHAPES = ["diamond", "triangle-up", "square", "circle"]  # of the kinds of models
LOG_TICKS = [x * 10**power for power in range(-3, 5) for x in (1, 2, 5)]
COLOURS = {KINDS[kind]: f"var(--{kind.replace('_', '-')})" for kind in KINDS}
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Picture:
    """A specification, and its data as rows."""

    name: str  # of its element in the page
    title: str
    caption: str  # how to read it
    specification: Mapping[str, Any]
    rows: Rows

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows for column in row))


def pictures(findings: Findings) -> list[Picture]:
    """All that the run has data for."""
    drawn = [
        _accuracy_against(findings, "latency", "milliseconds a text"),
        _accuracy_against(findings, "size", "MB"),
        _curves(findings),
        _histograms(findings),
        _map(findings, "meta_teacher", "the meta-teacher", _parting(findings)),
        _map(findings, "student", "each domain's student", "That domains do says little: each has its own model."),
        _transfer(findings),
        _scarce(findings),
        _unseen(findings),
    ]
    return [picture for picture in drawn if picture.rows]


def _accuracy_against(findings: Findings, cost: str, unit: str) -> Picture:
    """Every model of every domain, small, and each kind's average, large."""
    averages = [("average", findings.results["average"])] if len(findings.domains) > 1 else []
    rows = []
    for domain, models in [*findings.results["domains"].items(), *averages]:
        for model in [model for model in findings.models if model in models]:
            scored, is_latency = models[model], cost == "latency"
            value = scored["latency_ms"]["median"] if is_latency else scored["bytes"] / 1e6
            row = {"model": KINDS[model], "domain": domain, unit: float(f"{value:.3g}")}
            note = {"note": BUSY_NOTE} if is_latency and scored["latency_ms"].get("busy") else {}
            rows.append(row | {"accuracy": round(100 * scored["accuracy"], 1)} | note)
    means = len(findings.models) if averages else 0
    drawn = [row | {"mean": place >= len(rows) - means} for place, row in enumerate(rows)]
    ticks, kinds = alt.Axis(values=LOG_TICKS, format="~g"), [KINDS[kind] for kind in findings.models]
    legend = alt.Legend(orient="top", offset=30, columns=alt.expr("width < 480 ? 2 : 4"))
    base = alt.Chart().encode(
        x=alt.X(
            f"{unit}:Q", scale=alt.Scale(type="log", nice=False, padding=24), title=f"{unit}, log scale", axis=ticks
        ),
        y=alt.Y("accuracy:Q", scale=alt.Scale(zero=False, nice=False, padding=16), title="accuracy, percent"),
    )
    models = base.encode(
        color=alt.Color("model:N", scale=alt.Scale(domain=kinds, range=[COLOURS[kind] for kind in kinds]), title=None),
        shape=alt.Shape("model:N", scale=alt.Scale(domain=kinds, range=SHAPES), title=None, legend=legend),
        tooltip=["model:N", "domain:N", f"{unit}:Q", "accuracy:Q"],
    )
    small, large = (models.transform_filter(alt.datum.mean == mean) for mean in (False, True))
    layers = alt.layer(small.mark_point(filled=True, size=60, opacity=0.7))
    if means:
        taught = "datum.mean && indexof(['meta-teacher', 'student'], datum.model) >= 0"
        layers += base.transform_filter(taught).mark_line(color="var(--muted)", strokeDash=[4, 4], strokeWidth=1.5)
        layers += large.mark_point(filled=True, size=280, opacity=1, stroke="var(--ink)", strokeWidth=1.5)
    caption = "Each model on each domain; up is better, left costs less."
    caption += " Large: averages; dashed: from meta-teacher to students." if means else ""
    return _picture(f"accuracy-{cost}", f"Accuracy against {cost}", caption, layers, rows, data=alt.Data(values=drawn))


def _curves(findings: Findings) -> Picture:
    """The mean of each loss term as training went on: the teacher, the shared start, each domain's student."""
    stages = {"shared start": findings.manifest("shared_student")}
    stages |= {domain: findings.student(domain) for domain in findings.domains}
    logs = {"meta-teacher": findings.manifest("meta_teacher").get("log", [])}
    for name, manifest in stages.items():
        logs |= {f"{name}, {stage}": log for stage, log in manifest.get("log", {}).items()}
    rows = [
        {"of": name, "epoch": round(entry["epoch"], 2), "term": term.removeprefix("loss_"), "loss": round(value, 4)}
        for name, log in logs.items()
        for entry in log
        for term, value in entry.items()
        if term.startswith("loss_")
    ]
    menu = alt.binding_select(options=[*dict.fromkeys(row["of"] for row in rows)], name="Training of ")
    which = alt.param(name="which", value=rows[0]["of"] if rows else "", bind=menu)
    loss = alt.Y("loss:Q", scale=alt.Scale(type="symlog"), title="mean loss")
    shown = {"color": "term:N", "tooltip": ["of:N", "term:N", "epoch:Q", "loss:Q"]}
    chart = alt.Chart().mark_line(point=True).transform_filter("datum.of === which").add_params(which)
    chart = chart.encode(alt.X("epoch:Q", title="epochs"), loss, **shown)
    caption = "Mean loss terms during training. Their units differ: compare how they fall, not their heights."
    return _picture("curves", "Training curves", caption, chart, rows)


def _histograms(findings: Findings) -> Picture:
    """How the instance weights t are distributed, and the expertise weights λ of each student's examples."""
    spreads = {"t, all domains": findings.manifest("instance_weights").get("weights", {})}
    spreads |= {f"λ, {domain}": findings.student(domain).get("expertise", {}) for domain in findings.domains}
    histograms = {name: spread["histogram"] for name, spread in spreads.items() if "histogram" in spread}
    rows, drawn = list[dict[str, Any]](), list[dict[str, Any]]()
    for strip, (name, histogram) in enumerate(histograms.items()):
        edges, counts, ground = histogram["edges"], histogram["counts"], strip + 0.95
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            rows.append({"weight": name, "from": low, "to": high, "examples": count})
            drawn.append(rows[-1] | {"strip": strip, "ground": ground, "top": ground - 0.65 * count / max(counts)})
    down = alt.Scale(domain=[len(histograms), 0], nice=False)
    bars = (
        alt.Chart()
        .mark_rect(stroke="var(--paper)", strokeWidth=0.5)
        .encode(
            x=alt.X("from:Q", title="weight", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
            x2="to:Q",
            y=alt.Y("top:Q", scale=down, axis=None),
            y2="ground:Q",
            tooltip=["weight:N", "from:Q", "to:Q", "examples:Q"],
        )
    )
    names = alt.Chart().mark_text(align="left", baseline="top", dx=4, dy=2, fontSize=12, color="var(--ink)")
    names = names.encode(x=alt.value(0), y=alt.Y("min(strip):Q", scale=down, axis=None), text="weight:N")
    caption = (
        "How far examples count: t says what transfers between domains, λ how far a student follows the teacher. Bars "
        "of a strip are as high as they have examples beside the others of that strip."
    )
    more = {"data": alt.Data(values=drawn), "height": max(len(histograms), 3) * STRIP}
    return _picture("weights", "Instance weights t and expertise weights λ", caption, bars + names, rows, **more)


def _map(findings: Findings, model: str, whose: str, parting: str) -> Picture:
    """What a kind of model makes of the scored examples, in two dimensions."""
    maps, examples = findings.corpus["maps"], {row["id"]: row for row in findings.rows}
    rows = [
        {"x": x, "y": y, "domain": examples[name]["domain"], "label": examples[name]["label"]}
        for name, (x, y) in zip(maps["ids"], maps[model], strict=True)
    ]
    scheme = alt.Scale(scheme="tableau20") if len(findings.domains) > FEW_COLOURS else alt.Scale()
    picked = alt.selection_point(fields=["domain"], bind="legend", name=f"picked_{model}")
    chart = (
        alt.Chart()
        .mark_point(size=30, filled=True)
        .add_params(picked)
        .encode(
            x=alt.X("x:Q", axis=None),
            y=alt.Y("y:Q", axis=None),
            color=alt.Color("domain:N", scale=scheme, legend=alt.Legend(symbolLimit=40)),
            shape=alt.Shape("label:N"),
            opacity=alt.condition(picked, alt.value(0.65), alt.value(0.06)),
            tooltip=["domain:N", "label:N"],
        )
    )
    vector = "h" if model in maps["by_h"] else "E(x)"
    caption = (
        f"The scored examples by {whose}: {vector} in its two main directions. Classes should part. {parting} "
        "Press a domain in the legend to see it alone."
    )
    return _picture(f"map-{model}", f"How {whose} sees the examples", caption, chart, rows)


def _parting(findings: Findings) -> str:
    """How far domains part in the teacher's h."""
    text = "A linear model tells the domain by h {representation:.0%} of the time, by chance {chance:.0%}."
    return text.format(**probe) if (probe := findings.domain_probe) else "Domains may part or mix."


def _transfer(findings: Findings) -> Picture:
    """What a model that has learnt from the labels of one domain alone is worth on another."""
    rows = [
        {"learnt from": domain, "scored on": other, "accuracy": round(100 * share, 1)}
        for domain, shares in findings.results.get("transfer", {}).items()
        for other, share in shares.items()
    ]
    slant = alt.Axis(labelAngle=-40 if len(findings.domains) <= FEW_NAMES else -90)
    chart = alt.Chart().encode(x=alt.X("scored on:N", axis=slant), y=alt.Y("learnt from:N"))
    blues = alt.Color("accuracy:Q", scale=alt.Scale(scheme="blues"), legend=None)
    tiles = chart.mark_rect().encode(blues, tooltip=["learnt from:N", "scored on:N", "accuracy:Q"])
    middle = float(np.mean([row["accuracy"] for row in rows])) if rows else 0.0
    size = alt.expr(f"min(11, 1.1 * width / {max(len(findings.domains), 1)} / 2)")
    ink = alt.condition(alt.datum.accuracy > middle, alt.value("white"), alt.value("black"))
    labels = chart.mark_text(fontSize=size).encode(alt.Text("accuracy:Q", format=".0f"), color=ink)
    caption = "Percent right of each domain's examples, by TF-IDF with logistic regression on one domain's text alone."
    if rows and (most := findings.results.get("transfer_examples")):
        count = min(most, *map(len, findings.by_domain.values()))
        reach = 1.96 * np.sqrt(middle * (100 - middle) / count)  # normal approximation
        caption += f" Each was scored on {count} or more: {reach:.0f} points either way may be chance."
    return _picture("transfer", "What transfers between domains", caption, tiles + labels, rows)


def _scarce(findings: Findings) -> Picture:
    """Methods by how many labels are left, of the student's domain or of all."""
    scopes = {"own domain's": "scarce", "all domains'": "scarce-all"}
    rows = [
        {"labels left": scope, "percent": percent, "method": method, **_with_interval(estimate)}
        for scope, name in scopes.items()
        if {f"{name}-5", f"{name}-20"} & set(findings.experiments)
        for percent, experiment in ((5, f"{name}-5"), (20, f"{name}-20"), (100, "main"))
        for method, estimate in findings.students(experiment).items()
    ]
    tooltip = ["labels left:N", "percent:Q", "method:N", "accuracy:Q", "low:Q", "high:Q"]
    left = alt.X("percent:O", title="labels that are left, percent")
    chart = alt.Chart().encode(left, color="method:N", tooltip=tooltip)
    height = alt.Y("accuracy:Q", scale=alt.Scale(zero=False), title="accuracy, percent")
    curves = chart.mark_line(point=True).encode(y=height, strokeDash=alt.StrokeDash("labels left:N"))
    intervals = chart.mark_rule(opacity=0.35).encode(y=alt.Y("low:Q", title="accuracy, percent"), y2="high:Q")
    caption = (
        "Mean accuracy over domains and seeds, with 95 % intervals, where the domain or all domains have few labels."
    )
    return _picture("scarce", "Fewer labels", caption, intervals + curves, rows)


def _with_interval(estimate: Mapping[str, Any]) -> dict[str, float]:
    values = (estimate["mean"], *estimate["interval"])
    return {name: round(100 * value, 1) for name, value in zip(("accuracy", "low", "high"), values, strict=True)}


def _unseen(findings: Findings) -> Picture:
    """Methods by domain, where the teacher has learnt from that domain and where it has not."""
    rows = [
        {"domain": domain, "method": method, "accuracy": round(100 * share, 1)}
        for method, estimate in findings.students("unseen").items()
        for domain, share in estimate["domains"].items()
    ]
    accuracy = alt.X("accuracy:Q", scale=alt.Scale(zero=False), title="accuracy, percent")
    shown = {"color": "method:N", "shape": "method:N", "tooltip": ["domain:N", "method:N", "accuracy:Q"]}
    chart = alt.Chart().mark_point(filled=True, size=90).encode(accuracy, alt.Y("domain:N", title=None), **shown)
    caption = "Students whose teacher has never seen their domain, beside those whose teacher has."
    return _picture("unseen", "Domains that the teacher has not seen", caption, chart, rows)


def _picture(name: str, title: str, caption: str, chart: Any, rows: Rows, **properties: Any) -> Picture:
    """`properties` may set the height, and the data where more is drawn than the rows."""
    defaults = {"width": "container", "height": HEIGHT, "data": alt.Data(values=list(rows)), "description": caption}
    return Picture(name, title, caption, chart.properties(**(defaults | properties)).to_dict(), rows)


def calibration_picture() -> dict[str, Any]:
    """Confidence against accuracy of one model, for data that the page hands it: tenths as `Findings.calibration`."""
    unit = alt.Scale(domain=[0, 1], nice=False)
    across = alt.X("confidence:Q", scale=unit, title="how sure it is")
    chart = alt.Chart().encode(across, alt.Y("accuracy:Q", scale=unit, title="how often it is right"))
    ends = alt.Data(values=[{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}])
    even = chart.mark_line(strokeDash=[4, 4], color="var(--muted)").properties(data=ends)
    tenths = chart.mark_point(filled=True, color="var(--accent)", opacity=0.9).encode(
        size=alt.Size("examples:Q", scale=alt.Scale(range=[20, 400]), legend=None),
        tooltip=["confidence:Q", "accuracy:Q", "examples:Q"],
    )
    caption = (
        "How often the model is right by how sure it is: below the line it is too sure. Large points: many examples."
    )
    layers = (even + tenths).properties(width=220, height=220, description=caption, data=alt.Data(name="tenths"))
    return dict(layers.to_dict())
