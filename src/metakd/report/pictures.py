"""The pictures of a report, each with the table that it was drawn from (Vega-Lite, by Altair)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from metakd.report.facts import KINDS, Findings

WIDTH, HEIGHT = 420, 280
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Picture:
    """A specification, and its data as rows."""

    name: str  # of its element in the page
    title: str
    told: str  # one sentence: how to read it
    specification: Mapping[str, Any]
    rows: Rows

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows for column in row))


def pictures(findings: Findings) -> list[Picture]:
    """All that the run has data for."""
    found = [_accuracy_against(findings, "latency", "milliseconds a text"), _accuracy_against(findings, "size", "MB")]
    found += [*_curves(findings), *_histograms(findings), *_maps(findings)]
    found += [_transfer(findings), _scarce(findings), _unseen(findings)]
    return [picture for picture in found if picture.rows]


def _picture(name: str, title: str, told: str, chart: Any, rows: Rows) -> Picture:
    chart = chart.properties(data=alt.Data(values=list(rows)), width="container", height=HEIGHT, description=told)
    return Picture(name, title, told, chart.to_dict(), rows)


def _accuracy_against(findings: Findings, cost: str, unit: str) -> Picture:
    """Every model of every domain."""
    rows = []
    for domain, models in findings.results["domains"].items():
        for model in [m for m in findings.models if m in models]:
            own = models[model]
            value = own["latency_ms"]["median"] if cost == "latency" else own["bytes"] / 1e6
            score = round(100 * own["accuracy"], 1)
            rows.append({"model": KINDS[model], "domain": domain, unit: round(value, 2), "accuracy": score})
    chart = (
        alt.Chart()
        .mark_point(filled=True, size=90)
        .encode(
            x=alt.X(f"{unit}:Q", scale=alt.Scale(type="log", nice=False, padding=12), title=unit),
            y=alt.Y("accuracy:Q", scale=alt.Scale(zero=False, padding=8), title="accuracy, percent"),
            color=alt.Color("model:N", title="model"),
            shape=alt.Shape("domain:N", title="domain"),
            tooltip=["model:N", "domain:N", f"{unit}:Q", "accuracy:Q"],
        )
    )
    told = f"Each model on each domain: up is better, left costs less ({unit}, on a scale of powers)."
    return _picture(f"accuracy-{cost}", f"Accuracy against {cost}", told, chart, rows)


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
    return [_picture("curves", "Training curves", told, chart, rows)]


def _histograms(findings: Findings) -> list[Picture]:
    """How the instance weights t are distributed, and the expertise weights λ of each student's examples."""
    spreads = {"t, all domains": findings.manifest("instance_weights").get("weights", {})}
    spreads |= {f"λ, {domain}": findings.student(domain).get("expertise", {}) for domain in findings.domains}
    rows = []
    for name, spread in spreads.items():
        edges = spread.get("histogram", {}).get("edges", [])
        for low, high, count in zip(edges, edges[1:], spread.get("histogram", {}).get("counts", []), strict=False):
            rows.append({"weight": name, "from": low, "to": high, "examples": count})
    chart = (
        alt.Chart()
        .mark_bar()
        .encode(
            x=alt.X("from:Q", bin="binned", title="weight"),
            x2="to:Q",
            y=alt.Y("examples:Q"),
            row=alt.Row("weight:N", title=None, header=alt.Header(labelAngle=0, labelAlign="left", labelOrient="top")),
            tooltip=["weight:N", "from:Q", "to:Q", "examples:Q"],
        )
        .resolve_scale(y="independent")
    )
    told = "How far examples count: t says what transfers between domains, λ how far the teacher is trusted."
    picture = _picture("weights", "Instance weights t and expertise weights λ", told, chart, rows)
    return [Picture(picture.name, picture.title, told, {**picture.specification, "width": WIDTH, "height": 60}, rows)]


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
        chart = (
            alt.Chart()
            .mark_point(size=30, filled=True, opacity=0.6)
            .encode(
                x=alt.X("x:Q", axis=None),
                y=alt.Y("y:Q", axis=None),
                color=alt.Color("domain:N"),
                shape=alt.Shape("label:N"),
                tooltip=["domain:N", "label:N"],
            )
        )
        told = f"The scored examples by {whose}: {what} in its two main directions. Classes should part, domains mix."
        found.append(_picture(f"map-{model}", f"How {whose} sees the examples", told, chart, rows))
    return found


