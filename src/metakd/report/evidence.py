"""What transfers between domains, and what experiments measured: fewer labels, domains new to the teacher."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np

from metakd.report.canvas import Picture, picture
from metakd.report.facts import Findings

MANY = 8  # domains, whose names would run into each other if they slanted


def transfer(findings: Findings) -> Picture:
    """What a model that has learnt from the labels of one domain alone is worth on another."""
    rows = [
        {"learnt from": domain, "scored on": other, "accuracy": round(100 * share, 1)}
        for domain, shares in findings.results.get("transfer", {}).items()
        for other, share in shares.items()
    ]
    slant = alt.Axis(labelAngle=-40 if len(findings.domains) <= MANY else -90)
    chart = alt.Chart().encode(x=alt.X("scored on:N", axis=slant), y=alt.Y("learnt from:N"))
    tiles = chart.mark_rect().encode(
        color=alt.Color("accuracy:Q", scale=alt.Scale(scheme="blues"), legend=None),
        tooltip=["learnt from:N", "scored on:N", "accuracy:Q"],
    )
    middle = float(np.mean([row["accuracy"] for row in rows])) if rows else 0.0
    size = alt.expr(f"min(11, 1.1 * width / {max(len(findings.domains), 1)} / 2)")
    labels = chart.mark_text(fontSize=size).encode(
        text=alt.Text("accuracy:Q", format=".0f"),
        color=alt.condition(alt.datum.accuracy > middle, alt.value("white"), alt.value("black")),
    )
    caption = "Percent right of each domain's examples, by the TF-IDF baseline of one domain, which has read no other."
    if rows and (most := findings.results.get("transfer_examples")):
        count = min(most, *map(len, findings.by_domain.values()))
        reach = 1.96 * np.sqrt(middle * (100 - middle) / count)  # normal approximation
        caption += f" Each was scored on {count} or more: {reach:.0f} points either way may be chance."
    return picture("transfer", "What transfers between domains", caption, tiles + labels, rows)


def scarce(findings: Findings) -> Picture:
    """Methods by how many labels are left, of the student's domain or of all."""
    scopes = {"own domain's": "scarce", "all domains'": "scarce-all"}
    rows = [
        {"labels left": scope, "percent": percent, "method": method, **_with_interval(estimate)}
        for scope, name in scopes.items()
        if {f"{name}-5", f"{name}-20"} & set(findings.experiments)
        for percent, experiment in ((5, f"{name}-5"), (20, f"{name}-20"), (100, "main"))
        for method, estimate in findings.students(experiment).items()
    ]
    chart = alt.Chart().encode(
        x=alt.X("percent:O", title="labels that are left, percent"),
        color=alt.Color("method:N"),
        tooltip=["labels left:N", "percent:Q", "method:N", "accuracy:Q", "low:Q", "high:Q"],
    )
    height = alt.Y("accuracy:Q", scale=alt.Scale(zero=False), title="accuracy, percent")
    curves = chart.mark_line(point=True).encode(y=height, strokeDash=alt.StrokeDash("labels left:N"))
    intervals = chart.mark_rule(opacity=0.35).encode(y=alt.Y("low:Q", title="accuracy, percent"), y2="high:Q")
    caption = (
        "Mean accuracy over domains and seeds, with 95 % intervals, where the domain or all domains have few labels."
    )
    return picture("scarce", "Fewer labels", caption, intervals + curves, rows)


def _with_interval(estimate: Mapping[str, Any]) -> dict[str, float]:
    values = (estimate["mean"], *estimate["interval"])
    return {name: round(100 * value, 1) for name, value in zip(("accuracy", "low", "high"), values, strict=True)}


def unseen(findings: Findings) -> Picture:
    """Methods by domain, where the teacher has learnt from that domain and where it has not."""
    rows = [
        {"domain": domain, "method": method, "accuracy": round(100 * share, 1)}
        for method, estimate in findings.students("unseen").items()
        for domain, share in estimate["domains"].items()
    ]
    chart = alt.Chart().mark_point(filled=True, size=90)
    chart = chart.encode(
        x=alt.X("accuracy:Q", scale=alt.Scale(zero=False), title="accuracy, percent"),
        y=alt.Y("domain:N", title=None),
        color=alt.Color("method:N"),
        shape=alt.Shape("method:N"),
        tooltip=["domain:N", "method:N", "accuracy:Q"],
    )
    caption = "Students whose teacher has never seen their domain, beside those whose teacher has."
    return picture("unseen", "Domains that the teacher has not seen", caption, chart, rows)
