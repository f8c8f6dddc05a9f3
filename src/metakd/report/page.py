"""The report: one HTML file that needs no network, or a few paragraphs of Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metakd.artifacts import write_text
from metakd.comparison import difference, points
from metakd.errors import require
from metakd.report.facts import KINDS, Findings
from metakd.report.summary import facts, sentences
from metakd.results import markdown_table
from metakd.runs import REPORT_FILE

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
    """The page. Names and texts come from strangers: Jinja escapes them, and the script never makes HTML of them."""
    jinja2, bundle = require("jinja2", "report"), require("vl_convert", "report")
    require("altair", "report")
    from metakd.report.network import graph, specification
    from metakd.report.pictures import pictures

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PIECES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    drawn = pictures(findings)
    nodes, edges = graph(findings)
    known = {
        "network": specification(findings),
        "pictures": {picture.name: picture.specification for picture in drawn},
        "models": [_details(findings, model, domain, texts) for model, domain in _all_models(findings)],
    }
    return str(
        environment.get_template("page.html.j2").render(
            title=findings.folder.resolve().name,
            sentences=sentences(findings),
            facts=facts(findings),
            findings=findings,
            nodes=nodes,
            edges=edges,
            kinds=KINDS,
            table=[_line(findings, model, domain) for model, domain in _all_models(findings)],
            pictures=drawn,
            texts=texts,
            known=known,
            style=jinja2.utils.markupsafe.Markup((PIECES / "style.css").read_text(encoding="utf-8")),
            library=jinja2.utils.markupsafe.Markup(bundle.javascript_bundle().replace("</script", "<\\/script")),
            script=jinja2.utils.markupsafe.Markup((PIECES / "page.js").read_text(encoding="utf-8")),
        )
    )


def _all_models(findings: Findings) -> list[tuple[str, str]]:
    """Kind and domain of every line of the table."""
    scored = findings.results["domains"]
    return [(model, domain) for model in findings.models for domain in findings.domains if model in scored[domain]]


def _line(findings: Findings, model: str, domain: str) -> dict[str, Any]:
    own = findings.results["domains"][domain][model]
    low, high = own["accuracy_interval"]
    return {
        "id": f"{model}:{domain}",
        "model": KINDS[model],
        "domain": domain,
        "accuracy": 100 * own["accuracy"],
        "low": 100 * low,
        "high": 100 * high,
        "difference": _difference(findings, model, domain),
        "macro_f1": 100 * own["macro_f1"],
        "megabytes": own["bytes"] / 1e6,
        "milliseconds": own["latency_ms"]["median"],
        "examples": own["examples"],
    }


def _difference(findings: Findings, model: str, domain: str) -> dict[str, Any] | None:
    """Its accuracy less the meta-teacher's on the domain, paired by example; None where too few were scored."""
    own, teacher = findings.rights(model), findings.rights("meta_teacher")
    if model == "meta_teacher" or domain not in own:
        return None
    found = difference({domain: own[domain]}, {domain: teacher[domain]})
    return {"mean": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}


def _details(findings: Findings, model: str, domain: str, texts: bool) -> dict[str, Any]:
    """What a click on a model shows."""

    def shown(row: Any) -> dict[str, Any]:
        said = {name: row["models"][name] for name in dict.fromkeys((model, "meta_teacher"))}
        return {"id": row["id"], "texts": row["texts"] if texts else [], "label": row["label"], "said": said}

    return {
        "id": f"{model}:{domain}",
        "title": f"{KINDS[model]}, {domain}",
        "model": model,
        "labels": findings.labels,
        "confusion": findings.confusion(model, domain),
        "calibration": findings.calibration(model, domain),
        "mistakes": [shown(row) for row in findings.mistakes(model, domain)],
        "disagreements": [shown(row) for row in findings.disagreements(model, domain)],
    }


def markdown(findings: Findings) -> str:
    """Summary, scores and what is established, for pull requests and model cards."""
    against = [f"- students less {KINDS[name]}: {points(found)}" for name, found in findings.against.items()]
    parts = [f"# {findings.folder.resolve().name}", " ".join(sentences(findings)), markdown_table(findings.results)]
    return "\n\n".join([*parts, "\n".join(against)]).rstrip() + "\n"
