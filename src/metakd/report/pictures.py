"""The pictures of a report, each with the table that it was drawn from (Vega-Lite, by Altair)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from metakd.report.canvas import Picture, picture
from metakd.report.evidence import scarce, transfer, unseen
from metakd.report.facts import KINDS, Findings

STRIP = 44  # height of one histogram of several
FEW_SHAPES, FEW_COLOURS = 6, 8  # that can be told apart
COSTLY = [x * 10**power for power in range(-3, 5) for x in (1, 2, 5)]  # ticks of a scale of powers
COLOURS = {KINDS[kind]: f"var(--{kind.replace('_', '-')})" for kind in KINDS}


def pictures(findings: Findings) -> list[Picture]:
    """All that the run has data for."""
    drawn = [_accuracy_against(findings, "latency", "milliseconds a text"), _accuracy_against(findings, "size", "MB")]
    drawn += [*_curves(findings), _histograms(findings), *_maps(findings)]
    drawn += [transfer(findings), scarce(findings), unseen(findings)]
    return [found for found in drawn if found.rows]


def _kinds() -> Any:
    """Each kind of model in its own colour, in all pictures."""
    return alt.Color("model:N", scale=alt.Scale(domain=[*COLOURS], range=[*COLOURS.values()]), title="model")


def _domains(domains: Sequence[str]) -> Any:
    """Domains by colour; more than the usual scheme can tell apart by a larger one."""
    scheme = alt.Scale(scheme="tableau20") if len(domains) > FEW_COLOURS else alt.Scale()
    return alt.Color("domain:N", scale=scheme, legend=alt.Legend(symbolLimit=40))


def _accuracy_against(findings: Findings, cost: str, unit: str) -> Picture:
    """Every model of every domain, small, and each kind's average, large."""
    rows = []
    average = {"average": findings.results["average"]} if len(findings.domains) > 1 else {}
    for domain, models in [*findings.results["domains"].items(), *average.items()]:
        for model in [m for m in findings.models if m in models]:
            own = models[model]
            value = own["latency_ms"]["median"] if cost == "latency" else own["bytes"] / 1e6
            score = round(100 * own["accuracy"], 1)
            rows.append({"model": KINDS[model], "domain": domain, unit: float(f"{value:.3g}"), "accuracy": score})
    means = sum(len(models) for models in average.values())
    drawn = [row | {"mean": len(rows) - place <= means} for place, row in enumerate(rows)]
    own, mean = (alt.Chart().transform_filter(alt.datum.mean == whether) for whether in (False, True))
    marks = own.mark_point(filled=True, size=60, opacity=0.65)
    if len(findings.domains) <= FEW_SHAPES:
        marks = marks.encode(shape=alt.Shape("domain:N", title="domain"))
    found = alt.layer(marks)
    if means:
        found += mean.mark_point(filled=True, size=220, shape="diamond", stroke="var(--ink)", strokeWidth=1.5)
    ticks = alt.Axis(values=COSTLY, format="~g")
    chart = found.encode(
        x=alt.X(f"{unit}:Q", scale=alt.Scale(type="log", nice=False, padding=14), title=unit, axis=ticks),
        y=alt.Y("accuracy:Q", scale=alt.Scale(zero=False, nice=False, padding=10), title="accuracy, percent"),
        color=_kinds(),
        tooltip=["model:N", "domain:N", f"{unit}:Q", "accuracy:Q"],
    )
    told = f"Each model on each domain: up is better, left costs less ({unit}, on a scale of powers)."
    told += " Large diamonds are averages." if means else ""
    return picture(f"accuracy-{cost}", f"Accuracy against {cost}", told, chart, rows, data=alt.Data(values=drawn))


def _curves(findings: Findings) -> list[Picture]:
    """The mean of each loss term as training went on: the teacher, the shared start, each domain's student."""
    logs = {"meta-teacher": findings.manifest("meta_teacher").get("log", [])}
    shared = findings.manifest("shared_student").get("log", {})
    logs |= {f"shared start, {stage}": log for stage, log in shared.items()}
    for domain in findings.domains:
        logs |= {f"{domain}, {stage}": log for stage, log in findings.student(domain).get("log", {}).items()}
    rows = [
        {"of": name, "epoch": round(entry["epoch"], 2), "term": term.removeprefix("loss_"), "loss": round(value, 4)}
        for name, log in logs.items()
        for entry in log
        for term, value in entry.items()
        if term.startswith("loss_")
    ]
    chart = (
        alt.Chart()
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:Q", title="passes"),
            y=alt.Y("loss:Q", scale=alt.Scale(type="symlog"), title="mean loss"),
            color=alt.Color("term:N"),
            tooltip=["of:N", "term:N", "epoch:Q", "loss:Q"],
        )
        .transform_filter("datum.of === which")
        .add_params(
            alt.param(
                name="which",
                value=next(iter(logs)),
                bind=alt.binding_select(options=[*dict.fromkeys(row["of"] for row in rows)], name="Training of "),
            )
        )
    )
    told = "The mean of each term of the loss as training went on. Terms are of different units: only their fall tells."
    return [picture("curves", "Training curves", told, chart, rows)]


