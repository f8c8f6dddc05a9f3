"""The report: one HTML file that needs no network, or a few paragraphs of Markdown; and the page of `metakd fit`."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metakd.evaluation.predictions import LONGEST_TEXT
from metakd.evaluation.tables import BUSY_NOTE, escaped, markdown_table
from metakd.report import details
from metakd.report.facts import KINDS, SHOWN, Findings
from metakd.report.lineage import graph, widths
from metakd.report.network import specification
from metakd.report.summary import cautions, facts, figures, headline, points_label
from metakd.runs.folders import REPORT_FILE
from metakd.utils.artifacts import write_text
from metakd.utils.errors import require

ASSETS = Path(__file__).parent


def write_report(folder: Path, texts: bool = True, experiments: Path | None = None) -> Path:
    """Write report.html into the folder of a finished run and return its path.

    Args:
        texts: Whether the page shows examples and terms; if not, it holds no word of any example.
        experiments: A folder of `metakd experiment`, whose pictures are drawn as well.

    Raises InputError where the run or the experiments are not finished, or the extra `report` is not installed.
    """
    path = folder / REPORT_FILE
    write_text(path, render(Findings.read(folder, experiments), texts))
    return path


def render(findings: Findings, texts: bool) -> str:
    """The page as HTML.

    Names and texts are untrusted: Jinja escapes them, and the script never makes HTML of them. The page's policy names
    its two scripts by their digests, so that a browser runs no other.
    """
    jinja2, vl_convert = require("jinja2", "report"), require("vl_convert", "report")
    require("altair", "report")
    from metakd.report.pictures import calibration_picture, pictures

    loader, markup = jinja2.FileSystemLoader(ASSETS), jinja2.utils.markupsafe.Markup
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    drawn, (nodes, edges), models = pictures(findings), graph(findings), details.models(findings)
    bundle = vl_convert.javascript_bundle().replace("</script", "<\\/script")
    scripts = [bundle, (ASSETS / "page.js").read_text("utf-8")]
    page = environment.get_template("page.html.j2").render(
        title=findings.folder.resolve().name,
        headline=headline(findings),
        figures=figures(findings),
        cautions=cautions(findings),
        facts=facts(findings),
        findings=findings,
        nodes=nodes,
        edges=edges,
        widths=widths(findings),
        **_tables(findings),
        pictures=drawn,
        doubts=2 * SHOWN,
        shown_characters=LONGEST_TEXT,
        texts=texts,
        known={
            "kinds": KINDS,
            "models": models,
            "nodes": details.nodes(findings, texts),
            "examples": details.examples(findings, models, texts),
            "network": specification(nodes, edges),
            "pictures": {picture.name: picture.specification for picture in drawn},
            "calibration": calibration_picture(),
        },
        style=markup((ASSETS / "style.css").read_text("utf-8")),
        scripts=[markup(script) for script in scripts],
        digests=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )
    return str(page)


def _tables(findings: Findings) -> dict[str, Any]:
    """What the tables of models hold: their rows, also by id, and what has to be said of latencies."""
    scores = [details.scores(findings, *pair) for pair in findings.scored_models]
    averages = [details.scores(findings, model) for model in findings.models] if len(findings.domains) > 1 else []
    by_id = {row["id"]: row for row in [*averages, *scores]}
    note = BUSY_NOTE if any(row["latency"].get("busy") for row in by_id.values()) else ""
    return {"kinds": KINDS, "scores": scores, "averages": averages, "by_id": by_id, "busy_note": note}


def markdown(findings: Findings) -> str:
    """Summary, scores and differences, for pull requests and model cards."""
    parts = [
        f"# {escaped(findings.folder.resolve().name)}",
        escaped(headline(findings)),
        "\n".join(escaped(f"- **{value}** {label}: {detail}") for value, label, detail in figures(findings)),
        markdown_table(findings.results).rstrip(),
        "\n".join(f"- students minus {KINDS[name]}: {points_label(gain)}" for name, gain in findings.against.items()),
        *cautions(findings),
    ]
    return "\n\n".join(parts).rstrip() + "\n"


def write_tradeoff(result: Mapping[str, Any], path: Path) -> None:
    """Write what `metakd fit` has tried, accuracy against latency, as a page of one picture.

    Raises InputError where the extra `report` is not installed.
    """
    alt, _ = require("altair", "report"), require("vl_convert", "report")
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
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=90)
        .encode(
            x=alt.X("ms:Q", scale=alt.Scale(type="log", nice=False, padding=12), title="ms a text, 95th percentile"),
            y=alt.Y("accuracy:Q", scale=alt.Scale(zero=False, padding=8), title="accuracy on dev, percent"),
            color="student:N",
            shape="form:N",
            stroke=alt.condition("datum.delivered", alt.value("black"), alt.value(None)),
            tooltip=["student:N", "form:N", "ms:Q", "MB:Q", "accuracy:Q", "delivered:N"],
        )
    )
    facets = chart.properties(width=380, height=280).facet(facet=alt.Facet("domain:N", title=None), columns=2)
    title = "What each model that fits costs and is worth; those delivered have a black edge."
    write_text(path, facets.properties(title=title).to_html(inline=True, json_kwds={"cls": _InScript}))


class _InScript(json.JSONEncoder):
    """JSON that ends no script, whatever a domain is called."""

    def encode(self, value: Any) -> str:
        return super().encode(value).replace("<", "\\u003c")
