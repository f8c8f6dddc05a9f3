"""The report: one HTML file that needs no network, or a few paragraphs of Markdown."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from metakd.evaluation.tables import escaped, markdown_table
from metakd.report import details
from metakd.report.facts import KINDS, SHOWN, Findings
from metakd.report.lineage import graph, widths
from metakd.report.summary import cautions, facts, points_label, sentences
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
    from metakd.report.network import specification
    from metakd.report.pictures import calibration_picture, pictures

    loader, markup = jinja2.FileSystemLoader(ASSETS), jinja2.utils.markupsafe.Markup
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    drawn, (nodes, edges) = pictures(findings), graph(findings)
    scripts = [
        vl_convert.javascript_bundle().replace("</script", "<\\/script"),
        (ASSETS / "page.js").read_text("utf-8"),
    ]
    page = environment.get_template("page.html.j2").render(
        title=findings.folder.resolve().name,
        sentences=sentences(findings),
        cautions=cautions(findings),
        facts=facts(findings),
        findings=findings,
        nodes=nodes,
        edges=edges,
        widths=widths(findings),
        scores=[details.scores(findings, *pair) for pair in findings.scored_models],
        averages=[details.scores(findings, model) for model in findings.models] if len(findings.domains) > 1 else [],
        pictures=drawn,
        doubts=2 * SHOWN,
        texts=texts,
        known=_opened_by_clicks(findings, texts)
        | {
            "network": specification(nodes, edges),
            "pictures": {picture.name: picture.specification for picture in drawn},
            "calibration": calibration_picture(),
        },
        style=markup((ASSETS / "style.css").read_text("utf-8")),
        scripts=[markup(script) for script in scripts],
        digests=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )
    return str(page)


def _opened_by_clicks(findings: Findings, texts: bool) -> dict[str, Any]:
    models = details.models(findings)
    return {
        "labels": findings.labels,
        "kinds": KINDS,
        "models": models,
        "nodes": details.nodes(findings, texts),
        "examples": details.examples(findings, models, texts),
    }


def markdown(findings: Findings) -> str:
    """Summary, scores and which differences are significant, for pull requests and model cards."""
    parts = [
        f"# {escaped(findings.folder.resolve().name)}",
        escaped(" ".join(sentences(findings))),
        markdown_table(findings.results).rstrip(),
        "\n".join(f"- students minus {KINDS[name]}: {points_label(gain)}" for name, gain in findings.against.items()),
        *cautions(findings),
    ]
    return "\n\n".join(parts).rstrip() + "\n"