def _histograms(findings: Findings) -> Picture:
    """How the instance weights t are distributed, and the expertise weights λ of each student's examples."""
    spreads = {"t, all domains": findings.manifest("instance_weights").get("weights", {})}
    spreads |= {f"λ, {domain}": findings.student(domain).get("expertise", {}) for domain in findings.domains}
    rows, drawn = list[dict[str, Any]](), list[dict[str, Any]]()
    for name, spread in [(name, spread) for name, spread in spreads.items() if "histogram" in spread]:
        edges, counts = spread["histogram"]["edges"], spread["histogram"]["counts"]
        own = [
            {"weight": name, "from": low, "to": high, "examples": count}
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        ]
        strip, highest = len({row["weight"] for row in rows}), max(counts)
        ground = strip + 0.95
        tops = [ground - 0.65 * row["examples"] / highest for row in own]
        drawn += [row | {"strip": strip, "ground": ground, "top": top} for row, top in zip(own, tops, strict=True)]
        rows += own
    strips = len({row["weight"] for row in rows})
    down = alt.Scale(domain=[strips, 0], nice=False)
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
    names = (
        alt.Chart()
        .mark_text(align="left", baseline="top", dx=4, dy=2, color="var(--ink)")
        .encode(x=alt.value(0), y=alt.Y("min(strip):Q", scale=down, axis=None), text="weight:N")
    )
    told = "How far examples count: t says what transfers between domains, λ how far the teacher is trusted. Bars of a "
    told += "strip are as high as they have examples beside the others of that strip."
    more = {"data": alt.Data(values=drawn), "height": max(strips, 3) * STRIP}
    return picture("weights", "Instance weights t and expertise weights λ", told, bars + names, rows, **more)


def _maps(findings: Findings) -> list[Picture]:
    """What the teacher and the students make of the scored examples, in two dimensions."""
    maps, known = findings.corpus["maps"], {row["id"]: row for row in findings.rows}
    found = []
    for model, whose in (("meta_teacher", "the meta-teacher"), ("student", "each domain's student")):
        what = "h" if model in maps["by_h"] else "E(x)"
        rows = [
            {"x": x, "y": y, "domain": known[name]["domain"], "label": known[name]["label"]}
            for name, (x, y) in zip(maps["ids"], maps[model], strict=True)
        ]
        picked = alt.selection_point(fields=["domain"], bind="legend", name=f"picked_{model}")
        chart = (
            alt.Chart()
            .mark_point(size=30, filled=True)
            .encode(
                x=alt.X("x:Q", axis=None),
                y=alt.Y("y:Q", axis=None),
                color=_domains(findings.domains),
                shape=alt.Shape("label:N"),
                opacity=alt.condition(picked, alt.value(0.65), alt.value(0.06)),
                tooltip=["domain:N", "label:N"],
            )
            .add_params(picked)
        )
        told = f"The scored examples by {whose}: {what} in its two main directions. Classes should part. "
        told += (
            _parting(findings) if model == "meta_teacher" else "That domains do says little: each has its own model."
        )
        told += " Press a domain in the legend to see it alone."
        found.append(picture(f"map-{model}", f"How {whose} sees the examples", told, chart, rows))
    return found


def _parting(findings: Findings) -> str:
    """How far domains part in the teacher's h."""
    if not (probe := findings.domain_probe):
        return "Domains may part or mix."
    return "A linear model tells the domain by h {representation:.0%} of the time, by chance {chance:.0%}.".format(
        **probe
    )


def calibration_picture() -> dict[str, Any]:
    """Confidence against accuracy of one model, for data that the page hands it: tenths as `Findings.calibration`."""
    place = alt.Chart().encode(
        x=alt.X("confidence:Q", scale=alt.Scale(domain=[0, 1], nice=False), title="how sure it is"),
        y=alt.Y("accuracy:Q", scale=alt.Scale(domain=[0, 1], nice=False), title="how often it is right"),
    )
    ends = alt.Data(values=[{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}])
    even = place.mark_line(strokeDash=[4, 4], color="var(--muted)").properties(data=ends)
    tenths = place.mark_point(filled=True, color="var(--accent)", opacity=0.9).encode(
        size=alt.Size("examples:Q", scale=alt.Scale(range=[20, 400]), legend=None),
        tooltip=["confidence:Q", "accuracy:Q", "examples:Q"],
    )
    told = "How often the model is right by how sure it is: below the line it is too sure. Large points: many examples."
    found = (even + tenths).properties(width=220, height=220, description=told, data=alt.Data(name="tenths"))
    return dict(found.to_dict())
