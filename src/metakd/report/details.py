"""What a click opens: a model's confusions, calibration, mistakes and disagreements; what is known of a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metakd.evaluation.statistics import difference
from metakd.report.facts import KINDS, SHOWN, Findings, calibration_error
from metakd.report.lineage import score
from metakd.report.summary import base_name, facts

Fact = tuple[str, str]
FEW_TERMS = 10


def all_models(findings: Findings) -> list[tuple[str, str]]:
    """Kind and domain of every line of the table."""
    scored = findings.results["domains"]
    return [(model, domain) for model in findings.models for domain in findings.domains if model in scored[domain]]


def line(findings: Findings, model: str, domain: str | None) -> dict[str, Any]:
    """A line of the table; that of all domains on average for None."""
    results = findings.results
    own = results["average"][model] if domain is None else results["domains"][domain][model]
    low, high = own["accuracy_interval"]
    return {
        "id": f"{model}:{domain}",
        "kind": model,
        "model": KINDS[model],
        "domain": domain,
        "accuracy": 100 * own["accuracy"],
        "low": 100 * low,
        "high": 100 * high,
        "difference": _difference(findings, model, domain),
        "macro_f1": 100 * own["macro_f1"],
        "megabytes": own["bytes"] / 1e6,
        "milliseconds": own["latency_ms"]["median"],
        "examples": len(findings.rows) if domain is None else own["examples"],
    }


def _difference(findings: Findings, model: str, domain: str | None) -> dict[str, float] | None:
    """Its accuracy less the meta-teacher's in points, paired by example; None where too few were scored."""
    own, teacher = findings.rights[model], findings.rights["meta_teacher"]
    asked = findings.domains if domain is None else [domain]
    if model == "meta_teacher" or not set(asked) <= set(own):
        return None
    found = difference({d: own[d] for d in asked}, {d: teacher[d] for d in asked})
    return {"mean": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}


def models(findings: Findings) -> dict[str, dict[str, Any]]:
    """By id, for the script; examples are named by their ids [examples]."""
    return {f"{model}:{domain}": _model(findings, model, domain) for model, domain in all_models(findings)}


def _model(findings: Findings, model: str, domain: str) -> dict[str, Any]:
    own = findings.results["domains"][domain][model]
    tenths = findings.calibration(model, domain)
    wrong, apart = findings.mistakes(model, domain), findings.disagreements(model, domain)
    return {
        "title": f"{KINDS[model]}, {domain}",
        "kind": model,
        "facts": [
            ("Accuracy", score(own)),
            ("Size", f"{own['parameters']:,} parameters, {own['bytes'] / 1e6:.1f} MB"),
            ("One text", "{median:.1f} ms, 95 of 100 within {p95:.1f} ms".format(**own["latency_ms"])),
        ],
        "confusion": findings.confusion(model, domain),
        "calibration": tenths,
        "calibration_error": calibration_error(tenths),
        "mistakes": {"count": len(wrong), "shown": [row["id"] for row in wrong[:SHOWN]]},
        "disagreements": {"count": len(apart), "shown": [row["id"] for row in apart[:SHOWN]]},
    }


def examples(findings: Findings, opened: Mapping[str, Mapping[str, Any]], texts: bool) -> dict[str, dict[str, Any]]:
    """Those that the details of the `opened` models name, by id, once each; without `texts` no word of them."""
    named = {
        name for model in opened.values() for what in ("mistakes", "disagreements") for name in model[what]["shown"]
    }
    return {
        row["id"]: {"label": row["label"], "said": row["models"], "texts": row["texts"] if texts else []}
        for row in findings.rows
        if row["id"] in named
    }


def nodes(findings: Findings, texts: bool) -> dict[str, dict[str, Any]]:
    """What is known of base, meta-teacher and domains, by the id of the node; a student's node opens its model."""
    found = {"base": _base(findings), "meta_teacher": _teacher(findings)}
    return found | {f"domain:{domain}": _domain(findings, domain, texts) for domain in findings.domains}


def _base(findings: Findings) -> dict[str, Any]:
    told = dict(facts(findings))
    known = [(name, told[name]) for name in ("Base", "Licences", "Data", "Seed", "Command")]
    return {"title": base_name(findings), "facts": known, "tables": [], "models": []}


def _teacher(findings: Findings) -> dict[str, Any]:
    settings, own = findings.run["settings"], findings.results["average"]["meta_teacher"]
    known = [
        ("Accuracy, average", score(own)),
        ("Size", f"{own['parameters']:,} parameters, {own['bytes'] / 1e6:.1f} MB"),
        ("Learnt", f"in {settings['teacher_epochs']:g} passes at {settings['teacher_learning_rate']:g}"),
        ("Domain loss", f"{settings['domain_loss']}, γ₁ = {settings['gamma1']:g}"),
        ("Instance weights", settings["weights"]),
    ]
    if probe := findings.domain_probe:
        told = "from E(x) {pooled:.0%} of the time, from h {representation:.0%}, by chance {chance:.0%}".format(**probe)
        known.append(("Domain can be told", told))
    opened = [f"meta_teacher:{domain}" for domain in findings.domains]
    return {"title": "meta-teacher", "facts": known, "tables": [], "models": opened}


def _domain(findings: Findings, domain: str, texts: bool) -> dict[str, Any]:
    counts = {split: own.get(domain, {}) for split, own in findings.corpus["rows"].items()}
    rows = [[split, *(own.get(label, 0) for label in findings.labels)] for split, own in counts.items()]
    tables = [{"title": "Rows by label", "head": ["split", *findings.labels], "rows": rows}]
    tables += _neighbours(findings, domain) + _unseen(findings, domain)
    terms = ", ".join(term for term, _ in findings.corpus["terms"].get(domain, [])[:FEW_TERMS]) if texts else ""
    known = [("Key terms", terms)] if terms else []
    opened = [f"{model}:{domain}" for model, other in all_models(findings) if other == domain]
    return {"title": f"domain {domain}", "facts": known, "tables": tables, "models": opened}


def _neighbours(findings: Findings, domain: str) -> list[dict[str, Any]]:
    """How alike the others are, and what passes to and from them."""
    others = [other for other in findings.domains if other != domain]
    known, alike = findings.results.get("transfer", {}), findings.corpus["similarity"]
    heads: list[str] = []
    columns: list[Sequence[str]] = []
    if alike:
        place = findings.domains.index(domain)
        heads.append("prototypes, cosine")
        columns.append([f"{alike[place][findings.domains.index(other)]:.2f}" for other in others])
    if known:
        heads += [f"its TF-IDF rival on {domain}, %", f"TF-IDF rival of {domain} on it, %"]
        columns.append([f"{100 * known[other][domain]:.1f}" for other in others])
        columns.append([f"{100 * known[domain][other]:.1f}" for other in others])
    rows = [list(row) for row in zip(others, *columns, strict=True)] if columns else []
    return [{"title": "Other domains", "head": ["domain", *heads], "rows": rows}] if rows else []


def _unseen(findings: Findings, domain: str) -> list[dict[str, Any]]:
    """What `experiment unseen` has measured of it: students whose teacher has, and has not, seen the domain."""
    measured = findings.experiments.get("unseen", {"students": {}})["students"]
    rows = [
        [method, f"{100 * own['domains'][domain]:.1f}"] for method, own in measured.items() if domain in own["domains"]
    ]
    title = "With and without a teacher that has seen it"
    return [{"title": title, "head": ["method", "accuracy, %"], "rows": rows}] if rows else []
