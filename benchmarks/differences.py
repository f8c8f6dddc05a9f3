"""What Meta-KD is worth beside other ways to the same student: the table and the plot of docs/evidence.md.

    python benchmarks/differences.py

Reads benchmarks/results/evidence/defaults.json (made by `metakd experiment main`, see docs/evidence-details.md), prints
the table and draws docs/differences.svg.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt

from metakd.evaluation.statistics import points
from metakd.evaluation.tables import as_markdown

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "benchmarks" / "results" / "evidence" / "defaults.json"
PICTURE = ROOT / "docs" / "differences.svg"
NAMES = {
    "meta_kd": "Meta-KD, the default",
    "meta_teacher_kd": "the same teacher, without λ and L_tkd",
    "shared": "one student for all domains",
    "cross_domain": "students that also read other domains' text",
    "mtl_kd": "a teacher with a head for each domain",
    "mix_kd": "a plain teacher on all domains' text",
    "hrkd": "HRKD (Dong et al., 2021)",
    "metadistil": "MetaDistil (Zhou et al., 2022)",
    "single_kd": "a teacher for each domain",
    "multi_teacher": "the mean prediction of a teacher for each domain",
    "logit_kd": "predictions of a teacher for each domain",
    "fine_tuned_shared": "no teacher, all domains' labels",
    "fine_tuned": "no teacher, the domain's own labels",
}


def table(report: Mapping[str, Any]) -> str:
    """One row a variant: what it is, its name in metakd, accuracy, and how far Meta-KD is ahead of it."""
    rows = [["students of", "variant", "accuracy", "Meta-KD minus it", "significant"]]
    for variant, name in NAMES.items():
        other = report["against"].get(variant)
        verdict = [points(other), "yes" if other["significant"] else "no"] if other else ["", ""]
        rows.append([name, f"`{variant}`", f"{100 * report['students'][variant]['mean']:.1f}", *verdict])
    return as_markdown(rows)


def chart(report: Mapping[str, Any]) -> alt.LayerChart:
    """The differences with their intervals, those that are statistically significant in colour."""
    rows = []
    for variant, name in NAMES.items():
        if other := report["against"].get(variant):
            low, high = (100 * end for end in other["interval"])
            verdict = "significant" if other["significant"] else "not significant"
            row = {"name": name, "mean": 100 * other["mean"], "low": low, "high": high}
            rows.append(row | {"verdict": verdict, "text": points(other)})
    title = "percentage points by which Meta-KD's students are more accurate (95 % interval)"
    drawn = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=400, ticks=False, domain=False)),
        color=alt.Color(
            "verdict:N",
            title=None,
            scale=alt.Scale(domain=["significant", "not significant"], range=["#0b5cad", "#8a8a8a"]),
            legend=alt.Legend(orient="top"),
        ),
    )
    x = alt.X("low:Q", title=title, axis=alt.Axis(grid=False))
    intervals = drawn.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q")
    means = drawn.mark_point(filled=True, size=70, opacity=1).encode(x="mean:Q")
    texts = drawn.mark_text(align="left", dx=8).encode(x="high:Q", text="text:N")
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(strokeDash=[4, 3], color="#444").encode(x="zero:Q")
    layers = alt.layer(zero, intervals, means, texts)
    return layers.properties(width=430, height=alt.Step(24), background="white", padding=12).configure_view(stroke=None)


if __name__ == "__main__":
    results = json.loads(REPORT.read_text(encoding="utf-8"))
    chart(results).save(PICTURE)
    print(table(results))