def _transfer(findings: Findings) -> Picture:
    """What a model that has learnt from the labels of one domain alone is worth on another."""
    rows = [
        {"learnt from": domain, "scored on": other, "accuracy": round(100 * share, 1)}
        for domain, own in findings.results.get("transfer", {}).items()
        for other, share in own.items()
    ]
    place = alt.Chart().encode(x=alt.X("scored on:N", axis=alt.Axis(labelAngle=-40)), y=alt.Y("learnt from:N"))
    cells = place.mark_rect().encode(
        color=alt.Color("accuracy:Q", scale=alt.Scale(scheme="blues"), legend=None),
        tooltip=["learnt from:N", "scored on:N", "accuracy:Q"],
    )
    middle = float(np.mean([row["accuracy"] for row in rows])) if rows else 0.0
    words = place.mark_text().encode(
        text=alt.Text("accuracy:Q", format=".0f"),
        color=alt.condition(alt.datum.accuracy > middle, alt.value("white"), alt.value("black")),
    )
    told = "Percent right of each domain's examples, by the fine-tuned rival of one domain, which has read no other."
    return _picture("transfer", "What passes between domains", told, cells + words, rows)


def _scarce(findings: Findings) -> Picture:
    """Methods by how many labels are left, of the student's own domain or of all."""
    scopes = {"own domain's": "scarce", "all domains'": "scarce-all"}
    known = findings.experiments
    rows = [
        {"labels left": scope, "percent": percent, "method": method, "accuracy": round(100 * own["mean"], 1)}
        for scope, name in scopes.items()
        if {f"{name}-5", f"{name}-20"} & set(known)
        for percent, experiment in ((5, f"{name}-5"), (20, f"{name}-20"), (100, "main"))
        for method, own in known.get(experiment, {"students": {}})["students"].items()
    ]
    chart = (
        alt.Chart()
        .mark_line(point=True)
        .encode(
            x=alt.X("percent:O", title="labels that are left, percent"),
            y=alt.Y("accuracy:Q", scale=alt.Scale(zero=False), title="accuracy, percent"),
            color=alt.Color("method:N"),
            strokeDash=alt.StrokeDash("labels left:N"),
            tooltip=["labels left:N", "percent:Q", "method:N", "accuracy:Q"],
        )
    )
    told = "Mean accuracy over domains and seeds where few labels are left, of the student's own domain or of all."
    return _picture("scarce", "Fewer labels", told, chart, rows)


def _unseen(findings: Findings) -> Picture:
    """Methods by domain, where the teacher has learnt from that domain and where it has not."""
    rows = [
        {"domain": domain, "method": method, "accuracy": round(100 * share, 1)}
        for method, own in findings.experiments.get("unseen", {"students": {}})["students"].items()
        for domain, share in own["domains"].items()
    ]
    chart = (
        alt.Chart()
        .mark_point(filled=True, size=90)
        .encode(
            x=alt.X("accuracy:Q", scale=alt.Scale(zero=False), title="accuracy, percent"),
            y=alt.Y("domain:N", title=None),
            color=alt.Color("method:N"),
            shape=alt.Shape("method:N"),
            tooltip=["domain:N", "method:N", "accuracy:Q"],
        )
    )
    told = "Students whose teacher has never seen their domain, beside those whose teacher has."
    return _picture("unseen", "Domains that the teacher has not seen", told, chart, rows)
