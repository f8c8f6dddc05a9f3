"""The report: one HTML file that needs no network, or a few paragraphs of Markdown."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from metakd.evaluation.tables import escaped, markdown_table
from metakd.report.details import all_models, examples, line, models
from metakd.report.details import nodes as node_details
from metakd.report.facts import KINDS, SHOWN, Findings
from metakd.report.lineage import graph, widths
from metakd.report.summary import cautions, facts, points_label, sentences
from metakd.runs.run import REPORT_FILE
from metakd.utils.artifacts import write_text
from metakd.utils.errors import require

PIECES = Path(__file__).parent


def write_report(folder: Path, texts: bool = True, experiments: Path | None = None) -> Path:
    """Write report.html into a finished run's folder; without `texts` it holds no word of any example.

    `experiments` is a folder of `metakd experiment`, whose pictures are drawn as well. Raises InputError where either
    is not finished, or where the extra `report` is not installed.
    """
    findings = Findings.read(folder, experiments)
    page = render(findings, texts)
    write_text(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def render(findings: Findings, texts: bool) -> str:
    """The page. Names and texts come from strangers: Jinja escapes them, and the script never makes HTML of them.

    The page's policy names its two scripts by their digests, so that a browser would run no other one.
    """
    jinja2, bundle = require("jinja2", "report"), require("vl_convert", "report")
    require("altair", "report")
    from metakd.report.network import specification
    from metakd.report.pictures import calibration_picture, pictures

    loader = jinja2.FileSystemLoader(PIECES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    drawn, (nodes, edges) = pictures(findings), graph(findings)
    known = _known(findings, texts) | {
        "network": specification(nodes, edges),
        "pictures": {picture.name: picture.specification for picture in drawn},
        "calibration": calibration_picture(),
    }
    scripts = [bundle.javascript_bundle().replace("</script", "<\\/script"), (PIECES / "page.js").read_text("utf-8")]
    markup, template = jinja2.utils.markupsafe.Markup, environment.get_template("page.html.j2")
    return str(
        template.render(
            title=findings.folder.resolve().name,
            sentences=sentences(findings),
            cautions=cautions(findings),
            facts=facts(findings),
            findings=findings,
            nodes=nodes,
            edges=edges,
            widths=widths(findings),
            table=[line(findings, model, domain) for model, domain in all_models(findings)],
            averages=[line(findings, model, None) for model in findings.models] if len(findings.domains) > 1 else [],
            pictures=drawn,
            doubts=2 * SHOWN,
            texts=texts,
            known=known,
            style=markup((PIECES / "style.css").read_text("utf-8")),
            scripts=[markup(script) for script in scripts],
            digests=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
        )
    )


def _known(findings: Findings, texts: bool) -> dict[str, Any]:
    """What the script shows once something is pressed."""
    opened = models(findings)
    return {
        "labels": findings.labels,
        "kinds": KINDS,
        "models": opened,
        "nodes": node_details(findings, texts),
        "examples": examples(findings, opened, texts),
    }


def markdown(findings: Findings) -> str:
    """Summary, scores and what is established, for pull requests and model cards."""
    against = [f"- students minus {KINDS[name]}: {points_label(found)}" for name, found in findings.against.items()]
    told = [
        escaped(" ".join(sentences(findings))),
        markdown_table(findings.results).rstrip(),
        "\n".join(against),
        *cautions(findings),
    ]
    return "\n\n".join([f"# {escaped(findings.folder.resolve().name)}", *told]).rstrip() + "\n"
