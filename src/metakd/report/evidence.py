"""What passes between domains, and what experiments have found: fewer labels, domains that the teacher has not seen."""

from __future__ import annotations

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
        for domain, own in findings.results.get("transfer", {}).items()
        for other, share in own.items()
    ]
    slant = alt.Axis(labelAngle=-40 if len(findings.domains) <= MANY else -90)
    place = alt.Chart().encode(x=alt.X("scored on:N", axis=slant), y=alt.Y("learnt from:N"))
    cells = place.mark_rect().encode(
        color=alt.Color("accuracy:Q", scale=alt.Scale(scheme="blues"), legend=None),
        tooltip=["learnt from:N", "scored on:N", "accuracy:Q"],
    )
    middle = float(np.mean([row["accuracy"] for row in rows])) if rows else 0.0
    size = alt.expr(f"min(11, 1.1 * width / {max(len(findings.domains), 1)} / 2)")
    words = place.mark_text(fontSize=size).encode(
        text=alt.Text("accuracy:Q", format=".0f"),
        color=alt.condition(alt.datum.accuracy > middle, alt.value("white"), alt.value("black")),
    )
    told = "Percent right of each domain's examples, by the TF-IDF rival of one domain, which has read no other."
    if rows and (most := findings.results.get("transfer_examples")):
        asked = min(most, *map(len, findings.by_domain.values()))
        told += f" Each was asked {asked} or more: {_reach(middle / 100, asked):.0f} points either way may be chance."
    return picture("transfer", "What passes between domains", told, cells + words, rows)


def _reach(share: float, examples: int) -> float:
    """Of a 95 % interval of a share (normal approximation), in points."""
    return 196 * float(np.sqrt(share * (1 - share) / examples))


def scarce(findings: Findings) -> Picture:
    """Methods by how many labels are left, of the student's own domain or of all."""
    scopes = {"own domain's": "scarce", "all domains'": "scarce-all"}
    known = findings.experiments
    rows = [
        {"labels left": scope, "percent": percent, "method": method, **_with_interval(own)}
        for scope, name in scopes.items()
        if {f"{name}-5", f"{name}-20"} & set(known)
        for percent, experiment in ((5, f"{name}-5"), (20, f"{name}-20"), (100, "main"))
        for method, own in known.get(experiment, {"students": {}})["students"].items()
    ]
    place = alt.Chart().encode(
        x=alt.X("percent:O", title="labels that are left, percent"),
        color=alt.Color("method:N"),
        tooltip=["labels left:N", "percent:Q", "method:N", "accuracy:Q", "low:Q", "high:Q"],
    )
    height = alt.Y("accuracy:Q", scale=alt.Scale(zero=False), title="accuracy, percent")
    lines = place.mark_line(point=True).encode(y=height, strokeDash=alt.StrokeDash("labels left:N"))
    reaches = place.mark_rule(opacity=0.35).encode(y=alt.Y("low:Q", title="accuracy, percent"), y2="high:Q")
    told = (
        "Mean accuracy over domains and seeds where few labels are left, of the student's own domain or of all, with "
    )
    told += "95 percent intervals."
    return picture("scarce", "Fewer labels", told, reaches + lines, rows)


def _with_interval(found: Mapping[str, Any]) -> dict[str, float]:
    low, high = found["interval"]
    return {"accuracy": round(100 * found["mean"], 1), "low": round(100 * low, 1), "high": round(100 * high, 1)}


def unseen(findings: Findings) -> Picture:
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
    return picture("unseen", "Domains that the teacher has not seen", told, chart, rows)
