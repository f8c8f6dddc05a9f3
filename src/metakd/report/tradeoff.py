"""What `metakd fit` tried: accuracy against latency, as a page of one picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metakd.utils.artifacts import write_text
from metakd.utils.errors import require


def write_tradeoff(result: Mapping[str, Any], path: Path) -> None:
    """Write a self-contained page; InputError where the extra `report` is not installed."""
    require("altair", "report")
    require("vl_convert", "report")
    import altair as alt

    rows = [
        {
            "domain": form["domain"],
            "student": form["student"],
            "form": form["name"].partition(", ")[2],
            "ms": round(form["p95"], 2),
            "MB": round(form["bytes"] / 1e6, 2),
            "accuracy": round(100 * form["accuracy"], 1),
            "delivered": result["delivered"].get(form["domain"], {}).get("name") == form["name"],
        }
        for form in result["tried"]
    ]
    chart = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=90)
    chart = chart.encode(
        x=alt.X("ms:Q", scale=alt.Scale(type="log", nice=False, padding=12), title="ms a text, 95th percentile"),
        y=alt.Y("accuracy:Q", scale=alt.Scale(zero=False, padding=8), title="accuracy on dev, percent"),
        color=alt.Color("student:N"),
        shape=alt.Shape("form:N"),
        stroke=alt.condition("datum.delivered", alt.value("black"), alt.value(None)),
        tooltip=["student:N", "form:N", "ms:Q", "MB:Q", "accuracy:Q", "delivered:N"],
    )
    facets = chart.properties(width=380, height=280).facet(facet=alt.Facet("domain:N", title=None), columns=2)
    title = "What each model that fits costs and is worth; those delivered have a black edge."
    write_text(path, facets.properties(title=title).to_html(inline=True))
